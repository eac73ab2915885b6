/* Mode duo and the files of head scores it reads. */
#include "tests/common/attend.h"           /* before CMocka, which makes a macro of the word fail */
#include "attention/heads.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[64];                      /* a scores file of this process */

static const char *write_file(const char *text) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    return path;
}

/* Layer 0 has full KV heads 1 and 2 of 4 at ratio 0.5, layer 1 has head 0 and 3. */
static const char scores[] = "1.0e-01\t9.5e-01\t8.0e-01\t-3.0e-06\n"
                             "9.0e-01\t2.0e-01\t1.0e-01\t7.0e-01\n";
static const int sink = 5, recent = 30;

static int mask(int query_head, int p, int j) {
    int g = query_head / 2;
    return g == 1 || g == 2 || j < sink || j >= p - recent;
}

static const char *mode_text(const char *ratio) {
    static char text[128];
    snprintf(text, sizeof text, "duo,heads=%s,ratio=%s,sink=%d,recent=%d", write_file(scores),
             ratio, sink, recent);
    return text;
}

static void test_against_mask(void **state) {
    static const int chunks[] = { 1, 7, 64, 600 };
    (void)state;
    struct problem p = problem_new(600, 8, 4, 32, 32, DT_F16, DT_Q8_0);
    size_t n = (size_t)p.n * 8 * 32;
    double tolerance, *want = problem_naive(&p, mask, &tolerance);
    float *first = NULL;
    for (int c = 0; c < 4; c++) {
        float *got = problem_run(&p, mode_text("0.5"), kernels_pick(NULL), chunks[c]);
        assert_true(largest_error(got, want, n) <= tolerance);
        if (!first) first = got;
        else {
            assert_memory_equal(got, first, n * sizeof *got);
            free(got);
        }
    }
    free(first);
    free(want);
    problem_free(&p);
}

enum { CHUNK = 70 };

static int chunked(int query_head, int p, int j) {
    int g = query_head / 2;
    return g == 1 || g == 2 || j < sink || j >= p - p % CHUNK - recent;
}

/* The authors' prefill: a streaming head sees all of its chunk, and the window before that; tokens
 * of the answer, which come one by one, have the exact window. */
static void test_chunked(void **state) {
    enum { PROMPT = 7 * CHUNK, N = PROMPT + 40 };
    char text[160];
    double tolerance;
    (void)state;
    snprintf(text, sizeof text, "%s,prefill=chunked", mode_text("0.5"));
    struct problem p = problem_new(N, 8, 4, 32, 32, DT_F16, DT_Q8_0);
    double *prompt = problem_naive(&p, chunked, &tolerance),
           *answer = problem_naive(&p, mask, &tolerance);
    float *got = malloc((size_t)N * 256 * sizeof *got);
    struct pair x = pair_open(&p, text, kernels_pick(NULL), CHUNK);
    for (int pos = 0; pos < N; pos += pos < PROMPT ? CHUNK : 1)
        pair_feed(x, &p, pos, pos < PROMPT ? CHUNK : 1, got);
    assert_true(largest_error(got, prompt, (size_t)PROMPT * 256) <= tolerance);
    assert_true(largest_error(got, answer, (size_t)PROMPT * 256) > tolerance);
    assert_true(largest_error(got + (size_t)PROMPT * 256, answer + (size_t)PROMPT * 256,
                              40 * 256) <= tolerance);
    free(got);
    free(prompt);
    free(answer);
    pair_close(x);
    problem_free(&p);
}

/* The two ends are other modes, to the bit. */
static void test_ends(void **state) {
    (void)state;
    struct problem p = problem_new(300, 8, 4, 16, 16, DT_F32, DT_F32);
    static const char *const same[][2] = { { "1", "full" }, { "0", "stream,sink=5,recent=30" } };
    for (int i = 0; i < 2; i++) {
        float *got = problem_run(&p, mode_text(same[i][0]), kernels_pick(NULL), 32);
        float *want = problem_run(&p, same[i][1], kernels_pick(NULL), 32);
        assert_memory_equal(got, want, 300 * 8 * 16 * sizeof *got);
        free(got);
        free(want);
    }
    problem_free(&p);
}

