/* attention.c - the kernel: one KV head of one sequence at a time, forward and backward.
 *
 * Everything is done transposed. A product of 32 keys and 64 queries has the queries along the
 * vector, so that maxima, sums and masks of queries are vectors and nothing is added across one. */
#include "attention.h"
#include <stdlib.h>
#include "attention_layout.h"
#include "attention_product.h"

static const float LOG2E = 1.44269504f, LN2 = 0.69314718f;
static const float HIDDEN = -1e30f, NOTHING = -1e20f;   /* a masked logit; the maximum of none */

/* ---- one KV head of one sequence, and one block of queries of one of its heads ---- */

struct work {
    const struct attention *a;
    void (*multiply)(const struct product *);
    int dim;
    size_t tokens, width, b, g, first_query;
    const float *cs, *bias;             /* of sequence b */
    const int32_t *until;               /* of KV head g */
    int32_t *until_max;                 /* [tokens / 32] 1 + the last query that sees a block */
    bf16 *keys, *values;                /* [tokens][dim] */
    bf16 *keys_t, *values_t;            /* [tokens / 32][dim][32] */
    float *dkeys, *dvalues;             /* [tokens][dim] */
    uint32_t *seen;                     /* the key blocks that the query block sees */
    size_t n_seen;
};

static void find_ends(struct work *w) {
    for (size_t k = 0; k < w->tokens / KEYS; k++) {
        int32_t most = w->until ? 0 : (int32_t)w->tokens;
        for (size_t i = 0; w->until && i < KEYS; i++)
            if (w->until[k * KEYS + i] > most) most = w->until[k * KEYS + i];
        w->until_max[k] = most;
    }
}

static void list_seen(struct work *w, size_t first_query) {
    w->first_query = first_query, w->n_seen = 0;
    for (size_t k = 0; k < (first_query + QUERIES) / KEYS; k++)
        if (w->until_max[k] > (int32_t)first_query) w->seen[w->n_seen++] = (uint32_t)k;
}

/* 64 bits, from `first` to `end` - 1 set; either may lie outside. */
INLINE uint64_t lanes(int64_t first, int64_t end) {
    if (first < 0) first = 0;
    if (end > 64) end = 64;
    if (first >= end) return 0;
    return (end == 64 ? ~(uint64_t)0 : ((uint64_t)1 << end) - 1) & ~(uint64_t)0 << first;
}

/* What turns the product of a key with 64 queries into logits, base 2. */
struct key_row {
    uint64_t visible, far;
    float bias;
};

INLINE struct key_row key_row(const struct work *w, size_t key) {
    int64_t k = (int64_t)key - (int64_t)w->first_query;
    int64_t end = (w->until ? w->until[key] : (int64_t)w->tokens) - (int64_t)w->first_query;
    struct key_row r = { lanes(k, end), 0, 0 };
    if (w->bias) r.far = lanes(k + w->a->near + 1, QUERIES), r.bias = w->bias[key] * LOG2E;
    return r;
}

INLINE int is_simple(struct key_row r) {
    return r.visible == ~(uint64_t)0 && (r.far == 0 || r.far == ~(uint64_t)0);
}

/* Vector v of the row; scale in base 2. */
INLINE vec logits(struct key_row r, int simple, const float *s, int v, vec scale) {
    vec x = load(s + v * LANES);
    if (simple) return fma_(x, scale, all(r.far ? r.bias : 0));
    x = fma_(x, scale, pick((uint16_t)(r.far >> v * LANES), all(r.bias), all(0)));
    return pick((uint16_t)(r.visible >> v * LANES), x, all(HIDDEN));
}

/* <key, query> of one key block with 64 queries, or <value, dout>:
 * s[32][64] = rows[32][dim] x words[dim / 2][64]. */
