/* Byte-level BPE: the words each pre-tokenizer cuts, merges worked out by hand, an oracle that
 * merges the slow way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/common/tok_check.h"
#include "tokenizer/pretok.h"
#include <cmocka.h>

static struct vocab_file f;

/* ------------------------------------------------------------------ words */

struct joined { char s[2048]; size_t n; };

static int join(void *to, const char *p, size_t n) {
    struct joined *j = to;
    assert_true(n > 0 && j->n + n + 2 < sizeof j->s);
    if (j->n) j->s[j->n++] = '|';
    memcpy(j->s + j->n, p, n);
    j->n += n;
    return 0;
}

static void words(const char *pre, const char *text, const char *want) {
    struct pretok *t;
    struct err err = { .msg = "" };
    struct joined j = { .n = 0 };
    if (pretok_open(&t, pre, &err)) fail_msg("%s", err.msg);
    if (pretok_split(t, text, strlen(text), join, &j, &err)) fail_msg("%s", err.msg);
    j.s[j.n] = 0;
    pretok_close(t);
    if (strcmp(j.s, want)) fail_msg("%s cut '%s' into '%s', wanted '%s'", pre, text, j.s, want);
}

static void test_words(void **state) {
    (void)state;
    /* gpt-2: contractions in small letters, runs of letters, digits or signs with one space,
     * spaces but the last */
    words("gpt-2", "I've it'S 1234 ok!!", "I|'ve| it|'|S| 1234| ok|!!");
    words("gpt-2", "a   b \n\n c", "a|  | b| \n\n| c");
    words("gpt-2", "a\nb  ", "a|\n|b|  ");
    words("gpt-2", "na\xC3\xAFve \xC2\xBD\xE4\xB8\xAD", "na\xC3\xAFve| \xC2\xBD|\xE4\xB8\xAD");
    /* U+180E is no space, U+0085 and U+3000 are */
    words("gpt-2", "a\xE1\xA0\x8E" "b\xC2\x85\xE3\x80\x80" "c",
          "a|\xE1\xA0\x8E|b|\xC2\x85|\xE3\x80\x80|c");
    /* llama-bpe: digits by three, any sign in front of letters, line ends stay with the signs
     * before them */
    words("llama-bpe", "I'VE 1234567 a.b", "I|'VE| |123|456|7| a|.b");
    words("llama-bpe", "ok!\r\n\n  x", "ok|!\r\n\n| | x");
    words("llama-bpe", "a \n \n  b", "a| \n \n| | b");
    words("llama-bpe", "don't\tgo", "don|'t|\tgo");
    words("llama-bpe", "'\xC5\xBF" "a", "'\xC5\xBF" "a");       /* a long s makes no contraction */
    words("qwen2", "x 123\n", "x| |1|2|3|\n");
    words("smollm", "a 12", "a| |1|2");
    words("falcon", "a(b)12345=>", "a|(|b|)|123|45|=>");
    words("default", "a,12345", "a|,|123|45");
    words("deepseek-llm", "ab 12\n\xE4\xB8\xAD\xE6\x96\x87!  ",
          "ab| |12|\n|\xE4\xB8\xAD\xE6\x96\x87|!|  ");
    words("deepseek-coder", "x=12;\n", "x|=|1|2|;|\n");
    words("deepseek-v3", "a[b~=c1234", "a|[b|~=|c|123|4");
    words("command-r", "It's 2 x", "It|'s| |2| x");
    /* tekken and gpt-4o: a small letter ends a run of capitals; marks belong to letters */
    words("tekken", "HTMLFile fooBar e\xCC\x81" "e 12", "HTMLFile| foo|Bar| e\xCC\x81" "e| |1|2");
    words("gpt-4o", "fooBar's 1234", "foo|Bar's| |123|4");
    words("bloom", "Hi there, 12", "Hi| there|,| 12");
    words("viking", "ab 12", "ab| |1|2");
    words("chameleon", "IMGIMGABZ a  b.", "IMGIMGABZ| a|  |b|.");
    words("qwen35", "e\xCC\x81" "e!", "e\xCC\x81" "e|!");
    words("seed-coder", "a!\n1", "a|!|\n|1");
    words("bailingmoe", "a\n\nb", "a|\n\n|b");
    words("minicpm5", "12345 a", "123|45| a");
    words("jais-2", "a     b", "a|    | b");
}

