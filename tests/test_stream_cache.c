/* Mode stream with rope=cache: against attention in double that really rotates every
 * key by its index in the cache, and through models of one layer, which must answer
 * as if the tokens between the sinks and the window had never been. */
#include "tests/common/attend.h"
#include "model/session.h"
#include "tests/common/check.h"
#include "tests/common/temp.h"
#include "tests/common/tiny.h"
#include <float.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Turns x, of dim floats, by `by` positions. */
static void turn(double *to, const float *x, const struct attn_shape *s, double by) {
    for (int i = 0; i < s->k_dim; i++) to[i] = x[i];
    for (int p = 0; p < s->n_rot / 2; p++) {
        const int a = s->rope_split ? p : 2 * p, b = s->rope_split ? p + s->n_rot / 2 : 2 * p + 1;
        const double c = cos(by * s->rope_freq[p]), sn = sin(by * s->rope_freq[p]);
        to[a] = x[a] * c - x[b] * sn;
        to[b] = x[a] * sn + x[b] * c;
    }
}

/* What StreamingLLM computes: visible keys are numbered 0, 1, ... and
 * rotated by their number, the query by the last. */
static double *reference(const struct problem *p, int sink, int recent, double *tolerance) {
    const struct attn_shape *s = &p->shape;
    const int kd = s->k_dim, vd = s->v_dim, group = s->n_heads / s->n_kv_heads;
    struct pair full = pair_open(p, "full", kernels_pick(NULL), p->n);
    float *k = malloc((size_t)kd * sizeof *k),
          *scrap = malloc((size_t)p->n * s->n_heads * vd * sizeof *scrap);
    float *v = malloc((size_t)p->n * vd * sizeof *v);
    double *tq = malloc((size_t)kd * sizeof *tq), *tk = malloc((size_t)kd * sizeof *tk),
           *w = malloc((size_t)p->n * sizeof *w);
    double *out = calloc((size_t)p->n * s->n_heads * vd, sizeof *out), largest = 0, value = 0;
    pair_feed(full, p, 0, p->n, scrap);
    for (int h = 0; h < s->n_heads; h++)
        for (int t = 0; t < p->n; t++) {
            const int gone = t > sink + recent ? t - sink - recent : 0;
            double top = -INFINITY, sum = 0, *o = out + ((size_t)t * s->n_heads + h) * vd;
            turn(tq, p->q + ((size_t)t * s->n_heads + h) * kd, s, -gone);
            for (int j = 0; j <= t; j++) {
                w[j] = -INFINITY;
                if (j >= sink && j < t - recent) continue;
                double qq = 0, kk = 0, dot = 0;
                kv_read(full.kv, 0, h / group, j, k, v + (size_t)j * vd);
                turn(tk, k, s, j < sink ? 0 : -gone);
                for (int i = 0; i < kd; i++)
                    dot += tq[i] * tk[i], qq += tq[i] * tq[i], kk += tk[i] * tk[i];
                w[j] = s->scale * dot;
                top = fmax(top, w[j]);
                largest = fmax(largest, s->scale * sqrt(qq * kk));
                for (int i = 0; i < vd; i++) value = fmax(value, fabs(v[(size_t)j * vd + i]));
            }
            for (int j = 0; j <= t; j++) sum += w[j] = exp(w[j] - top);
            for (int j = 0; j <= t; j++)
                for (int i = 0; w[j] > 0 && i < vd; i++) o[i] += w[j] / sum * v[(size_t)j * vd + i];
        }
    /* As in attend.c; two more roundings for the turned query. */
    *tolerance = value * (2 * ((kd + 5) * FLT_EPSILON * largest + 3e-7) + p->n * FLT_EPSILON);
    pair_close(full);
    free(k), free(v), free(scrap), free(tq), free(tk), free(w);
    return out;
}

/* Both forms of RoPE, heads that rotate in part, sinks of several tiles and segments;
 * any chunk and any number of threads give the same bits. Up to sink + recent it
 * is full attention to the bit, behind that no longer stream's. */
