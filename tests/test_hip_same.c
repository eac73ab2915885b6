/* Mode hip through the cache: what must not change a bit - everything selected against full
 * attention, threads and chunks, what comes later, a timeline given up, one mode for prefill and
 * another for decoding. Which keys it reads: test_hip.c. */
#include "tests/common/attend.h"
#include "tests/common/check.h"
#include <omp.h>
#include <stdlib.h>
#include <string.h>

static void expect_same(const struct problem *p, const char *a, const char *b, int chunk,
                        int from) {
    float *x = problem_run(p, a, kernels_pick(NULL), chunk),
          *y = problem_run(p, b, kernels_pick(NULL), chunk);
    const size_t width = (size_t)p->shape.n_heads * p->shape.v_dim;
    if (memcmp(x + from * width, y + from * width, ((size_t)p->n - from) * width * sizeof *x))
        fail_msg("%d tokens by %d: %s is not %s", p->n, chunk, a, b);
    free(x);
    free(y);
}

/* Budget for every key, or a window over all of them: full attention, to the bit. */
static void test_everything_selected_is_full(void **state) {
    (void)state;
    static const char *const enough[] = {
        "hip,dense=0,until=0,k=512,bk=2", "hip,dense=0,until=0,k=16,bk=2,window=400",
        "hip,dense=0,until=0,k=640,bk=16,owner=q",
        "hip,dense=0,until=0,k=399,bk=3,owner=layer,sink=0,window=64",
        "hip,dense=0,until=400", "hip,dense=2,until=0,k=2,bk=2",
        "hip,dense=0,until=0,stages=3,window=64,sink=0,bq=32,chunk=32:16:8,keep=512:512:512",
        "hip,dense=0,until=0,k=512,bk=2,refresh=3",
    };
    static const struct { int heads, kv_heads, k_dim, v_dim; enum dtype k, v; } shape[] = {
        { 4, 2, 32, 32, DT_F32, DT_F32 }, { 3, 3, 24, 40, DT_F16, DT_BF16 },
        { 8, 1, 64, 32, DT_Q8_0, DT_Q4_0 }, { 2, 2, 32, 64, DT_Q4_0, DT_F16 },
        { 5, 1, 16, 8, DT_BF16, DT_F32 },
    };
    for (int s = 0; s < 5; s++) {
        struct problem p = problem_new(397, shape[s].heads, shape[s].kv_heads, shape[s].k_dim,
                                       shape[s].v_dim, shape[s].k, shape[s].v);
        for (size_t i = 0; i < sizeof enough / sizeof *enough; i++) {
            expect_same(&p, enough[i], "full", 128, 0);
            if (s < 2) expect_same(&p, enough[i], "full", 1, 0);
        }
        problem_free(&p);
    }
}

/* Every KV type, and what is sparse differs from what is full (or the test above says nothing). */
static void test_sparse_is_not_full(void **state) {
    (void)state;
    static const enum dtype types[] = { DT_F32, DT_F16, DT_BF16, DT_Q8_0, DT_Q4_0 };
    for (int t = 0; t < 5; t++) {
        struct problem p = problem_new(500, 4, 2, 32, 32, types[t], types[4 - t]);
        float *full = problem_run(&p, "full", kernels_pick(NULL), 100);
        float *some = problem_run(&p, "hip,dense=0,until=0,k=32,bk=2,window=64,delta=0",
                                  kernels_pick(NULL), 100);
        for (int i = 0; i < 500; i++)
            if (i < 100 || i >= 128)
                assert_int_equal(!memcmp(full + i * 128, some + i * 128, 128 * sizeof *full),
                                 i < 100);
        free(full);
        free(some);
        problem_free(&p);
    }
}

