#include "model/forward.h"
#include <stdlib.h>
#include <string.h>
#include "kernels/vec.h"

struct forward {
    const struct model *m;
    int max_batch;
    struct acts *acts;          /* input of the next product, in the encodings the weights want */
    float *x;                   /* [n][n_embd]  residual stream */
    float *h;                   /* [n][n_embd]  normed input, or output, of a sub-block */
    float *q, *k, *v, *att;     /* [n][H*k_dim] [n][G*k_dim] [n][G*v_dim] [n][H*v_dim] */
    float *gate, *up;           /* [n][n_ff] */
    float *cs;                  /* [n][n_rot]   cosines and sines of this batch's positions */
    double *freq, magnitude;    /* rotation per position of every pair */
    size_t bytes;
};

int forward_open(struct forward **out, const struct model *m, int max_batch, struct err *err) {
    const struct model_config *c = &m->c;
    const size_t n = (size_t)max_batch;
    struct forward *f = calloc(1, sizeof *f);
    if (!f) return fail(err, "no memory for the forward pass");
    f->m = m, f->max_batch = max_batch;
    struct { float **p; size_t floats; } parts[] = {
        { &f->x, n * c->n_embd }, { &f->h, n * c->n_embd },
        { &f->q, n * c->n_heads * c->k_dim }, { &f->k, n * c->n_kv_heads * c->k_dim },
        { &f->v, n * c->n_kv_heads * c->v_dim }, { &f->att, n * c->n_heads * c->v_dim },
        { &f->gate, n * c->n_ff }, { &f->up, n * c->n_ff }, { &f->cs, n * c->rope.n_rot },
    };
    int max_cols = c->n_embd;
    if (c->n_ff > max_cols) max_cols = c->n_ff;
    if (c->n_heads * c->v_dim > max_cols) max_cols = c->n_heads * c->v_dim;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        size_t bytes = (parts[i].floats * sizeof(float) + 63) / 64 * 64;
        if (!(*parts[i].p = aligned_alloc(64, bytes))) {
            fail(err, "no memory: %zu bytes for a batch of %d tokens", bytes, max_batch);
            goto fail;
        }
        f->bytes += bytes;
    }
    if (!(f->freq = malloc((size_t)c->rope.n_rot / 2 * sizeof *f->freq))) {
        fail(err, "no memory for the forward pass");
        goto fail;
    }
    rope_freqs(&c->rope, f->freq, &f->magnitude);
    if (acts_open(&f->acts, max_batch, max_cols, err)) goto fail;
    f->bytes += acts_bytes(f->acts);
    *out = f;
    return 0;
fail:
    forward_close(f);
    return -1;
}

void forward_close(struct forward *f) {
    if (!f) return;
    float *all[] = { f->x, f->h, f->q, f->k, f->v, f->att, f->gate, f->up, f->cs };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    free(f->freq);
    acts_close(f->acts);
    free(f);
}

size_t forward_bytes(const struct forward *f) { return f->bytes; }

/* Rows are tokens, each independent of the others: any split over threads gives the same bits. */
static void norm_rows(const struct forward *f, float *y, const float *x, const float *w, int n) {
    const int d = f->m->c.n_embd;
    #pragma omp parallel for schedule(static) if (n > 1)
    for (int t = 0; t < n; t++)
        f->m->kernels->vec->rmsnorm(y + (size_t)t * d, x + (size_t)t * d, w, d, f->m->c.rms_eps);
}

static void add_rows(const struct forward *f, float *y, const float *x, int n, int d) {
    #pragma omp parallel for schedule(static) if (n > 1)
    for (int t = 0; t < n; t++) f->m->kernels->vec->add(y + (size_t)t * d, x + (size_t)t * d, d);
}

static void add_bias(const struct forward *f, float *y, const float *bias, int n, int d) {
    if (bias)
        for (int t = 0; t < n; t++) f->m->kernels->vec->add(y + (size_t)t * d, bias, d);
}

static void swiglu_rows(const struct forward *f, int n) {
    const int d = f->m->c.n_ff;
    #pragma omp parallel for schedule(static) if (n > 1)
    for (int t = 0; t < n; t++)
        f->m->kernels->vec->swiglu(f->gate + (size_t)t * d, f->gate + (size_t)t * d,
                                   f->up + (size_t)t * d, d);
}

