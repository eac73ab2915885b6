#include "attention/attention.h"
#include "attention/args.h"
#include "attention/correct.h"
#include "attention/flash.h"
#include "attention/mode.h"
#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct attn_ops *const modes[] = { &mode_full, &mode_stream, &mode_duo, &mode_hip,
                                                &mode_s2, &mode_delta, &mode_moa };
enum { N_MODES = sizeof modes / sizeof *modes };

/* A mode at work, with the kernel that attends for it. */
struct worker {
    struct attn_mode *mode;
    struct flash *flash;
    const struct tile_kernels *tile;
    const struct peak_kernels *peak;
    const struct tile_matrix *matrix;      /* or NULL */
    struct correct *correct;               /* NULL: the mode has no anchors */
    struct attn_args args;
};

struct attn {
    struct worker prefill, decode;         /* decode.mode is NULL if one mode serves both phases */
    struct kv_store *stores;               /* NULL: everything is kept */
    attn_observer *observer;               /* NULL: nobody looks on */
    void *observer_ctx;
    enum attn_phase phase;                 /* 0: as the number of tokens says */
    unsigned prefills;                     /* calls */
    char name[64], params[2 * ATTN_ARGS_MAX + 128];
};

static const struct attn_ops *find(const char *text, size_t len) {
    for (int i = 0; i < N_MODES; i++)
        if (strlen(modes[i]->name) == len && !memcmp(modes[i]->name, text, len)) return modes[i];
    return NULL;
}

static int unknown(const char *text, int len, struct err *err) {
    char list[256] = "";
    for (int i = 0; i < N_MODES; i++)
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "",
                 modes[i]->name);
    return fail(err, "no attention mode '%.*s'; there are %s", len > 64 ? 64 : len, text, list);
}

static int check_shape(const struct attn_shape *s, struct err *err) {
    if (s->n_layers < 1 || s->n_heads < 1 || s->n_kv_heads < 1 || s->n_heads % s->n_kv_heads ||
        s->k_dim < 1 || s->v_dim < 1 || s->max_batch < 1)
        return fail(err, "attention: impossible shape: %d layers, %d query heads on %d KV heads, "
                         "heads of %d and %d, batches of %d",
                    s->n_layers, s->n_heads, s->n_kv_heads, s->k_dim, s->v_dim, s->max_batch);
    return 0;
}

int attn_check(const char *text, struct err *err) {
    const size_t len = strcspn(text, ",");
    const struct attn_ops *ops = find(text, len);
    struct attn_args args;
    if (!ops) return unknown(text, (int)(len > 64 ? 64 : len), err);
    if (args_parse(&args, ops->name, ops->keys, text + len, err)) return -1;
    return ops->check ? ops->check(&args, err) : 0;
}

int attn_check_phases(const char *prefill, const char *decode, struct err *err) {
    if (attn_check(prefill, err) || attn_check(decode, err)) return -1;
    if (!strcmp(prefill, decode)) return 0;
    const struct attn_ops *p = find(prefill, strcspn(prefill, ",")),
                          *d = find(decode, strcspn(decode, ","));
    if (p->no_prefill)
        return fail(err, "%s cannot serve prefill alone: %s", p->name, p->no_prefill);
    if (d->no_decode) return fail(err, "%s cannot serve decode alone: %s", d->name, d->no_decode);
    return 0;
}

/* A store that keeps what each of two would: two rings make the larger one;
 * blocks of different strides, everything. */
static struct kv_store both(struct kv_store a, struct kv_store b) {
    if (!a.ring || !b.ring || a.stride != b.stride || a.block != b.block || a.keep != b.keep)
        return (struct kv_store){ 0 };
    if (b.sink > a.sink) a.sink = b.sink;
    if (b.recent > a.recent) a.recent = b.recent;
    if (b.slack > a.slack) a.slack = b.slack;
    return a;
}

