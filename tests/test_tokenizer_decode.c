/* From ids to text: whole characters only, the leading space, what stays hidden; and
 * tokenizer.model files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/common/temp.h"
#include "tests/common/tok_check.h"
#include "tokenizer/sp_model.h"
#include <cmocka.h>

#define B "\xE2\x96\x81"
#define BAD "\xEF\xBF\xBD"     /* U+FFFD */

static struct vocab_file f;
static int space_a, a, user, unused;

static struct tokenizer *spm_vocabulary(void) {
    vocab_file_init(&f, "llama", NULL);
    vocab_file_spm(&f);
    space_a = vocab_file_piece(&f, B "a", -1, TOK_NORMAL);
    a = vocab_file_piece(&f, "a", -2, TOK_NORMAL);
    vocab_file_piece(&f, B, -3, TOK_NORMAL);
    user = vocab_file_piece(&f, B B "<u>", -3, TOK_USER);
    unused = vocab_file_piece(&f, "[PAD]", -3, TOK_UNUSED);
    return tok_must(&f);
}

enum { BYTE = 3 };             /* id of <0x00> */

static void decodes(const struct tokenizer *t, const int32_t *ids, int n, bool special,
                    const char *want) {
    char *text = tok_text(t, ids, n, special, NULL);
    if (strcmp(text, want)) fail_msg("got '%s', wanted '%s'", text, want);
    free(text);
}
#define text_is(t, special, want, ...) \
    do { \
        const int32_t id_[] = { __VA_ARGS__ }; \
        decodes(t, id_, sizeof id_ / sizeof *id_, special, want); \
    } while (0)

static void test_spaces_and_hidden(void **state) {
    (void)state;
    struct tokenizer *t = spm_vocabulary();
    text_is(t, false, "a a", space_a, space_a);     /* the first space was put there by encoding */
    text_is(t, false, "a", 1, space_a, 2);          /* control tokens are silent and are no start */
    text_is(t, true, "<s>a a</s>", 1, space_a, space_a, 2);
    text_is(t, false, "aa", a, a);
    text_is(t, false, "a  <u>a", a, user, unused, a);
    text_is(t, false, "", 0, unused, -1, 100000);
    text_is(t, true, "<unk>", 0);
    struct tok_stream going_on = { .started = true };
    char out[4096];
    assert_int_equal(tok_decode(t, &going_on, space_a, false, out), 2);
    assert_memory_equal(out, " a", 2);
    tok_close(t);
    f.add_space_prefix = 0;
    t = tok_must(&f);
    text_is(t, false, " a", space_a);
    tok_close(t);
}

static void test_whole_characters(void **state) {
    (void)state;
    struct tokenizer *t = spm_vocabulary();
    struct tok_stream s = { .n_held = 0 };
    static const unsigned char llama[] = { 0xF0, 0x9F, 0xA6, 0x99 };
    char out[4096];
    for (int i = 0; i < 4; i++) {
        size_t n = tok_decode(t, &s, BYTE + llama[i], false, out);
        assert_int_equal(n, i < 3 ? 0 : 4);
    }
    assert_memory_equal(out, llama, 4);
    assert_int_equal(tok_flush(&s, out), 0);
    /* A character that breaks off is one U+FFFD, a byte that never begins one is one too. */
    text_is(t, false, BAD "a", BYTE + 0xF0, BYTE + 0x9F, BYTE + 0xA6, a);
    text_is(t, false, BAD, BYTE + 0xE2, BYTE + 0x96);
    text_is(t, false, BAD BAD, BYTE + 0xFF, BYTE + 0xC0);
    text_is(t, false, BAD BAD "a", BYTE + 0xE0, BYTE + 0x80, a);           /* overlong */
    text_is(t, false, BAD BAD BAD, BYTE + 0xED, BYTE + 0xA0, BYTE + 0x80); /* a surrogate */
    text_is(t, false, BAD "\xC3\xA9", BYTE + 0xE2, BYTE + 0xC3, BYTE + 0xA9);
    text_is(t, true, BAD "</s>", BYTE + 0xE2, 2);
    tok_close(t);
}

/* Whatever the bytes: what comes out piece by piece is valid UTF-8, and what was valid comes
 * through untouched. */
static void test_random_bytes(void **state) {
    (void)state;
    struct tokenizer *t = spm_vocabulary();
    uint64_t seed = 31;
    for (int round = 0; round < 2000; round++) {
        struct tok_stream s = { .n_held = 0 };
        for (int i = 0; i < 30; i++) {
            char out[4096];
            uint32_t r = tok_random(&seed);
            int byte = (int)(r % 3 ? 0x80 + r / 3 % 0x80 : r / 3 % 256);
            size_t n = i == 29 ? tok_flush(&s, out) : tok_decode(t, &s, BYTE + byte, false, out);
            assert_true(n <= tok_max_piece(t) + 16);
            for (size_t k = 0; k < n;) {
                unsigned char c = (unsigned char)out[k];
                size_t len = c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
                assert_true(k + len <= n);
                assert_true(c < 0x80 || c >= 0xC2);
                for (size_t j = 1; j < len; j++)
                    assert_int_equal((unsigned char)out[k + j] & 0xC0, 0x80);
                k += len;
            }
        }
        assert_int_equal(s.n_held, 0);
    }
    tok_close(t);
}

