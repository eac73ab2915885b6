/* The page masses the attention kernel reveals, against softmax in double: through a mode of the
 * test's own that reads everything and asks for them. */
#include "tests/common/attend.h"           /* before CMocka, which makes a macro of the word fail */
#include "attention/flash.h"
#include "tests/common/check.h"
#include <float.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAGES = 512 };

struct spy {
    struct attn_mode base;
    int ask, by_page;                   /* by_page: a span for each page instead of one for all */
    int calls, n_pages;
    float peak[PAGES], mean[PAGES];
};

static int spy_select(struct attn_mode *m, const struct attn_block *b, struct attn_span *span) {
    const int end = b->pos + b->n, pages = (end + KV_PAGE - 1) / KV_PAGE;
    if (!((struct spy *)m)->by_page) {
        *span = (struct attn_span){ .begin = 0, .end = end };
        return 1;
    }
    for (int u = 0; u < pages; u++)
        span[u] = (struct attn_span){ .begin = u * KV_PAGE, .end = (u + 1) * KV_PAGE };
    return pages;
}

static void spy_take(struct attn_mode *m, const struct attn_masses *x) {
    struct spy *s = (struct spy *)m;
    s->calls++;
    s->n_pages = x->n_pages;
    memcpy(s->peak, x->peak, (size_t)x->n_pages * sizeof *x->peak);
    memcpy(s->mean, x->mean, (size_t)x->n_pages * sizeof *x->mean);
}

static const struct attn_ops spy_ops = { .name = "spy", .select = spy_select,
                                         .take_masses = spy_take };

static struct kvcache *cache_of(const struct problem *p) {
    const struct kv_shape shape = { .n_layers = 1, .n_kv_heads = p->shape.n_kv_heads,
                                    .k_dim = p->shape.k_dim, .v_dim = p->shape.v_dim,
                                    .type_k = p->type_k, .type_v = p->type_v };
    struct kvcache *kv = NULL;
    struct err err;
    if (kv_open(&kv, &shape, &err) || kv_reserve(kv, p->n, &err)) fail_msg("%s", err.msg);
    kv_append(kv, 0, 0, p->n, p->k, p->v);
    return kv;
}

/* The last token of the problem attends; its output, malloc'd, and what the spy saw. */
static float *attend(const struct problem *p, const struct kernels *k, struct spy *spy) {
    struct kvcache *kv = cache_of(p);
    struct flash *f = NULL;
    struct err err;
    float *out = malloc((size_t)p->shape.n_heads * p->shape.v_dim * sizeof *out);
    spy->base = (struct attn_mode){ .ops = &spy_ops, .max_spans = PAGES, .want_masses = spy->ask };
    if (flash_open(&f, &p->shape, k, &spy->base, &err)) fail_msg("%s", err.msg);
    const float *q = p->q + (size_t)(p->n - 1) * p->shape.n_heads * p->shape.k_dim;
    if (p->n > 1)                          /* scratch in use before */
        flash_run(f, &spy->base, out, p->q, kv, 0, p->n - 2, 1);
    flash_run(f, &spy->base, out, q, kv, 0, p->n - 1, 1);
    flash_close(f);
    kv_close(kv);
    return out;
}

/* peak and mean in double, of what the cache holds; returns the relative error that scores in f32
 * may cause, or those of a matrix unit (tile_matrix.h). */
