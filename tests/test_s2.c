/* Sharded attention: the pattern, its counts in closed form, the cache
 * that lets blocks go, and the rules of the mode. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "attention/attention.h"
#include "tests/common/attend.h"
#include "tests/common/check.h"

static struct { int block, local, stride, offset, step, sinks, by_kv, group; } pat;

static int block_seen(int h, int i, int j) {
    return j <= i && (j < pat.sinks || i - j < pat.local ||
                      (j + h * pat.step + pat.offset) % pat.stride == 0);
}
static int sees_s2(int head, int p, int j) {
    return j <= p && block_seen(pat.by_kv ? head / pat.group : head, p / pat.block, j / pat.block);
}

static void run_case(const char *mode, int n, int H, int G, enum dtype kv, int chunk) {
    struct problem p = problem_new(n, H, G, 32, 32, kv, kv);
    double tolerance;
    double *want = problem_naive(&p, sees_s2, &tolerance);
    float *got = problem_run(&p, mode, kernels_pick(NULL), chunk);
    const double e = largest_error(got, want, (size_t)n * H * 32);
    if (!(e <= tolerance))
        fail_msg("%s, %d tokens, %d/%d heads, chunks of %d: error %g, wanted %g",
                 mode, n, H, G, chunk, e, tolerance);
    free(want), free(got);
    problem_free(&p);
}

static void test_naive(void **state) {
    (void)state;
    const int chunks[] = { 1, 7, 100 };
    for (int c = 0; c < 3; c++) {
        pat.block = 16, pat.local = 3, pat.stride = 4, pat.offset = 1,
        pat.step = 1, pat.sinks = 1, pat.by_kv = 1, pat.group = 4;
        run_case("s2,approx=1,block=16,local=3,stride=4,dense_first=0,dense_every=0",
                 389, 16, 4, DT_F32, chunks[c]);
        pat.by_kv = 0, pat.sinks = 0;
        run_case("s2,approx=1,block=16,local=3,stride=4,dense_first=0,dense_every=0,"
                 "phase=query,sink=0", 389, 8, 2, DT_F16, chunks[c]);
        pat.step = 0;
        run_case("s2,approx=1,block=16,local=3,stride=4,dense_first=0,dense_every=0,"
                 "phase=query,sink=0,homo=1", 389, 4, 4, DT_Q8_0, chunks[c]);
        pat.block = 32, pat.local = 2, pat.stride = 5, pat.offset = 3,
        pat.step = 5, pat.by_kv = 1, pat.group = 6;
        run_case("s2,approx=1,block=32,local=2,stride=5,offset=3,dense_first=0,dense_every=0,"
                 "sink=0", 389, 6, 1, DT_BF16, chunks[c]);
    }
}

/* Every length: the ragged last block, the first ones. */
static void test_lengths(void **state) {
    (void)state;
    pat.block = 16, pat.local = 2, pat.stride = 3, pat.offset = 1,
    pat.step = 1, pat.sinks = 0, pat.by_kv = 0, pat.group = 2;
    for (int n = 1; n <= 200; n += n < 40 ? 1 : 9)
        run_case("s2,approx=1,block=16,local=2,stride=3,dense_first=0,dense_every=0,"
                 "phase=query,sink=0", n, 4, 2, DT_F32, n % 3 ? n : 16);
}

/* v = 1, or a context within the window: full attention, bit for bit. */
static void test_dense(void **state) {
    (void)state;
    struct problem p = problem_new(300, 8, 2, 32, 32, DT_F16, DT_F16);
    float *full = problem_run(&p, "full", kernels_pick(NULL), 64);
    const char *same[] = { "s2,approx=1,stride=1",
                           "s2,approx=1,block=64,local=5,dense_every=0,dense_first=0",
                           "s2,approx=1,dense_first=1" };
    for (int i = 0; i < 3; i++) {
        float *got = problem_run(&p, same[i], kernels_pick(NULL), 64);
        assert_memory_equal(got, full, 300 * 8 * 32 * sizeof *got);
        free(got);
    }
    free(full);
    problem_free(&p);
}

/* Blocks of the last row and of the whole prompt, against the closed
 * forms of a head averaged over a residue cycle. */
static void test_cost(void **state) {
    (void)state;
    enum { B = 16, L = 4, V = 4, H = 8 };
    for (int blocks = 1; blocks <= 24; blocks += blocks < 8 ? 1 : 4) {
        const int n = blocks * B;
        struct problem p = problem_new(n, H, H, 32, 32, DT_F32, DT_F32);
        float *out = calloc((size_t)n * H * 32, sizeof *out);
        struct pair x = pair_open(&p, "s2,approx=1,block=16,local=4,stride=4,offset=0,"
                                      "dense_first=0,dense_every=0,sink=0,phase=query",
                                  kernels_pick(NULL), n);
        uint64_t before, rows, after;
        if (n > 1) pair_feed(x, &p, 0, n - 1, out);
        attn_counters(x.attn, &before, &rows);
        pair_feed(x, &p, n - 1, 1, out);
        attn_counters(x.attn, &after, &rows);
        double want = 0;                            /* heads 0..7 are two full cycles of residues */
        for (int h = 0; h < H; h++)
            for (int j = 0; j < blocks; j++) {
                pat.block = B, pat.local = L, pat.stride = V,
                pat.offset = 0, pat.step = 1, pat.sinks = 0;
                want += block_seen(h, blocks - 1, j) * B;
            }
        assert_int_equal(after - before, (uint64_t)want);
        const int m = blocks > L ? blocks - L : 0;
        assert_true(fabs(want / H / B - ((blocks < L ? blocks : L) + (double)m / V)) < 1e-9);
        free(out);
        pair_close(x);
        problem_free(&p);
    }
}