static void test_byte_level(void **state) {
    (void)state;
    vocab_file_init(&f, "gpt2", "gpt-2");
    vocab_file_bytes(&f);
    int space_x = vocab_file_piece(&f, "\xC4\xA0x", 0, TOK_NORMAL);
    int half = vocab_file_piece(&f, "x\xC3\x83", 0, TOK_NORMAL);  /* x and byte C3 */
    int odd = vocab_file_piece(&f, "x y", 0, TOK_NORMAL);         /* not byte-level: plain space */
    /* user-defined pieces mean what they spell */
    int spelled = vocab_file_piece(&f, "<\xC4\xA0>", 0, TOK_USER);
    int control = vocab_file_piece(&f, "<|end|>", 0, TOK_CONTROL);
    struct tokenizer *t = tok_must(&f);
    text_is(t, false, " x x", space_x, space_x);                  /* none added, so none is taken */
    text_is(t, false, "x\xC3\xA9", half, 0xA9);
    text_is(t, false, "x" BAD "x y", half, odd);
    text_is(t, false, "<\xC4\xA0>", spelled, control);
    text_is(t, true, "<|end|>", control);
    for (int b = 0; b < 128; b++) {
        char *text = tok_text(t, &b, 1, false, NULL);
        assert_int_equal(text[0], b);
        free(text);
    }
    tok_close(t);
}

/* ------------------------------------------------------------------ tokenizer.model */

/* The same pieces through a tokenizer.model, with a GGUF beside it and without. */
static void test_sp_model(void **state) {
    (void)state;
    struct vocab v = { .kind = VOCAB_SPM, .unk = 0 };
    struct err err = { .msg = "" };
    static const struct { const char *p; float score; int type; } piece[] = {
        { "<unk>", 0, TOK_UNKNOWN }, { "<s>", 0, TOK_CONTROL }, { "</s>", 0, TOK_CONTROL },
        { B, -9, TOK_NORMAL }, { "a", -9, TOK_NORMAL }, { "b", -9, TOK_NORMAL },
        { B "a", -1, TOK_NORMAL }, { "ab", -2, TOK_NORMAL },
    };
    enum { N = sizeof piece / sizeof *piece };
    assert_int_equal(vocab_alloc(&v, N, 64, &err), 0);
    for (int i = 0; i < N; i++)
        vocab_set(&v, i, piece[i].p, strlen(piece[i].p), piece[i].score, piece[i].type);
    assert_int_equal(vocab_index(&v, &err), 0);
    char *proto;
    size_t n;
    assert_int_equal(sp_model_build(&v, &proto, &n, &err), 0);
    vocab_free(&v);

    const char *path = temp_path("tokenizer.model");
    struct tokenizer *t;
    temp_write(path, proto, n);
    if (tok_open(&t, NULL, path, &err)) fail_msg("%s", err.msg);
    assert_int_equal(tok_n(t), N);
    pieces(t, "ab", 0, "ab");                      /* this file adds no space in front */
    pieces(t, " ab", 0, B "a|b");
    int32_t *ac;
    assert_int_equal(tok_encode(t, "ac", 2, 0, &ac, &err), 2);
    assert_int_equal(ac[0], 4);
    assert_int_equal(ac[1], 0);                    /* <unk>; sp_model_build spells it otherwise */
    free(ac);
    tok_close(t);

    /* Broken off or changed anywhere: opened or refused with a line, never a crash, and what
     * opens also encodes. */
    int refused = 0;
    for (size_t cut = 0; cut < n; cut++) {
        temp_write(path, proto, cut);
        if (tok_open(&t, NULL, path, &err)) {
            refused++;
            assert_true(err.msg[0] && !strchr(err.msg, '\n'));
            continue;
        }
        int32_t *ids;
        if (tok_encode(t, "ab a", 4, TOK_BOS | TOK_SPECIAL, &ids, &err) >= 0) free(ids);
        tok_close(t);
    }
    assert_true(refused > (int)n / 2);
    uint64_t seed = 17;
    for (int round = 0; round < 300; round++) {
        char *copy = malloc(n);
        memcpy(copy, proto, n);
        for (uint32_t k = 1 + tok_random(&seed) % 3; k; k--)
            copy[tok_random(&seed) % n] = (char)tok_random(&seed);
        temp_write(path, copy, n);
        free(copy);
        if (tok_open(&t, NULL, path, &err)) continue;
        int32_t *ids;
        if (tok_encode(t, "ab a", 4, TOK_BOS | TOK_SPECIAL, &ids, &err) >= 0) free(ids);
        tok_close(t);
    }
    unlink(path);
    assert_int_equal(tok_open(&t, NULL, path, &err), -1);
    assert_non_null(strstr(err.msg, path));
    free(proto);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spaces_and_hidden),
        cmocka_unit_test(test_whole_characters),
        cmocka_unit_test(test_random_bytes),
        cmocka_unit_test(test_byte_level),
        cmocka_unit_test(test_sp_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
