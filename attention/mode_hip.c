/* mode_hip.c - hierarchically pruned attention: each block of queries
 * searches a tree of key positions for the keys that matter to it, and reads
 * those, the first tokens, and a window of recent ones.
 *
 * A mask is searched for a block of `bq` queries while prefilling, for one query while decoding,
 * where it then serves `refresh` steps; its window grows in between, so that no key falls out of
 * sight. All heads of a KV head share a mask unless `owner` says otherwise. The first layers attend
 * to everything, and so do all layers while the context is short. */
#include "attention/hip_params.h"
#include "attention/hip_score.h"
#include "attention/hip_search.h"
#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_max_threads(void) { return 1; }
static int omp_get_thread_num(void) { return 0; }
#endif

/* Queries that share one sample in each stage. */
static const int stage_stride[HIP_STAGES] = { 4, 4, 1 };

/* What an owner reads besides sink and window: blocks of tokens, by where they begin, ascending. */
struct list {
    int *block, n;
    int end;                       /* only keys before it */
    int searched;                  /* the position of the search; the last one, if staged */
    int latest;                    /* the last position that used it */
    unsigned prefills;             /* and how many prefills there had been */
    /* What the stages before the last have kept. */
    int *stage[HIP_STAGES - 1], n_stage[HIP_STAGES - 1];
};

/* What a block was found to be worth. */
struct judged { int block; float score; };

struct worker {
    struct hip_scorer scorer;
    struct hip_scratch scratch;
    struct judged *now, *before;                           /* [2 width] each: see judge_branches */
    void *memory;
};

struct hip {
    struct attn_mode base;
    struct attn_shape shape;
    struct hip_params p;
    int group, n_owners;                   /* query heads of a KV head; masks of a layer */
    int width, block;                      /* most blocks of a list, and their tokens */
    struct list *decode;                   /* [n_layers][n_owners] */
    struct list *prefill;                  /* [blocks of a call][n_owners] */
    struct worker *workers;
    int n_workers;
    int pos, decode_now, sparse;           /* the call that is being served */
    void *memory;
    size_t bytes;
};

static int hip_check(const struct attn_args *args, struct err *err) {
    struct hip_params p;
    return hip_parse(&p, args, err);
}

/* ---- Opening ---- */

/* Lays out the lists; returns the bytes they take. */
static size_t carve_lists(struct list *lists, int n, const struct hip *h, char *memory) {
    size_t used = 0;
    for (int i = 0; i < n; i++)
        for (int s = 0; s < HIP_STAGES; s++) {
            const int last = s == HIP_STAGES - 1;
            size_t room = last ? h->width
                        : h->p.stages == HIP_STAGES ? h->p.keep[s] / h->p.chunk[s] : 0;
            if (memory) *(last ? &lists[i].block : &lists[i].stage[s]) = (int *)(memory + used);
            used += room * sizeof(int);
        }
    return (used + 63) / 64 * 64;
}

static size_t carve_worker(struct worker *w, char *memory, const struct hip *h) {
    int keep = h->width, heads = h->p.owner == HIP_OWNER_LAYER ? h->shape.n_heads : h->group;
    for (int s = 0; h->p.stages == HIP_STAGES && s < HIP_STAGES; s++)
        if (h->p.keep[s] / h->p.chunk[s] > keep) keep = h->p.keep[s] / h->p.chunk[s];
    const size_t judged = (2 * (size_t)h->width * sizeof *w->now + 63) / 64 * 64;
    size_t used = hip_scorer_carve(&w->scorer, memory, &h->shape, heads, h->p.bq);
    used += hip_scratch_carve(&w->scratch, memory ? memory + used : NULL, h->width, keep);
    w->now = memory ? (struct judged *)(memory + used) : NULL;
    w->before = memory ? (struct judged *)(memory + used + judged) : NULL;
    return used + 2 * judged;
}

