#include "model/model.h"
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

/* Looks up NAME, or "blk.LAYER.NAME" for layer >= 0. */
static const struct gguf_tensor *tensor(const struct model *m, int layer, const char *name,
                                        char full[80]) {
    if (layer < 0) snprintf(full, 80, "%s", name);
    else snprintf(full, 80, "blk.%d.%s", layer, name);
    return gguf_tensor(m->file, full);
}

static int bind_matrix(struct model *m, int layer, const char *name, int rows, int cols,
                       struct matrix *out, struct err *err) {
    char full[80];
    const struct gguf_tensor *t = tensor(m, layer, name, full);
    if (!t) return fail(err, "%s: tensor %s is missing", gguf_path(m->file), full);
    if (t->n_dims != 2 || t->ne[0] != (uint64_t)cols || t->ne[1] != (uint64_t)rows)
        return fail(err, "%s: %s is %llu x %llu, wanted %d x %d", gguf_path(m->file), full,
                    (unsigned long long)t->ne[0], (unsigned long long)t->ne[1], cols, rows);
    if (!t->data)
        return fail(err, "%s: %s has type %s, which this engine does not compute with",
                    gguf_path(m->file), full, dtype_name(t->type));
    *out = (struct matrix){ .type = (enum dtype)t->type, .rows = rows, .cols = cols,
                            .data = t->data };
    m->n_params += (uint64_t)rows * cols;
    m->weight_bytes += t->bytes;
    return 0;
}

/* A norm or bias of n floats; any type in the file. Those not stored as F32 are
 * converted into the pool m->f32. */
static int bind_vector(struct model *m, int layer, const char *name, int n, bool optional,
                       size_t *pool, const float **out, struct err *err) {
    char full[80];
    const struct gguf_tensor *t = tensor(m, layer, name, full);
    if (!t) return optional ? 0 : fail(err, "%s: tensor %s is missing", gguf_path(m->file), full);
    if (t->n_dims != 1 || t->ne[0] != (uint64_t)n)
        return fail(err, "%s: %s is %llu x %llu, wanted %d", gguf_path(m->file), full,
                    (unsigned long long)t->ne[0], (unsigned long long)t->ne[1], n);
    if (!t->data)
        return fail(err, "%s: %s has type %s, which this engine does not compute with",
                    gguf_path(m->file), full, dtype_name(t->type));
    m->n_params += (uint64_t)n;
    m->weight_bytes += t->bytes;
    if (t->type == DT_F32 && (uintptr_t)t->data % sizeof(float) == 0) { *out = t->data; return 0; }
    dequant_row((enum dtype)t->type, t->data, m->f32 + *pool, (size_t)n);
    *out = m->f32 + *pool;
    *pool += (size_t)n;
    return 0;
}

static int bind_layer(struct model *m, int l, size_t *pool, struct err *err) {
    const struct model_config *c = &m->c;
    struct layer *y = &m->layers[l];
    const int q = c->n_heads * c->k_dim, k = c->n_kv_heads * c->k_dim, v = c->n_kv_heads * c->v_dim,
              o = c->n_heads * c->v_dim;
    return bind_vector(m, l, "attn_norm.weight", c->n_embd, false, pool, &y->attn_norm, err) ||
           bind_vector(m, l, "ffn_norm.weight", c->n_embd, false, pool, &y->ffn_norm, err) ||
           bind_matrix(m, l, "attn_q.weight", q, c->n_embd, &y->wq, err) ||
           bind_matrix(m, l, "attn_k.weight", k, c->n_embd, &y->wk, err) ||
           bind_matrix(m, l, "attn_v.weight", v, c->n_embd, &y->wv, err) ||
           bind_matrix(m, l, "attn_output.weight", c->n_embd, o, &y->wo, err) ||
           bind_vector(m, l, "attn_q.bias", q, true, pool, &y->bq, err) ||
           bind_vector(m, l, "attn_k.bias", k, true, pool, &y->bk, err) ||
           bind_vector(m, l, "attn_v.bias", v, true, pool, &y->bv, err) ||
           bind_vector(m, l, "attn_output.bias", c->n_embd, true, pool, &y->bo, err) ||
           bind_vector(m, l, "ffn_gate.bias", c->n_ff, true, pool, &y->bgate, err) ||
           bind_vector(m, l, "ffn_up.bias", c->n_ff, true, pool, &y->bup, err) ||
           bind_vector(m, l, "ffn_down.bias", c->n_embd, true, pool, &y->bdown, err) ||
           bind_matrix(m, l, "ffn_gate.weight", c->n_ff, c->n_embd, &y->gate, err) ||
           bind_matrix(m, l, "ffn_up.weight", c->n_ff, c->n_embd, &y->up, err) ||
           bind_matrix(m, l, "ffn_down.weight", c->n_embd, c->n_ff, &y->down, err) ? -1 : 0;
}

