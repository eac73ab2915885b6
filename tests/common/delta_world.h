/* delta_world.h - layers of random keys and values in one cache, and mode delta over them,
 * layer by layer: what its tests share.
 *
 * One program includes it once: it is a fixture, with its state. */
#ifndef TESTS_COMMON_DELTA_WORLD_H
#define TESTS_COMMON_DELTA_WORLD_H
#include "tests/common/attend.h"           /* before CMocka, which makes a macro of the word fail */
#include "attention/flash.h"
#include "tests/common/check.h"
#include "tests/common/tiny.h"
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS = 8, HEADS = 8, GROUPS = 2, KD = 32, VD = 32, N = 1200,
       PAGES = (N + KV_PAGE - 1) / KV_PAGE };
#define FULL "full=0,1,2,5"                /* so 2 and 5 select, 3 4 and 6 7 read their lists */
static const int full[LAYERS] = { 1, 1, 1, 0, 0, 1, 0, 0 },
                 selects[LAYERS] = { 0, 0, 1, 0, 0, 1, 0, 0 };

/* N random tokens in every layer, of another seed each. */
struct world { struct problem p[LAYERS]; struct kvcache *kv; };

static struct world w;

static void world_open(enum dtype type_k, enum dtype type_v) {
    const struct kv_shape shape = { .n_layers = LAYERS, .n_kv_heads = GROUPS, .k_dim = KD,
                                    .v_dim = VD, .type_k = type_k, .type_v = type_v };
    struct err err;
    if (kv_open(&w.kv, &shape, &err) || kv_reserve(w.kv, N, &err)) fail_msg("%s", err.msg);
    for (int l = 0; l < LAYERS; l++) {
        uint64_t seed = 100 + (uint64_t)l;
        struct problem *p = &w.p[l];
        *p = problem_new(N, HEADS, GROUPS, KD, VD, type_k, type_v);
        p->shape.n_layers = LAYERS;
        p->shape.scale *= 3;                               /* some keys stand out */
        for (size_t i = 0; i < (size_t)N * HEADS * KD; i++) p->q[i] = (float)noise_normal(&seed);
        for (size_t i = 0; i < (size_t)N * GROUPS * KD; i++) p->k[i] = (float)noise_normal(&seed);
        kv_append(w.kv, l, 0, N, p->k, p->v);
    }
}

static void world_close(void) {
    for (int l = 0; l < LAYERS; l++) problem_free(&w.p[l]);
    kv_close(w.kv);
}

static const float *query(int layer, int pos) { return w.p[layer].q + (size_t)pos * HEADS * KD; }

static struct attn *mode_new(const char *text) {
    struct attn *a = NULL;
    struct err err;
    if (attn_open(&a, text, &w.p[0].shape, kernels_pick(NULL), &err)) fail_msg("%s", err.msg);
    return a;
}

/* One step through all layers: out [LAYERS][HEADS][VD]. */
static void step(struct attn *a, int pos, float *out) {
    for (int l = 0; l < LAYERS; l++)
        attn_run(a, out + (size_t)l * HEADS * VD, query(l, pos), w.kv, l, pos, 1);
}

static uint64_t keys_of(struct attn *a) {
    uint64_t keys, rows;
    attn_counters(a, &keys, &rows);
    return keys;
}

/* The same with the mode in the open, to ask it for spans. */
struct bare { struct attn_mode *mode; struct flash *flash; };

static struct bare bare_open(const char *params) {
    struct attn_args args;
    struct bare b;
    struct err err;
    if (args_parse(&args, "delta", mode_delta.keys, params, &err) ||
        mode_delta.open(&b.mode, &args, &w.p[0].shape, &err) ||
        flash_open(&b.flash, &w.p[0].shape, kernels_pick(NULL), b.mode, &err))
        fail_msg("%s", err.msg);
    return b;
}

static void bare_close(struct bare b) {
    flash_close(b.flash);
    mode_delta.close(b.mode);
}

static void bare_layer(struct bare b, int layer, int pos, int n, int decode, float *out) {
    mode_delta.begin(b.mode, &(struct attn_call){
        .layer = layer, .pos = pos, .n = n, .q = query(layer, pos), .kv = w.kv,
        .tile = kernels_pick(NULL)->tile, .decode = decode });
    flash_run(b.flash, b.mode, out, query(layer, pos), w.kv, layer, pos, n);
}

/* The pages a layer would read now, as marks [PAGES]; their number. */
static int pages_of(struct bare b, int layer, int kv_head, int pos, char *mark) {
    static struct attn_span span[PAGES];
    const struct attn_block block = { .layer = layer, .kv_head = kv_head, .pos = pos, .n = 1,
                                      .kv = w.kv };
    const int n = mode_delta.select(b.mode, &block, span);
    int count = 0, at = -1;
    assert_true(n >= 1 && n <= b.mode->max_spans);
    memset(mark, 0, PAGES);
    for (int i = 0; i < n; i++) {
        assert_true(span[i].begin > at && span[i].begin % KV_PAGE == 0 && !span[i].window &&
                    !span[i].until && !span[i].heads);
        for (at = span[i].begin; at < span[i].end; at += KV_PAGE) mark[at / KV_PAGE] = 1, count++;
    }
    assert_true(mark[pos / KV_PAGE]);
    return count;
}

/* Probabilities of a layer's query at pos in double: [HEADS][pos + 1], malloc'd. */
static double *probabilities(int layer, int pos) {
    double *prob = malloc((size_t)HEADS * (pos + 1) * sizeof *prob);
    float key[KD];
    for (int h = 0; h < HEADS; h++) {
        double *x = prob + (size_t)h * (pos + 1), sum = 0;
        for (int j = 0; j <= pos; j++) {
            double dot = 0;
            kv_read(w.kv, layer, h / (HEADS / GROUPS), j, key, NULL);
            for (int i = 0; i < KD; i++) dot += (double)query(layer, pos)[h * KD + i] * key[i];
            sum += x[j] = exp(w.p[0].shape.scale * dot);
        }
        for (int j = 0; j <= pos; j++) x[j] /= sum;
    }
    return prob;
}

/* Per page: sum over tokens of the largest, and of the mean, probability of any head. */
static void page_scores(int layer, int pos, double *peak, double *mean) {
    double *prob = probabilities(layer, pos);
    for (int u = 0; u < PAGES; u++) peak[u] = mean[u] = 0;
    for (int j = 0; j <= pos; j++) {
        double high = 0;
        for (int h = 0; h < HEADS; h++) {
            high = fmax(high, prob[(size_t)h * (pos + 1) + j]);
            mean[j / KV_PAGE] += prob[(size_t)h * (pos + 1) + j] / HEADS;
        }
        peak[j / KV_PAGE] += high;
    }
    free(prob);
}

static float out[LAYERS * HEADS * VD], want[LAYERS * HEADS * VD];

struct figures { double tokens, lists, recall, far, least; int n; };

static void note(void *ctx, const char *name, double value) {
    struct figures *f = ctx;
    double *const at[] = { &f->tokens, &f->lists, &f->recall, &f->far, &f->least };
    static const char *const names[] = { "sparse_tokens", "lists", "recall", "recall_far",
                                         "recall_min" };
    for (int i = 0; i < 5; i++)
        if (!strcmp(name, names[i])) *at[i] = value, f->n++;
}

static int open_world(void **state) {
    (void)state;
    omp_set_num_threads(1);
    world_open(DT_F16, DT_F16);
    return 0;
}
static int close_world(void **state) { (void)state; world_close(); return 0; }

#endif
