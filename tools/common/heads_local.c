#include "tools/common/heads_local.h"
#include <stdlib.h>
#include <string.h>
#include "attention/mode.h"
#include "kernels/matmul.h"

struct gathered {
    const struct model *m;
    const struct session *s;
    const struct heads_sample *sample;
    struct attn *all, *near;
    unsigned char *narrow;             /* [n_layers][n_kv_heads] all set */
    struct acts *acts;
    float *far;                        /* [n_answer][n_heads][v_dim] o, then o - o' */
    float *one;                        /* likewise: o', then one KV head's part of the difference */
    float *added;                      /* [n_answer][n_embd] */
    float *local;                      /* the caller's */
};

static double squares(const float *x, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)x[i] * x[i];
    return sum;
}

static void on_call(void *ctx, const struct attn_call *c) {
    struct gathered *l = ctx;
    const struct model_config *m = &l->m->c;
    const struct heads_sample *s = l->sample;
    const int from = s->prompt - 1, rows = s->n_answer, wide = m->n_heads * m->v_dim,
              width = wide / m->n_kv_heads;
    const float *q = c->q + (size_t)(from - c->pos) * m->n_heads * m->k_dim,
                *x = session_hidden(l->s, from - c->pos);
    attn_run(l->all, l->far, q, c->kv, c->layer, from, rows);
    attn_run(l->near, l->one, q, c->kv, c->layer, from, rows);
    for (size_t i = 0; i < (size_t)rows * wide; i++) l->far[i] -= l->one[i];
    for (int g = 0; g < m->n_kv_heads; g++) {
        float *score = l->local + (size_t)c->layer * m->n_kv_heads + g;
        double sum = 0;
        memset(l->one, 0, (size_t)rows * wide * sizeof *l->one);
        for (int t = 0; t < rows; t++) {
            const size_t at = (size_t)t * wide + (size_t)g * width;
            memcpy(l->one + at, l->far + at, (size_t)width * sizeof *l->one);
        }
        acts_set(l->acts, l->one, rows, wide);
        matmul(l->m->kernels, l->added, m->n_embd, &l->m->layers[c->layer].wo, l->acts);
        for (int t = 0; t < rows; t++) {
            const double size = squares(x + (size_t)t * m->n_embd, m->n_embd);
            sum += size > 0 ? squares(l->added + (size_t)t * m->n_embd, m->n_embd) / size : 0;
        }
        *score = (float)(sum / rows);
    }
}

static int open_all(struct gathered *l, int sink, int recent, struct err *err) {
    const struct model_config *c = &l->m->c;
    const size_t rows = (size_t)l->sample->n_answer,
                 heads = (size_t)c->n_layers * (size_t)c->n_kv_heads;
    const size_t wide = (size_t)c->n_heads * (size_t)c->v_dim;
    const struct attn_shape shape = { .n_layers = c->n_layers, .n_heads = c->n_heads,
                                      .n_kv_heads = c->n_kv_heads, .k_dim = c->k_dim,
                                      .v_dim = c->v_dim, .max_batch = (int)rows,
                                      .max_tokens = l->sample->n, .scale = c->attn_scale };
    l->narrow = malloc(heads);
    l->far = malloc(rows * wide * sizeof *l->far), l->one = malloc(rows * wide * sizeof *l->one);
    l->added = malloc(rows * (size_t)c->n_embd * sizeof *l->added);
    if (!l->narrow || !l->far || !l->one || !l->added)
        return fail(err, "no memory to compare what heads gather");
    if (acts_open(&l->acts, (int)rows, (int)wide, err) ||
        attn_open(&l->all, "full", &shape, l->m->kernels, err) ||
        attn_open(&l->near, "full", &shape, l->m->kernels, err))
        return -1;
    attn_narrow(l->near, memset(l->narrow, 1, heads), sink, recent);
    return 0;
}

int heads_local(struct heads_probe *probe, const struct model *m, const struct session *s,
                const struct heads_sample *sample, int sink, int recent, float *local,
                struct err *err) {
    struct gathered l = { .m = m, .s = s, .sample = sample, .local = local };
    const int rc = open_all(&l, sink, recent, err) ||
                   heads_probe_watch(probe, on_call, &l, err) ? -1 : 0;
    attn_close(l.all);
    attn_close(l.near);
    acts_close(l.acts);
    free(l.narrow);
    free(l.far);
    free(l.one);
    free(l.added);
    return rc;
}
