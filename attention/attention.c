#include "attention/attention.h"
#include "attention/args.h"
#include "attention/correct.h"
#include "attention/flash.h"
#include "attention/mode.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct attn_ops *const modes[] = { &mode_full, &mode_stream, &mode_duo, &mode_hip };
enum { N_MODES = sizeof modes / sizeof *modes };

struct attn {
    struct attn_mode *mode;
    struct flash *flash;
    const struct tile_kernels *tile;
    struct kv_store *stores;               /* NULL: the mode wants everything kept */
    struct correct *correct;               /* NULL: the mode has no anchors */
    struct attn_args args;
    char params[ATTN_ARGS_MAX];
};

static const struct attn_ops *find(const char *text, size_t len) {
    for (int i = 0; i < N_MODES; i++)
        if (strlen(modes[i]->name) == len && !memcmp(modes[i]->name, text, len)) return modes[i];
    return NULL;
}

static int unknown(const char *text, int len, struct err *err) {
    char list[256] = "";
    for (int i = 0; i < N_MODES; i++)
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", modes[i]->name);
    return fail(err, "no attention mode '%.*s'; there are %s", len > 64 ? 64 : len, text, list);
}

static int check_shape(const struct attn_shape *s, struct err *err) {
    if (s->n_layers < 1 || s->n_heads < 1 || s->n_kv_heads < 1 || s->n_heads % s->n_kv_heads || s->k_dim < 1 ||
        s->v_dim < 1 || s->max_batch < 1)
        return fail(err, "attention: impossible shape: %d layers, %d query heads on %d KV heads, heads of %d and %d, "
                         "batches of %d", s->n_layers, s->n_heads, s->n_kv_heads, s->k_dim, s->v_dim, s->max_batch);
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

static int plan_stores(struct attn *a, const struct attn_shape *s, struct err *err) {
    const struct attn_mode *m = a->mode;
    if (!m->ops->store) return 0;
    if (!(a->stores = calloc((size_t)s->n_layers * s->n_kv_heads, sizeof *a->stores)))
        return fail(err, "attention: no memory");
    for (int l = 0; l < s->n_layers; l++)
        for (int g = 0; g < s->n_kv_heads; g++) a->stores[(size_t)l * s->n_kv_heads + g] = m->ops->store(m, l, g);
    return 0;
}

int attn_open(struct attn **out, const char *text, const struct attn_shape *shape, const struct kernels *kernels,
              struct err *err) {
    size_t len = strcspn(text, ",");
    const struct attn_ops *ops = find(text, len);
    if (!ops) return unknown(text, (int)(len > 64 ? 64 : len), err);
    if (check_shape(shape, err)) return -1;
    struct attn *a = calloc(1, sizeof *a);
    if (!a) return fail(err, "attention: no memory");
    a->tile = kernels->tile;
    if (args_parse(&a->args, ops->name, ops->keys, text + len, err) ||
        ops->open(&a->mode, &a->args, shape, err) ||
        plan_stores(a, shape, err) || flash_open(&a->flash, shape, kernels->tile, a->mode, err) ||
        (ops->anchors && correct_open(&a->correct, shape, err))) {
        attn_close(a);
        return -1;
    }
    args_print(&a->args, a->params, sizeof a->params);
    *out = a;
    return 0;
}

void attn_close(struct attn *a) {
    if (!a) return;
    correct_close(a->correct);
    flash_close(a->flash);
    if (a->mode) a->mode->ops->close(a->mode);
    free(a->stores);
    free(a);
}

const char *attn_name(const struct attn *a) { return a->mode->ops->name; }
const char *attn_params(const struct attn *a) { return a->params; }

const struct kv_store *attn_stores(const struct attn *a) { return a->stores; }

void attn_run(struct attn *a, float *out, const float *q, const struct kvcache *kv, int layer, int pos, int n) {
    const struct attn_ops *ops = a->mode->ops;
    if (n < 1) return;
    if (ops->begin) ops->begin(a->mode, &(struct attn_call){ layer, pos, n, q, kv, a->tile });
    flash_run(a->flash, a->mode, out, q, kv, layer, pos, n);
    if (a->correct) correct_run(a->correct, a->flash, out, q, kv, layer, pos, n, ops->anchors(a->mode, layer, pos, n));
}

size_t attn_scratch_bytes(const struct attn *a) { return flash_bytes(a->flash); }

uint64_t attn_searched(const struct attn *a) { return a->mode->ops->searched ? a->mode->ops->searched(a->mode) : 0; }

void attn_counters(const struct attn *a, uint64_t *keys_read, uint64_t *rows) {
    flash_counters(a->flash, keys_read, rows);
    if (a->correct) *rows -= correct_rows(a->correct);     /* these were served before */
}

void attn_help(char *buf, size_t size) {
    size_t used = 0;
    if (size) *buf = 0;
    for (int i = 0; i < N_MODES && used < size; i++) {
        const struct attn_ops *m = modes[i];
        used += (size_t)snprintf(buf + used, size - used, "%-10s %s [%s]\n", m->name, m->about, m->source);
        for (const struct attn_key *k = m->keys; k && k->name && used < size; k++)
            used += (size_t)snprintf(buf + used, size - used, "    %s=%-*s %s\n", k->name,
                                     (int)(18 - strlen(k->name)), k->value, k->help);
    }
}
