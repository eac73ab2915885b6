/* SentencePiece vocabularies: known answers worked out by hand, an oracle that merges the slow
 * way, and the rules about spaces, bytes, special tokens and damaged vocabularies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/common/tok_check.h"
#include <cmocka.h>

#define B "\xE2\x96\x81"       /* U+2581, a space */

static struct vocab_file f;

/* Scores rank the merges: lo first, then ll, llo, he, _he, hello. */
static void hello_vocabulary(void) {
    vocab_file_init(&f, "llama", NULL);
    vocab_file_spm(&f);
    const char *const single[] = { B, "h", "e", "l", "o", "a" };
    for (int i = 0; i < 6; i++) vocab_file_piece(&f, single[i], -20, TOK_NORMAL);
    vocab_file_piece(&f, "lo", -0.5f, TOK_NORMAL);
    vocab_file_piece(&f, "ll", -1, TOK_NORMAL);
    vocab_file_piece(&f, "llo", -2, TOK_NORMAL);
    vocab_file_piece(&f, "he", -3, TOK_NORMAL);
    vocab_file_piece(&f, B "he", -4, TOK_NORMAL);
    vocab_file_piece(&f, "hello", -5, TOK_NORMAL);
    vocab_file_piece(&f, "aa", -6, TOK_NORMAL);
    vocab_file_piece(&f, B B, -7, TOK_NORMAL);
}

static void test_merges_by_score(void **state) {
    (void)state;
    hello_vocabulary();
    struct tokenizer *t = tok_must(&f);
    pieces(t, "hello", 0, B "he|llo");             /* not _|hello, which is longer, but later */
    pieces(t, "hellhello", 0, B "he|ll|hello");    /* no space in front: he and llo meet as hello */
    pieces(t, "aaa", 0, B "|aa|a");                /* equal scores: leftmost first */
    pieces(t, "aaaaa", 0, B "|aa|aa|a");
    pieces(t, "", 0, "");
    tok_close(t);
}

static void test_spaces(void **state) {
    (void)state;
    hello_vocabulary();
    struct tokenizer *t = tok_must(&f);
    pieces(t, " a", 0, B B "|a");                  /* the added space and the text's own */
    pieces(t, " he", 0, B "|" B "he");             /* but _he comes before __ */
    pieces(t, "a   a ", 0, B "|a|" B B "|" B "|a|" B);
    pieces(t, "a" B "a", 0, B "|a|" B "|a");       /* the sign itself is a space too */
    tok_close(t);
    f.add_space_prefix = 0;
    t = tok_must(&f);
    pieces(t, "hello", 0, "hello");
    tok_close(t);
    f.add_space_prefix = 1;
    f.remove_extra = 1;
    t = tok_must(&f);
    pieces(t, "  a   a ", 0, B "|a|" B "|a");
    pieces(t, "   ", 0, "");
    tok_close(t);
}

static void test_bytes(void **state) {
    (void)state;
    hello_vocabulary();
    struct tokenizer *t = tok_must(&f);
    pieces(t, "a\xC3\xA9""a", 0, B "|a|<0xC3>|<0xA9>|a");          /* a character without a piece */
    pieces(t, "a\0a", 0, B "|a|<0x00>|a");
    pieces(t, "a\xFF\xC3", 0, B "|a|<0xFF>|<0xC3>");               /* bytes that are no character */
    pieces(t, "\xE2\x96", 0, B "|<0xE2>|<0x96>");
    pieces(t, "\xC3he", 0, B "|<0xC3>|he");
    pieces(t, "\xED\xA0\x80", 0, B "|<0xED>|<0xA0>|<0x80>");       /* a surrogate */
    tok_close(t);
}

static void test_without_bytes(void **state) {
    (void)state;
    vocab_file_init(&f, "llama", NULL);
    vocab_file_piece(&f, "<unk>", 0, TOK_UNKNOWN);
    vocab_file_piece(&f, B, -1, TOK_NORMAL);
    vocab_file_piece(&f, "a", -1, TOK_NORMAL);
    struct tokenizer *t = tok_must(&f);
    pieces(t, "a\xC3\xA9""a", 0, B "|a|<unk>|a");
    pieces(t, "a\xFF", 0, B "|a|<unk>");
    tok_close(t);

    vocab_file_init(&f, "llama", NULL);            /* not even that: an error, not another text */
    vocab_file_piece(&f, B, -1, TOK_NORMAL);
    vocab_file_piece(&f, "a", -1, TOK_NORMAL);
    t = tok_must(&f);
    pieces(t, "aa", 0, B "|a|a");
    struct err err = { .msg = "" };
    int32_t *ids;
    assert_int_equal(tok_encode(t, "ab", 2, 0, &ids, &err), -1);
    assert_non_null(strstr(err.msg, "no piece"));
    assert_int_equal(tok_encode(t, "a\xFF", 2, 0, &ids, &err), -1);
    assert_non_null(strstr(err.msg, "0xFF"));
    tok_close(t);
}

