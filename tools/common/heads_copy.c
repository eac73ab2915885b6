#include "tools/common/heads_copy.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "attention/mode.h"

/* Scratch of one KV head. */
struct look {
    float *k;                          /* [k_dim] */
    float *q;                          /* [k_dim][rows] */
    float *score, *best;               /* [rows] */
    int *at;                           /* [rows] where the best is */
};

struct copies {
    const struct model_config *c;
    const struct heads_sample *sample;
    float *copy;
    struct look *look;                 /* [n_kv_heads] */
};

/* Where the query heads of one KV head look hardest. */
static void look_at_keys(struct copies *p, const struct attn_call *c, int g) {
    const struct heads_sample *s = p->sample;
    const int group = p->c->n_heads / p->c->n_kv_heads, dim = p->c->k_dim,
              rows = s->n_answer * group, from = s->prompt - 1;
    struct look *l = &p->look[g];
    for (int r = 0; r < rows; r++) {
        const float *q = c->q + ((size_t)(from + r / group - c->pos) * p->c->n_heads +
                                 (size_t)g * group + r % group) * dim;
        for (int i = 0; i < dim; i++) l->q[(size_t)i * rows + r] = q[i];
        l->best[r] = -INFINITY, l->at[r] = -1;
    }
    for (int j = 0; j < c->pos + c->n; j++) {
        /* Rows of tokens before j do not see it. */
        const int first = j > from ? (j - from) * group : 0;
        kv_read(c->kv, c->layer, g, j, l->k, NULL);
        memset(l->score, 0, (size_t)rows * sizeof *l->score);
        for (int i = 0; i < dim; i++)
            for (int r = 0; r < rows; r++) l->score[r] += l->k[i] * l->q[(size_t)i * rows + r];
        for (int r = first; r < rows; r++)
            if (l->score[r] > l->best[r]) l->best[r] = l->score[r], l->at[r] = j;
    }
    for (int r = 0; r < rows; r++) {
        const int at = l->at[r], in_needle = at >= s->needle && at < s->needle + s->n_needle;
        if (in_needle && s->ids[at] == s->ids[s->answer + r / group])
            p->copy[(size_t)c->layer * p->c->n_heads + (size_t)g * group + r % group] +=
                1.0f / s->n_answer;
    }
}

static void on_call(void *ctx, const struct attn_call *c) {
    struct copies *p = ctx;
    #pragma omp parallel for schedule(dynamic, 1)
    for (int g = 0; g < p->c->n_kv_heads; g++) look_at_keys(p, c, g);
}

static int look_open(struct look *l, size_t dim, size_t rows) {
    l->k = malloc(dim * sizeof *l->k), l->q = malloc(dim * rows * sizeof *l->q);
    l->score = malloc(rows * sizeof *l->score), l->best = malloc(rows * sizeof *l->best),
    l->at = malloc(rows * sizeof *l->at);
    return l->k && l->q && l->score && l->best && l->at ? 0 : -1;
}

static void look_close(struct look *l) {
    free(l->k);
    free(l->q);
    free(l->score);
    free(l->best);
    free(l->at);
}

int heads_copy(struct heads_probe *probe, const struct model *m, const struct heads_sample *s,
               float *copy, struct err *err) {
    const int heads = m->c.n_kv_heads;
    struct copies p = { .c = &m->c, .sample = s, .copy = copy,
                        .look = calloc((size_t)heads, sizeof *p.look) };
    int rc = p.look ? 0 : -1;
    for (int g = 0; g < heads && !rc; g++)
        rc = look_open(&p.look[g], (size_t)m->c.k_dim,
                       (size_t)s->n_answer * (size_t)(m->c.n_heads / heads));
    if (rc) fail(err, "no memory to look into heads");
    memset(copy, 0, (size_t)m->c.n_layers * (size_t)m->c.n_heads * sizeof *copy);
    if (!rc) rc = heads_probe_watch(probe, on_call, &p, err);
    for (int g = 0; p.look && g < heads; g++) look_close(&p.look[g]);
    free(p.look);
    return rc;
}
