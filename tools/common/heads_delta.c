#include "tools/common/heads_delta.h"
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "attention/flash.h"

/* A mode of our own: it reads everything, and keeps the masses the kernel reveals. */
struct spy {
    struct attn_mode base;
    const float *peak, *mean;          /* of the last call, valid until the next */
};

struct heads_delta {
    struct spy spy;
    struct flash *flash;
    struct delta_share share;
    int n_heads, k_dim, max_tokens, from, step;
    float *out;                        /* [n_heads][v_dim] of no interest */
    uint64_t *scratch;
    int *list;                         /* [rows of the call][n_layers][budget] */
    int room;                          /* rows there is memory for */
    bool failed;
    struct heads_delta_sums sums;
};

static int spy_select(struct attn_mode *m, const struct attn_block *b, struct attn_span *span) {
    (void)m;
    *span = (struct attn_span){ .begin = 0, .end = b->pos + b->n };
    return 1;
}

static void spy_take(struct attn_mode *m, const struct attn_masses *x) {
    struct spy *s = (struct spy *)m;
    s->peak = x->peak, s->mean = x->mean;
}

static const struct attn_ops spy_ops = { .name = "spy", .select = spy_select,
                                         .take_masses = spy_take };

int heads_delta_open(struct heads_delta **out, const struct model *m,
                     const struct delta_share *share, int max_tokens, struct err *err) {
    const struct model_config *c = &m->c;
    const struct attn_shape shape = { .n_layers = c->n_layers, .n_heads = c->n_heads,
                                      .n_kv_heads = c->n_kv_heads, .k_dim = c->k_dim,
                                      .v_dim = c->v_dim, .max_batch = 1,
                                      .max_tokens = max_tokens, .scale = c->attn_scale };
    const size_t n = (size_t)c->n_layers, pages = (size_t)max_tokens / KV_PAGE + 1;
    struct heads_delta *d = calloc(1, sizeof *d);
    if (!d) return fail(err, "no memory");
    d->spy.base = (struct attn_mode){ .ops = &spy_ops, .max_spans = 1, .want_masses = 1 };
    d->share = *share, d->n_heads = c->n_heads, d->k_dim = c->k_dim, d->max_tokens = max_tokens,
    d->step = 1;
    d->sums = (struct heads_delta_sums){ .n_layers = c->n_layers,
                                         .lost = calloc(n * n, sizeof(double)),
                                         .held = calloc(n * n, sizeof(double)),
                                         .best = calloc(n, sizeof(double)),
                                         .far = calloc(n, sizeof(double)) };
    d->out = malloc((size_t)c->n_heads * (size_t)c->v_dim * sizeof *d->out);
    d->scratch = malloc(2 * pages * sizeof *d->scratch);
    if (!d->sums.lost || !d->sums.held || !d->sums.best || !d->sums.far || !d->out || !d->scratch)
        fail(err, "no memory to compare layers");
    else if (!flash_open(&d->flash, &shape, m->kernels, &d->spy.base, err)) {
        *out = d;
        return 0;
    }
    heads_delta_close(d);
    return -1;
}

void heads_delta_close(struct heads_delta *d) {
    if (!d) return;
    flash_close(d->flash);
    free(d->sums.lost);
    free(d->sums.held);
    free(d->sums.best);
    free(d->sums.far);
    free(d->out);
    free(d->scratch);
    free(d->list);
    free(d);
}

void heads_delta_sample(struct heads_delta *d, int from, int step) {
    d->from = from, d->step = step;
}

static bool sampled(const struct heads_delta *d, int pos) {
    return pos >= d->from && (pos - d->from) % d->step == 0 &&
           pos / KV_PAGE + 1 > HEADS_DELTA_FULLER * d->share.budget;
}

/* How much of the mass a list holds: of all of it, or of the far pages alone. */
static double held(const struct heads_delta *d, const float *mass, int n_pages, const int *list,
                   bool far) {
    double sum = 0;
    for (int i = 0; i < d->share.budget; i++)
        if (!far || (list[i] > 0 && list[i] < n_pages - d->share.recent)) sum += mass[list[i]];
    return sum;
}

/* One token of one layer, whose masses the spy has: its own list, and what the lists of the layers
 * before hold of it. lists [n_layers][budget] are the token's. */
static void compare(struct heads_delta *d, int layer, int n_pages, int *lists) {
    struct heads_delta_sums *s = &d->sums;
    const size_t n = (size_t)s->n_layers;
    int *own = lists + (size_t)layer * d->share.budget;
    const float *mean = d->spy.mean;
    delta_choose(own, mean, n_pages, &d->share, d->scratch);
    s->best[layer] += held(d, mean, n_pages, own, true);
    delta_choose(own, d->spy.peak, n_pages, &d->share, d->scratch);
    for (int u = 1; u < n_pages - d->share.recent; u++) s->far[layer] += mean[u];
    for (int i = 0; i <= layer; i++) {
        const int *list = lists + (size_t)i * d->share.budget;
        s->lost[i * n + layer] += 1 - held(d, mean, n_pages, list, false);
        s->held[i * n + layer] += held(d, mean, n_pages, list, true);
    }
}

void heads_delta_observe(void *ctx, const struct attn_call *c) {
    struct heads_delta *d = ctx;
    const size_t each = (size_t)d->sums.n_layers * (size_t)d->share.budget;
    int rows = 0;
    for (int t = 0; t < c->n; t++) rows += sampled(d, c->pos + t);
    if (rows > d->room) {
        int *list = realloc(d->list, (size_t)rows * each * sizeof *list);
        if (!list) { d->failed = true; return; }
        d->list = list, d->room = rows;
    }
    for (int t = 0, row = 0; t < c->n; t++) {
        if (!sampled(d, c->pos + t)) continue;
        flash_run(d->flash, &d->spy.base, d->out, c->q + (size_t)t * d->n_heads * d->k_dim, c->kv,
                  c->layer, c->pos + t, 1);
        compare(d, c->layer, (c->pos + t) / KV_PAGE + 1, d->list + each * (size_t)row++);
    }
    if (c->layer == 0) d->sums.rows += rows;
}

const struct heads_delta_sums *heads_delta_sums(const struct heads_delta *d, struct err *err) {
    if (d->failed) fail(err, "no memory for the lists of %d layers", d->sums.n_layers);
    return d->failed ? NULL : &d->sums;
}