static void test_against_rotation(void **state) {
    static const struct {
        int sink, recent, n, n_rot, split; enum dtype k, v; const char *kernels;
    } cases[] = {
        { 1, 2, 60, 32, 0, DT_F32, DT_F32, NULL },
        { 4, 28, 300, 32, 1, DT_F16, DT_Q8_0, NULL },
        { 4, 60, 300, 20, 0, DT_Q8_0, DT_F16, NULL },
        { 70, 5, 250, 20, 1, DT_F32, DT_F32, "scalar" },
        { 3, 0, 80, 32, 1, DT_F32, DT_F32, NULL },
        { 600, 50, 800, 32, 0, DT_F32, DT_F32, NULL },
        { 0, 9, 100, 32, 0, DT_F32, DT_F32, NULL },
        { 9, 4, 150, 32, 0, DT_Q4_0, DT_BF16, NULL },
    };
    static const int chunks[] = { 1, 7, 64 };
    double freq[16];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int pairs = cases[i].n_rot / 2, sink = cases[i].sink, recent = cases[i].recent;
        const struct kernels *kernels = kernels_pick(cases[i].kernels);
        char text[96], plain[64];
        double tolerance;
        for (int f = 0; f < pairs; f++) freq[f] = pow(1000, -(double)f / pairs);
        struct problem p = problem_new(cases[i].n, 6, 2, 32, 32, cases[i].k, cases[i].v);
        p.shape.rope_freq = freq, p.shape.n_rot = cases[i].n_rot,
        p.shape.rope_split = cases[i].split;
        snprintf(plain, sizeof plain, "stream,sink=%d,recent=%d", sink, recent);
        snprintf(text, sizeof text, "%s,rope=cache", plain);
        const size_t row = 6 * 32, size = row * sizeof(float);
        double *want = reference(&p, sink, recent, &tolerance);
        float *whole = problem_run(&p, text, kernels, p.n),
              *absolute = problem_run(&p, plain, kernels, p.n);
        float *full = problem_run(&p, "full", kernels, p.n);
        const double error = largest_error(whole, want, (size_t)p.n * row);
        if (error > tolerance) fail_msg("%s: off by %g, allowed %g", text, error, tolerance);
        for (int t = 0; t < p.n; t++) {
            const int within = t <= sink + recent;
            if (within) assert_memory_equal(whole + t * row, full + t * row, size);
            if (!memcmp(whole + t * row, absolute + t * row, size) != (within || !sink))
                fail_msg("%s: token %d", text, t);
        }
        for (int c = 0; c < 3; c++) {
            omp_set_num_threads(1 + c);
            float *got = problem_run(&p, text, kernels, chunks[c]);
            assert_memory_equal(got, whole, (size_t)p.n * size);
            free(got);
        }
        omp_set_num_threads(1);
        free(want), free(whole), free(absolute), free(full);
        problem_free(&p);
    }
}

static float *say(const struct model *model, const char *attn, const int32_t *ids, int n, int batch,
                  size_t *kv) {
    const struct session_options o = { .n_ctx = n, .batch = batch, .type_k = DT_F32,
                                       .type_v = DT_F32, .attn = attn };
    struct session *s;
    struct err err = { .msg = "" };
    float *logits = malloc((size_t)model->c.n_vocab * sizeof *logits);
    if (session_open(&s, model, &o, &err)) fail_msg("%s", err.msg);
    for (int pos = 0; pos < n; pos += batch) {
        if (session_eval(s, ids + pos, n - pos < batch ? n - pos : batch, &err))
            fail_msg("%s", err.msg);
        if (kv && pos >= n / 2 && *kv && session_kv_bytes(s) != *kv)
            fail_msg("memory grows at %d", pos);
        if (kv) *kv = session_kv_bytes(s);
    }
    memcpy(logits, session_logits(s), (size_t)model->c.n_vocab * sizeof *logits);
    session_close(s);
    return logits;
}

static double distance(const float *a, const float *b, int n) {
    double d = 0;
    for (int i = 0; i < n; i++) d = fmax(d, fabs((double)a[i] - b[i]));
    return d;
}

/* A text of fifty windows, in memory that does not grow, ends as the
 * sinks and the last window alone would. */
static void test_models(void **state) {
    enum { SINK = 4, RECENT = 36, N = 50 * (SINK + RECENT) };
    static const struct tiny models[] = {
        { .type = DT_F32, .n_layers = 1, .n_embd = 64, .n_ff = 64, .n_heads = 4, .n_kv_heads = 2,
          .n_vocab = 101, .n_rot = 8, .rope_factors = true, .seed = 5 },
        { .arch = "qwen2", .type = DT_F32, .n_layers = 1, .n_embd = 64, .n_ff = 64, .n_heads = 4,
          .n_kv_heads = 4, .n_vocab = 101, .biases = true, .scaling = "yarn", .factor = 4,
          .seed = 6 },
    };
    int32_t ids[N], kept[SINK + RECENT + 1];
    uint64_t seed = 3;
    (void)state;
    for (int i = 0; i < N; i++) ids[i] = (int32_t)(noise(&seed) % 101);
    for (int i = 0; i < SINK; i++) kept[i] = ids[i];
    for (int i = 0; i <= RECENT; i++) kept[SINK + i] = ids[N - RECENT - 1 + i];
    for (int m = 0; m < 2; m++) {
        const char *path = temp_path("cache.gguf");
        struct gguf *file;
        struct model *model;
        struct err err = { .msg = "" };
        size_t kv = 0;
        tiny_write(path, &models[m]);
        if (gguf_open(&file, path, NULL, &err) ||
            model_open(&model, file,
                       &(struct model_options){ .kernels = kernels_pick(NULL) }, &err))
            fail_msg("%s", err.msg);
        float *want = say(model, "full", kept, SINK + RECENT + 1, 32, NULL);
        float *got = say(model, "stream,sink=4,recent=36,rope=cache", ids, N, 32, &kv);
        float *absolute = say(model, "stream,sink=4,recent=36", ids, N, 32, NULL), norm = 0;
        for (int i = 0; i < 101; i++) norm = fmaxf(norm, fabsf(want[i]));
        const double off = distance(got, want, 101) / norm,
                     other = distance(absolute, want, 101) / norm;
        if (off > 2e-5 || other < 1e-3)
            fail_msg("model %d: off by %g, absolute positions by %g", m, off, other);
        free(want), free(got), free(absolute);
        model_close(model);
        gguf_close(file);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_against_rotation),
                                        cmocka_unit_test(test_models) };
    omp_set_num_threads(1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
