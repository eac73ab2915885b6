/* What needle hides and where: lists of a command line,
 * facts and scores, haystacks of exact length. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/common/tok_check.h"
#include "tools/common/needle_haystack.h"
#include "tools/common/needle_lists.h"
#include "tools/common/needle_style.h"
#include "tests/common/check.h"

static struct err err;

/* ---- lists ----------------------------------------------------------------------------------- */

static void test_lengths(void **state) {
    (void)state;
    struct lengths l;
    assert_int_equal(lengths_parse("4k,1000,1k,4096", &l, &err), 0);
    assert_int_equal(l.n, 3);
    const int want[] = { 1000, 1024, 4096 };
    assert_memory_equal(l.at, want, sizeof want);
    static const char *const wrong[] = { "", "1k,", ",1k", "15", "many", "1k 2k", "99999999999",
                                         "11111111111111111111111111111111111" };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (!lengths_parse(wrong[i], &l, &err) || !strstr(err.msg, "--lengths"))
            fail_msg("'%s': %s", wrong[i], err.msg);
}

static void test_depths(void **state) {
    (void)state;
    struct depths d;
    assert_int_equal(depths_parse("0:100:10", &d, &err), 0);
    assert_int_equal(d.n, 11);
    for (int i = 0; i < 11; i++) assert_true(d.at[i] == 10 * i);
    assert_int_equal(depths_parse("50,0:1:0.25,100,50", &d, &err), 0);
    assert_int_equal(d.n, 7);
    const double want[] = { 0, 0.25, 0.5, 0.75, 1, 50, 100 };
    assert_memory_equal(d.at, want, sizeof want);
    assert_int_equal(depths_parse("0:100:30", &d, &err), 0);
    assert_true(d.n == 4 && d.at[3] == 90);
    static const char *const wrong[] = { "", "101", "-1", "0:100", "0:100:0", "10:0:5",
                                         "0:100:10:1", "0:100:1x", "a", "0:100:0.01" };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (!depths_parse(wrong[i], &d, &err) || !strstr(err.msg, "--depths"))
            fail_msg("'%s': %s", wrong[i], err.msg);
}

static void test_shards(void **state) {
    (void)state;
    static const char *const wrong[] = { "", "1", "0/2", "3/2", "1/0", "1/2x", "a/b" };
    struct shard s;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(shard_parse(wrong[i], &s, &err), -1);
    for (int n = 1; n <= 5; n++)
        for (int cell = 0; cell < 20; cell++) {
            int owners = 0;
            for (int i = 1; i <= n; i++) {
                char text[16];
                snprintf(text, sizeof text, "%d/%d", i, n);
                assert_int_equal(shard_parse(text, &s, &err), 0);
                owners += shard_has(&s, cell);
            }
            assert_int_equal(owners, 1);
        }
}

static void test_cache_types(void **state) {
    (void)state;
    struct cache_types c;
    assert_int_equal(cache_types_parse("q8_0,f16,q8_0/q4_0,q8_0/q8_0", &c, &err), 0);
    assert_true(c.n == 3 && c.k[0] == DT_Q8_0 && c.v[0] == DT_Q8_0 && c.k[1] == DT_F16 &&
                c.k[2] == DT_Q8_0 && c.v[2] == DT_Q4_0);
    static const char *const wrong[] = { "", "f16,", "q3", "f16/", "f16/f16/f16", "q4_k",
                                         "f16,11111111111111111111111111111111111" };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (!cache_types_parse(wrong[i], &c, &err) || !strstr(err.msg, "--kv"))
            fail_msg("'%s': %s", wrong[i], err.msg);
}

/* ---- facts ----------------------------------------------------------------------------------- */

static void test_score(void **state) {
    (void)state;
    const char *const want[] = { "7391 Orange kettle", "owl", "", "zz" };
    assert_true(style_score("It is 7391 oRANGE KETTLE.", want, 1) == 1);
    assert_true(style_score("It is 7391 orange", want, 1) == 0);
    assert_true(style_score("an OWL", want, 2) == 0.5);
    assert_true(style_score("", want, 1) == 0);
    assert_true(style_score("Zowl zZ7391 orange kettle", want, 4) == 1);
}