static int count_bytes(void *to, const char *p, size_t n) {
    (void)p;
    *(size_t *)to += n;
    return 0;
}

/* Every rule keeps every byte, and a long run of one kind of character takes no quadratic time. */
static void test_every_rule(void **state) {
    (void)state;
    struct pretok *t;
    struct err err = { .msg = "" };
    assert_int_equal(pretok_open(&t, "no such rule", &err), -1);
    assert_int_equal(pretok_open(&t, "", &err), -1);
    assert_int_equal(pretok_open(&t, "llama", &err), -1);          /* part of a name is no name */
    assert_int_equal(pretok_open(&t, "llama-bpe llama3", &err), -1);
    char *list = strstr(err.msg, "known: ");
    assert_non_null(list);
    assert_true(strlen(err.msg) + 1 < sizeof err.msg);             /* nothing is cut off the list */
    const size_t n = 100000;
    char *text = malloc(n + 1);
    int names = 0;
    for (char *name = strtok(list + 7, " "); name; name = strtok(NULL, " "), names++) {
        struct err why = { .msg = "" };
        if (pretok_open(&t, name, &why)) fail_msg("%s: %s", name, why.msg);
        const char *const kinds[] = { " ", "a", "A", "1", ".", "\n", "\xE4\xB8\xAD", "\xCC\x81",
                                      " \n", "a1", "'s " };
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            size_t len = strlen(kinds[k]), m = n - n % len, seen = 0;
            for (size_t i = 0; i < m; i++) text[i] = kinds[k][i % len];
            text[m] = 'x';
            if (pretok_split(t, text, m + 1, count_bytes, &seen, &why))
                fail_msg("%s: %s", name, why.msg);
            assert_int_equal(seen, m + 1);
        }
        pretok_close(t);
    }
    assert_true(names > 40);
    free(text);
}

/* ------------------------------------------------------------------ merges */

#define G "\xC4\xA0"           /* U+0120, a space */

static void low_vocabulary(const char *pre) {
    static const char *const merges[] = { "l o", "lo w", "e r", G " low", "n e", "ne w", "e w",
                                          "x y", "xy z" };
    /* xy is no piece */
    static const char *const made[] = { "lo", "low", "er", G "low", "ne", "new", "ew", "xyz" };
    vocab_file_init(&f, "gpt2", pre);
    vocab_file_bytes(&f);
    for (int i = 0; i < 9; i++) vocab_file_merge(&f, merges[i]);
    for (int i = 0; i < 8; i++) vocab_file_piece(&f, made[i], 0, TOK_NORMAL);
}

static void test_merges_by_rank(void **state) {
    (void)state;
    low_vocabulary("gpt-2");
    struct tokenizer *t = tok_must(&f);
    pieces(t, "lower low", 0, "low|er|" G "low");
    pieces(t, "new few", 0, "new|" G "|f|ew");     /* ne before ew */
    pieces(t, "xyzxy", 0, "xyz|x|y");              /* a merge on the way to a piece */
    pieces(t, "\xC3\xA9\n", 0, "\xC3\x83|\xC2\xA9|\xC4\x8A");      /* bytes C3 A9 0A */
    pieces(t, "a\0b", 0, "a|\xC4\x80|b");
    pieces(t, "a\xFF", 0, "a|\xC3\xAF|\xC2\xBF|\xC2\xBD");         /* U+FFFD: EF BF BD */
    pieces(t, "", TOK_BOS, "");
    assert_null(tok_warning(t));
    tok_close(t);

    f.pre = NULL;
    t = tok_must(&f);
    assert_non_null(tok_warning(t));
    tok_close(t);
}