static void test_specials(void **state) {
    (void)state;
    hello_vocabulary();
    vocab_file_piece(&f, "<tool>", -1000, TOK_USER);
    vocab_file_piece(&f, "<tool>>", -1000, TOK_USER);
    /* typed carelessly, as some files do */
    int turn = vocab_file_piece(&f, "<end_of_turn>", 0, TOK_NORMAL);
    struct tokenizer *t = tok_must(&f);
    pieces(t, "a", TOK_BOS, "<s>|" B "|a");
    pieces(t, "", TOK_BOS, "<s>");
    /* Without TOK_SPECIAL no text becomes a control token, and user-defined ones are found all
     * the same. */
    pieces(t, "<s>a", 0, B "|<0x3C>|<0x73>|<0x3E>|a");
    pieces(t, "a<tool>a<tool>>", 0, B "|a|<tool>|" B "|a|<tool>>");
    pieces(t, "<s>a</s>a", TOK_SPECIAL, "<s>|" B "|a|</s>|" B "|a");
    pieces(t, "<unk>", TOK_SPECIAL, "<unk>");
    pieces(t, "<end_of_turn>", TOK_SPECIAL, "<end_of_turn>");
    assert_int_equal(tok_type(t, turn), TOK_CONTROL);
    assert_true(tok_is_end(t, turn));
    assert_true(tok_is_end(t, 2));
    assert_false(tok_is_end(t, 1));
    assert_false(tok_is_end(t, -1));
    assert_false(tok_is_end(t, tok_n(t)));
    /* BOS comes once. */
    pieces(t, "<s>a", TOK_BOS | TOK_SPECIAL, "<s>|" B "|a");
    pieces(t, "<s>a", TOK_BOS, "<s>|" B "|<0x3C>|<0x73>|<0x3E>|a");
    assert_true(tok_has_bos(t, "<s>a", 4));
    assert_false(tok_has_bos(t, " <s>", 4));
    assert_false(tok_has_bos(t, "<s", 2));
    tok_close(t);

    f.add_eos = 1;
    t = tok_must(&f);
    pieces(t, "a", TOK_BOS, "<s>|" B "|a|</s>");
    pieces(t, "a</s>", TOK_BOS | TOK_SPECIAL, "<s>|" B "|a|</s>");
    pieces(t, "a", 0, B "|a");
    tok_close(t);
    f.add_bos = 0;
    f.add_eos = 0;
    t = tok_must(&f);
    pieces(t, "a", TOK_BOS, B "|a");
    assert_false(tok_adds_bos(t));
    tok_close(t);
}

/* Phi-3's special tokens swallow the white space behind them, and only the model's name tells. */
static void test_stripping(void **state) {
    (void)state;
    hello_vocabulary();
    struct tokenizer *t = tok_must(&f);
    pieces(t, "a </s> \n a", TOK_SPECIAL, B "|a|" B "|</s>|" B B "|<0x0A>|" B "|a");
    tok_close(t);
    f.name = "My Phi-3 mini";
    t = tok_must(&f);
    pieces(t, "a </s> \n a", TOK_SPECIAL, B "|a|" B "|</s>|" B "|a");
    pieces(t, "<s> a</s>  ", TOK_SPECIAL, "<s>|" B B "|a|</s>");   /* <s> keeps its hands off */
    tok_close(t);
}

/* libsentencepiece refuses empty pieces and duplicates; files have them, and the ids behind must
 * not move. */
