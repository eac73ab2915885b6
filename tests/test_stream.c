/* Mode stream and the rings behind it: against masked attention in double, against full
 * attention where nothing is masked, and against itself: chunks, threads, rollback. */
#include "tests/common/attend.h"           /* before CMocka, which makes a macro of the word fail */
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

static int sink, recent;                   /* what the mask below stands for */

static int band(int query_head, int p, int j) {
    return (void)query_head, j < sink || j >= p - recent;
}

static const char *mode_text(void) {
    static char text[64];
    snprintf(text, sizeof text, "stream,sink=%d,recent=%d", sink, recent);
    return text;
}

/* Windows of every kind against the mask; rings wrap several times.
 * Every chunk size gives the same bits. */
static void against_mask(const struct kernels *k) {
    static const struct { int sink, recent, n; } cases[] = {
        { 1, 2, 40 }, { 4, 8, 100 }, { 0, 5, 90 }, { 7, 0, 60 }, { 0, 0, 40 }, { 16, 16, 150 },
        { 17, 31, 200 }, { 64, 100, 700 }, { 100, 7, 300 }, { 3, 700, 800 },
    };
    static const int chunks[] = { 1, 7, 64, 100 };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sink = cases[i].sink, recent = cases[i].recent;
        if (!strcmp(k->name, "scalar") && cases[i].n > 300) continue;
        struct problem p = problem_new(cases[i].n, 4, 2, 32, 32, i % 3 == 1 ? DT_Q8_0 : DT_F32,
                                       i % 3 ? DT_F16 : DT_F32);
        size_t n = (size_t)p.n * p.shape.n_heads * p.shape.v_dim;
        double tolerance, *want = problem_naive(&p, band, &tolerance);
        float *whole = problem_run(&p, mode_text(), k, p.n);
        double error = largest_error(whole, want, n);
        if (error > tolerance)
            fail_msg("%s, %s: off by %g, allowed %g", k->name, mode_text(), error, tolerance);
        for (int c = 0; c < 4; c++) {
            float *got = problem_run(&p, mode_text(), k, chunks[c]);
            if (memcmp(got, whole, n * sizeof *got))
                fail_msg("%s, %s: other bits by %d", k->name, mode_text(), chunks[c]);
            free(got);
        }
        free(whole);
        free(want);
        problem_free(&p);
    }
}

static void test_against_mask(void **state) {
    char names[64];
    (void)state;
    snprintf(names, sizeof names, "%s", kernels_names());
    for (char *name = strtok(names, " "); name; name = strtok(NULL, " "))
        against_mask(kernels_pick(name));
}

/* With neither sinks nor window a token sees itself alone, and is answered its own value. */
static void test_self_only(void **state) {
    (void)state;
    struct problem p = problem_new(50, 3, 3, 8, 8, DT_F32, DT_F32);
    float *out = problem_run(&p, "stream,sink=0,recent=0", kernels_pick(NULL), 13);
    assert_memory_equal(out, p.v, 50 * 24 * sizeof *out);
    free(out);
    problem_free(&p);
}

/* Bit for bit full attention for the first sink + recent + 1 tokens, and not a token longer. */
static void test_equals_full_while_short(void **state) {
    (void)state;
    sink = 5, recent = 40;
    struct problem p = problem_new(60, 2, 1, 16, 16, DT_F16, DT_F16);
    float *full = problem_run(&p, "full", kernels_pick(NULL), 9),
          *got = problem_run(&p, mode_text(), kernels_pick(NULL), 9);
    for (int t = 0; t < 60; t++)
        assert_int_equal(!memcmp(full + t * 32, got + t * 32, 32 * sizeof *got),
                         t <= sink + recent);
    free(full);
    free(got);
    problem_free(&p);
}

/* Keys read, counted: the sums over p of min(p + 1, sink + recent + 1). */
static void test_keys_read(void **state) {
    (void)state;
    static const struct { int sink, recent, n, pairs; } cases[] = {
        { 1, 2, 16, 58 }, { 4, 8, 64, 754 }, { 64, 64, 64, 2080 }
    };
    for (int i = 0; i < 3; i++)
        for (int chunk = 1; chunk <= 64; chunk *= 4) {
            uint64_t keys, rows;
            sink = cases[i].sink, recent = cases[i].recent;
            struct problem p = problem_new(cases[i].n, 6, 2, 16, 16, DT_F32, DT_F32);
            struct pair x = pair_open(&p, mode_text(), kernels_pick(NULL), chunk);
            float *out = malloc((size_t)p.n * 96 * sizeof *out);
            for (int pos = 0; pos < p.n; pos += chunk)
                pair_feed(x, &p, pos, chunk < p.n ? chunk : p.n, out);
            attn_counters(x.attn, &keys, &rows);
            assert_int_equal(keys, cases[i].pairs * 6);
            assert_int_equal(rows, p.n * 6);
            free(out);
            pair_close(x);
            problem_free(&p);
        }
}