/* Threads, and chunks cut at multiples of bq. */
static void test_same_bits(void **state) {
    (void)state;
    static const char *const modes[] = {
        "hip,dense=0,until=0,k=32,bk=2,window=64",
        "hip,dense=0,until=0,k=64,bk=16,window=64,owner=q,delta=16",
        "hip,dense=0,until=0,k=30,bk=3,window=64,owner=layer,delta=48",
        "hip,dense=0,until=0,stages=3,window=64,sink=8,chunk=32:16:8,keep=256:128:64,delta=64",
    };
    static const int chunks[] = { 64, 128, 448 };
    struct problem p = problem_new(700, 4, 2, 32, 32, DT_F16, DT_F16);
    for (int m = 0; m < 4; m++) {
        omp_set_num_threads(1);
        float *one = problem_run(&p, modes[m], kernels_pick(NULL), 700),
              *slow = problem_run(&p, modes[m], kernels_pick(NULL), 1);
        for (int threads = 1; threads <= 3; threads++) {
            omp_set_num_threads(threads);
            for (int c = 0; c < 3; c++) {
                float *got = problem_run(&p, modes[m], kernels_pick(NULL), chunks[c]);
                if (memcmp(got, one, 700 * 128 * sizeof *got))
                    fail_msg("%s: other bits with %d threads in chunks of %d", modes[m], threads,
                             chunks[c]);
                free(got);
            }
            float *got = problem_run(&p, modes[m], kernels_pick(NULL), 1);
            assert_memory_equal(got, slow, 700 * 128 * sizeof *got);
            free(got);
        }
        free(one);
        free(slow);
    }
    omp_set_num_threads(1);
    problem_free(&p);
}

/* What comes after a token does not change it: not keys,
 * not values, and beyond its block not queries either. */
static void test_causal(void **state) {
    (void)state;
    static const char *const modes[] = {
        "hip,dense=0,until=0,k=32,bk=2,window=64",
        "hip,dense=0,until=0,k=32,bk=16,window=64,delta=32",
        "hip,dense=0,until=0,stages=3,window=64,sink=8,chunk=32:16:8,keep=256:128:32",
    };
    static const int cuts[] = { 70, 128, 255, 300, 449 };
    struct problem p = problem_new(450, 4, 2, 16, 16, DT_F32, DT_F32);
    for (int m = 0; m < 3; m++) {
        float *want = problem_run(&p, modes[m], kernels_pick(NULL), 450);
        for (int c = 0; c < 5; c++) {
            struct problem other = problem_new(450, 4, 2, 16, 16, DT_F32, DT_F32);
            for (int i = (cuts[c] + 1) * 32; i < 450 * 32; i++)
                other.k[i] = 30 - other.k[i], other.v[i] = 1e30f;
            for (int i = (cuts[c] / 64 + 1) * 64 * 64; i < 450 * 64; i++) other.q[i] = -other.q[i];
            float *got = problem_run(&other, modes[m], kernels_pick(NULL), 450);
            assert_memory_equal(got, want, (size_t)(cuts[c] + 1) * 64 * sizeof *got);
            free(got);
            problem_free(&other);
        }
        free(want);
    }
    problem_free(&p);
}

/* A timeline given up leaves nothing behind: masks, windows, corrections. */
static void test_rewind(void **state) {
    (void)state;
    static const char *const modes[] = {
        "hip,dense=0,until=0,k=32,bk=2,window=64,refresh=50",
        "hip,dense=0,until=0,k=32,bk=2,window=64,delta=64",
        "hip,dense=0,until=0,stages=3,window=64,sink=8,chunk=32:16:8,keep=256:128:32,every=32:8:4",
    };
    static const int back[] = { 330, 320, 310, 256, 200, 100, 0 };
    struct problem p = problem_new(400, 4, 2, 16, 16, DT_F16, DT_F16),
                   other = problem_new(400, 4, 2, 16, 16, DT_F16, DT_F16);
    for (int i = 0; i < 400 * 64; i++) other.q[i] = other.q[(i + 64 * 31) % (400 * 64)];
    for (int i = 0; i < 400 * 32; i++) other.k[i] = other.k[(i + 32 * 77) % (400 * 32)];
    for (int m = 0; m < 3; m++)
        for (int b = 0; b < 7; b++) {
            /* Prefill the other problem's tail, decode, go back;
             * prefill to 336 and decode the right one. */
            float *got = malloc(400 * 64 * sizeof *got), *want = malloc(400 * 64 * sizeof *want);
            struct pair s = pair_open(&p, modes[m], kernels_pick(NULL), 400),
                        fresh = pair_open(&p, modes[m], kernels_pick(NULL), 400);
            if (back[b]) pair_feed(s, &p, 0, back[b], got), pair_feed(fresh, &p, 0, back[b], want);
            pair_feed(s, &other, back[b], 336 - back[b], got);
            for (int t = 336; t < 345; t++) pair_feed(s, &other, t, 1, got);
            kv_truncate(s.kv, back[b]);
            pair_feed(s, &p, back[b], 336 - back[b], got);
            pair_feed(fresh, &p, back[b], 336 - back[b], want);
            for (int t = 336; t < 400; t++)
                pair_feed(s, &p, t, 1, got), pair_feed(fresh, &p, t, 1, want);
            /* Where the lost timeline had anchors, the one before
             * is forgotten: corrections begin at the next. */
            const int from = m == 1 && back[b] < 320 ? (back[b] + 63) / 64 * 64 : back[b];
            assert_memory_equal(got + from * 64, want + from * 64,
                                (size_t)(400 - from) * 64 * sizeof *got);
            pair_close(s);
            pair_close(fresh);
            free(got);
            free(want);
        }
    problem_free(&p);
    problem_free(&other);
}

