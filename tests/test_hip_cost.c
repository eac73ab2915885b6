/* Mode hip: what it costs as contexts grow, delta correction, and which parameters it refuses. */
#include "tests/common/attend.h"
#include "tests/common/check.h"
#include <stdlib.h>
#include <string.h>

/* ---- Cost ---- */

static int levels(int n, int width) {
    int l = 0;
    for (int longest = (n + width - 1) / width; longest > 1; longest = (longest + 1) / 2) l++;
    return l;
}

/* Keys a search may read: two branches for each survivor of a round;
 * of the last round's, one is the parent's own. */
static uint64_t most_searched(int blocks, int width, int bk) {
    const int l = levels(blocks, width);
    return (uint64_t)width * (uint64_t)bk * (uint64_t)(l > 1 ? 2 * l - 1 : 2 * l);
}

/* Prefill from 4k to 128k tokens: what is attended grows as T,
 * what is searched as T log T, both as the formula says. */
static void test_cost_of_prefill(void **state) {
    (void)state;
    enum { N = 1 << 17, K = 64, BK = 2, W = 64, SINK = 16, BQ = 64 };
    struct problem p = problem_new(N, 1, 1, 4, 4, DT_F32, DT_F32);
    float *out = malloc((size_t)N * 4 * sizeof *out);
    uint64_t most = 0, keys, rows, before = 0, before_searched = 0;
    struct pair s = pair_open(&p, "hip,dense=0,until=0,k=64,bk=2,window=64,sink=16,bq=64,sq=64",
                              kernels_pick(NULL), 2048);
    for (int pos = 0, last = 0; pos < N; pos += 2048) {
        pair_feed(s, &p, pos, 2048, out);
        for (int p1 = pos + BQ - 1; p1 < pos + 2048; p1 += BQ)
            if (p1 - W + 1 > SINK)
                most += most_searched((p1 - W + 1 - SINK + BK - 1) / BK, K / BK, BK);
        const int length = pos + 2048;
        if (length < 4096 || (length & (length - 1))) continue;
        const uint64_t searched = attn_searched(s.attn);
        attn_counters(s.attn, &keys, &rows);
        assert_int_equal(rows, length);
        assert_true(keys <= (uint64_t)length * (K + W + SINK) &&
                    keys > (uint64_t)length * (K + W + SINK) * 9 / 10);
        if (searched > most || searched < most * 9 / 10)
            fail_msg("%d tokens: %llu keys searched, at most %llu", length,
                     (unsigned long long)searched, (unsigned long long)most);
        if (last) {
            const double attended = (double)keys / (double)before,
                         hunted = (double)searched / (double)before_searched;
            if (!(attended < 2.1 && hunted < 2.6 && hunted > 2))
                fail_msg("%d to %d: %g and %g times", last, length, attended, hunted);
        }
        last = length, before = keys, before_searched = searched;
    }
    pair_close(s);
    free(out);
    problem_free(&p);
}