static void test_facts(void **state) {
    (void)state;
    struct fact a[STYLE_FACTS_MAX], b[STYLE_FACTS_MAX];
    enum style s;
    assert_false(style_find("odd", &s));
    static const char *const styles[] = { "story", "ruler", "copy" };
    for (int i = 0; i < 3; i++) {
        assert_true(style_find(styles[i], &s));
        assert_string_equal(style_name(s), styles[i]);
        for (uint64_t seed = 1; seed < 200; seed++) {
            style_facts(s, seed, a, STYLE_FACTS_MAX);
            for (int j = 0; j < STYLE_FACTS_MAX; j++) {
                if (!strstr(a[j].statement, a[j].answer))
                    fail_msg("'%s' is not in '%s'", a[j].answer, a[j].statement);
                if (strstr(a[j].question, a[j].answer))
                    fail_msg("'%s' gives its answer away", a[j].question);
                if (s == STYLE_COPY)
                    assert_memory_equal(a[j].question, a[j].statement, strlen(a[j].question));
                for (int k = 0; k < j; k++) {
                    assert_string_not_equal(a[j].question, a[k].question);
                    assert_string_not_equal(a[j].answer, a[k].answer);
                }
            }
        }
        style_facts(s, 7, a, 4);
        style_facts(s, 7, b, 2);
        assert_string_equal(a[1].statement, b[1].statement);
        style_facts(s, 8, b, 1);
        assert_string_not_equal(a[0].statement, b[0].statement);
    }
}

/* ---- haystacks ------------------------------------------------------------------------------- */

static struct vocab_file f;
static const char own_text[] = "  The sea was calm. \"Nobody spoke.\"  It was\nlate!\n\n"
                               "No end here";

/* kind 0: SentencePiece with its space in front; 1: the same without;
 * 2: byte-level BPE, no BOS. All spell in characters. */
static struct tokenizer *vocabulary(int kind) {
    if (kind == 2) {
        vocab_file_init(&f, "gpt2", "gpt-2");
        vocab_file_bytes(&f);
    } else {
        vocab_file_init(&f, "llama", NULL);
        vocab_file_spm(&f);
        vocab_file_piece(&f, "\xe2\x96\x81", -1, TOK_NORMAL);
        f.add_space_prefix = kind == 0, f.add_bos = 1;
        f.bos = 1;
    }
    return tok_must(&f);
}

static struct planting planting(int n, double depth) {
    static const char *const others[] = { "One is two.", "Two is three." };
    return (struct planting){ .n_tokens = n, .depth = depth, .needle = "The code is 7.",
                              .question = "The code is", .distractors = others,
                              .n_distractors = 2 };
}

/* The text of a prompt, with a space in front or not. */
static char *text_of(const struct tokenizer *t, const struct prompt *p) {
    char *text = tok_text(t, p->ids, p->n, false, NULL);
    if (*text == ' ') memmove(text, text + 1, strlen(text));
    return text;
}

static void test_exact(void **state) {
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        struct tokenizer *t = vocabulary(kind);
        struct haystack *h;
        for (int own = 0; own < 2; own++) {
            if (haystack_open(&h, t, own ? own_text : NULL, own ? strlen(own_text) : 0, 1, &err))
                fail_msg("%s", err.msg);
            for (int n = 120; n < 700; n += 7)
                for (int depth = 0; depth <= 100; depth += 20) {
                    const struct planting w = planting(n, depth);
                    struct prompt p;
                    if (haystack_plant(h, &w, &p, &err)) fail_msg("%s", err.msg);
                    assert_int_equal(p.n, n);
                    assert_true(p.needle_at >= 0 && p.needle_at < n);
                    if (kind < 2) assert_int_equal(p.ids[0], 1);
                    char *text = text_of(t, &p), *at = strstr(text, "The code is 7.");
                    if (!at || strstr(at + 1, "The code is 7."))
                        fail_msg("kind %d: not one needle in '%s'", kind, text);
                    const size_t len = strlen(text);
                    if (strcmp(text + len - 11, "The code is") || text[len - 12] != ' ')
                        fail_msg("kind %d: ends '%s'", kind, text + len - 20);
                    if (!strstr(text, "One is two.") || !strstr(text, "Two is three."))
                        fail_msg("no distractors in '%s'", text);
                    if (strstr(text, "  ")) fail_msg("kind %d: two spaces in '%s'", kind, text);
                    if (at > text && at[-1] != ' ')
                        fail_msg("kind %d: no space before the needle in '%s'", kind, text);
                    if (depth == 0) assert_int_equal(p.needle_at, kind < 2);
                    if (depth == 100) assert_true(!strcmp(at + 14, " The code is"));
                    free(text);
                    free(p.ids);
                }
            haystack_close(h);
        }
        tok_close(t);
    }
}