static struct pair phases_open(const struct problem *p, const char *prefill, const char *decode) {
    struct pair s;
    struct err err;
    const struct attn_shape *a = &p->shape;
    const struct kv_shape kv = { .n_layers = a->n_layers, .n_kv_heads = a->n_kv_heads,
                                 .k_dim = a->k_dim, .v_dim = a->v_dim,
                                 .type_k = p->type_k, .type_v = p->type_v };
    assert_int_equal(attn_open_phases(&s.attn, prefill, decode, a, kernels_pick(NULL), &err), 0);
    assert_int_equal(kv_open(&s.kv, &kv, &err), 0);
    return s;
}

/* Exact prefill, sparse decoding: the same when an answer is begun anew after another prompt of the
 * very length that the mask was waiting for. */
static void test_phases(void **state) {
    (void)state;
    const char *mode = "hip,dense=0,until=0,k=32,bk=2,window=64,refresh=50";
    struct problem p = problem_new(400, 4, 2, 16, 16, DT_F16, DT_F16);
    float *full = problem_run(&p, "full", kernels_pick(NULL), 400);
    float *got = malloc(400 * 64 * sizeof *got), *want = malloc(400 * 64 * sizeof *want);
    struct pair s = phases_open(&p, "full", mode), fresh = phases_open(&p, "full", mode);
    pair_feed(s, &p, 0, 300, got);
    for (int t = 300; t < 311; t++) pair_feed(s, &p, t, 1, got);
    kv_truncate(s.kv, 250);
    pair_feed(s, &p, 250, 61, got);
    pair_feed(fresh, &p, 0, 311, want);
    for (int t = 311; t < 400; t++) pair_feed(s, &p, t, 1, got), pair_feed(fresh, &p, t, 1, want);
    assert_memory_equal(got, want, 400 * 64 * sizeof *got);
    assert_memory_equal(got, full, 311 * 64 * sizeof *got);
    assert_true(memcmp(got + 311 * 64, full + 311 * 64, 64 * sizeof *got));
    pair_close(s);
    pair_close(fresh);

    /* And the other way round: the last token of a prompt may come alone and is still no answer. */
    s = phases_open(&p, mode, "full"), fresh = phases_open(&p, mode, mode);
    attn_phase(s.attn, ATTN_PREFILL);
    pair_feed(s, &p, 0, 320, got);
    pair_feed(s, &p, 320, 1, got);
    pair_feed(fresh, &p, 0, 320, want);
    pair_feed(fresh, &p, 320, 1, want);
    /* A block of one query is searched as in decoding. */
    assert_memory_equal(got, want, 321 * 64 * sizeof *got);
    attn_phase(s.attn, ATTN_DECODE);
    pair_feed(s, &p, 321, 1, got);
    assert_memory_equal(got + 321 * 64, full + 321 * 64, 64 * sizeof *got);
    pair_close(s);
    pair_close(fresh);
    free(full);
    free(got);
    free(want);
    problem_free(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything_selected_is_full),
        cmocka_unit_test(test_sparse_is_not_full),
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_causal),
        cmocka_unit_test(test_rewind),
        cmocka_unit_test(test_phases),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