static int plan_stores(struct attn *a, const struct attn_shape *s, struct err *err) {
    const struct attn_mode *p = a->prefill.mode, *d = a->decode.mode ? a->decode.mode : p;
    if (!p->ops->store || !d->ops->store) return 0;
    if (!(a->stores = calloc((size_t)s->n_layers * s->n_kv_heads, sizeof *a->stores)))
        return fail(err, "attention: no memory");
    for (int l = 0; l < s->n_layers; l++)
        for (int g = 0; g < s->n_kv_heads; g++)
            a->stores[(size_t)l * s->n_kv_heads + g] = both(p->ops->store(p, l, g),
                                                            d->ops->store(d, l, g));
    return 0;
}

static int worker_open(struct worker *w, const char *text, const struct attn_shape *shape,
                       const struct kernels *kernels, struct err *err) {
    const size_t len = strcspn(text, ",");
    const struct attn_ops *ops = find(text, len);          /* attn_check has seen it */
    w->tile = kernels->tile, w->peak = kernels->peak, w->matrix = kernels->matrix;
    return args_parse(&w->args, ops->name, ops->keys, text + len, err) ||
           ops->open(&w->mode, &w->args, shape, err) ||
           flash_open(&w->flash, shape, kernels, w->mode, err) ||
           (ops->anchors && correct_open(&w->correct, shape, err)) ? -1 : 0;
}

static void worker_close(struct worker *w) {
    correct_close(w->correct);
    flash_close(w->flash);
    if (w->mode) w->mode->ops->close(w->mode);
}

static void worker_run(struct worker *w, float *out, const float *q, const struct kvcache *kv,
                       int layer, int pos, int n, bool decode, unsigned prefills) {
    const struct attn_ops *ops = w->mode->ops;
    if (ops->begin)
        ops->begin(w->mode, &(struct attn_call){ layer, pos, n, q, kv, w->tile, decode && n == 1,
                                                 prefills, w->peak, w->matrix });
    flash_run(w->flash, w->mode, out, q, kv, layer, pos, n);
    if (w->correct)
        correct_run(w->correct, w->flash, out, q, kv, layer, pos, n,
                    ops->anchors(w->mode, layer, pos, n));
}

static void worker_counters(const struct worker *w, uint64_t *keys_read, uint64_t *rows) {
    flash_counters(w->flash, keys_read, rows);
    if (w->correct) *rows -= correct_rows(w->correct);     /* these were served before */
}

static uint64_t worker_searched(const struct worker *w) {
    return w->mode && w->mode->ops->searched ? w->mode->ops->searched(w->mode) : 0;
}

static void name_both(struct attn *a) {
    const char *p = a->prefill.mode->ops->name,
               *d = a->decode.mode ? a->decode.mode->ops->name : NULL;
    char own[ATTN_ARGS_MAX], other[ATTN_ARGS_MAX];
    args_print(&a->prefill.args, own, sizeof own);
    snprintf(a->name, sizeof a->name, "%s%s%s", p, d ? "+" : "", d ? d : "");
    if (!d) { snprintf(a->params, sizeof a->params, "%s", own); return; }
    args_print(&a->decode.args, other, sizeof other);
    snprintf(a->params, sizeof a->params, "prefill %s%s%s, decode %s%s%s", p, *own ? "," : "", own,
             d, *other ? "," : "", other);
}

int attn_open_phases(struct attn **out, const char *prefill, const char *decode,
                     const struct attn_shape *shape, const struct kernels *kernels,
                     struct err *err) {
    if (check_shape(shape, err) || attn_check_phases(prefill, decode, err)) return -1;
    struct attn *a = calloc(1, sizeof *a);
    if (!a) return fail(err, "attention: no memory");
    if (worker_open(&a->prefill, prefill, shape, kernels, err) ||
        (strcmp(prefill, decode) && worker_open(&a->decode, decode, shape, kernels, err)) ||
        plan_stores(a, shape, err)) {
        attn_close(a);
        if (err) err->usage = 1;
        return -1;
    }
    name_both(a);
    *out = a;
    return 0;
}

