/* test_vec.c - every instruction set's vec group against the formulas
 * in double, for every tail length. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "kernels/kernels.h"
#include "kernels/vec.h"

enum { MAX = 70, GUARD = 16 };
static const float canary = 12345;

static const struct kernels *set(int i) {
    static const char *const names[] = { "scalar", "avx2", "avx512", "amx" };
    return kernels_pick(names[i]);
}
#define EACH_SET(k) \
    for (int i_ = 0; i_ < 4; i_++) for (const struct kernels *k = set(i_); k; k = NULL)

static unsigned seed;
static float uniform(float lo, float hi) {
    seed = seed * 1664525u + 1013904223u;
    return lo + (hi - lo) * (float)(seed >> 8) / 16777216.f;
}

/* n values in [-a, a]; behind them, where nothing may be read
 * into a result or written, the canary. */
static void fill(float *x, int n, float a) {
    for (int i = 0; i < MAX + GUARD; i++) x[i] = i < n ? uniform(-a, a) : canary;
}

static void check(const struct kernels *k, int n, const float *got, const double *want,
                  double tolerance) {
    for (int i = 0; i < n; i++)
        if (!(fabs(got[i] - want[i]) <= tolerance * (1 + fabs(want[i]))))
            fail_msg("%s, n = %d, element %d: %.9g, wanted %.9g", k->name, n, i, got[i], want[i]);
    for (int i = n; i < MAX + GUARD; i++)
        if (got[i] != canary) fail_msg("%s, n = %d: wrote past the end, at %d", k->name, n, i);
}

static void rmsnorm(void **state) {
    (void)state;
    float x[MAX + GUARD], w[MAX + GUARD], y[MAX + GUARD];
    double want[MAX];
    EACH_SET(k) for (int n = 1; n <= MAX; n++) {
        fill(x, n, 3), fill(w, n, 2), fill(y, 0, 0);
        double sum = 0;
        for (int i = 0; i < n; i++) sum += (double)x[i] * x[i];
        for (int i = 0; i < n; i++) want[i] = x[i] / sqrt(sum / n + 1e-5f) * w[i];
        k->vec->rmsnorm(y, x, w, n, 1e-5f);
        check(k, n, y, want, n * FLT_EPSILON + 4 * FLT_EPSILON);
        k->vec->rmsnorm(x, x, w, n, 1e-5f);
        assert_memory_equal(x, y, (size_t)n * sizeof *x);
    }
}

static void add(void **state) {
    (void)state;
    float x[MAX + GUARD], y[MAX + GUARD];
    double want[MAX];
    EACH_SET(k) for (int n = 0; n <= MAX; n++) {
        fill(x, n, 3), fill(y, n, 2);
        for (int i = 0; i < n; i++) want[i] = (double)y[i] + x[i];
        k->vec->add(y, x, n);
        check(k, n, y, want, FLT_EPSILON);
    }
}

static void swiglu(void **state) {
    (void)state;
    float g[MAX + GUARD], u[MAX + GUARD], y[MAX + GUARD];
    double want[MAX];
    EACH_SET(k) for (int n = 0; n <= MAX; n++) for (float a = 0.1f; a < 200; a *= 10) {
        fill(g, n, a), fill(u, n, 2), fill(y, 0, 0);
        for (int i = 0; i < n; i++) want[i] = g[i] / (1 + exp(-(double)g[i])) * u[i];
        k->vec->swiglu(y, g, u, n);
        check(k, n, y, want, 8 * FLT_EPSILON);
        k->vec->swiglu(g, g, u, n);
        assert_memory_equal(g, y, (size_t)n * sizeof *g);
    }
}

/* The relative error of exp over the whole range, through the only kernel that shows it. */
static void swiglu_precision(void **state) {
    (void)state;
    float g[64], u[64], y[64];
    EACH_SET(k) for (float from = -80; from < 80; from += 0.37f) {
        for (int i = 0; i < 64; i++) g[i] = from + 0.0057f * (float)i, u[i] = 1;
        k->vec->swiglu(y, g, u, 64);
        for (int i = 0; i < 64; i++) {
            double want = g[i] / (1 + exp(-(double)g[i]));
            if (!(fabs(y[i] - want) <= 4 * FLT_EPSILON * fabs(want)))
                fail_msg("%s: silu(%.9g) = %.9g, wanted %.9g", k->name, g[i], y[i], want);
        }
    }
}

static void swiglu_extremes(void **state) {
    (void)state;
    float g[5] = { NAN, 1e30f, -1e30f, INFINITY, 0 }, u[5] = { 1, 1, 1, 1, 1 }, y[5];
    EACH_SET(k) {
        k->vec->swiglu(y, g, u, 5);
        assert_true(isnan(y[0]));
        assert_true(y[1] == 1e30f);
        assert_true(fabsf(y[2]) < 1e-5f);
        assert_true(isinf(y[3]) && y[3] > 0);
        assert_true(y[4] == 0);
    }
}

static void rotate(const struct kernels *k, int split) {
    float x[MAX + GUARD], cs[MAX + GUARD];
    double want[MAX];
    for (int n = 0; n <= MAX / 2; n++) {
        fill(x, 2 * n, 3), fill(cs, 2 * n, 1);
        for (int p = 0; p < n; p++) {
            int i = split ? p : 2 * p, j = split ? p + n : 2 * p + 1;
            want[i] = (double)x[i] * cs[2 * p] - (double)x[j] * cs[2 * p + 1];
            want[j] = (double)x[i] * cs[2 * p + 1] + (double)x[j] * cs[2 * p];
        }
        (split ? k->vec->rope_split : k->vec->rope)(x, cs, n);
        check(k, 2 * n, x, want, 4 * FLT_EPSILON);
    }
}

static void rope(void **state) { (void)state; EACH_SET(k) rotate(k, 0); }
static void rope_split(void **state) { (void)state; EACH_SET(k) rotate(k, 1); }

static void names(void **state) {
    (void)state;
    assert_null(kernels_pick("altivec"));
    assert_non_null(kernels_pick("scalar"));
    const char *widest = strrchr(kernels_names(), ' ');
    assert_string_equal(kernels_pick(NULL)->name, widest ? widest + 1 : kernels_names());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names), cmocka_unit_test(rmsnorm), cmocka_unit_test(add),
        cmocka_unit_test(swiglu), cmocka_unit_test(swiglu_precision),
        cmocka_unit_test(swiglu_extremes), cmocka_unit_test(rope), cmocka_unit_test(rope_split),
    };
    return cmocka_run_group_tests_name("vec", tests, NULL, NULL);
}