static void test_specials(void **state) {
    (void)state;
    low_vocabulary("llama-bpe");
    f.bos = vocab_file_piece(&f, "<|begin_of_text|>", 0, TOK_CONTROL);
    int eot = vocab_file_piece(&f, "<|eot_id|>", 0, TOK_USER);  /* well known: its type set right */
    f.eos = vocab_file_piece(&f, "<|end_of_text|>", 0, TOK_CONTROL);
    vocab_file_piece(&f, "  ", 0, TOK_USER);
    vocab_file_piece(&f, "zz", 0, TOK_NORMAL);                  /* no merge leads to it */
    vocab_file_piece(&f, "yy", 0, TOK_CONTROL);
    struct tokenizer *t = tok_must(&f);
    pieces(t, "low", TOK_BOS, "<|begin_of_text|>|low");         /* this rule adds BOS by itself */
    pieces(t, "<|begin_of_text|>low", TOK_BOS | TOK_SPECIAL, "<|begin_of_text|>|low");
    pieces(t, "low<|eot_id|> low", TOK_SPECIAL, "low|<|eot_id|>|" G "low");
    pieces(t, "<|eot_id|>", 0, "<|||e|o|t|_|i|d|||>");
    pieces(t, "low   low", 0, "low|  |" G "low");
    pieces(t, "zz", 0, "zz");                      /* whole words need no merges under this rule */
    pieces(t, "yy", 0, "y|y");                     /* but no text becomes a control token */
    assert_true(tok_is_end(t, eot));
    assert_true(tok_is_end(t, f.eos));
    assert_false(tok_is_end(t, f.bos));
    assert_int_equal(tok_type(t, eot), TOK_CONTROL);
    tok_close(t);

    f.pre = "qwen2";
    t = tok_must(&f);
    pieces(t, "low", TOK_BOS, "low");
    pieces(t, "zz", 0, "z|z");
    tok_close(t);
    f.add_bos = f.add_eos = 1;
    t = tok_must(&f);
    pieces(t, "low", TOK_BOS, "<|begin_of_text|>|low|<|end_of_text|>");
    tok_close(t);
}

/* A vocabulary without some byte: its text is left out, as the reference tokenizers do. */
static void test_missing_byte(void **state) {
    (void)state;
    low_vocabulary("gpt-2");
    f.token[0xF2] = (struct gguf_str){ "not a byte", 10 };
    struct tokenizer *t = tok_must(&f);
    pieces(t, "a\xF2\x80\x80\x80" "b", 0, "a|\xC4\xA2|\xC4\xA2|\xC4\xA2|b");
    tok_close(t);
}

/* ------------------------------------------------------------------ the slow way */

static int find(const char *p, size_t n) {
    for (int id = 0; id < f.n; id++)
        if (f.token[id].n == n && !memcmp(f.token[id].p, p, n)) return id;
    return -1;
}

static int rank_of(const char *p, size_t left, size_t right) {
    for (int r = 0; r < f.n_merges; r++) {
        const char *m = f.merge[r].p;
        if (f.merge[r].n == left + right + 1 && m[left] == ' ' && !memcmp(m, p, left) &&
            !memcmp(m + left + 1, p + left, right))
            return r;
    }
    return 1 << 30;
}

static int slow_encode(const char *s, size_t n, int32_t *out) {
    size_t *at = malloc((n + 1) * sizeof *at), count = n;
    int *rank = malloc((n + 1) * sizeof *rank);
    for (size_t i = 0; i <= n; i++) at[i] = i;
    for (size_t i = 0; i < n; i++) rank[i] = i + 1 < n ? rank_of(s + i, 1, 1) : 1 << 30;
    for (;;) {
        size_t best = 0;
        for (size_t i = 1; i < count; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == 1 << 30) break;
        memmove(at + best + 1, at + best + 2, (count - best - 1) * sizeof *at);
        memmove(rank + best, rank + best + 1, (count - best - 1) * sizeof *rank);
        count--;
        for (size_t i = best ? best - 1 : 0; i <= best; i++)
            rank[i] = i + 1 < count ? rank_of(s + at[i], at[i + 1] - at[i], at[i + 2] - at[i + 1])
                                    : 1 << 30;
    }
    for (size_t i = 0; i < count; i++) out[i] = find(s + at[i], at[i + 1] - at[i]);
    free(at);
    free(rank);
    return (int)count;
}