/* Of what select returns: lists, sink, and the widest window. */
static int most_pages(const struct hip *h) {
    const struct hip_params *p = &h->p;
    const int lists = p->owner == HIP_OWNER_Q ? h->group : 1,
              late = p->stages == 1 ? p->refresh : p->every[0];
    const int near = p->window + (late > p->bq ? late : p->bq);
    const size_t of_block = (size_t)(h->block + KV_PAGE - 2) / KV_PAGE + 1;
    const size_t pages = (size_t)lists * h->width * of_block +
                         (size_t)(p->sink + near) / KV_PAGE + 4;
    const size_t all = h->shape.max_tokens ? (size_t)h->shape.max_tokens / KV_PAGE + 1
                                           : (size_t)INT_MAX / KV_PAGE;
    return (int)(pages < all ? pages : all);
}

static void hip_close(struct attn_mode *m) {
    struct hip *h = (struct hip *)m;
    for (int i = 0; i < h->n_workers; i++) free(h->workers[i].memory);
    free(h->workers);
    free(h->decode);
    free(h->prefill);
    free(h->memory);
    free(h);
}

static void *zeroed(size_t bytes) {
    void *p = aligned_alloc(64, bytes ? bytes : 64);
    if (p) memset(p, 0, bytes);
    return p;
}

static int hip_open(struct attn_mode **out, const struct attn_args *args,
                    const struct attn_shape *shape, struct err *err) {
    struct hip_params p;
    if (hip_parse(&p, args, err)) return -1;
    const int group = shape->n_heads / shape->n_kv_heads;
    if (p.owner == HIP_OWNER_Q && group > 64)
        return fail(err, "attention mode hip: owner=q works for up to 64 heads on a KV head, "
                         "the model has %d", group);
    struct hip *h = calloc(1, sizeof *h);
    if (!h) return fail(err, "attention mode hip: no memory");
    h->shape = *shape;
    h->p = p;
    h->group = group;
    h->n_owners = p.owner == HIP_OWNER_LAYER ? 1
                : p.owner == HIP_OWNER_Q ? shape->n_heads : shape->n_kv_heads;
    h->block = p.stages == 1 ? p.bk : p.chunk[HIP_STAGES - 1];
    h->width = (p.stages == 1 ? p.k : p.keep[HIP_STAGES - 1]) / h->block;
    h->base = (struct attn_mode){
        .ops = &mode_hip, .block = p.bq,
        .max_spans = h->width * (p.owner == HIP_OWNER_Q ? 3 * group : 2) + 3,
        .max_pages = most_pages(h) };
    const int n_decode = shape->n_layers * h->n_owners;
    const int n_prefill = ((shape->max_batch - 1) / p.bq + 2) * h->n_owners;
    h->decode = calloc((size_t)n_decode, sizeof *h->decode);
    h->prefill = calloc((size_t)n_prefill, sizeof *h->prefill);
    h->workers = calloc((size_t)omp_get_max_threads(), sizeof *h->workers);
    if (!h->decode || !h->prefill || !h->workers) goto fail;
    for (int i = 0; i < n_decode; i++) h->decode[i].latest = -2;   /* never used */
    const size_t decode_bytes = carve_lists(h->decode, n_decode, h, NULL);
    const size_t bytes = decode_bytes + carve_lists(h->prefill, n_prefill, h, NULL);
    if (!(h->memory = zeroed(bytes))) goto fail;
    h->bytes = bytes;
    carve_lists(h->decode, n_decode, h, h->memory);
    carve_lists(h->prefill, n_prefill, h, (char *)h->memory + decode_bytes);
    for (; h->n_workers < omp_get_max_threads(); h->n_workers++) {
        struct worker *w = &h->workers[h->n_workers];
        const size_t scratch = carve_worker(w, NULL, h);
        if (!(w->memory = zeroed(scratch))) goto fail;
        h->bytes += scratch;
        carve_worker(w, w->memory, h);
    }
    *out = &h->base;
    return 0;
fail:
    hip_close(&h->base);
    return fail(err, "attention mode hip: no memory");
}

/* ---- Searching ---- */

struct beam {
    const struct hip_params *p;
    struct worker *w;
    int end;
    int n_before;                          /* judged in the round before: w->before */
};