/* Turns every head of n tokens by its token's angles. */
static void rope_rows(const struct forward *f, float *x, int n, int heads) {
    const struct model_config *c = &f->m->c;
    const struct vec_kernels *vec = f->m->kernels->vec;
    void (*turn)(float *, const float *, int) = c->arch->rope_split ? vec->rope_split : vec->rope;
    #pragma omp parallel for schedule(static) if (n > 1)
    for (int t = 0; t < n; t++)
        for (int h = 0; h < heads; h++)
            turn(x + ((size_t)t * heads + h) * c->k_dim, f->cs + (size_t)t * c->rope.n_rot,
                 c->rope.n_rot / 2);
}

void forward_run(struct forward *f, struct kvcache *kv, struct attn *attn, const int32_t *ids,
                 int pos, int n, int n_out) {
    const struct model *m = f->m;
    const struct model_config *c = &m->c;
    const struct kernels *k = m->kernels;
    const int d = c->n_embd, dq = c->n_heads * c->k_dim, dk = c->n_kv_heads * c->k_dim,
              dv = c->n_kv_heads * c->v_dim;
    const int da = c->n_heads * c->v_dim;

    /* Token embeddings, and the angles of their positions. */
    #pragma omp parallel for schedule(static) if (n > 1)
    for (int t = 0; t < n; t++) {
        matrix_row(&m->embd, ids[t], f->x + (size_t)t * d);
        rope_angles(f->freq, f->magnitude, c->rope.n_rot / 2, pos + t,
                    f->cs + (size_t)t * c->rope.n_rot);
    }
    for (int l = 0; l < c->n_layers; l++) {
        const struct layer *w = &m->layers[l];

        /* Queries, keys and values of the normed residual; queries and keys turned by position. */
        norm_rows(f, f->h, f->x, w->attn_norm, n);
        acts_set(f->acts, f->h, n, d);
        const int skip = l == c->n_layers - 1 ? n - n_out : 0;
        const struct product qkv[] = { { f->k, dk, &w->wk }, { f->v, dv, &w->wv },
                                       { f->q, dq, &w->wq } };
        matmul_all(k, qkv, skip ? 2 : 3, f->acts);
        add_bias(f, f->k, w->bk, n, dk);
        add_bias(f, f->v, w->bv, n, dv);
        rope_rows(f, f->k, n, c->n_kv_heads);
        kv_append(kv, l, pos, n, f->k, f->v);

        /* The last block owes nothing to tokens whose logits nobody asks for. */
        if (skip == n) break;
        if (skip) {
            memmove(f->x, f->x + (size_t)skip * d, (size_t)n_out * d * sizeof *f->x);
            memmove(f->h, f->h + (size_t)skip * d, (size_t)n_out * d * sizeof *f->h);
            memmove(f->cs, f->cs + (size_t)skip * c->rope.n_rot,
                    (size_t)n_out * c->rope.n_rot * sizeof *f->cs);
            acts_set(f->acts, f->h, n_out, d);
            matmul(k, f->q, dq, &w->wq, f->acts);
            pos += skip, n = n_out;
        }
        add_bias(f, f->q, w->bq, n, dq);
        rope_rows(f, f->q, n, c->n_heads);

        /* Attention over the cache, then back into the residual. */
        attn_run(attn, f->att, f->q, kv, l, pos, n);
        acts_set(f->acts, f->att, n, da);
        matmul(k, f->h, d, &w->wo, f->acts);
        add_bias(f, f->h, w->bo, n, d);
        add_rows(f, f->x, f->h, n, d);

        /* Feed-forward: down(silu(gate) * up). */
        norm_rows(f, f->h, f->x, w->ffn_norm, n);
        acts_set(f->acts, f->h, n, d);
        const struct product gate_up[] = { { f->gate, c->n_ff, &w->gate },
                                           { f->up, c->n_ff, &w->up } };
        matmul_all(k, gate_up, 2, f->acts);
        add_bias(f, f->gate, w->bgate, n, c->n_ff);
        add_bias(f, f->up, w->bup, n, c->n_ff);
        swiglu_rows(f, n);
        acts_set(f->acts, f->gate, n, c->n_ff);
        matmul(k, f->h, d, &w->down, f->acts);
        add_bias(f, f->h, w->bdown, n, d);
        add_rows(f, f->x, f->h, n, d);
    }
    if (n_out) norm_rows(f, f->x, f->x, m->out_norm, n_out);
}

const float *forward_hidden(const struct forward *f, int first) {
    return f->x + (size_t)first * f->m->c.n_embd;
}

void forward_logits(struct forward *f, int first, int n, float *logits) {
    acts_set(f->acts, f->x + (size_t)first * f->m->c.n_embd, n, f->m->c.n_embd);
    matmul(f->m->kernels, logits, f->m->c.n_vocab, &f->m->out, f->acts);
}