static double naive(const struct problem *p, const struct kernels *k, double *peak, double *mean) {
    const struct attn_shape *s = &p->shape;
    const size_t kd = s->k_dim;
    struct kvcache *kv = cache_of(p);
    float *key = malloc(kd * sizeof *key);
    double *prob = malloc((size_t)s->n_heads * p->n * sizeof *prob), largest = 0;
    for (int h = 0; h < s->n_heads; h++) {
        const float *q = p->q + ((size_t)(p->n - 1) * s->n_heads + h) * kd;
        double *w = prob + (size_t)h * p->n, top = -INFINITY, sum = 0;
        for (int j = 0; j < p->n; j++) {
            double dot = 0, magnitude = 0;
            kv_read(kv, 0, h / (s->n_heads / s->n_kv_heads), j, key, NULL);
            for (size_t i = 0; i < kd; i++)
                dot += (double)q[i] * key[i], magnitude += fabs((double)q[i] * key[i]);
            w[j] = s->scale * dot;
            top = fmax(top, w[j]);
            largest = fmax(largest, s->scale * magnitude);
        }
        for (int j = 0; j < p->n; j++) sum += w[j] = exp(w[j] - top);
        for (int j = 0; j < p->n; j++) w[j] /= sum;
    }
    for (int u = 0; u * KV_PAGE < p->n; u++) peak[u] = mean[u] = 0;
    for (int j = 0; j < p->n; j++) {
        double high = 0;
        for (int h = 0; h < s->n_heads; h++) {
            high = fmax(high, prob[(size_t)h * p->n + j]);
            mean[j / KV_PAGE] += prob[(size_t)h * p->n + j] / s->n_heads;
        }
        peak[j / KV_PAGE] += high;
    }
    free(prob);
    free(key);
    kv_close(kv);
    const double of_term = k->matrix && p->type_k != DT_F32 ? 0x1p-16 : 0;
    /* A score's error enters the weight and the sum. */
    return 2 * ((kd + 3) * FLT_EPSILON + of_term) * largest + 1e-6;
}

static void check(const struct problem *p, const struct kernels *k) {
    static double peak[PAGES], mean[PAGES];
    static struct spy spy, silent;
    const size_t width = (size_t)p->shape.n_heads * p->shape.v_dim;
    const double allowed = naive(p, k, peak, mean);
    spy = (struct spy){ .ask = 1 };
    silent = (struct spy){ 0 };
    float *out = attend(p, k, &spy), *plain = attend(p, k, &silent);
    assert_memory_equal(out, plain, width * sizeof *out);   /* asking changes no output bit */
    assert_int_equal(silent.calls, 0);
    assert_int_equal(spy.calls, p->n > 1 ? 2 : 1);
    assert_int_equal(spy.n_pages, (p->n + KV_PAGE - 1) / KV_PAGE);
    double all = 0, all_mean = 0;
    for (int u = 0; u < spy.n_pages; u++) {
        /* Exponentials too small for a normal float count as 0. */
        if (fabs(spy.peak[u] - peak[u]) > allowed * peak[u] + 1e-30 ||
            fabs(spy.mean[u] - mean[u]) > allowed * mean[u] + 1e-30)
            fail_msg("%s, %d tokens, %d heads on %d of %d, %s: page %d has %g and %g, "
                     "want %g and %g (%g apart at most)", k->name, p->n, p->shape.n_heads,
                     p->shape.n_kv_heads, p->shape.k_dim, dtype_name(p->type_k), u,
                     (double)spy.peak[u], (double)spy.mean[u], peak[u], mean[u], allowed);
        assert_true(spy.peak[u] <= fmin(KV_PAGE, p->shape.n_heads) * (1 + allowed));
        all += spy.peak[u], all_mean += spy.mean[u];
    }
    assert_true(all >= 1 - allowed && all <= p->shape.n_heads * (1 + allowed));
    assert_true(fabs(all_mean - 1) <= allowed);
    free(out);
    free(plain);
}

static void each_set(void (*f)(const struct kernels *)) {
    char names[64];
    snprintf(names, sizeof names, "%s", kernels_names());
    for (char *name = strtok(names, " "); name; name = strtok(NULL, " ")) f(kernels_pick(name));
}

static void lengths(const struct kernels *k) {
    static const int n[] = { 1, 2, 15, 16, 17, 63, 64, 65, 127, 511, 512, 513, 1023, 1025, 2000 };
    struct problem p = problem_new(2000, 6, 2, 24, 8, DT_F32, DT_F32);
    for (size_t i = 0; i < sizeof n / sizeof *n; i++) {
        p.n = n[i];
        check(&p, k);
    }
    problem_free(&p);
}

