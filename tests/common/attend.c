#include "tests/common/attend.h"
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *need(void *p) {
    if (p) return p;
    fprintf(stderr, "out of memory\n");
    abort();
}

static void must(int rc, const struct err *err) {
    if (!rc) return;
    fprintf(stderr, "%s\n", err->msg);
    abort();
}

static float *random_floats(size_t n, uint64_t seed) {
    float *x = need(malloc(n * sizeof *x));
    for (size_t i = 0; i < n; i++) {
        float sum = 0;
        for (int k = 0; k < 4; k++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            sum += (float)(seed >> 40) / (1 << 24) - 0.5f;
        }
        x[i] = 2 * sum;
    }
    return x;
}

struct problem problem_new(int n, int n_heads, int n_kv_heads, int k_dim, int v_dim, enum dtype k,
                           enum dtype v) {
    struct problem p = {
        .shape = { .n_layers = 2, .n_heads = n_heads, .n_kv_heads = n_kv_heads, .k_dim = k_dim,
                   .v_dim = v_dim, .max_batch = n, .max_tokens = n,
                   .scale = 1 / sqrtf((float)k_dim) },
        .type_k = k, .type_v = v, .n = n,
        .q = random_floats((size_t)n * n_heads * k_dim, 1),
        .k = random_floats((size_t)n * n_kv_heads * k_dim, 2),
        .v = random_floats((size_t)n * n_kv_heads * v_dim, 3),
    };
    return p;
}

void problem_free(struct problem *p) {
    free(p->q);
    free(p->k);
    free(p->v);
}

static struct kv_shape cache_shape(const struct problem *p) {
    return (struct kv_shape){ .n_layers = p->shape.n_layers, .n_kv_heads = p->shape.n_kv_heads,
                              .k_dim = p->shape.k_dim, .v_dim = p->shape.v_dim,
                              .type_k = p->type_k, .type_v = p->type_v };
}

struct pair pair_open(const struct problem *p, const char *mode, const struct kernels *kernels,
                      int batch) {
    struct attn_shape shape = p->shape;
    struct kv_shape kv = cache_shape(p);
    struct pair x;
    struct err err;
    shape.max_batch = batch;
    must(attn_open(&x.attn, mode, &shape, kernels, &err), &err);
    kv.stores = attn_stores(x.attn);
    must(kv_open(&x.kv, &kv, &err), &err);
    return x;
}

void pair_close(struct pair x) {
    attn_close(x.attn);
    kv_close(x.kv);
}

void pair_feed(struct pair x, const struct problem *p, int pos, int n, float *out) {
    const struct attn_shape *s = &p->shape;
    struct err err;
    must(kv_reserve(x.kv, pos + n, &err), &err);
    kv_append(x.kv, 0, pos, n, p->k + (size_t)pos * s->n_kv_heads * s->k_dim,
              p->v + (size_t)pos * s->n_kv_heads * s->v_dim);
    attn_run(x.attn, out + (size_t)pos * s->n_heads * s->v_dim,
             p->q + (size_t)pos * s->n_heads * s->k_dim, x.kv, 0, pos, n);
}

float *problem_run(const struct problem *p, const char *mode, const struct kernels *kernels,
                   int chunk) {
    struct pair x = pair_open(p, mode, kernels, chunk);
    float *out = need(malloc((size_t)p->n * p->shape.n_heads * p->shape.v_dim * sizeof *out));
    for (int pos = 0; pos < p->n; pos += chunk)
        pair_feed(x, p, pos, p->n - pos < chunk ? p->n - pos : chunk, out);
    pair_close(x);
    return out;
}

double *problem_naive(const struct problem *p, sees *seen, double *tolerance) {
    const struct attn_shape *s = &p->shape;
    const size_t kd = s->k_dim, vd = s->v_dim;
    struct kvcache *kv;
    struct err err;
    const struct kv_shape shape = cache_shape(p);
    must(kv_open(&kv, &shape, &err), &err);
    must(kv_reserve(kv, p->n, &err), &err);
    kv_append(kv, 0, 0, p->n, p->k, p->v);
    float *k = need(malloc(p->n * kd * sizeof *k)), *v = need(malloc(p->n * vd * sizeof *v));
    double *out = need(calloc((size_t)p->n * s->n_heads * vd, sizeof *out)),
           *w = need(malloc(p->n * sizeof *w));
    double largest_dot = 0, largest_value = 0;
    for (int g = 0; g < s->n_kv_heads; g++) {
        for (int j = 0; j < p->n; j++) kv_read(kv, 0, g, j, k + j * kd, v + j * vd);
        for (size_t i = 0; i < p->n * vd; i++) largest_value = fmax(largest_value, fabs(v[i]));
        for (int t = 0; t < p->n; t++)
            for (int h = g * (s->n_heads / s->n_kv_heads);
                 h < (g + 1) * (s->n_heads / s->n_kv_heads); h++) {
                const float *q = p->q + ((size_t)t * s->n_heads + h) * kd;
                double top = -INFINITY, sum = 0, *o = out + ((size_t)t * s->n_heads + h) * vd;
                for (int j = 0; j <= t; j++) {
                    double dot = 0, magnitude = 0;
                    for (size_t i = 0; i < kd; i++) dot += (double)q[i] * k[j * kd + i];
                    for (size_t i = 0; i < kd; i++) magnitude += fabs((double)q[i] * k[j * kd + i]);
                    w[j] = !seen || seen(h, t, j) ? s->scale * dot : -INFINITY;
                    top = fmax(top, w[j]);
                    largest_dot = fmax(largest_dot, s->scale * magnitude);
                }
                for (int j = 0; j <= t; j++) sum += w[j] = exp(w[j] - top);
                for (int j = 0; j <= t; j++)
                    for (size_t i = 0; i < vd; i++) o[i] += w[j] / sum * v[j * vd + i];
            }
    }
    /* A score is off by at most (k_dim + 3) roundings of its terms; that, and the exponential's own
     * 3e-7, is the relative error of every weight; sums over the keys add one rounding each. */
    double weight = (kd + 3) * FLT_EPSILON * largest_dot + 3e-7;
    *tolerance = largest_value * (2 * weight + p->n * FLT_EPSILON);
    free(k);
    free(v);
    free(w);
    kv_close(kv);
    return out;
}

double largest_error(const float *a, const double *b, size_t n) {
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        double e = fabs(a[i] - b[i]);
        if (!(e <= worst)) worst = isnan(e) ? INFINITY : e;
    }
    return worst;
}