/* Keys read, bytes kept: full heads pay for every token, streaming heads for sink + recent + 1. */
static void test_cost(void **state) {
    (void)state;
    struct problem p = problem_new(1500, 8, 4, 32, 32, DT_F16, DT_F16);
    struct pair x = pair_open(&p, mode_text("0.5"), kernels_pick(NULL), 100);
    float *out = malloc(1500 * 256 * sizeof *out);
    uint64_t keys, rows, want = 0;
    for (int pos = 0; pos < 1500; pos += 100) {
        pair_feed(x, &p, pos, 100, out);
        /* 4 full heads in 2 layers; a ring of 1 sink page
         * and 130 tokens (9 pages at most) is one block */
        size_t blocks = 4 * ((size_t)(pos + 100 + KV_BLOCK - 1) / KV_BLOCK) + 4;
        assert_int_equal(kv_bytes(x.kv), blocks * KV_BLOCK * 2 * 32 * 2);
        assert_int_equal(kv_bytes(x.kv), kv_bytes_at(kv_shape(x.kv), pos + 100));
    }
    for (int t = 0; t < 1500; t++) {
        int band = t + 1 < sink + recent + 1 ? t + 1 : sink + recent + 1;
        want += 2 * (2 * (uint64_t)(t + 1) + 2 * (uint64_t)band);
    }
    attn_counters(x.attn, &keys, &rows);
    assert_int_equal(keys, want);
    assert_int_equal(rows, 1500 * 8);
    free(out);
    pair_close(x);
    problem_free(&p);
}