/* Once repacked, the file's own copy only costs memory; rows of the embedding come back
 * from disk when they are wanted. */
static int repack(struct model *m, struct matrix *w, struct err *err) {
    if (matrix_pack(m->kernels, w, err)) return -1;
    if (w->packed)
        gguf_release(m->file, w->data, (size_t)w->rows * dtype_row_bytes(w->type, (size_t)w->cols));
    return 0;
}

int model_repack(struct model *m, struct err *err) {
    for (int l = 0; l < m->c.n_layers; l++) {
        struct layer *y = &m->layers[l];
        struct matrix *all[] = { &y->wq, &y->wk, &y->wv, &y->wo, &y->gate, &y->up, &y->down };
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            if (repack(m, all[i], err)) return -1;
    }
    return repack(m, &m->out, err);
}

int model_open(struct model **out, const struct gguf *g, const struct model_options *o,
               struct err *err) {
    int rc = -1;
    struct model *m = calloc(1, sizeof *m);
    if (!m) return fail(err, "no memory for a model");
    m->file = g;
    m->kernels = o && o->kernels ? o->kernels : kernels_pick(NULL);
    if (config_read(&m->c, g, o ? o->rope : NULL, err)) goto done;
    const struct model_config *c = &m->c;
    size_t qkv = (size_t)c->n_heads * c->k_dim + (size_t)c->n_kv_heads * (c->k_dim + c->v_dim);
    size_t vectors = (size_t)c->n_layers * (4 * (size_t)c->n_embd + 2 * (size_t)c->n_ff + qkv) +
                     (size_t)c->n_embd;
    m->layers = calloc((size_t)c->n_layers, sizeof *m->layers);
    m->f32 = malloc(vectors * sizeof *m->f32);
    if (!m->layers || !m->f32) {
        fail(err, "%s: no memory for %d layers", gguf_path(g), c->n_layers);
        goto done;
    }

    size_t pool = 0;
    if (bind_matrix(m, -1, "token_embd.weight", c->n_vocab, c->n_embd, &m->embd, err)) goto done;
    if (bind_vector(m, -1, "output_norm.weight", c->n_embd, false, &pool, &m->out_norm, err))
        goto done;
    m->tied = !gguf_tensor(g, "output.weight");
    if (m->tied) m->out = m->embd;
    else if (bind_matrix(m, -1, "output.weight", c->n_vocab, c->n_embd, &m->out, err)) goto done;
    for (int l = 0; l < c->n_layers; l++)
        if (bind_layer(m, l, &pool, err)) goto done;
    *out = m, m = NULL, rc = 0;
done:
    model_close(m);
    return rc;
}

void model_close(struct model *m) {
    if (!m) return;
    for (int l = 0; m->layers && l < m->c.n_layers; l++) {
        struct layer *y = &m->layers[l];
        struct matrix *all[] = { &y->wq, &y->wk, &y->wv, &y->wo, &y->gate, &y->up, &y->down };
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) matrix_unpack(all[i]);
    }
    matrix_unpack(&m->out);
    free(m->layers);
    free(m->f32);
    free(m);
}

void model_type_name(const struct model *m, char *buf, size_t size) {
    uint64_t bytes[64] = { 0 };
    for (int i = 0; i < gguf_n_tensors(m->file); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(m->file, i);
        if (t->n_dims == 2 && t->type >= 0 && t->type < 64) bytes[t->type] += t->bytes;
    }
    if (size) buf[0] = 0;
    for (;;) {
        int best = 0;
        for (int t = 1; t < 64; t++)
            if (bytes[t] > bytes[best]) best = t;
        if (!bytes[best]) return;
        bytes[best] = 0;
        size_t used = strlen(buf);
        snprintf(buf + used, size - used, "%s%s", used ? " + " : "", dtype_name(best));
    }
}