/* Decoding: a search every refresh steps, and reads that do not grow with the context. */
static void test_cost_of_decode(void **state) {
    (void)state;
    enum { N = 40000, K = 128, BK = 2, W = 64, SINK = 16, STEPS = 64 };
    static const int at[] = { 4096, 20000, N - STEPS };
    struct problem p = problem_new(N, 4, 2, 8, 4, DT_F16, DT_F16);
    float *out = malloc((size_t)N * 16 * sizeof *out);
    uint64_t keys[2], rows[2], first = 0;
    struct pair s = pair_open(&p, "hip,dense=0,until=0,k=128,bk=2,window=64",
                              kernels_pick(NULL), 4096);
    for (int i = 0, pos = 0; i < 3; i++) {
        /* The cache alone: decoding does not look at what was before. */
        for (int n; pos < at[i]; pos += n) {
            n = at[i] - pos < 4096 ? at[i] - pos : 4096;
            struct err err;
            assert_int_equal(kv_reserve(s.kv, pos + n, &err), 0);
            kv_append(s.kv, 0, pos, n, p.k + (size_t)pos * 16, p.v + (size_t)pos * 8);
        }
        attn_counters(s.attn, &keys[0], &rows[0]);
        const uint64_t searched = attn_searched(s.attn);
        for (int t = 0; t < STEPS; t++, pos++) pair_feed(s, &p, pos, 1, out);
        attn_counters(s.attn, &keys[1], &rows[1]);
        const uint64_t read = keys[1] - keys[0], searches = (attn_searched(s.attn) - searched);
        const uint64_t bound = most_searched((pos - W - SINK) / BK, K / BK, BK) * 2 *
                               (STEPS / 8 + 1);
        if (!first) first = read;
        assert_true(searches <= bound && searches > bound * 8 / 10);
        /* most: the window grows until the next search. */
        const uint64_t per_row = (uint64_t)(K + W + SINK), most = per_row + 7;
        assert_true(read >= per_row * STEPS * 4 && read <= most * STEPS * 4);
        if (llabs((long long)read - (long long)first) > (long long)first / 50)
            fail_msg("at %d: %llu keys read, at first %llu", pos, (unsigned long long)read,
                     (unsigned long long)first);
    }
    pair_close(s);
    free(out);
    problem_free(&p);
}

/* ---- Delta correction ---- */

static void test_delta(void **state) {
    (void)state;
    enum { N = 500, WIDTH = 4 * 16, G = 32 };
    struct problem p = problem_new(N, 4, 2, 16, 16, DT_F16, DT_F16);
    const struct kernels *k = kernels_pick(NULL);
    float *full = problem_run(&p, "full", k, N),
          *sparse = problem_run(&p, "hip,dense=0,until=0,k=32,bk=2,window=64", k, N);
    float *got = problem_run(&p, "hip,dense=0,until=0,k=32,bk=2,window=64,delta=32", k, N);
    for (int t = 0; t < N; t++)
        for (int i = 0; i < WIDTH; i++) {
            const int a = t / G * G, x = t * WIDTH + i, y = a * WIDTH + i;
            const float want = t == a ? full[x] : sparse[x] + (full[y] - sparse[y]);
            if (got[x] != want) fail_msg("token %d: %g, wanted %g", t, got[x], want);
        }
    float *all = problem_run(&p, "hip,dense=0,until=0,k=32,bk=2,window=64,delta=1", k, 100);
    assert_memory_equal(all, full, N * WIDTH * sizeof *all);
    free(all);
    /* Nothing to correct. */
    all = problem_run(&p, "hip,dense=0,until=0,k=512,bk=2,delta=32", k, 64);
    assert_memory_equal(all, full, N * WIDTH * sizeof *all);
    free(all);
    float *decoded = problem_run(&p, "hip,dense=0,until=0,k=32,bk=2,window=64,delta=32", k, 1);
    float *plain = problem_run(&p, "hip,dense=0,until=0,k=32,bk=2,window=64", k, 1);
    assert_memory_equal(decoded, plain, N * WIDTH * sizeof *plain);   /* decoding is left alone */
    free(decoded);
    free(plain);

    uint64_t keys[2], rows[2];
    for (int i = 0; i < 2; i++) {
        struct pair s = pair_open(&p, i ? "hip,dense=0,until=0,k=32,bk=2,window=64,delta=32"
                                        : "hip,dense=0,until=0,k=32,bk=2,window=64", k, N);
        pair_feed(s, &p, 0, N, got);
        attn_counters(s.attn, &keys[i], &rows[i]);
        pair_close(s);
    }
    uint64_t extra = 0;
    for (int a = 0; a < N; a += G) extra += (uint64_t)(a + 1) * 4;
    assert_int_equal(keys[1] - keys[0], extra);
    assert_int_equal(rows[1], rows[0]);
    free(full);
    free(sparse);
    free(got);
    problem_free(&p);
}