static void test_odd_pieces(void **state) {
    (void)state;
    hello_vocabulary();
    vocab_file_piece(&f, "", 0, TOK_NORMAL);
    vocab_file_piece(&f, "he", 0, TOK_NORMAL);                     /* the first: score -3, not 0 */
    vocab_file_piece(&f, "<0x41>", 0, TOK_BYTE);
    vocab_file_piece(&f, "<s>", 0, TOK_CONTROL);
    vocab_file_piece(&f, "<unk>", 0, TOK_UNKNOWN);
    vocab_file_piece(&f, "x", 0, TOK_CONTROL);                     /* plain x must not become it */
    int last = vocab_file_piece(&f, "z", -1, TOK_NORMAL);
    struct tokenizer *t = tok_must(&f);
    pieces(t, "hello", 0, B "he|llo");
    pieces(t, "Axz", 0, B "|<0x41>|<0x78>|z");
    int32_t *ids;
    struct err err;
    assert_int_equal(tok_encode(t, "Az", 2, 0, &ids, &err), 3);
    assert_int_equal(ids[1], 3 + 0x41);
    assert_int_equal(ids[2], last);
    free(ids);
    tok_close(t);
}

/* ------------------------------------------------------------------ the slow way */

/* Single characters a b c and the space, then pieces put together from earlier ones, some with
 * equal scores. */
static void random_vocabulary(uint64_t *seed) {
    static char spelling[64][48];
    vocab_file_init(&f, "llama", NULL);
    vocab_file_spm(&f);
    const char *const single[] = { "a", "b", "c", B };
    int first = f.n;
    for (int i = 0; i < 4; i++) vocab_file_piece(&f, single[i], -100, TOK_NORMAL);
    for (int i = 0; i < 40; i++) {
        unsigned made = (unsigned)(f.n - first);
        int l = first + (int)(tok_random(seed) % made), r = first + (int)(tok_random(seed) % made);
        if (f.token[l].n + f.token[r].n > 16) continue;
        snprintf(spelling[i], sizeof spelling[i], "%s%s", f.token[l].p, f.token[r].p);
        bool known = false;
        for (int k = first; k < f.n; k++) known = known || !strcmp(f.token[k].p, spelling[i]);
        if (!known) vocab_file_piece(&f, spelling[i], -(float)(tok_random(seed) % 12), TOK_NORMAL);
    }
}

static int find(const char *p, size_t n) {
    for (int id = 259; id < f.n; id++)
        if (f.token[id].n == n && !memcmp(f.token[id].p, p, n)) return id;
    return -1;
}

/* Best score first, leftmost of equals, over and over. */
static int slow_encode(const char *text, size_t n, int32_t *out) {
    char *s = malloc(3 * n + 4);
    size_t *at = malloc((n + 2) * sizeof *at), m = 0;
    int count = 0;
    for (size_t i = 0; i <= n; i++) {              /* i 0: the space in front */
        char c = i ? text[i - 1] : ' ';
        at[count++] = m;
        if (c == ' ') { memcpy(s + m, B, 3); m += 3; }
        else s[m++] = c;
    }
    at[count] = m;
    float *score = malloc((size_t)(count + 1) * sizeof *score);
    for (int i = 0; i < count; i++) {
        int id = i + 1 < count ? find(s + at[i], at[i + 2] - at[i]) : -1;
        score[i] = id < 0 ? -1e9f : f.score[id];
    }
    for (;;) {
        int best = -1;
        for (int i = 0; i + 1 < count; i++)
            if (score[i] > -1e9f && (best < 0 || score[i] > score[best])) best = i;
        if (best < 0) break;
        memmove(at + best + 1, at + best + 2, (size_t)(count - best - 1) * sizeof *at);
        memmove(score + best, score + best + 1, (size_t)(count - best - 1) * sizeof *score);
        count--;
        for (int i = best > 0 ? best - 1 : 0; i <= best; i++) {
            int id = i + 1 < count ? find(s + at[i], at[i + 2] - at[i]) : -1;
            score[i] = id < 0 ? -1e9f : f.score[id];
        }
    }
    for (int i = 0; i < count; i++) out[i] = find(s + at[i], at[i + 1] - at[i]);
    free(s);
    free(at);
    free(score);
    return count;
}

static void compare_with_slow(const struct tokenizer *t, const char *text, size_t n) {
    int32_t *want = malloc((n + 2) * sizeof *want), *got;
    struct err err = { .msg = "" };
    int w = slow_encode(text, n, want), g = tok_encode(t, text, n, 0, &got, &err);
    if (g != w || memcmp(got, want, (size_t)w * sizeof *want))
        fail_msg("%d ids for %d: %.200s", g, w, text);
    free(want);
    free(got);
}

