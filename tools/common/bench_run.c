#include "tools/common/bench_run.h"
#include <math.h>
#include <stdlib.h>
#include <time.h>
#include "base/cpu.h"
#include "kernels/matmul.h"
#include "kvcache/kvcache.h"
#include "tools/common/bench_fill.h"
#include "base/rand.h"

enum { SEED = 1 };

struct lane {
    struct session *s;
    struct bench_fill *fill;
};

struct bench {
    const struct engine *e;
    const struct bench_options *o;
    struct lane lane[FLAG_LIST_MAX];
    int32_t *ids;                          /* random tokens, enough for the longest probe */
    int n_ids;
    double *ns;                            /* [lanes][reps] */
    double keys[FLAG_LIST_MAX], searched[FLAG_LIST_MAX];
    bench_emit emit;
    void *ctx;
};

static int largest(const struct bench_list *l) {
    int max = 0;
    for (int i = 0; i < l->n; i++) if (l->item[i] > max) max = l->item[i];
    return max;
}

/* Random tokens through the model, a chunk at a time. */
static int fill_model(struct bench *b, struct lane *l, int n, struct err *err) {
    engine_threads_prefill(b->e);
    while (n > 0) {
        const int now = n < b->n_ids ? n : b->n_ids;
        if (session_eval(l->s, b->ids, now, err)) return -1;
        n -= now;
    }
    return 0;
}

static int fill(struct bench *b, struct lane *l, int depth, struct err *err) {
    const int n = depth - session_pos(l->s);
    if (b->o->fill_model) return fill_model(b, l, n, err);
    engine_threads_prefill(b->e);
    return session_fill(l->s, n, bench_fill, l->fill, err);
}

/* One repetition; the session is at its depth again afterwards. A decode is fed one random token
 * after another: what is measured is the model, not the sampler. */
static int probe(struct bench *b, struct lane *l, int n, bool decode, double *ns, struct err *err) {
    const int depth = session_pos(l->s);
    if (decode) engine_threads_decode(b->e);
    else engine_threads_prefill(b->e);
    const double start = clock_ms();
    int rc = 0;
    if (decode) for (int i = 0; i < n && !rc; i++) rc = session_eval(l->s, b->ids + i, 1, err);
    else rc = session_eval(l->s, b->ids, n, err);
    *ns = (clock_ms() - start) * 1e6;
    if (rc) return rc;
    if (session_truncate(l->s, depth) == depth) return 0;
    bench_fill_restart(l->fill);           /* a ring that cannot go back so far */
    return fill(b, l, depth, err);
}

static double matrix_ops(const struct matrix *m) { return 2.0 * m->rows * m->cols; }
static double matrix_bytes(const struct matrix *m) {
    return m->packed ? (double)matrix_packed_bytes(m)
                     : (double)m->rows * (double)dtype_row_bytes(m->type, (size_t)m->cols);
}

/* Operations of a probe of n tokens. A prefill carries only its last token through the last block,
 * and one row to the logits (model/forward.h). */
static double work_ops(const struct model *m, int n, bool decode, double keys) {
    const struct model_config *c = &m->c;
    const double attend = 2.0 * c->n_heads * keys * (c->k_dim + c->v_dim);
    double ops = matrix_ops(&m->out) * (decode ? n : 1);
    for (int i = 0; i < c->n_layers; i++) {
        const struct layer *l = &m->layers[i];
        const int rest = decode || i < c->n_layers - 1 ? n : 1;
        ops += n * (matrix_ops(&l->wk) + matrix_ops(&l->wv));
        ops += rest * (matrix_ops(&l->wq) + matrix_ops(&l->wo) + matrix_ops(&l->gate) +
                       matrix_ops(&l->up) + matrix_ops(&l->down) + attend);
    }
    return ops;
}

/* Bytes one decoded token reads: every matrix but the embedding, and the keys of each KV head
 * once for its group of query heads. */
static double token_bytes(const struct engine *e, const struct session *s, double keys) {
    const struct model_config *c = &e->model->c;
    double bytes = matrix_bytes(&e->model->out);
    for (int i = 0; i < c->n_layers; i++) {
        const struct layer *l = &e->model->layers[i];
        const struct matrix *all[] = { &l->wq, &l->wk, &l->wv, &l->wo, &l->gate, &l->up, &l->down };
        for (size_t j = 0; j < sizeof all / sizeof *all; j++) bytes += matrix_bytes(all[j]);
    }
    return bytes + keys * session_token_kv_bytes(s);
}

