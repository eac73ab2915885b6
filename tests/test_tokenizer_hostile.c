/* Vocabularies as no sound file has them: one clear line each, never a crash. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "model/gguf_write.h"
#include "tests/common/temp.h"
#include "tests/common/tok_check.h"
#include <cmocka.h>

static struct vocab_file f;

static void spm(void) {
    vocab_file_init(&f, "llama", NULL);
    vocab_file_spm(&f);
    vocab_file_piece(&f, "a", -1, TOK_NORMAL);
}

static void bpe(void) {
    vocab_file_init(&f, "gpt2", "gpt-2");
    vocab_file_bytes(&f);
    vocab_file_piece(&f, "ab", -1, TOK_NORMAL);
    vocab_file_merge(&f, "a b");
}

static void check_refusal(struct tokenizer *t, const struct err *err, const char *want) {
    if (t) fail_msg("opened, wanted a refusal with '%s'", want);
    if (!strstr(err->msg, want) || strchr(err->msg, '\n'))
        fail_msg("'%s' lacks '%s'", err->msg, want);
    assert_true(strlen(err->msg) + 1 < sizeof err->msg);
}

static void refused(const char *want) {
    struct err err = { .msg = "" };
    struct tokenizer *t = vocab_file_open(&f, &err);
    check_refusal(t, &err, want);
}

static void test_models(void **state) {
    (void)state;
    const char *const unknown[] = { "bert", "t5", "rwkv", "no_vocab", "plamo2", "" };
    for (int i = 0; i < 6; i++) {
        spm();
        f.model = unknown[i];
        refused("known: llama, gpt2");
    }
    f.model = NULL;
    refused("tokenizer.ggml.model");
    char longer[200];
    memset(longer, 'x', sizeof longer);
    longer[199] = 0;
    f.model = longer;
    refused("tokenizer.ggml.model");
    bpe();
    f.pre = "kimi-k2";
    refused("known: default llama-bpe");
    f.pre = longer;
    refused("tokenizer.ggml.pre");
}

static void test_pieces(void **state) {
    (void)state;
    spm();
    f.n = 0;
    refused("0 pieces");
    spm();
    f.token[10].p = "<0xZZ>";
    refused("<0xZZ>");
    spm();
    f.score[259] = NAN;
    refused("not a number");
    spm();
    f.score[259] = INFINITY;                       /* odd, but an order all the same */
    tok_close(tok_must(&f));
    spm();
    f.type[259] = 77;                              /* a type from the future: unused */
    f.type[258] = -5;
    struct tokenizer *t = tok_must(&f);
    assert_int_equal(tok_type(t, 259), TOK_UNUSED);
    tok_close(t);
    spm();
    f.no_types = 1;                                /* old files: byte pieces known by spelling */
    t = tok_must(&f);
    pieces(t, "b", 0, "<0xE2>|<0x96>|<0x81>|<0x62>");
    tok_close(t);
    spm();
    f.no_scores = 1;
    tok_close(tok_must(&f));
    spm();
    for (int id = 0; id < f.n; id++) f.token[id] = (struct gguf_str){ "", 0 };
    for (int id = 0; id < f.n; id++) f.type[id] = TOK_CONTROL;
    t = tok_must(&f);
    int32_t *ids;
    struct err err = { .msg = "" };
    assert_int_equal(tok_encode(t, "a", 1, 0, &ids, &err), -1);
    tok_close(t);
}

static void test_ids(void **state) {
    (void)state;
    spm();
    f.bos = 260;
    refused("tokenizer.ggml.bos_token_id is 260, the vocabulary has 260 pieces");
    spm();
    f.eos = 1 << 30;
    refused("eos_token_id");
    bpe();
    f.unk = 257;
    refused("unknown_token_id");
    bpe();
    f.add_bos = 1;                                 /* asked for, but there is none */
    struct tokenizer *t = tok_must(&f);
    assert_false(tok_adds_bos(t));
    pieces(t, "ab", TOK_BOS, "ab");
    tok_close(t);
}