/* MHA, GQA, MQA, more heads than one sweep takes directly,
 * keys and values of other sizes, every type of key. */
static void shapes(const struct kernels *k) {
    static const struct { int heads, kv_heads, k_dim, v_dim; } shape[] = {
        { 1, 1, 8, 8 }, { 4, 4, 80, 64 }, { 5, 1, 96, 64 }, { 32, 4, 64, 64 }, { 71, 1, 32, 64 },
    };
    static const enum dtype types[] = { DT_F32, DT_F16, DT_BF16, DT_Q8_0, DT_Q4_0 };
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
        for (size_t t = 0; t < 5; t++) {
            if (t > 2 && (shape[i].k_dim % 32 || shape[i].v_dim % 32)) continue;
            struct problem p = problem_new(700, shape[i].heads, shape[i].kv_heads, shape[i].k_dim,
                                           shape[i].v_dim, types[t], types[t]);
            check(&p, k);
            problem_free(&p);
        }
}

/* Scores that climb by hundreds from tile to tile, differently
 * in each head: the running references are worlds apart. */
static void steep(const struct kernels *k) {
    struct problem p = problem_new(1500, 4, 2, 32, 32, DT_F32, DT_F32);
    for (int t = 0; t < p.n; t++)
        for (int i = 0; i < 64; i++)
            p.k[t * 64 + i] *= i < 32 ? 0.1f + 12 * (float)t / p.n : 12 - 12 * (float)t / p.n;
    check(&p, k);
    problem_free(&p);
}

static void test_lengths(void **state) { (void)state; each_set(lengths); }
static void test_shapes(void **state) { (void)state; each_set(shapes); }
static void test_steep(void **state) { (void)state; each_set(steep); }

/* Heads that agree: the peaks are the probabilities, and add up to 1. */
static void test_equal_heads(void **state) {
    (void)state;
    struct problem p = problem_new(300, 6, 2, 16, 16, DT_F32, DT_F32);
    for (int t = 0; t < p.n; t++) {
        memcpy(p.k + t * 32 + 16, p.k + t * 32, 16 * sizeof *p.k);
        for (int h = 1; h < 6; h++)
            memcpy(p.q + (t * 6 + h) * 16, p.q + t * 6 * 16, 16 * sizeof *p.q);
    }
    static struct spy spy;
    spy = (struct spy){ .ask = 1 };
    free(attend(&p, kernels_pick(NULL), &spy));
    double all = 0;
    for (int u = 0; u < spy.n_pages; u++) {
        all += spy.peak[u];
        assert_true(fabs(spy.peak[u] - spy.mean[u]) <= 1e-6 * spy.mean[u]);
    }
    assert_true(fabs(all - 1) < 1e-6);
    problem_free(&p);
}

/* The number of threads, and how the list is cut into spans, change no bit of output or masses. */
static void test_same_bits(void **state) {
    (void)state;
    struct problem p = problem_new(3000, 8, 2, 32, 32, DT_F16, DT_Q8_0);
    static struct spy first, spy;
    first = (struct spy){ .ask = 1 };
    omp_set_num_threads(1);
    float *want = attend(&p, kernels_pick(NULL), &first);
    for (int i = 0; i < 8; i++) {
        static const int threads[] = { 1, 2, 3, 8 };
        omp_set_num_threads(threads[i / 2]);
        spy = (struct spy){ .ask = 1, .by_page = i % 2 };
        float *got = attend(&p, kernels_pick(NULL), &spy);
        assert_memory_equal(got, want, 8 * 32 * sizeof *got);
        assert_memory_equal(spy.peak, first.peak, sizeof spy.peak);
        assert_memory_equal(spy.mean, first.mean, sizeof spy.mean);
        free(got);
    }
    omp_set_num_threads(1);
    free(want);
    problem_free(&p);
}

int main(void) {
    omp_set_num_threads(1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lengths), cmocka_unit_test(test_shapes), cmocka_unit_test(test_steep),
        cmocka_unit_test(test_equal_heads), cmocka_unit_test(test_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