static void score(const struct work *w, float *s, const bf16 *rows, const uint32_t *words) {
    struct product p = { .c = s, .b = words, .ldc = QUERIES, .lda = (size_t)w->dim, .ldb = QUERIES,
                         .m = KEYS, .n = QUERIES, .steps = w->dim / KEYS };
    for (int i = 0; i < p.steps; i++) p.a[i] = rows + i * KEYS;
    w->multiply(&p);
}

/* sum[dim][64] += of n key blocks, blocks_t[block][dim][32] x words[n * 16][64]. */
static void gather(const struct work *w, float *sum, const bf16 *blocks_t, const uint32_t *block,
                   int n, const uint32_t *words) {
    struct product p = { .c = sum, .b = words, .ldc = QUERIES, .lda = KEYS, .ldb = QUERIES,
                         .m = w->dim, .n = QUERIES, .steps = n, .add = 1 };
    for (int i = 0; i < n; i++) p.a[i] = blocks_t + (size_t)block[i] * (size_t)w->dim * KEYS;
    w->multiply(&p);
}

/* sum[32][dim] += weights[32][64] x words[32][dim]: what a key block gets from 64 queries. */
static void spread(const struct work *w, float *sum, const bf16 *weights, const uint32_t *words) {
    struct product p = { .c = sum, .b = words, .ldc = (size_t)w->dim, .lda = QUERIES,
                         .ldb = (size_t)w->dim, .m = KEYS, .n = w->dim, .steps = QUERIES / KEYS,
                         .add = 1 };
    for (int i = 0; i < p.steps; i++) p.a[i] = weights + i * KEYS;
    w->multiply(&p);
}

/* The rotated queries of one head's block, as rows. */
static void read_queries(const struct work *w, bf16 *rows, const bf16 *qkv, size_t head) {
    const struct attention *a = w->a;
    size_t first = w->b * w->tokens + w->first_query;
    read_rows(rows, qkv + first * w->width + head * (size_t)w->dim, w->width, QUERIES, w->dim);
    rotate_rows(a, rows, w->cs + w->first_query * (size_t)a->n_pairs * 2, QUERIES);
}

static void read_keys_and_values(const struct work *w, const bf16 *qkv) {
    const struct attention *a = w->a;
    size_t head = (size_t)a->query_heads + w->g, dim = (size_t)w->dim;
    const bf16 *s = qkv + w->b * w->tokens * w->width;
    read_rows(w->keys, s + head * dim, w->width, w->tokens, w->dim);
    read_rows(w->values, s + (head + (size_t)a->kv_heads) * dim, w->width, w->tokens, w->dim);
    rotate_rows(a, w->keys, w->cs, w->tokens);
}

/* ---- forward ---- */

struct softmax {
    float max[QUERIES], sum[QUERIES];   /* base 2 */
    float out[MAX_HEAD * QUERIES];      /* [dim][64], over 2^max */
};

/* A maximum may lag by 2^8 before all is rescaled: nothing overflows and it seldom happens. */
static void raise_max(struct softmax *m, const vec top[VECTORS], int dim) {
    int rise = 0;
    for (int v = 0; v < VECTORS; v++)
        rise |= any_above(top[v], add(load(m->max + v * LANES), all(8)));
    if (!rise) return;
    for (int v = 0; v < VECTORS; v++) {
        vec old = load(m->max + v * LANES), now = max_(old, top[v]), f = exp2_(sub(old, now));
        store(m->max + v * LANES, now);
        store(m->sum + v * LANES, mul(f, load(m->sum + v * LANES)));
        for (int d = 0; d < dim; d++) {
            float *o = m->out + d * QUERIES + v * LANES;
            store(o, mul(f, load(o)));
        }
    }
}

