/* The attention kernel against softmax(q K^T) V in double, and against itself: the bits of a row
 * must not depend on threads, batch size or how the work was shared. */
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

static const enum dtype types[] = { DT_F32, DT_F16, DT_BF16, DT_Q8_0, DT_Q4_0 };
enum { N_TYPES = sizeof types / sizeof *types };

/* Calls f for every kernel set this CPU has. */
static void each_set(void (*f)(const struct kernels *)) {
    char names[64];
    snprintf(names, sizeof names, "%s", kernels_names());
    for (char *name = strtok(names, " "); name; name = strtok(NULL, " ")) f(kernels_pick(name));
}

/* The problem in one go, then in chunks. */
static void check(const struct problem *p, const struct kernels *k, int chunk) {
    size_t n = (size_t)p->n * p->shape.n_heads * p->shape.v_dim;
    double tolerance, *want = problem_naive(p, NULL, &tolerance);
    float *got = problem_run(p, "full", k, p->n), *again = problem_run(p, "full", k, chunk);
    double error = largest_error(got, want, n);
    if (error > tolerance || memcmp(got, again, n * sizeof *got))
        fail_msg("%s, %d tokens by %d, %d heads on %d of %d and %d, %s %s: "
                 "off by %g, allowed %g; in chunks %s", k->name, p->n, chunk,
                 p->shape.n_heads, p->shape.n_kv_heads, p->shape.k_dim, p->shape.v_dim,
                 dtype_name(p->type_k), dtype_name(p->type_v), error, tolerance,
                 memcmp(got, again, n * sizeof *got) ? "other bits" : "the same");
    free(got);
    free(again);
    free(want);
}

/* Every length and chunk size: row t of a longer problem
 * is row t of a shorter one, so one reference serves all. */
static void lengths_of(const struct kernels *k, enum dtype type, int k_dim, int v_dim) {
    static const int chunks[] = { 1, 7, 16, 64, 100, 512 };
    struct problem p = problem_new(300, 4, 2, k_dim, v_dim, type, type);
    const int width = p.shape.n_heads * p.shape.v_dim;
    double tolerance, *want = problem_naive(&p, NULL, &tolerance);
    float *whole = problem_run(&p, "full", k, 300);
    assert_true(largest_error(whole, want, (size_t)300 * width) <= tolerance);
    for (p.n = 1; p.n <= 300; p.n++)
        for (int c = 0; c < 6; c++) {
            if (c < 5 && p.n % 41 && p.n > 70) continue;   /* all chunks to 70, then now and then */
            if (!strcmp(k->name, "scalar") && p.n % 10 && p.n > 35) continue;
            float *got = problem_run(&p, "full", k, chunks[c]);
            if (memcmp(got, whole, (size_t)p.n * width * sizeof *got))
                fail_msg("%s, %s, %d tokens by %d: other bits than in one go", k->name,
                         dtype_name(type), p.n, chunks[c]);
            free(got);
        }
    free(whole);
    free(want);
    problem_free(&p);
}

/* A matrix unit takes all types but F32. */
static void lengths(const struct kernels *k) {
    lengths_of(k, DT_F32, 24, 8);
    if (!k->matrix) return;
    lengths_of(k, DT_F16, 24, 8);
    lengths_of(k, DT_BF16, 40, 72);
    lengths_of(k, DT_Q8_0, 96, 64);
    lengths_of(k, DT_Q4_0, 32, 96);
}

static void test_lengths(void **state) { (void)state; each_set(lengths); }

/* Every pair of types: some rows too many for the direct path, some few enough. */
static void pairs_of_types(const struct kernels *k) {
    for (int a = 0; a < N_TYPES; a++)
        for (int b = 0; b < N_TYPES; b++) {
            struct problem p = problem_new(100, 2, 1, 64, 32, types[a], types[b]);
            check(&p, k, 3);
            problem_free(&p);
        }
}

static void test_types(void **state) { (void)state; each_set(pairs_of_types); }

/* Multi-head, grouped and multi-query shapes;
 * head sizes with and without tails; keys and values of other sizes. */
static void shapes(const struct kernels *k) {
    static const struct { int heads, kv_heads, k_dim, v_dim; } shape[] = {
        { 1, 1, 8, 8 }, { 4, 4, 80, 80 }, { 5, 1, 96, 64 }, { 8, 8, 64, 64 },
        { 32, 4, 64, 64 }, { 14, 2, 128, 128 }, { 3, 1, 192, 128 }, { 6, 2, 40, 56 },
        { 9, 3, 72, 24 }, { 71, 1, 64, 64 }, { 130, 1, 16, 16 },
    };
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
        for (int t = 0; t < N_TYPES; t++) {
            if (types[t] != DT_F32 && types[t] != DT_F16 &&
                (shape[i].k_dim % 32 || shape[i].v_dim % 32))
                continue;
            struct problem p = problem_new(70, shape[i].heads, shape[i].kv_heads, shape[i].k_dim,
                                           shape[i].v_dim, types[t], types[t]);
            check(&p, k, 1);
            problem_free(&p);
        }
}

static void test_shapes(void **state) { (void)state; each_set(shapes); }