static void emit_row(struct bench *b, int lane, int n, bool decode, int depth, const char *when) {
    const int reps = b->o->reps;
    const struct engine *e = b->e;
    struct session *s = b->lane[lane].s;
    double *ns = b->ns + (size_t)lane * reps, ts[BENCH_REPS_MAX];
    for (int i = 0; i < reps; i++) ts[i] = n * 1e9 / ns[i];
    const double keys = b->keys[lane];
    struct bench_row r = {
        .lane = lane, .n_lanes = b->o->attn.n, .n_prompt = decode ? 0 : n,
        .n_gen = decode ? n : 0, .n_depth = depth,
        .n_threads = decode ? e->args.threads : e->args.threads_batch, .reps = reps,
        .attn = session_attn_name(s), .attn_params = session_attn_params(s),
        .test_time = when, .ns = ns, .avg_ns = bench_mean(ns, reps),
        .stddev_ns = bench_stddev(ns, reps), .median_ns = bench_median(ns, reps),
        .avg_ts = bench_mean(ts, reps), .stddev_ts = bench_stddev(ts, reps),
        .median_ts = bench_median(ts, reps), .kv_bytes = session_kv_bytes(s),
        .peak_rss = mem_peak_rss(), .keys_read = keys,
        .keys_searched = b->searched[lane],
    };
    r.gflop_per_s = work_ops(e->model, n, decode, keys) / r.median_ns;
    r.gb_per_s = decode ? n * token_bytes(e, s, keys) / r.median_ns : NAN;
    b->emit(b->ctx, e, b->o, &r);
}

static int run_test(struct bench *b, int n, bool decode, int depth, struct err *err) {
    char when[32];
    const time_t now = time(NULL);
    struct tm tm;
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    for (int i = 0; i < b->o->attn.n; i++) session_keys_reset(b->lane[i].s);
    for (int r = 0; r < b->o->reps; r++)
        for (int i = 0; i < b->o->attn.n; i++) {
            if (probe(b, &b->lane[i], n, decode, &b->ns[(size_t)i * b->o->reps + r], err))
                return -1;
        }
    for (int i = 0; i < b->o->attn.n; i++) {
        b->keys[i] = session_keys_read(b->lane[i].s);
        b->searched[i] = session_keys_searched(b->lane[i].s);
        emit_row(b, i, n, decode, depth, when);
    }
    return 0;
}

static int warm_up(struct bench *b, struct err *err) {
    const int p = largest(&b->o->prompt), g = largest(&b->o->gen);
    double ns;
    for (int i = 0; i < b->o->attn.n; i++) {
        if (p && probe(b, &b->lane[i], p < 512 ? p : 512, false, &ns, err)) return -1;
        if (g && probe(b, &b->lane[i], g < 4 ? g : 4, true, &ns, err)) return -1;
    }
    return 0;
}

static int open_lanes(struct bench *b, int n_ctx, struct err *err) {
    struct session_options so = engine_session_options(b->e, n_ctx);
    double need = 0;
    for (int i = 0; i < b->o->attn.n; i++) {
        so.attn = b->o->attn.item[i];
        if (session_open(&b->lane[i].s, b->e->model, &so, err) ||
            bench_fill_open(&b->lane[i].fill, b->e->model, session_batch(b->lane[i].s), SEED, err))
            return -1;
        need += (double)session_kv_bytes_at(b->lane[i].s, n_ctx);
    }
    const double have = (double)mem_available();
    if (have <= 0 || need <= have) return 0;
    char n[32], h[32];
    return fail(err, "%d modes with %d tokens each need %s for keys and values, there are %s "
                     "(fewer -d, --attn; -ctk, -ctv)",
                b->o->attn.n, n_ctx, human_bytes(n, need), human_bytes(h, have));
}

int bench_run(const struct engine *e, const struct bench_options *o, bench_emit emit, void *ctx,
              struct err *err) {
    struct bench b = { .e = e, .o = o, .emit = emit, .ctx = ctx };
    const int p = largest(&o->prompt), g = largest(&o->gen);
    struct rand random = { SEED };
    int rc = -1;
    b.n_ids = p > g ? p : g;
    if (b.n_ids < e->args.batch) b.n_ids = e->args.batch;
    b.ids = malloc((size_t)b.n_ids * sizeof *b.ids);
    b.ns = malloc((size_t)o->attn.n * o->reps * sizeof *b.ns);
    if (!b.ids || !b.ns) { fail(err, "no memory for %d tokens", b.n_ids); goto done; }
    for (int i = 0; i < b.n_ids; i++)
        b.ids[i] = (int32_t)rand_below(&random, (uint32_t)e->model->c.n_vocab);
    if (open_lanes(&b, largest(&o->depth) + (p > g ? p : g), err) ||
        (o->warmup && warm_up(&b, err)))
        goto done;
    for (int d = 0; d < o->depth.n; d++) {
        const int depth = o->depth.item[d];
        for (int i = 0; i < o->attn.n; i++)
            if (fill(&b, &b.lane[i], depth, err)) goto done;
        for (int i = 0; i < o->prompt.n; i++)
            if (o->prompt.item[i] && run_test(&b, o->prompt.item[i], false, depth, err)) goto done;
        for (int i = 0; i < o->gen.n; i++)
            if (o->gen.item[i] && run_test(&b, o->gen.item[i], true, depth, err)) goto done;
    }
    rc = 0;
done:
    for (int i = 0; i < o->attn.n; i++) {
        session_close(b.lane[i].s);
        bench_fill_close(b.lane[i].fill);
    }
    free(b.ids);
    free(b.ns);
    return rc;
}