/* Products to logits, in place; top: each query's greatest. */
static void find_logits(const struct work *w, float *s, const uint32_t *block, int n, float scale,
                        vec top[VECTORS]) {
    vec c = all(scale);
    for (int v = 0; v < VECTORS; v++) top[v] = all(NOTHING);
    for (int i = 0; i < n * KEYS; i++, s += QUERIES) {
        struct key_row r = key_row(w, (size_t)block[i / KEYS] * KEYS + (size_t)(i % KEYS));
        int simple = is_simple(r);
        for (int v = 0; v < VECTORS; v++) {
            vec x = logits(r, simple, s, v, c);
            store(s + v * LANES, x);
            top[v] = max_(top[v], x);
        }
    }
}

/* Logits to weights, as words. */
static void find_weights(struct softmax *m, uint32_t *words, const float *s, int keys) {
    vec max[VECTORS], sum[VECTORS];
    for (int v = 0; v < VECTORS; v++)
        max[v] = load(m->max + v * LANES), sum[v] = load(m->sum + v * LANES);
    for (int k = 0; k < keys; k += 2, s += 2 * QUERIES, words += QUERIES)
        for (int v = 0; v < VECTORS; v++) {
            vec even = exp2_(sub(load(s + v * LANES), max[v]));
            vec odd = exp2_(sub(load(s + QUERIES + v * LANES), max[v]));
            sum[v] = add(sum[v], add(even, odd));
            store_words(words + v * LANES, even, odd);
        }
    for (int v = 0; v < VECTORS; v++) store(m->sum + v * LANES, sum[v]);
}

static void attend(const struct work *w, struct softmax *m, const uint32_t *queries, float scale) {
    _Alignas(64) float s[GROUP * KEYS * QUERIES];
    _Alignas(64) uint32_t weights[GROUP * KEYS / 2 * QUERIES];
    for (int q = 0; q < QUERIES; q++) m->max[q] = NOTHING, m->sum[q] = 0;
    memset(m->out, 0, (size_t)w->dim * QUERIES * sizeof *m->out);
    for (size_t i = 0; i < w->n_seen; i += GROUP) {
        const uint32_t *block = w->seen + i;
        int n = w->n_seen - i < GROUP ? (int)(w->n_seen - i) : GROUP;
        for (int k = 0; k < n; k++)
            score(w, s + k * KEYS * QUERIES, w->keys + (size_t)block[k] * KEYS * (size_t)w->dim,
                  queries);
        vec top[VECTORS];
        find_logits(w, s, block, n, scale, top);
        raise_max(m, top, w->dim);
        find_weights(m, weights, s, n * KEYS);
        gather(w, m->out, w->values_t, block, n, weights);
    }
}

static void forward_block(const struct work *w, const bf16 *qkv, size_t head, bf16 *out,
                          float *lse) {
    _Alignas(64) bf16 rows[QUERIES * MAX_HEAD];
    _Alignas(64) uint32_t queries[QUERIES * MAX_HEAD / 2];
    _Alignas(64) float o[QUERIES * MAX_HEAD];
    _Alignas(64) struct softmax m;
    size_t heads = (size_t)w->a->query_heads, dim = (size_t)w->dim;
    read_queries(w, rows, qkv, head);
    words_of_rows(queries, rows, QUERIES, w->dim);
    attend(w, &m, queries, w->a->scale[w->b] * LOG2E);
    for (int q = 0; q < QUERIES; q++) {
        lse[(w->b * heads + head) * w->tokens + w->first_query + (size_t)q] =
            m.max[q] * LN2 + logf(m.sum[q]);
        m.sum[q] = 1 / m.sum[q];
    }
    for (int d = 0; d < w->dim; d++)
        for (int q = 0; q < QUERIES; q++) m.out[d * QUERIES + q] *= m.sum[q];
    transpose_queries(o, m.out, w->dim);
    write_rows(out + ((w->b * w->tokens + w->first_query) * heads + head) * dim, heads * dim, o,
               QUERIES, w->dim, 1);
}

/* ---- backward ---- */