static int representative(enum hip_rep rep, struct hip_branch b) {
    return rep == HIP_CENTRE ? b.start + b.count / 2
         : rep == HIP_FIRST ? b.start : b.start + b.count - 1;
}

/* Keys, or whole pages, that are scored together, and whose score each may be. */
struct batch { int n, what[HIP_SAMPLED], of[HIP_SAMPLED]; };

static void score_batch(struct hip_scorer *s, struct batch *b,
                        void (*score)(struct hip_scorer *, const int *, int, float *),
                        struct judged *judged) {
    float found[HIP_SAMPLED];
    score(s, b->what, b->n, found);
    for (int i = 0; i < b->n; i++)
        if (found[i] > judged[b->of[i]].score) judged[b->of[i]].score = found[i];
    b->n = 0;
}

/* A branch is worth the best sampled key of its representative block, which may
 * have spoken for a longer branch in the round before: it is not read again.
 * Branches come in the order of their blocks. */
static void judge_branches(void *ctx, const struct hip_branch *branch, int n, float *score) {
    struct beam *b = ctx;
    const struct hip_params *p = b->p;
    struct hip_scorer *s = &b->w->scorer;
    struct judged *now = b->w->now, *before = b->w->before;
    struct batch single = { .n = 0 }, pages = { .n = 0 };
    const int in_pages = p->sk == 1 && p->bk % KV_PAGE == 0 && p->sink % KV_PAGE == 0;
    for (int i = 0, at = 0; i < n; i++) {
        now[i] = (struct judged){ representative(p->rep, branch[i]), -__builtin_inff() };
        while (at < b->n_before && before[at].block < now[i].block) at++;
        if (at < b->n_before && before[at].block == now[i].block) {
            now[i].score = before[at].score;
            continue;
        }
        const int from = p->sink + now[i].block * p->bk;
        if (in_pages && hip_all_judge(s, from + p->bk - 1)) {
            if (pages.n + p->bk / KV_PAGE > HIP_SAMPLED)
                score_batch(s, &pages, hip_score_pages, now);
            for (int c = 0; c < p->bk; c += KV_PAGE)
                pages.what[pages.n] = (from + c) / KV_PAGE, pages.of[pages.n++] = i;
            continue;
        }
        if (single.n + p->bk / p->sk > HIP_SAMPLED) score_batch(s, &single, hip_score, now);
        for (int c = p->sk - 1; c < p->bk && from + c < b->end; c += p->sk)
            single.what[single.n] = from + c, single.of[single.n++] = i;
    }
    if (pages.n) score_batch(s, &pages, hip_score_pages, now);
    if (single.n) score_batch(s, &single, hip_score, now);
    for (int i = 0; i < n; i++) score[i] = now[i].score;
    b->w->now = before, b->w->before = now;
    b->n_before = n;
}

static void judge_keys(void *ctx, const int *key, int n, float *score) {
    hip_score(ctx, key, n, score);
}

static struct hip_owner owner_at(const struct hip *h, int i) {
    switch (h->p.owner) {
    case HIP_OWNER_KV: return (struct hip_owner){ i, 1, 0, h->group };
    case HIP_OWNER_Q: return (struct hip_owner){ i / h->group, 1, i % h->group, 1 };
    default: return (struct hip_owner){ 0, h->shape.n_kv_heads, 0, h->group };
    }
}

/* q is of the query at pos, all heads. */
static void search_beam(const struct hip *h, struct worker *w, struct list *l, int layer, int owner,
                        const float *q, int pos, int n) {
    const struct hip_params *p = &h->p;
    l->end = pos + n - p->window;
    l->searched = pos;
    l->n = 0;
    if (l->end <= p->sink) return;
    struct beam beam = { .p = p, .w = w, .end = l->end };
    hip_load(&w->scorer, layer, owner_at(h, owner), q, pos, n, p->sq, 0, p->window);
    l->n = hip_beam(l->block, (l->end - p->sink + p->bk - 1) / p->bk, h->width, judge_branches,
                    &beam, &w->scratch);
    for (int i = 0; i < l->n; i++) l->block[i] = p->sink + l->block[i] * p->bk;
}