static void test_merges(void **state) {
    (void)state;
    const char *const bad[] = { "", " ", "ab", "a", "ab ", "  " };
    for (int i = 0; i < 6; i++) {
        bpe();
        vocab_file_merge(&f, bad[i]);
        refused("merge 1 is");
    }
    bpe();
    f.no_merges = 1;
    refused("tokenizer.ggml.merges");
    bpe();
    f.n_merges = 0;
    struct tokenizer *t = tok_must(&f);
    pieces(t, "ab", 0, "a|b");
    tok_close(t);
    bpe();
    vocab_file_merge(&f, " a b");                  /* left part begins with a space: no match */
    vocab_file_merge(&f, "q\xFF r");
    t = tok_must(&f);
    pieces(t, "ab", 0, "ab");
    tok_close(t);
}

/* Keys of the wrong kind or length, put over a sound file's. */
enum wrong { TOKENS_INT, TOKENS_SCALAR, SCORES_SHORT, SCORES_STRINGS, TYPES_LONG, TYPES_FLOAT,
             TYPES_STRINGS, MERGES_INT, BOS_STRING, ADD_BOS_STRING, MODEL_INT, PRE_INT, SCORES_INT,
             N_WRONG };

static void put_wrong(struct gguf_writer *w, enum wrong kind) {
    static const int32_t ints[300];
    static const float floats[300];
    static struct gguf_str strings[300];
    const uint64_t n = (uint64_t)f.n;
    for (int i = 0; i < 300; i++) strings[i] = (struct gguf_str){ "x", 1 };
    switch (kind) {
    case TOKENS_INT: gguf_put_ints(w, "tokenizer.ggml.tokens", GGUF_I32, ints, n); break;
    case TOKENS_SCALAR: gguf_put_string(w, "tokenizer.ggml.tokens", "a"); break;
    case SCORES_SHORT: gguf_put_floats(w, "tokenizer.ggml.scores", floats, n - 1); break;
    case SCORES_STRINGS: gguf_put_strings(w, "tokenizer.ggml.scores", strings, n); break;
    case TYPES_LONG: gguf_put_ints(w, "tokenizer.ggml.token_type", GGUF_I32, ints, n + 1); break;
    case TYPES_FLOAT: gguf_put_floats(w, "tokenizer.ggml.token_type", floats, n); break;
    case TYPES_STRINGS: gguf_put_strings(w, "tokenizer.ggml.token_type", strings, n); break;
    case MERGES_INT: gguf_put_ints(w, "tokenizer.ggml.merges", GGUF_I32, ints, n); break;
    case BOS_STRING: gguf_put_string(w, "tokenizer.ggml.bos_token_id", "1"); break;
    case ADD_BOS_STRING: gguf_put_string(w, "tokenizer.ggml.add_bos_token", "true"); break;
    case MODEL_INT: gguf_put_int(w, "tokenizer.ggml.model", GGUF_U32, 1); break;
    case PRE_INT: gguf_put_int(w, "tokenizer.ggml.pre", GGUF_U32, 1); break;
    /* this one is legal */
    case SCORES_INT: gguf_put_ints(w, "tokenizer.ggml.scores", GGUF_I32, ints, n); break;
    default: break;
    }
}

static void test_kinds(void **state) {
    (void)state;
    static const char *const key[N_WRONG] = {
        "tokens", "tokens", "scores", "scores", "token_type", "token_type", "token_type", "merges",
        "bos_token_id", "add_bos_token", "model", "pre", NULL,
    };
    for (int kind = 0; kind < N_WRONG; kind++) {
        bpe();
        const char *from = temp_path("sound.gguf"), *to = temp_path("wrong.gguf");
        struct gguf *g;
        struct gguf_writer *w;
        struct tokenizer *t = NULL;
        struct err err = { .msg = "" };
        vocab_file_write(&f, from);
        if (gguf_open(&g, from, NULL, &err) || gguf_write_open(&w, to, &err))
            fail_msg("%s", err.msg);
        for (int i = 0; i < gguf_n_kv(g); i++) gguf_put_kv(w, g, gguf_kv_at(g, i));
        put_wrong(w, (enum wrong)kind);
        if (gguf_write_begin(w, &err) || gguf_write_close(w, &err)) fail_msg("%s", err.msg);
        gguf_close(g);
        if (gguf_open(&g, to, NULL, &err)) fail_msg("%s", err.msg);
        int rc = tok_open(&t, g, NULL, &err);
        gguf_close(g);
        if (!key[kind]) {
            if (rc) fail_msg("%s", err.msg);
            tok_close(t);
        } else check_refusal(rc ? NULL : t, &err, key[kind]);
    }
}