static void test_against_the_slow_way(void **state) {
    (void)state;
    uint64_t seed = 4711;
    static char text[6001];
    for (int round = 0; round < 40; round++) {
        random_vocabulary(&seed);
        struct tokenizer *t = tok_must(&f);
        for (int i = 0; i < 20; i++) {
            size_t n = 1 + tok_random(&seed) % 200;
            for (size_t k = 0; k < n; k++) text[k] = "aaabbc "[tok_random(&seed) % 7];
            text[n] = 0;
            compare_with_slow(t, text, n);
        }
        if (round < 4) {                           /* long enough for the cache and for many cuts */
            for (size_t k = 0; k < 6000; k++) text[k] = "abc   "[tok_random(&seed) % 6];
            compare_with_slow(t, text, 6000);
        }
        tok_close(t);
    }
}

/* ------------------------------------------------------------------ the repository's own
 * vocabulary */

static void test_needle_proto(void **state) {
    (void)state;
    struct gguf *g;
    struct tokenizer *t;
    struct err err = { .msg = "" };
    if (gguf_open(&g, "models/needle-proto.gguf", NULL, &err) || tok_open(&t, g, NULL, &err))
        fail_msg("%s", err.msg);
    gguf_close(g);                                 /* nothing of it is needed any more */
    assert_int_equal(tok_n(t), 1024);
    assert_int_equal(tok_bos(t), 1);
    assert_int_equal(tok_eos(t), 2);
    uint64_t seed = 99;
    for (int round = 0; round < 300; round++) {    /* any valid text comes back as it was */
        char text[700];
        size_t n = 0;
        while (n < 600 && tok_random(&seed) % 100) {
            uint32_t r = tok_random(&seed);
            switch (r % 5) {
            case 0: text[n++] = (char)(r >> 8 & 0x7F); break;
            case 1: n += (size_t)sprintf(text + n, "%s", "the needle "); break;
            case 2: n += (size_t)sprintf(text + n, "%s", "\xF0\x9F\xA6\x99"); break;
            case 3: n += (size_t)sprintf(text + n, "%s", "  \r\n\t"); break;
            default: n += (size_t)sprintf(text + n, "%s", "e\xCC\x81\xE4\xB8\xAD"); break;
            }
        }
        int32_t *ids;
        size_t size;
        int count = tok_encode(t, text, n, TOK_BOS, &ids, &err);
        assert_true(count > 0);
        char *back = tok_text(t, ids, count, false, &size);
        if (size != n || memcmp(back, text, n)) fail_msg("%zu bytes came back as %zu", n, size);
        free(back);
        free(ids);
    }
    tok_close(t);
}

/* Megabytes of one kind must not take quadratic time: minutes would, and this is watched by
 * whoever runs it. */
static void test_long_texts(void **state) {
    (void)state;
    hello_vocabulary();
    struct tokenizer *t = tok_must(&f);
    const size_t n = 1 << 19;
    char *text = malloc(n);
    const char *const kinds[] = { "a", "l", " ", "hello ", "\xFF", "\xC3\xA9", "<s>" };
    const int per[] = { 2, 2, 2, 0, 1, 1, 0 };     /* bytes per id, where it is that simple */
    for (int k = 0; k < 7; k++) {
        size_t len = strlen(kinds[k]);
        for (size_t i = 0; i < n; i++) text[i] = kinds[k][i % len];
        int32_t *ids;
        struct err err = { .msg = "" };
        int count = tok_encode(t, text, n, TOK_SPECIAL, &ids, &err);
        if (count < 0) fail_msg("%s", err.msg);
        /* the space in front, alone or making it odd */
        if (per[k] == 2) assert_int_equal(count, n / 2 + 1);
        if (per[k] == 1) assert_int_equal(count, n + 1);
        /* _he llo, and _he of a last word cut short */
        if (k == 3) assert_int_equal(count, 2 * (n / 6) + 1);
        if (k == 6) assert_int_equal(count, n / 3 + 3);    /* and _ and two bytes of the last one */
        free(ids);
    }
    free(text);
    tok_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merges_by_score),
        cmocka_unit_test(test_spaces),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_without_bytes),
        cmocka_unit_test(test_specials),
        cmocka_unit_test(test_stripping),
        cmocka_unit_test(test_odd_pieces),
        cmocka_unit_test(test_against_the_slow_way),
        cmocka_unit_test(test_needle_proto),
        cmocka_unit_test(test_long_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