static int chunk;                          /* like sink and recent, for the mask below */

static int chunked(int query_head, int p, int j) {
    return (void)query_head, j < sink || j >= p - p % chunk - recent;
}

/* Chunked: a token sees its whole chunk so far, and the window that ended where the chunk began. */
static void test_chunked(void **state) {
    static const struct { int sink, recent, n, chunk, pairs; } cases[] = {
        { 1, 2, 16, 4, 76 }, { 4, 8, 64, 1, 754 }, { 4, 8, 64, 7, 902 }, { 4, 8, 64, 16, 1120 },
        { 4, 8, 64, 64, 2080 }, { 20, 30, 300, 90, 0 }, { 0, 7, 200, 33, 0 }, { 70, 0, 300, 50, 0 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[96];
        uint64_t keys, rows;
        double tolerance;
        sink = cases[i].sink, recent = cases[i].recent, chunk = cases[i].chunk;
        snprintf(text, sizeof text, "%s,prefill=chunked", mode_text());
        struct problem p = problem_new(cases[i].n, 6, 2, 32, 32, DT_F16, i % 2 ? DT_Q8_0 : DT_F32);
        const size_t size = (size_t)p.n * 192 * sizeof(float);
        double *want = problem_naive(&p, chunked, &tolerance);
        float *got = malloc(size), *exact = problem_run(&p, mode_text(), kernels_pick(NULL), chunk);
        struct pair x = pair_open(&p, text, kernels_pick(NULL), chunk);
        for (int pos = 0; pos < p.n; pos += chunk)
            pair_feed(x, &p, pos, p.n - pos < chunk ? p.n - pos : chunk, got);
        const double error = largest_error(got, want, (size_t)p.n * 192);
        if (error > tolerance)
            fail_msg("%s by %d: off by %g, allowed %g", text, chunk, error, tolerance);
        attn_counters(x.attn, &keys, &rows);
        if (cases[i].pairs) assert_int_equal(keys, cases[i].pairs * 6);
        assert_int_equal(!memcmp(got, exact, size), chunk == 1);  /* one by one: the exact window */
        if (chunk >= p.n) {
            float *full = problem_run(&p, "full", kernels_pick(NULL), chunk);
            assert_memory_equal(got, full, size);
            free(full);
        }
        free(got);
        free(exact);
        free(want);
        pair_close(x);
        problem_free(&p);
    }
}

/* The ring keeps the very bits the growing cache keeps, and stops growing. */
static void test_ring(void **state) {
    (void)state;
    sink = 20, recent = 300;
    struct problem p = problem_new(2000, 2, 2, 32, 32, DT_F32, DT_F32);
    p.type_k = DT_Q8_0, p.type_v = DT_Q4_0;
    struct pair ring = pair_open(&p, mode_text(), kernels_pick(NULL), 50),
                full = pair_open(&p, "full", kernels_pick(NULL), 50);
    float *out = malloc(2000 * 64 * sizeof *out);
    size_t settled = 0;
    for (int pos = 0; pos < 2000; pos += 50) {
        pair_feed(ring, &p, pos, 50, out);
        pair_feed(full, &p, pos, 50, out);
        assert_int_equal(kv_bytes(ring.kv), kv_bytes_at(kv_shape(ring.kv), pos + 50));
        if (pos == 500) settled = kv_bytes(ring.kv);
        for (int j = 0; j < pos + 50; j++) {
            float k[2][32], v[2][32];
            if (j >= sink && j < pos - recent) continue;
            kv_read(ring.kv, 0, 1, j, k[0], v[0]);
            kv_read(full.kv, 0, 1, j, k[1], v[1]);
            assert_memory_equal(k[0], k[1], sizeof k[0]);
            assert_memory_equal(v[0], v[1], sizeof v[0]);
        }
    }
    assert_int_equal(kv_bytes(ring.kv), settled);
    assert_true(kv_bytes(full.kv) > 3 * settled);
    /* 2 pages of sinks, and 350 tokens that may straddle pages at both ends:
     * 24 pages in 2 blocks per head */
    assert_int_equal(settled, 2 * 2 * 2 * KV_BLOCK_PAGES *
                                  (tile_k_bytes(DT_Q8_0, 32) + tile_v_bytes(DT_Q4_0, 32)));
    free(out);
    pair_close(ring);
    pair_close(full);
    problem_free(&p);
}

/* Going back by up to the largest batch leaves no trace; by more,
 * the cache says that it must start over. */
static void test_rollback(void **state) {
    (void)state;
    sink = 20, recent = 100;
    struct problem p = problem_new(900, 2, 1, 16, 16, DT_F32, DT_F32),
                   other = problem_new(900, 2, 1, 16, 16, DT_F32, DT_F32);
    for (size_t i = 0; i < 900 * 16; i++) other.k[i] = -3, other.v[i] = 1000;
    float *want = problem_run(&p, mode_text(), kernels_pick(NULL), 32),
          *out = calloc(900 * 32, sizeof *out);
    struct pair x = pair_open(&p, mode_text(), kernels_pick(NULL), 32);
    int pos = 0;
    for (; pos < 640; pos += 32) pair_feed(x, &p, pos, 32, out);
    for (int back = 1; back <= 32; back++) {    /* drafts that are taken back, of every length */
        pair_feed(x, &other, pos, back, out);
        assert_int_equal(kv_truncate(x.kv, pos), pos);
        pair_feed(x, &p, pos, 5, out);
        pos += 5;
    }
    assert_memory_equal(out, want, (size_t)pos * 32 * sizeof *out);
    assert_int_equal(kv_truncate(x.kv, pos - 48), 0);   /* those keys are gone: start over */
    memset(out, 0, 900 * 32 * sizeof *out);
    for (pos = 0; pos < 640; pos += 32) pair_feed(x, &p, pos, 32, out);
    assert_memory_equal(out, want, (size_t)pos * 32 * sizeof *out);
    assert_int_equal(kv_truncate(x.kv, 17), 17);        /* inside the sinks nothing is ever lost */
    for (pos = 17; pos < 600; pos += 11) pair_feed(x, &p, pos, 11, out);
    assert_memory_equal(out, want, (size_t)600 * 32 * sizeof *out);
    free(want);
    free(out);
    pair_close(x);
    problem_free(&p);
    problem_free(&other);
}

/* What no query sees may hold anything. */
static void test_unseen_is_unread(void **state) {
    (void)state;
    sink = 3, recent = 10;
    struct problem p = problem_new(80, 2, 1, 16, 16, DT_F16, DT_F16);
    float *want = problem_run(&p, mode_text(), kernels_pick(NULL), 1);
    p.v[40 * 16 + 3] = NAN;
    p.k[40 * 16 + 3] = NAN;
    float *out = problem_run(&p, mode_text(), kernels_pick(NULL), 1);
    for (int t = 0; t < 80; t++)
        if (t < 40 || t > 50) assert_memory_equal(out + t * 32, want + t * 32, 32 * sizeof *out);
        else assert_true(isnan(out[t * 32 + 3]));
    free(want);
    free(out);
    problem_free(&p);
}

static void test_arguments(void **state) {
    (void)state;
    static const char *const bad[] = { "stream,sink=-1", "stream,recent=x", "stream,recent=",
                                       "stream,sink", "stream,window=4", "stream,sink=4,sink=4",
                                       "stream,sink=1.5", "stream,prefill=dense",
                                       "stream,rope=ring", "stream,rope=cache",
                                       "stream,rope=cache,prefill=chunked" };
    struct attn_shape s = { .n_layers = 1, .n_heads = 2, .n_kv_heads = 1, .k_dim = 8, .v_dim = 8,
                            .max_batch = 4, .scale = 1 };
    struct attn *attn;
    struct err err;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(attn_open(&attn, bad[i], &s, kernels_pick(NULL), &err), -1);
        assert_non_null(strstr(err.msg, "stream"));
    }
    assert_int_equal(attn_open(&attn, "stream,recent=9", &s, kernels_pick(NULL), &err), 0);
    assert_string_equal(attn_params(attn), "sink=4,recent=9,prefill=exact,rope=absolute");
    attn_close(attn);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_mask), cmocka_unit_test(test_self_only),
        cmocka_unit_test(test_equals_full_while_short), cmocka_unit_test(test_keys_read),
        cmocka_unit_test(test_chunked), cmocka_unit_test(test_ring),
        cmocka_unit_test(test_rollback), cmocka_unit_test(test_unseen_is_unread),
        cmocka_unit_test(test_arguments),
    };
    omp_set_num_threads(1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