/* Stages first.. of the chain; what the ones before have kept is in the list. */
static void search_chain(const struct hip *h, struct worker *w, struct list *l, int layer,
                         int owner, const float *q, int pos, int n, int first) {
    const struct hip_params *p = &h->p;
    const int newest = pos - (p->window - p->chunk[0]);    /* a chunk of overlap with the window */
    l->searched = pos;
    l->end = pos + n;
    if (!first) l->n_stage[0] = 0;
    for (int s = first; s < HIP_STAGES; s++) {
        const int root = p->sink, *parent = s ? l->stage[s - 1] : &root;
        const int parents = s ? l->n_stage[s - 1] : 1;
        const int split = s ? p->chunk[s - 1] / p->chunk[s]
                        : newest < root ? 0 : (newest - root) / p->chunk[0] + 1;
        int *to = s < HIP_STAGES - 1 ? l->stage[s] : l->block;
        hip_load(&w->scorer, layer, owner_at(h, owner), q, pos, n, stage_stride[s], 1, 0);
        int kept = hip_stage(to, parent, parents, split, p->chunk[s], p->keep[s] / p->chunk[s],
                             judge_keys, &w->scorer, &w->scratch);
        *(s < HIP_STAGES - 1 ? &l->n_stage[s] : &l->n) = kept;
    }
}

static void search(const struct hip *h, struct list *l, const struct attn_call *c, int owner,
                   int pos, int n, int first) {
    struct worker *w = &h->workers[omp_get_thread_num()];
    const float *q = c->q + (size_t)(pos - c->pos) * h->shape.n_heads * h->shape.k_dim;
    w->scorer.kv = c->kv;
    w->scorer.tile = c->tile, w->scorer.peak = c->peak, w->scorer.matrix = c->matrix;
    if (h->p.stages == 1) search_beam(h, w, l, c->layer, owner, q, pos, n);
    else search_chain(h, w, l, c->layer, owner, q, pos, n, first);
}

/* The first stage whose time has come, HIP_STAGES if none.
 * Layers take turns, so that no step pays for all of them. */
static int stage_due(const struct hip_params *p, int layer, int pos) {
    if (p->stages == 1) return (pos + layer) % p->refresh ? HIP_STAGES : 0;
    for (int s = 0; s < HIP_STAGES; s++)
        if ((pos + layer) % p->every[s] == 0) return s;
    return HIP_STAGES;
}

static void begin_decode(struct hip *h, const struct attn_call *c, int threads) {
    struct list *lists = h->decode + (size_t)c->layer * h->n_owners;
    const int old = lists->latest != c->pos - 1 || lists->prefills != c->prefills;
    const int due = old ? 0 : stage_due(&h->p, c->layer, c->pos);
    for (int o = 0; o < h->n_owners; o++) lists[o].latest = c->pos, lists[o].prefills = c->prefills;
    if (due == HIP_STAGES) return;
    #pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (h->n_owners > 1)
    for (int o = 0; o < h->n_owners; o++) search(h, &lists[o], c, o, c->pos, 1, due);
}

static void begin_prefill(struct hip *h, const struct attn_call *c, int threads) {
    const int from = c->pos / h->p.bq, blocks = (c->pos + c->n - 1) / h->p.bq - from + 1;
    #pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int i = blocks * h->n_owners - 1; i >= 0; i--) {
        int begin = (from + i / h->n_owners) * h->p.bq, end = begin + h->p.bq;
        if (begin < c->pos) begin = c->pos;
        if (end > c->pos + c->n) end = c->pos + c->n;
        search(h, &h->prefill[i], c, i % h->n_owners, begin, end - begin, 0);
    }
}

static int is_sparse(const struct hip *h, int layer, int pos, int n) {
    return layer >= h->p.dense && pos + n > h->p.until;
}

static void hip_begin(struct attn_mode *m, const struct attn_call *c) {
    struct hip *h = (struct hip *)m;
    const int most = omp_get_max_threads(), threads = most < h->n_workers ? most : h->n_workers;
    h->pos = c->pos;
    h->decode_now = c->decode;
    h->base.scattered = h->sparse = is_sparse(h, c->layer, c->pos, c->n);
    if (h->sparse && c->decode) begin_decode(h, c, threads);
    else if (h->sparse) begin_prefill(h, c, threads);
}