/* What the keys of a query block need to know of it. */
struct query_side {
    uint32_t queries[QUERIES * MAX_HEAD / 2], queries_by_column[QUERIES * MAX_HEAD / 2];
    uint32_t douts[QUERIES * MAX_HEAD / 2], douts_by_column[QUERIES * MAX_HEAD / 2];
    float lse[QUERIES], delta[QUERIES];     /* base 2; <dout, out> */
    float dqueries[MAX_HEAD * QUERIES];     /* [dim][64] */
};

/* Products of queries and keys (s) and of douts and values (t) of one key block to weights and
 * logit gradients. */
static void find_gradients(const struct work *w, const struct query_side *y, size_t block,
                           float scale, const float *s, const float *t, bf16 *weights, bf16 *grads,
                           uint32_t *grad_words) {
    vec c = all(scale);
    for (int k = 0; k < KEYS; k += 2) {
        struct key_row r0 = key_row(w, block * KEYS + (size_t)k),
                       r1 = key_row(w, block * KEYS + (size_t)k + 1);
        int simple = is_simple(r0) && is_simple(r1);
        for (int v = 0; v < VECTORS; v += 2) {
            vec p[2][2], d[2][2];
            for (int i = 0; i < 2; i++) {
                vec lse = load(y->lse + (v + i) * LANES), delta = load(y->delta + (v + i) * LANES);
                const float *dp = t + k * QUERIES + (v + i) * LANES;
                p[0][i] = exp2_(sub(logits(r0, simple, s + k * QUERIES, v + i, c), lse));
                p[1][i] = exp2_(sub(logits(r1, simple, s + (k + 1) * QUERIES, v + i, c), lse));
                d[0][i] = mul(p[0][i], sub(load(dp), delta));
                d[1][i] = mul(p[1][i], sub(load(dp + QUERIES), delta));
                store_words(grad_words + k / 2 * QUERIES + (v + i) * LANES, d[0][i], d[1][i]);
            }
            for (int j = 0; j < 2; j++) {
                store_bf16(weights + (k + j) * QUERIES + v * LANES, p[j][0], p[j][1]);
                store_bf16(grads + (k + j) * QUERIES + v * LANES, d[j][0], d[j][1]);
            }
        }
    }
}

static void attend_back(const struct work *w, struct query_side *y, float scale) {
    _Alignas(64) float s[KEYS * QUERIES], t[KEYS * QUERIES];
    _Alignas(64) bf16 weights[KEYS * QUERIES], grads[KEYS * QUERIES];
    _Alignas(64) uint32_t grad_words[GROUP * KEYS / 2 * QUERIES];
    size_t dim = (size_t)w->dim;
    memset(y->dqueries, 0, dim * QUERIES * sizeof *y->dqueries);
    for (size_t i = 0; i < w->n_seen; i += GROUP) {
        int n = w->n_seen - i < GROUP ? (int)(w->n_seen - i) : GROUP;
        for (int k = 0; k < n; k++) {
            size_t block = w->seen[i + (size_t)k], at = block * KEYS * dim;
            score(w, s, w->keys + at, y->queries);
            score(w, t, w->values + at, y->douts);
            find_gradients(w, y, block, scale, s, t, weights, grads,
                           grad_words + k * KEYS / 2 * QUERIES);
            spread(w, w->dvalues + at, weights, y->douts_by_column);
            spread(w, w->dkeys + at, grads, y->queries_by_column);
        }
        gather(w, y->dqueries, w->keys_t, w->seen + i, n, grad_words);
    }
}