static void test_tsv(void **state) {
    (void)state;
    float s[8];
    struct err err;
    assert_int_equal(heads_read(s, write_file(scores), 2, 8, 4, &err), 0);
    assert_true(s[0] == 0.1f && s[1] == 0.95f && s[3] == -3e-6f && s[4] == 0.9f && s[7] == 0.7f);
    assert_int_equal(heads_read(s, write_file("1\t2\r\n3\t4\r\n\r\n"), 2, 2, 2, &err), 0);
    assert_true(s[0] == 1 && s[3] == 4);
    assert_int_equal(heads_read(s, write_file("1\t2\n3\t4"), 2, 2, 2, &err), 0);
    static const char *const bad[] = {
        "", "\n", "1\t2\n", "1\t2\n3\n", "1\t2\n3\t4\n5\t6\n", "1\t2\t3\n4\t5\t6\n", "1\tx\n3\t4\n",
        "1\tnan\n3\t4\n", "1\tinf\n3\t4\n", "1\t\t2\n3\t4\n", "1\t2\n\n3\t4\n", "1,2\n3,4\n" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (heads_read(s, write_file(bad[i]), 2, 2, 2, &err) != -1) fail_msg("taken: %s", bad[i]);
    assert_int_equal(heads_read(s, "/nonexistent/file", 2, 2, 2, &err), -1);
}

/* Scores of query heads: the mean of each list, the best head of each group. */
static void test_json(void **state) {
    (void)state;
    float s[4];
    struct err err;
    const char *good = "{\"0-0\": [0.5, 0.25, 0], \"0-1\": [1], \"0-2\": [], \"0-3\": [0.125], "
                       "\"1-0\": [0], \"1-3\": [1.5, 1], \"1-2\": [0.5], \"1-1\": [0.75]}";
    assert_int_equal(heads_read(s, write_file(good), 2, 4, 2, &err), 0);
    assert_true(s[0] == 1 && s[1] == 0.125f && s[2] == 0.75f && s[3] == 1.25f);
    static const char *const bad[] = {
        "{}", "{", "{\"0-0\": [1]}", "{\"0-0\": [1], \"0-2\": [1]}",
        "{\"0-0\": [1], \"0-0\": [1]}", "{\"0-0\": [\"a\"], \"0-1\": [1]}",
        "{\"0-0\": \"1\", \"0-1\": [1]}", "{\"0-0\": [1], \"1\": [1]}",
        "{\"0-0\": [1], \"0-1x\": [1]}", "{\"0-0\": [1], \"-1-0\": [1]}" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (heads_read(s, write_file(bad[i]), 1, 2, 2, &err) != -1) fail_msg("taken: %s", bad[i]);
}

static void test_choice(void **state) {
    (void)state;
    static const struct { int n, keep; double ratio; } counts[] = {
        { 256, 128, 0.5 }, { 256, 64, 0.25 }, { 1024, 256, 0.25 },
        { 8, 8, 1 }, { 8, 0, 0 }, { 1, 1, 0.5 },
    };
    unsigned char full[1024];
    float s[1024];
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        int n = counts[i].n, sum = 0;
        for (int j = 0; j < n; j++) s[j] = (float)(j * 7919 % 1009) / 1009;
        assert_int_equal(heads_choose(full, s, n, counts[i].ratio), counts[i].keep);
        float lowest_full = 2, highest_not = -1;
        for (int j = 0; j < n; j++) {
            sum += full[j];
            if (full[j]) lowest_full = fminf(lowest_full, s[j]);
            else highest_not = fmaxf(highest_not, s[j]);
        }
        assert_int_equal(sum, counts[i].keep);
        assert_true(lowest_full > highest_not || n > 1009);
    }
    /* 3 is cut to 1, a tie: the first of equals. */
    const float ties[] = { 0.5f, 1, 1, 1, 0.2f, 3, -1, 0 };
    heads_choose(full, ties, 8, 0.3);
    assert_memory_equal(full, ((unsigned char[]){ 0, 1, 1, 1, 0, 0, 0, 0 }), 8);
}

static void test_arguments(void **state) {
    (void)state;
    struct attn_shape s = { .n_layers = 2, .n_heads = 8, .n_kv_heads = 4, .k_dim = 8,
                            .v_dim = 8, .max_batch = 4, .scale = 1 };
    struct attn *attn;
    struct err err;
    char text[160];
    assert_int_equal(attn_open(&attn, "duo", &s, kernels_pick(NULL), &err), -1);
    assert_non_null(strstr(err.msg, "heads=FILE"));
    assert_int_equal(attn_open(&attn, mode_text("1.5"), &s, kernels_pick(NULL), &err), -1);
    assert_non_null(strstr(err.msg, "ratio"));
    assert_int_equal(attn_open(&attn, mode_text("0.25"), &s, kernels_pick(NULL), &err), 0);
    snprintf(text, sizeof text, "heads=%s,ratio=0.25,sink=5,recent=30,prefill=exact", path);
    assert_string_equal(attn_params(attn), text);
    assert_int_equal(attn_stores(attn)[1].ring, 0);
    assert_int_equal(attn_stores(attn)[2].ring, 1);
    attn_close(attn);
    s.n_layers = 3;
    assert_int_equal(attn_open(&attn, mode_text("0.5"), &s, kernels_pick(NULL), &err), -1);
}

static int remove_file(void **state) {
    (void)state;
    return unlink(path) ? -1 : 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_mask), cmocka_unit_test(test_chunked),
        cmocka_unit_test(test_ends), cmocka_unit_test(test_cost),
        cmocka_unit_test(test_tsv), cmocka_unit_test(test_json),
        cmocka_unit_test(test_choice), cmocka_unit_test(test_arguments),
    };
    snprintf(path, sizeof path, "/tmp/test_duo.%d", (int)getpid());
    omp_set_num_threads(1);
    return cmocka_run_group_tests(tests, NULL, remove_file);
}