/* ---- Answering ---- */

static int put(struct attn_span *span, int n, int begin, int end, int window, uint64_t heads) {
    if (begin >= end) return n;
    if (n && span[n - 1].end == begin && span[n - 1].window == window &&
        span[n - 1].heads == heads) {
        span[n - 1].end = end;
        return n;
    }
    span[n] = (struct attn_span){ .begin = begin, .end = end, .window = window, .heads = heads };
    return n + 1;
}

/* The lists of all owners that the KV head has, block by block. Where the windows of some queries
 * of the block begin, gaps between selected blocks belong to the window only. */
static int put_lists(const struct hip *h, struct attn_span *span, int n, const struct list *lists,
                     int n_lists, int at, int window, int end) {
    int next[64] = { 0 };
    const uint64_t all = n_lists == 64 ? ~(uint64_t)0 : ((uint64_t)1 << n_lists) - 1;
    for (;;) {
        int begin = end;
        for (int i = 0; i < n_lists; i++)
            if (next[i] < lists[i].n && lists[i].block[next[i]] < begin)
                begin = lists[i].block[next[i]];
        if (begin == end) break;
        uint64_t heads = 0;
        for (int i = 0; i < n_lists; i++)
            if (next[i] < lists[i].n && lists[i].block[next[i]] == begin)
                next[i]++, heads |= (uint64_t)1 << i;
        int stop = begin + h->block < lists->end ? begin + h->block : lists->end;
        if (stop > end) stop = end;
        n = put(span, n, at, begin, window, 0);            /* if begin is behind at */
        n = put(span, n, begin, stop, 0, heads == all ? 0 : heads);
        if (heads != all) n = put(span, n, begin > at ? begin : at, stop, window, all & ~heads);
        if (stop > at) at = stop;
    }
    return put(span, n, at, end, window, 0);
}

static int hip_select(struct attn_mode *m, const struct attn_block *b, struct attn_span *span) {
    const struct hip *h = (struct hip *)m;
    const int end = b->pos + b->n, n_lists = h->p.owner == HIP_OWNER_Q ? h->group : 1;
    if (!h->sparse) {
        *span = (struct attn_span){ .begin = 0, .end = end };
        return 1;
    }
    const struct list *row = h->decode_now
        ? h->decode + (size_t)b->layer * h->n_owners
        : h->prefill + (size_t)(b->pos / h->p.bq - h->pos / h->p.bq) * h->n_owners;
    const struct list *lists = h->p.owner == HIP_OWNER_LAYER
        ? row : row + (size_t)b->kv_head * n_lists;
    const int window = h->p.window + (b->pos - lists->searched);
    int n = put(span, 0, 0, h->p.sink < end ? h->p.sink : end, 0, 0);
    int at = b->pos + 1 - window;
    if (at < h->p.sink) at = h->p.sink;
    return put_lists(h, span, n, lists, n_lists, at, window, end);
}

static int hip_anchors(const struct attn_mode *m, int layer, int pos, int n) {
    const struct hip *h = (const struct hip *)m;
    return !h->decode_now && is_sparse(h, layer, pos, n) ? h->p.delta : 0;
}

static uint64_t hip_searched(const struct attn_mode *m) {
    const struct hip *h = (const struct hip *)m;
    uint64_t sum = 0;
    for (int i = 0; i < h->n_workers; i++) sum += h->workers[i].scorer.scored;
    return sum;
}

static size_t hip_bytes(const struct attn_mode *m) { return ((const struct hip *)m)->bytes; }

const struct attn_ops mode_hip = {
    .name = "hip",
    .about = "a tree search finds the keys that matter (lossy, cost grows as log of the context)",
    .source = "arXiv 2406.09827, 2502.08910, 2505.11254", .keys = hip_keys,
    .check = hip_check, .open = hip_open, .close = hip_close, .begin = hip_begin,
    .select = hip_select, .anchors = hip_anchors, .searched = hip_searched, .bytes = hip_bytes,
};