static void read_query_side(const struct work *w, struct query_side *y, const bf16 *qkv,
                            const bf16 *out, const float *lse, const bf16 *dout, size_t head) {
    _Alignas(64) bf16 rows[QUERIES * MAX_HEAD];
    size_t heads = (size_t)w->a->query_heads, dim = (size_t)w->dim;
    size_t at = ((w->b * w->tokens + w->first_query) * heads + head) * dim;
    read_queries(w, rows, qkv, head);
    words_of_rows(y->queries, rows, QUERIES, w->dim);
    words_of_columns(y->queries_by_column, rows, QUERIES, w->dim);
    read_rows(rows, dout + at, heads * dim, QUERIES, w->dim);
    words_of_rows(y->douts, rows, QUERIES, w->dim);
    words_of_columns(y->douts_by_column, rows, QUERIES, w->dim);
    for (size_t q = 0; q < QUERIES; q++) {
        const bf16 *o = out + at + q * heads * dim;
        float sum = 0;
        for (size_t d = 0; d < dim; d++) sum += to_float(rows[q * dim + d]) * to_float(o[d]);
        y->delta[q] = sum;
        y->lse[q] = lse[(w->b * heads + head) * w->tokens + w->first_query + q] * LOG2E;
    }
}

static void backward_block(const struct work *w, struct query_side *y, const bf16 *qkv,
                           const bf16 *out, const float *lse, const bf16 *dout, size_t head,
                           bf16 *dqkv) {
    _Alignas(64) float rows[QUERIES * MAX_HEAD];
    float scale = w->a->scale[w->b];
    read_query_side(w, y, qkv, out, lse, dout, head);
    attend_back(w, y, scale * LOG2E);
    transpose_queries(rows, y->dqueries, w->dim);
    unrotate_rows(w->a, rows, w->cs + w->first_query * (size_t)w->a->n_pairs * 2, QUERIES);
    write_rows(dqkv + (w->b * w->tokens + w->first_query) * w->width + head * (size_t)w->dim,
               w->width, rows, QUERIES, w->dim, scale);
}

static void write_dkeys_and_dvalues(const struct work *w, bf16 *dqkv) {
    const struct attention *a = w->a;
    size_t head = (size_t)a->query_heads + w->g, dim = (size_t)w->dim;
    bf16 *d = dqkv + w->b * w->tokens * w->width;
    unrotate_rows(a, w->dkeys, w->cs, w->tokens);
    write_rows(d + head * dim, w->width, w->dkeys, w->tokens, w->dim, a->scale[w->b]);
    write_rows(d + (head + (size_t)a->kv_heads) * dim, w->width, w->dvalues, w->tokens, w->dim, 1);
}

/* ---- the calls ---- */

/* This thread's scratch, kept from call to call: fresh pages would cost more than copying into
 * them does. */
static void *scratch(size_t bytes) {
    static _Thread_local void *kept;
    static _Thread_local size_t size;
    if (bytes <= size) return kept;
    free(kept);
    size = (bytes + 4095) / 4096 * 4096;
    kept = aligned_alloc(4096, size);
    if (!kept) size = 0;
    return kept;
}

static int start_work(struct work *w, const struct attention *a) {
    size_t tokens = (size_t)a->tokens, n = tokens * (size_t)a->head_dim, blocks = tokens / KEYS;
    char *p = scratch(4 * n * sizeof(bf16) + 2 * n * sizeof(float) + 2 * blocks * sizeof(int32_t));
    if (!p) return -1;
    *w = (struct work){ .a = a, .multiply = multiply_plain, .dim = (int)a->head_dim,
                        .tokens = tokens,
                        .width = (size_t)((a->query_heads + 2 * a->kv_heads) * a->head_dim) };
    w->keys = (bf16 *)(void *)p, w->values = w->keys + n,
    w->keys_t = w->values + n, w->values_t = w->keys_t + n;
    w->dkeys = (float *)(void *)(w->values_t + n), w->dvalues = w->dkeys + n;
    w->until_max = (int32_t *)(void *)(w->dvalues + n),
    w->seen = (uint32_t *)(void *)(w->until_max + blocks);
    if (a->amx && amx_usable()) amx_start(), w->multiply = multiply_amx;
    return 0;
}

static void stop_work(const struct work *w) {
    if (w->multiply == multiply_amx) amx_stop();
}