int attn_open(struct attn **out, const char *text, const struct attn_shape *shape,
              const struct kernels *kernels, struct err *err) {
    return attn_open_phases(out, text, text, shape, kernels, err);
}

void attn_close(struct attn *a) {
    if (!a) return;
    worker_close(&a->prefill);
    worker_close(&a->decode);
    free(a->stores);
    free(a);
}

const char *attn_name(const struct attn *a) { return a->name; }
const char *attn_params(const struct attn *a) { return a->params; }
const char *attn_warning(const struct attn *a) {
    const char *of_decode = a->decode.mode ? a->decode.mode->warning : NULL;
    return a->prefill.mode->warning ? a->prefill.mode->warning : of_decode;
}
const struct kv_store *attn_stores(const struct attn *a) { return a->stores; }
void attn_phase(struct attn *a, enum attn_phase phase) { a->phase = phase; }
void attn_observe(struct attn *a, attn_observer *fn, void *ctx) {
    a->observer = fn, a->observer_ctx = ctx;
}

void attn_narrow(struct attn *a, const unsigned char *narrow, int sink, int recent) {
    assert(!a->stores);                                    /* a ring may lack what the band wants */
    flash_narrow(a->prefill.flash, narrow, sink, recent);
    if (a->decode.mode) flash_narrow(a->decode.flash, narrow, sink, recent);
}

void attn_run(struct attn *a, float *out, const float *q, const struct kvcache *kv, int layer,
              int pos, int n) {
    const bool decode = a->phase ? a->phase == ATTN_DECODE : n == 1;
    if (n < 1) return;
    if (!decode) a->prefills++;
    if (a->observer)
        a->observer(a->observer_ctx,
                    &(struct attn_call){ layer, pos, n, q, kv, a->prefill.tile, decode && n == 1,
                                         a->prefills, a->prefill.peak, a->prefill.matrix });
    worker_run(decode && a->decode.mode ? &a->decode : &a->prefill, out, q, kv, layer, pos, n,
               decode, a->prefills);
}

static size_t worker_bytes(const struct worker *w) {
    if (!w->mode) return 0;
    return flash_bytes(w->flash) + (w->correct ? correct_bytes(w->correct) : 0) +
           (w->mode->ops->bytes ? w->mode->ops->bytes(w->mode) : 0);
}

size_t attn_scratch_bytes(const struct attn *a) {
    return worker_bytes(&a->prefill) + worker_bytes(&a->decode);
}

uint64_t attn_searched(const struct attn *a) {
    return worker_searched(&a->prefill) + worker_searched(&a->decode);
}

void attn_counters(const struct attn *a, uint64_t *keys_read, uint64_t *rows) {
    worker_counters(&a->prefill, keys_read, rows);
    if (!a->decode.mode) return;
    uint64_t keys, n;
    worker_counters(&a->decode, &keys, &n);
    *keys_read += keys, *rows += n;
}

static void worker_report(const struct worker *w, attn_figure *fn, void *ctx) {
    if (w->mode && w->mode->ops->report) w->mode->ops->report(w->mode, fn, ctx);
}

void attn_report(const struct attn *a, attn_figure *fn, void *ctx) {
    worker_report(&a->prefill, fn, ctx);
    worker_report(&a->decode, fn, ctx);
}

void attn_help(char *buf, size_t size) {
    size_t used = 0;
    if (size) *buf = 0;
    for (int i = 0; i < N_MODES && used < size; i++) {
        const struct attn_ops *m = modes[i];
        used += (size_t)snprintf(buf + used, size - used, "%-10s %s [%s]\n", m->name, m->about,
                                 m->source);
        for (const struct attn_key *k = m->keys; k && k->name && used < size; k++)
            used += (size_t)snprintf(buf + used, size - used, "    %s=%-*s %s\n", k->name,
                                     (int)(18 - strlen(k->name)), k->value, k->help);
    }
}