/* Random pieces of random types with random merges: whatever opens encodes and decodes any
 * bytes. */
static void test_random_vocabularies(void **state) {
    (void)state;
    uint64_t seed = 2024;
    static char spelling[300][8], merge[64][12], text[600];
    int opened = 0;
    for (int round = 0; round < 300; round++) {
        bool is_bpe = round % 2;
        vocab_file_init(&f, is_bpe ? "gpt2" : "llama",
                        is_bpe ? round % 4 == 1 ? "llama-bpe" : "default" : NULL);
        if (tok_random(&seed) % 2) {
            if (is_bpe) vocab_file_bytes(&f);
            else vocab_file_spm(&f);
        }
        for (uint32_t k = 1 + tok_random(&seed) % 200, i = 0; i < k; i++) {
            size_t n = tok_random(&seed) % 5;
            for (size_t b = 0; b < n; b++) {
                uint32_t r = tok_random(&seed);
                spelling[i][b] = r % 3 ? "ab <>\n\xE2\x96\x81\xC4\xA0"[r / 3 % 11] : (char)(r / 3);
            }
            int id = vocab_file_piece(&f, "", (float)(int)(tok_random(&seed) % 9),
                                      (enum tok_type)(1 + tok_random(&seed) % 5));
            f.token[id] = (struct gguf_str){ spelling[i], n };
        }
        for (uint32_t k = tok_random(&seed) % 60, i = 0; i < k; i++) {
            struct gguf_str l = f.token[tok_random(&seed) % (unsigned)f.n],
                            r = f.token[tok_random(&seed) % (unsigned)f.n];
            if (!l.n || !r.n || l.n + r.n > 10) continue;
            memcpy(merge[i], l.p, l.n);
            merge[i][l.n] = ' ';
            memcpy(merge[i] + l.n + 1, r.p, r.n);
            f.merge[f.n_merges++] = (struct gguf_str){ merge[i], l.n + r.n + 1 };
        }
        f.bos = (int)(tok_random(&seed) % (unsigned)f.n);
        f.eos = (int)(tok_random(&seed) % (unsigned)f.n);
        f.remove_extra = (int)(tok_random(&seed) % 2);
        struct err err = { .msg = "" };
        struct tokenizer *t = vocab_file_open(&f, &err);
        if (!t) {
            assert_true(err.msg[0] && !strchr(err.msg, '\n'));
            continue;
        }
        opened++;
        for (int i = 0; i < 20; i++) {
            size_t n = tok_random(&seed) % sizeof text;
            for (size_t b = 0; b < n; b++) {
                uint32_t r = tok_random(&seed);
                text[b] = r % 3 ? "ab <>\n\xE2\x96\x81\xC4\xA0"[r / 3 % 11] : (char)(r / 3);
            }
            int32_t *ids;
            int count = tok_encode(t, text, n, (int)(tok_random(&seed) % 4), &ids, &err);
            if (count < 0) {
                assert_non_null(strstr(err.msg, "no piece"));
                continue;
            }
            for (int k = 0; k < count; k++) assert_in_range(ids[k], 0, f.n - 1);
            free(tok_text(t, ids, count, true, NULL));
            free(ids);
        }
        tok_close(t);
    }
    assert_true(opened > 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_merges),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_random_vocabularies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