static void test_against_the_slow_way(void **state) {
    (void)state;
    static char spelling[60][40], merge[60][40];
    static char text[5001];
    uint64_t seed = 1234567;
    for (int round = 0; round < 40; round++) {
        vocab_file_init(&f, "gpt2", "gpt-2");
        vocab_file_bytes(&f);
        const char *known[64] = { "a", "b", "c" };
        int n_known = 3;
        for (int i = 0; i < 60; i++) {
            const char *l = known[tok_random(&seed) % (unsigned)n_known];
            const char *r = known[tok_random(&seed) % (unsigned)n_known];
            if (strlen(l) + strlen(r) > 18) continue;
            snprintf(spelling[i], sizeof spelling[i], "%s%s", l, r);
            snprintf(merge[i], sizeof merge[i], "%s %s", l, r);
            vocab_file_merge(&f, merge[i]);        /* the same pair twice: the first counts */
            if (find(spelling[i], strlen(spelling[i])) >= 0) continue;
            vocab_file_piece(&f, spelling[i], 0, TOK_NORMAL);
            known[n_known++] = spelling[i];
        }
        for (int i = f.n_merges - 1; i > 0; i--) { /* ranks in any order, not by the pieces' size */
            int k = (int)(tok_random(&seed) % (unsigned)(i + 1));
            struct gguf_str swap = f.merge[i];
            f.merge[i] = f.merge[k];
            f.merge[k] = swap;
        }
        struct tokenizer *t = tok_must(&f);
        for (int i = 0; i < 21; i++) {
            size_t n = i == 20 ? 3000 : 1 + tok_random(&seed) % 200;
            for (size_t k = 0; k < n; k++) text[k] = "aaabbc"[tok_random(&seed) % 6];
            text[n] = 0;
            int32_t want[5000], *got;
            struct err err = { .msg = "" };
            int w = slow_encode(text, n, want), g = tok_encode(t, text, n, 0, &got, &err);
            if (g != w || memcmp(got, want, (size_t)w * sizeof *want))
                fail_msg("%d ids for %d: %.300s", g, w, text);
            free(got);
        }
        tok_close(t);
    }
}

static void test_round_trip(void **state) {
    (void)state;
    uint64_t seed = 5;
    low_vocabulary("llama-bpe");
    struct tokenizer *t = tok_must(&f);
    for (int round = 0; round < 300; round++) {
        char text[400];
        size_t n = 0;
        while (n < 350 && tok_random(&seed) % 80) {
            uint32_t r = tok_random(&seed);
            if (r % 4 == 0) text[n++] = (char)(r >> 8 & 0x7F);
            else n += (size_t)sprintf(text + n, "%s", r % 4 == 1 ? " lower" :
                                      r % 4 == 2 ? "\xF0\x9F\x98\x80" : "\xC3\xA9  \r\n");
        }
        int32_t *ids;
        struct err err = { .msg = "" };
        size_t size;
        int count = tok_encode(t, text, n, 0, &ids, &err);
        if (count < 0) fail_msg("%s", err.msg);
        char *back = tok_text(t, ids, count, false, &size);
        if (size != n || memcmp(back, text, n)) fail_msg("%zu bytes came back as %zu", n, size);
        free(back);
        free(ids);
    }
    tok_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_every_rule),
        cmocka_unit_test(test_merges_by_rank),
        cmocka_unit_test(test_specials),
        cmocka_unit_test(test_missing_byte),
        cmocka_unit_test(test_against_the_slow_way),
        cmocka_unit_test(test_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