/* The phases of all heads together see everything; each far block is seen by H / v heads. */
static void test_union(void **state) {
    (void)state;
    pat.local = 2, pat.stride = 8, pat.offset = 1, pat.step = 1, pat.sinks = 0;
    for (int j = 0; j < 30; j++) {
        int n = 0;
        for (int h = 0; h < 32; h++) n += block_seen(h, 39, j);
        assert_int_equal(n, 4);
    }
}

/* The cache of a layer whose heads differ by KV head shrinks to the
 * window and one far block in `stride`. */
static void test_memory(void **state) {
    (void)state;
    enum { N = 8192 };
    struct problem p = problem_new(N, 4, 4, 32, 32, DT_F16, DT_F16);
    float *out = calloc((size_t)N * 4 * 32, sizeof *out);
    struct pair full = pair_open(&p, "full", kernels_pick(NULL), 64);
    struct pair s2 = pair_open(&p, "s2,approx=1,block=64,local=4,stride=8,dense_first=0,"
                                   "dense_every=0,sink=0", kernels_pick(NULL), 64);
    for (int i = 0; i < N; i += 64) pair_feed(full, &p, i, 64, out), pair_feed(s2, &p, i, 64, out);
    /* l*B + (N - l*B)/v tokens, and at most two blocks of 256 tokens
     * of rounding and the batch's slack */
    const double tokens = 256 + (N - 256) / 8.0,
                 share = (double)kv_bytes(s2.kv) / (double)kv_bytes(full.kv);
    if (share > (tokens + 3 * KV_BLOCK) / N || share < tokens / N)
        fail_msg("share %g, formula %g", share, tokens / N);
    free(out);
    pair_close(full), pair_close(s2);
    problem_free(&p);
}

static void refused(const char *mode, const struct attn_shape *shape, const char *says) {
    struct attn *a = NULL;
    struct err err = { .msg = "" };
    assert_int_equal(attn_open(&a, mode, shape, kernels_pick(NULL), &err), -1);
    if (!strstr(err.msg, says)) fail_msg("%s said: %s", mode, err.msg);
}

static void test_rules(void **state) {
    (void)state;
    struct attn_shape s = { .n_layers = 2, .n_heads = 8, .n_kv_heads = 8, .k_dim = 32, .v_dim = 32,
                            .max_batch = 8, .scale = 1, .max_tokens = 4096 };
    struct err err = { .msg = "" };
    struct attn *a = NULL;
    refused("s2", &s, "not trained with it; approx=1");
    refused("s2,approx=1,block=40", &s, "multiple of 16");
    refused("s2,approx=1,stride=0", &s, "want a whole number 1..64");
    refused("s2,approx=1,phase=odd", &s, "want query, kv or auto");
    refused("s2,approx=1,nope=2", &s, "nope");
    assert_int_equal(attn_open(&a, "s2,approx=1", &s, kernels_pick(NULL), &err), 0);
    assert_non_null(strstr(attn_warning(a), "past 1024 tokens"));
    attn_close(a);
    s.trained = "s2,block=32,local=4,stride=8";
    assert_int_equal(attn_open(&a, s.trained, &s, kernels_pick(NULL), &err), 0);
    assert_null(attn_warning(a));
    attn_close(a);
    refused("s2,block=64,local=4,stride=8", &s, "block=64, but the file was trained with block=32");
    s.n_heads = s.n_kv_heads = 4;
    assert_int_equal(attn_open(&a, s.trained, &s, kernels_pick(NULL), &err), 0);
    assert_non_null(strstr(attn_warning(a), "do not cover"));
    attn_close(a);
}

/* Going back by less than the cache still holds, and doing it again, changes nothing. */
static void test_rollback(void **state) {
    (void)state;
    enum { N = 600 };
    struct problem p = problem_new(N, 4, 4, 32, 32, DT_F16, DT_F16);
    const char *mode = "s2,approx=1,block=16,local=4,stride=4,dense_first=0,dense_every=0";
    float *want = problem_run(&p, mode, kernels_pick(NULL), 20),
          *got = calloc((size_t)N * 4 * 32, sizeof *got);
    struct pair x = pair_open(&p, mode, kernels_pick(NULL), 20);
    for (int i = 0; i < N; i += 20) {
        pair_feed(x, &p, i, 20, got);
        if (i % 60 == 40 && kv_truncate(x.kv, i) == i) pair_feed(x, &p, i, 20, got);
    }
    assert_memory_equal(got, want, (size_t)N * 4 * 32 * sizeof *got);
    free(want), free(got);
    pair_close(x);
    problem_free(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_naive), cmocka_unit_test(test_lengths), cmocka_unit_test(test_dense),
        cmocka_unit_test(test_cost), cmocka_unit_test(test_union), cmocka_unit_test(test_memory),
        cmocka_unit_test(test_rules), cmocka_unit_test(test_rollback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