/* Up to the needle, prompts of other depths and lengths have the same filler and distractors. */
static void test_prefix(void **state) {
    (void)state;
    struct tokenizer *t = vocabulary(0);
    struct haystack *h;
    struct prompt p[11], longer;
    assert_int_equal(haystack_open(&h, t, NULL, 0, 3, &err), 0);
    for (int d = 0; d <= 10; d++) {
        const struct planting w = planting(3000, 10 * d);
        assert_int_equal(haystack_plant(h, &w, &p[d], &err), 0);
        const double share = 100.0 * (p[d].needle_at - 1) / 3000;
        if (share < 10 * d - 3 || share > 10 * d + 7)
            fail_msg("depth %d: the needle lies at %.1f %%", 10 * d, share);
        for (int i = 0; d && i < p[d - 1].needle_at; i++)
            assert_int_equal(p[d].ids[i], p[d - 1].ids[i]);
        if (d) assert_true(p[d].needle_at > p[d - 1].needle_at);
    }
    struct planting w = planting(5000, 100);
    w.n_distractors = 0;
    assert_int_equal(haystack_plant(h, &w, &longer, &err), 0);
    for (int i = 0; i < 300; i++) assert_int_equal(longer.ids[i], p[10].ids[i]);
    for (int d = 0; d <= 10; d++) free(p[d].ids);
    free(longer.ids);
    haystack_close(h);
    tok_close(t);
}

static void test_own_text(void **state) {
    (void)state;
    struct tokenizer *t = vocabulary(0);
    struct haystack *h;
    struct prompt p;
    const struct planting w = { .n_tokens = 1 + 2 + 80 + 2, .needle = "N", .depth = 100,
                                .question = "Q" };
    assert_int_equal(haystack_open(&h, t, own_text, strlen(own_text), 1, &err), 0);
    assert_int_equal(haystack_plant(h, &w, &p, &err), 0);
    char *text = text_of(t, &p);
    /* 59 characters a round, every sentence with the space before it;
     * 18 more, and 3 from the end of the next */
    assert_string_equal(text, "The sea was calm. \"Nobody spoke.\" It was\nlate! No end here "
                              "The sea was calm.e.\" N Q");
    free(text);
    free(p.ids);
    haystack_close(h);
    int different = 0;
    for (uint64_t seed = 2; seed < 12; seed++) {
        assert_int_equal(haystack_open(&h, t, own_text, strlen(own_text), seed, &err), 0);
        assert_int_equal(haystack_plant(h, &w, &p, &err), 0);
        text = text_of(t, &p);
        different += strncmp(text, "The sea", 7) != 0;
        free(text);
        free(p.ids);
        haystack_close(h);
    }
    assert_in_range(different, 3, 9);                       /* of four sentences to start at */
    tok_close(t);
}

static void test_refusals(void **state) {
    (void)state;
    struct tokenizer *t = vocabulary(2);
    struct haystack *h;
    struct prompt p;
    assert_int_equal(haystack_open(&h, t, " \n\t ", 4, 1, &err), -1);
    assert_int_equal(haystack_open(&h, t, "", 0, 1, &err), -1);
    assert_int_equal(haystack_open(&h, t, NULL, 0, 1, &err), 0);
    struct planting w = planting(15 + 12 + 12 + 14, 50);    /* only needle, question, distractors */
    assert_int_equal(haystack_plant(h, &w, &p, &err), 0);
    assert_int_equal(p.n, 53);
    free(p.ids);
    w.n_tokens--;
    assert_int_equal(haystack_plant(h, &w, &p, &err), -1);
    assert_non_null(strstr(err.msg, "52 tokens does not hold the 53"));
    haystack_close(h);
    /* one word without an end, longer than any sentence may be; multi-byte characters stay whole */
    static char endless[6001];
    for (int i = 0; i < 6000; i += 3) memcpy(endless + i, "\xe4\xb8\xad", 3);
    assert_int_equal(haystack_open(&h, t, endless, 6000, 1, &err), 0);
    w = planting(20000, 30);
    assert_int_equal(haystack_plant(h, &w, &p, &err), 0);
    assert_int_equal(p.n, 20000);
    free(p.ids);
    haystack_close(h);
    tok_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lengths), cmocka_unit_test(test_depths),
        cmocka_unit_test(test_shards), cmocka_unit_test(test_cache_types),
        cmocka_unit_test(test_score), cmocka_unit_test(test_facts), cmocka_unit_test(test_exact),
        cmocka_unit_test(test_prefix), cmocka_unit_test(test_own_text),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