static void start_head(struct work *w, size_t b, size_t g, const bf16 *qkv) {
    const struct attention *a = w->a;
    w->b = b, w->g = g;
    w->cs = a->cs ? a->cs + b * w->tokens * (size_t)a->n_pairs * 2 : NULL;
    w->bias = a->key_bias ? a->key_bias + b * w->tokens : NULL;
    w->until = a->until ? a->until + g * w->tokens : NULL;
    find_ends(w);
    read_keys_and_values(w, qkv);
}

static int fits(const struct attention *a) {
    return a->head_dim > 0 && a->head_dim <= MAX_HEAD && a->head_dim % KEYS == 0 && a->tokens > 0 &&
           a->tokens % QUERIES == 0 && a->kv_heads > 0 && a->query_heads % a->kv_heads == 0;
}

static void forward_head(struct work *w, const bf16 *qkv, bf16 *out, float *lse) {
    size_t ratio = (size_t)(w->a->query_heads / w->a->kv_heads);
    transpose_blocks(w->values_t, w->values, w->tokens, w->dim);
    for (size_t q = 0; q < w->tokens; q += QUERIES) {
        list_seen(w, q);
        for (size_t h = w->g * ratio; h < (w->g + 1) * ratio; h++)
            forward_block(w, qkv, h, out, lse);
    }
}

static void backward_head(struct work *w, const bf16 *qkv, const bf16 *out, const float *lse,
                          const bf16 *dout, bf16 *dqkv) {
    _Alignas(64) struct query_side y;
    size_t ratio = (size_t)(w->a->query_heads / w->a->kv_heads);
    transpose_blocks(w->keys_t, w->keys, w->tokens, w->dim);
    memset(w->dkeys, 0, 2 * w->tokens * (size_t)w->dim * sizeof(float));    /* and dvalues */
    for (size_t q = 0; q < w->tokens; q += QUERIES) {
        list_seen(w, q);
        for (size_t h = w->g * ratio; h < (w->g + 1) * ratio; h++)
            backward_block(w, &y, qkv, out, lse, dout, h, dqkv);
    }
    write_dkeys_and_dvalues(w, dqkv);
}

/* Runs `head` on every KV head of every sequence, shared out over the threads. */
typedef void head_run(struct work *, const bf16 *qkv, const void *tensors);

static int each_head(const struct attention *a, const bf16 *qkv, head_run *head,
                     const void *tensors) {
    if (!fits(a)) return -1;
    int status = 0;
    #pragma omp parallel
    {
        struct work w;
        int ok = !start_work(&w, a);
        #pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < a->batch * a->kv_heads; i++) {
            if (!ok) continue;
            start_head(&w, (size_t)(i / a->kv_heads), (size_t)(i % a->kv_heads), qkv);
            head(&w, qkv, tensors);
        }
        if (ok) stop_work(&w);
        else {
            #pragma omp atomic write
            status = -1;
        }
    }
    return status;
}

struct forward { bf16 *out; float *lse; };
struct backward { const bf16 *out, *dout; const float *lse; bf16 *dqkv; };

static void run_forward(struct work *w, const bf16 *qkv, const void *tensors) {
    const struct forward *t = tensors;
    forward_head(w, qkv, t->out, t->lse);
}

static void run_backward(struct work *w, const bf16 *qkv, const void *tensors) {
    const struct backward *t = tensors;
    backward_head(w, qkv, t->out, t->lse, t->dout, t->dqkv);
}

int attention_forward(const struct attention *a, const bf16 *qkv, bf16 *out, float *lse) {
    return each_head(a, qkv, run_forward, &(struct forward){ out, lse });
}

int attention_backward(const struct attention *a, const bf16 *qkv, const bf16 *out,
                       const float *lse, const bf16 *dout, bf16 *dqkv) {
    return each_head(a, qkv, run_backward, &(struct backward){ out, dout, lse, dqkv });
}