/* Several segments, prefilled and decoded, with one thread and with two. */
static void same_bits(const struct kernels *k) {
    static const int chunks[] = { 1, 7, 16, 64, 100, 512 };
    for (int t = 0; t < N_TYPES; t++) {
        if (!strcmp(k->name, "scalar") && t != 1) continue;
        struct problem p = problem_new(1100, 4, 2, 32, 32, types[t], types[N_TYPES - 1 - t]);
        size_t bytes = (size_t)p.n * p.shape.n_heads * p.shape.v_dim * sizeof(float);
        omp_set_num_threads(1);
        float *one = problem_run(&p, "full", k, p.n);
        for (int c = 0; c < 6; c++)
            for (int n = 1; n <= 3; n++) {
                if (n > 1 && (t > 1 || (c + n) % 3)) continue;
                omp_set_num_threads(n);
                float *got = problem_run(&p, "full", k, chunks[c]);
                if (memcmp(got, one, bytes))
                    fail_msg("%s, %s: other bits in chunks of %d on %d threads", k->name,
                             dtype_name(types[t]), chunks[c], n);
                free(got);
            }
        free(one);
        problem_free(&p);
    }
}

static void test_same_bits(void **state) {
    (void)state;
    each_set(same_bits);
    omp_set_num_threads(1);
}

/* Scores that climb and fall by hundreds: the reference of the exponentials has to follow. */
static void steep(const struct kernels *k) {
    static const enum dtype type[] = { DT_F32, DT_BF16 };
    for (int i = 0; i < 2; i++) {
        struct problem p = problem_new(700, 2, 1, 32, 32, type[i], type[i]);
        for (int t = 0; t < p.n; t++)
            for (int j = 0; j < 32; j++)
                p.k[t * 32 + j] *= t % 97 == 96 ? 200 : t % 13 == 0 ? 0.01f : 4 * (float)t / p.n;
        check(&p, k, 64);
        check(&p, k, 1);
        problem_free(&p);
    }
}

static void test_steep(void **state) { (void)state; each_set(steep); }

/* A NaN in a key reaches the rows that see it, no other; in a slot past the end it reaches none. */
static void nan_stays(const struct kernels *k) {
    struct problem p = problem_new(200, 2, 1, 16, 16, DT_F16, DT_F16);
    p.k[150 * 16] = NAN;
    float *out = problem_run(&p, "full", k, 50);
    for (int t = 0; t < 200; t++)
        for (int i = 0; i < 32; i++) assert_int_equal(isnan(out[t * 32 + i]) != 0, t >= 150);
    free(out);
    p.k[150 * 16] = 0;
    p.v[199 * 16] = NAN;
    out = problem_run(&p, "full", k, 1);
    for (int i = 0; i < 199 * 32; i++) assert_false(isnan(out[i]));
    assert_true(isnan(out[199 * 32]) && isnan(out[199 * 32 + 16]) && !isnan(out[199 * 32 + 1]));
    free(out);
    problem_free(&p);
}

static void test_nan(void **state) { (void)state; each_set(nan_stays); }

static void test_counters(void **state) {
    (void)state;
    struct problem p = problem_new(90, 4, 2, 16, 16, DT_F32, DT_F32);
    struct kv_shape shape = { .n_layers = 1, .n_kv_heads = 2, .k_dim = 16, .v_dim = 16,
                              .type_k = DT_F32, .type_v = DT_F32 };
    struct kvcache *kv;
    struct attn *attn;
    struct err err;
    uint64_t keys, rows;
    float *out = malloc(90 * 64 * sizeof *out);
    assert_int_equal(kv_open(&kv, &shape, &err), 0);
    assert_int_equal(kv_reserve(kv, 90, &err), 0);
    assert_int_equal(attn_open(&attn, "full", &p.shape, kernels_pick(NULL), &err), 0);
    kv_append(kv, 0, 0, 90, p.k, p.v);
    attn_run(attn, out, p.q, kv, 0, 0, 90);
    attn_counters(attn, &keys, &rows);
    assert_int_equal(rows, 90 * 4);
    assert_int_equal(keys, 90 * 91 / 2 * 4);
    assert_true(attn_scratch_bytes(attn) > 0);
    attn_close(attn);
    kv_close(kv);
    free(out);
    problem_free(&p);
}

static void test_names(void **state) {
    (void)state;
    struct attn_shape s = { .n_layers = 1, .n_heads = 2, .n_kv_heads = 1, .k_dim = 8,
                            .v_dim = 8, .max_batch = 4, .scale = 1 };
    struct attn *attn;
    struct err err;
    char help[4096];
    assert_int_equal(attn_open(&attn, "full", &s, kernels_pick(NULL), &err), 0);
    assert_string_equal(attn_name(attn), "full");
    assert_string_equal(attn_params(attn), "");
    attn_close(attn);
    assert_int_equal(attn_open(&attn, "fulll", &s, kernels_pick(NULL), &err), -1);
    assert_non_null(strstr(err.msg, "full"));
    assert_int_equal(attn_open(&attn, "full,sink=4", &s, kernels_pick(NULL), &err), -1);
    assert_non_null(strstr(err.msg, "sink"));
    s.n_heads = 3, s.n_kv_heads = 2;
    assert_int_equal(attn_open(&attn, "full", &s, kernels_pick(NULL), &err), -1);
    attn_help(help, sizeof help);
    assert_non_null(strstr(help, "full "));
}

int main(void) {
    omp_set_num_threads(1);                                /* but where threads are the question */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lengths), cmocka_unit_test(test_types), cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_same_bits), cmocka_unit_test(test_steep), cmocka_unit_test(test_nan),
        cmocka_unit_test(test_counters), cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