/* An anchor of a timeline that was given up corrects nothing later,
 * though its position comes round again unseen. */
static void test_delta_of_a_lost_timeline(void **state) {
    (void)state;
    const char *mode = "hip,dense=0,until=0,k=32,bk=2,window=64,delta=128";
    struct problem p = problem_new(250, 4, 2, 16, 16, DT_F16, DT_F16);
    float *got = malloc(250 * 64 * sizeof *got), *want = malloc(250 * 64 * sizeof *want);
    struct pair s = pair_open(&p, mode, kernels_pick(NULL), 250),
                fresh = pair_open(&p, mode, kernels_pick(NULL), 250);
    pair_feed(s, &p, 0, 200, got);                         /* its last anchor: 128 */
    kv_truncate(s.kv, 110);
    pair_feed(fresh, &p, 0, 110, want);
    for (int t = 110; t < 140; t++) pair_feed(s, &p, t, 1, got), pair_feed(fresh, &p, t, 1, want);
    pair_feed(s, &p, 140, 110, got);
    pair_feed(fresh, &p, 140, 110, want);
    assert_memory_equal(got + 110 * 64, want + 110 * 64, 140 * 64 * sizeof *got);
    pair_close(s);
    pair_close(fresh);
    free(got);
    free(want);
    problem_free(&p);
}

/* ---- Parameters ---- */

static void test_refused(void **state) {
    (void)state;
    static const char *const wrong[][3] = {
        { "hip,k=100,bk=16", "k=100", "bk=16" }, { "hip,window=32", "window=32", "bq=64" },
        { "hip,sk=40", "sk=40", "bk=16" }, { "hip,bq=8,sq=9", "sq=9", "bq=8" },
        { "hip,stages=2", "stages=2", "3" }, { "hip,rep=middle", "middle", "centre" },
        { "hip,owner=all", "all", "layer" }, { "hip,stages=3,k=1024", "k=1024", "stages=3" },
        { "hip,keep=1:1:1", "keep=1:1:1", "stages=1" },
        { "hip,stages=3,chunk=256:32", "256:32", "three" },
        { "hip,stages=3,window=512,chunk=96:32:8", "96", "powers" },
        { "hip,stages=3", "window=256", "256" },
        { "hip,stages=3,window=512,chunk=32:64:8", "32", "64" },
        { "hip,stages=3,window=512,keep=8192:16384:2048", "8192", "16384" },
        { "hip,stages=3,window=512,keep=100:64:8", "100", "256" },
        { "hip,stages=3,window=512,every=300:8:4", "300", "256" },
        { "hip,delta=-1", "delta=-1", "0" }, { "hip,until=soon", "soon", "whole" },
        { "hip,k=0", "k=0", "1" }, { "hip,top=3", "top", "window" },
    };
    struct err err;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(attn_check(wrong[i][0], &err), -1);
        for (int w = 1; w < 3; w++)
            if (!strstr(err.msg, wrong[i][w]))
                fail_msg("'%s' gives \"%s\", which lacks '%s'", wrong[i][0], err.msg, wrong[i][w]);
        assert_null(strchr(err.msg, '\n'));
    }
    assert_int_equal(attn_check("hip,stages=3,window=512", &err), 0);
    struct attn *a;
    struct attn_shape many = { .n_layers = 1, .n_heads = 65, .n_kv_heads = 1, .k_dim = 8,
                               .v_dim = 8, .max_batch = 1, .scale = 1 };
    assert_int_equal(attn_open(&a, "hip,owner=q", &many, kernels_pick(NULL), &err), -1);
    assert_non_null(strstr(err.msg, "65"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cost_of_prefill),
        cmocka_unit_test(test_cost_of_decode),
        cmocka_unit_test(test_delta),
        cmocka_unit_test(test_delta_of_a_lost_timeline),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
