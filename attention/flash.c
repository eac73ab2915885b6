#include "attention/flash.h"
#include "attention/band.h"
#include "attention/masses.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_max_threads(void) { return 1; }
static int omp_get_thread_num(void) { return 0; }
#endif

enum {
    SEGMENT = 512,         /* keys of one partial result */
    ROWS = 128,            /* query rows of one sweep: tokens x heads of the group */
    IN_FLIGHT = 64,        /* partial results per token and KV head that wait for their merge when keys are split */
    SMALL = 300000,
    BAND_SPANS = 2,        /* of a narrowed head */
};

/* Attention over some of the keys, not yet divided: row r has seen exponentials 2^(s - m[r]) that add up to the lanes
 * of sum[r], and out[r] is the sum of values weighted by them. */
struct partial { float *m, *sum, *out; };       /* [rows], [rows][TILE_LANES], [rows][v_dim] */

/* The rows of one sweep: n tokens from position pos, group heads each. Row t * group + h. */
struct rows { int layer, kv_head, pos, n; };

struct worker {                                 /* the scratch of one thread */
    float *q;                                   /* [rows][k_dim], scaled to give scores in base 2 */
    float *s;                                   /* [rows][TILE] scores, then weights */
    float *k, *v;                               /* one tile as f32 */
    uint64_t *seen;                             /* [rows] keys of the tile each row sees */
    float *turned, *s_capped;                   /* q and s once more, for spans with a cap; NULL in modes without */
    uint64_t *capped;                           /* [rows] keys of the tile each row sees as if nearer */
    struct partial segment, total;
    struct attn_span *spans;                    /* [max_spans] */
    uint64_t keys_read;
    void *memory;
};

/* One segment of one KV head that a split call still has to attend. */
struct piece { int segment, first_span; };

struct flash {
    struct attn_shape shape;
    const struct tile_kernels *tile;
    int group;                                  /* query heads per KV head */
    int rows;                                   /* most rows of one sweep */
    int max_spans, block;
    int turns;                                  /* spans may have a cap */
    double *freq;                               /* [n_rot / 2], if so */
    int n_workers;
    struct worker *workers;
    /* For calls that split the keys of each KV head over threads: */
    struct attn_span *spans;                    /* [n_kv_heads][max_spans] */
    int *n_spans;                               /* [n_kv_heads] */
    struct piece *pieces;                       /* [n_kv_heads][IN_FLIGHT] */
    int *n_pieces;                              /* [n_kv_heads] */
    struct partial parts, totals;               /* [n_kv_heads][IN_FLIGHT * group], [n_kv_heads][rows] */
    void *memory;
    size_t bytes;
    uint64_t rows_done;
    const unsigned char *narrow;                /* [n_layers][n_kv_heads]: heads whose keys the band chooses; or NULL */
    struct band band;
    struct masses *masses;                      /* NULL: the mode never asks for any */
    struct masses *keep;                        /* the same while a call is to reveal them, else NULL */
};

/* ---- Memory: one allocation for what is shared, one per thread, carved into 64-byte aligned pieces ---- */

struct carve { char *at; size_t used; };

static void *carve(struct carve *c, size_t count, size_t size) {
    void *p = c->at ? c->at + c->used : NULL;
    c->used += (count * size + 63) / 64 * 64;
    return p;
}

static struct partial carve_partial(struct carve *c, size_t rows, int v_dim) {
    struct partial p;
    p.m = carve(c, rows, sizeof(float));
    p.sum = carve(c, rows * TILE_LANES, sizeof(float));
    p.out = carve(c, rows * v_dim, sizeof(float));
    return p;
}

static size_t carve_worker(struct worker *w, char *memory, const struct flash *f) {
    struct carve c = { memory, 0 };
    size_t rows = f->rows, kd = f->shape.k_dim, vd = f->shape.v_dim;
    w->memory = memory;
    w->q = carve(&c, rows * kd, sizeof(float));
    w->s = carve(&c, rows * TILE, sizeof(float));
    w->k = carve(&c, TILE * kd, sizeof(float));
    w->v = carve(&c, TILE * vd, sizeof(float));
    w->seen = carve(&c, rows, sizeof(uint64_t));
    if (f->turns) {
        w->turned = carve(&c, rows * kd, sizeof(float));
        w->s_capped = carve(&c, rows * TILE, sizeof(float));
        w->capped = carve(&c, rows, sizeof(uint64_t));
    }
    w->segment = carve_partial(&c, rows, f->shape.v_dim);
    w->total = carve_partial(&c, rows, f->shape.v_dim);
    w->spans = carve(&c, f->max_spans, sizeof *w->spans);
    return c.used;
}

static size_t carve_shared(struct flash *f, char *memory) {
    struct carve c = { memory, 0 };
    size_t heads = f->shape.n_kv_heads;
    f->memory = memory;
    if (f->turns) f->freq = carve(&c, (size_t)f->shape.n_rot / 2, sizeof *f->freq);
    f->spans = carve(&c, heads * f->max_spans, sizeof *f->spans);
    f->n_spans = carve(&c, heads, sizeof *f->n_spans);
    f->pieces = carve(&c, heads * IN_FLIGHT, sizeof *f->pieces);
    f->n_pieces = carve(&c, heads, sizeof *f->n_pieces);
    f->parts = carve_partial(&c, heads * IN_FLIGHT * f->group, f->shape.v_dim);
    f->totals = carve_partial(&c, heads * f->rows, f->shape.v_dim);
    return c.used;
}

/* Zeroed, because the scores of a page that is skipped are read (and ignored). */
static char *memory_new(size_t bytes) {
    char *p = aligned_alloc(64, bytes);
    if (p) memset(p, 0, bytes);
    return p;
}

int flash_open(struct flash **out, const struct attn_shape *shape, const struct tile_kernels *tile,
               const struct attn_mode *mode, struct err *err) {
    struct flash *f = calloc(1, sizeof *f);
    int threads = omp_get_max_threads();
    struct worker *workers = calloc((size_t)threads, sizeof *workers);
    if (!f || !workers) {
        free(f);
        free(workers);
        return fail(err, "attention: no memory");
    }
    *f = (struct flash){ .shape = *shape, .tile = tile, .workers = workers, .max_spans = mode->max_spans,
                         .turns = mode->turns };
    assert(!mode->turns || shape->rope_freq);
    if (f->max_spans < BAND_SPANS) f->max_spans = BAND_SPANS;
    f->group = shape->n_heads / shape->n_kv_heads;
    f->rows = f->group > ROWS ? f->group : ROWS;
    f->block = mode->block ? mode->block : f->rows / f->group;
    f->bytes = carve_shared(f, NULL);
    char *shared = memory_new(f->bytes);
    if (!shared) goto fail;
    carve_shared(f, shared);
    if (f->turns) memcpy(f->freq, shape->rope_freq, (size_t)shape->n_rot / 2 * sizeof *f->freq);
    f->shape.rope_freq = NULL;                             /* borrowed */
    for (; f->n_workers < threads; f->n_workers++) {
        struct worker *w = &workers[f->n_workers];
        size_t bytes = carve_worker(w, NULL, f);
        char *memory = memory_new(bytes);
        if (!memory) goto fail;
        carve_worker(w, memory, f);
        f->bytes += bytes;
    }
    if (mode->ops->take_masses) {
        if (masses_open(&f->masses, tile, shape->n_kv_heads, f->group, shape->max_tokens, err)) {
            flash_close(f);
            return -1;
        }
        f->bytes += f->masses->bytes;
    }
    *out = f;
    return 0;
fail:
    fail(err, "attention: no memory for the scratch of %d threads", threads);
    flash_close(f);
    return -1;
}

void flash_close(struct flash *f) {
    if (!f) return;
    masses_close(f->masses);
    for (int i = 0; i < f->n_workers; i++) free(f->workers[i].memory);
    free(f->workers);
    free(f->memory);
    free(f);
}

void flash_narrow(struct flash *f, const unsigned char *narrow, int sink, int recent) {
    f->narrow = narrow, f->band = (struct band){ .sink = sink, .recent = recent };
}

size_t flash_bytes(const struct flash *f) { return f->bytes; }

void flash_counters(const struct flash *f, uint64_t *keys_read, uint64_t *rows) {
    *keys_read = 0;
    *rows = f->rows_done;
    for (int i = 0; i < f->n_workers; i++) *keys_read += f->workers[i].keys_read;
}

/* ---- One sweep: some rows against the keys of one segment ---- */

static struct partial partial_at(struct partial p, size_t row, int v_dim) {
    return (struct partial){ p.m + row, p.sum + row * TILE_LANES, p.out + row * v_dim };
}

static void partial_clear(struct partial p, int rows, int v_dim) {
    for (int r = 0; r < rows; r++) p.m[r] = -INFINITY;
    memset(p.sum, 0, (size_t)rows * TILE_LANES * sizeof *p.sum);
    memset(p.out, 0, (size_t)rows * v_dim * sizeof *p.out);
}

/* Queries of the rows, side by side; times scale and log2(e), as exponentials are taken in base 2. */
static void load_queries(const struct flash *f, float *dst, const float *q, const struct rows *x) {
    const size_t dim = f->shape.k_dim, width = f->group * dim;
    const float scale = f->shape.scale * 1.44269504f;
    for (int t = 0; t < x->n; t++)
        for (size_t i = 0; i < width; i++)
            dst[t * width + i] = scale * q[t * (size_t)f->shape.n_heads * dim + i];
}

/* Bits lo..hi-1 of a tile. */
static uint64_t bits(int lo, int hi) {
    if (lo < 0) lo = 0;
    if (hi > TILE) hi = TILE;
    if (lo >= hi) return 0;
    return (~(uint64_t)0 >> (TILE - (hi - lo))) << lo;
}

static uint64_t span_bits(const struct attn_span *s, int query, int tile) {
    if (s->until && query >= s->until) return 0;
    int lo = s->begin, hi = s->end < query + 1 ? s->end : query + 1;
    if (s->window && lo < query + 1 - s->window) lo = query + 1 - s->window;
    return bits(lo - tile, hi - tile);
}

/* Which keys of the tile each row sees, and all of them together; *first..*last-1 are the rows that see any. */
static uint64_t look(const struct flash *f, uint64_t *seen, const struct rows *x, const struct attn_span *span,
                     int n_spans, int tile, int *first, int *last) {
    uint64_t any = 0;
    *first = *last = 0;
    for (int t = 0; t < x->n; t++) {
        uint64_t row = 0, of_some = 0, *own = seen + (size_t)t * f->group;
        for (int i = 0; i < n_spans && span[i].begin < tile + TILE; i++)
            if (!span[i].heads) row |= span_bits(&span[i], x->pos + t, tile);
            else of_some = 1;
        for (int h = 0; h < f->group; h++) own[h] = row;
        for (int i = 0; of_some && i < n_spans && span[i].begin < tile + TILE; i++)
            for (int h = 0; h < f->group; h++)
                if (span[i].heads >> h & 1) own[h] |= span_bits(&span[i], x->pos + t, tile);
        for (int h = 0; h < f->group; h++) {
            if (!own[h]) continue;
            if (!any) *first = t * f->group + h;
            *last = t * f->group + h + 1;
            any |= own[h];
        }
    }
    return any;
}

/* The first page at or after position, which a tile begins at, that spans reach; -1: there is none. */
static int next_page(const struct attn_span *span, int n_spans, int position) {
    while (n_spans && span->end <= position) span++, n_spans--;
    return !n_spans ? -1 : (span->begin > position ? span->begin : position) / KV_PAGE;
}

/* Which keys of the tile each row sees through a span with a cap, and from beyond it; 0: no row does, else the cap. */
static int look_capped(const struct flash *f, uint64_t *capped, const struct rows *x, const struct attn_span *span,
                       int n_spans, int tile) {
    int cap = 0;
    for (int i = 0; i < n_spans && span[i].begin < tile + TILE; i++) {
        if (!span[i].cap || x->pos + x->n - 1 <= span[i].cap || span[i].end <= tile) continue;
        if (!cap) memset(capped, 0, (size_t)x->n * f->group * sizeof *capped);
        cap = span[i].cap;
        for (int r = 0; r < x->n * f->group; r++) {
            const int at = x->pos + r / f->group, h = r % f->group;
            if (at > cap && (!span[i].heads || span[i].heads >> h & 1)) capped[r] |= span_bits(&span[i], at, tile);
        }
    }
    return cap;
}

/* The queries of the rows as RoPE would leave them at cap: those beyond it are turned back. */
static void turn_queries(const struct flash *f, float *dst, const float *q, const struct rows *x, int cap) {
    const int kd = f->shape.k_dim, pairs = f->shape.n_rot / 2;
    const int step = f->shape.rope_split ? 1 : 2, apart = f->shape.rope_split ? pairs : 1;
    memcpy(dst, q, (size_t)x->n * f->group * kd * sizeof *q);
    for (int t = 0; t < x->n; t++) {
        const int back = x->pos + t - cap;
        for (int p = 0; back > 0 && p < pairs; p++) {
            const double c = cos(back * f->freq[p]), s = sin(back * f->freq[p]);
            for (int h = 0; h < f->group; h++) {
                float *a = dst + ((size_t)t * f->group + h) * kd + (size_t)p * step, *b = a + apart;
                const double x0 = *a, x1 = *b;
                *a = (float)(x0 * c + x1 * s);
                *b = (float)(x1 * c - x0 * s);
            }
        }
    }
}

/* Puts the scores of the keys that are met as if nearer in their places. */
static void take_capped(float *s, const float *s_capped, const uint64_t *capped, int rows) {
    for (int r = 0; r < rows; r++)
        for (uint64_t left = capped[r]; left; left &= left - 1) {
            const size_t i = (size_t)r * TILE + (size_t)__builtin_ctzll(left);
            s[i] = s_capped[i];
        }
}

/* Adds the keys of one segment to part. The spans end after the segment begins. */
static void sweep(const struct flash *f, struct worker *w, struct partial part, const struct rows *x,
                  const struct kvcache *kv, const struct attn_span *span, int n_spans, int segment) {
    const struct kv_shape *type = kv_shape(kv);
    const int kd = f->shape.k_dim, vd = f->shape.v_dim, end = x->pos + x->n;
    int turned = 0;
    partial_clear(part, x->n * f->group, vd);
    for (int tile = segment * SEGMENT; tile < (segment + 1) * SEGMENT && tile < end; tile += TILE) {
        int first, last;
        while (n_spans && span->end <= tile) span++, n_spans--;
        if (!n_spans) break;
        uint64_t keys = look(f, w->seen, x, span, n_spans, tile, &first, &last);
        if (!keys) continue;

        const int rows = last - first, direct = rows <= f->tile->direct_rows;
        const void *k[TILE_PAGES] = { NULL }, *v[TILE_PAGES] = { NULL };
        for (int p = 0; p < TILE_PAGES; p++) {
            if (!(keys >> (p * KV_PAGE) & 0xffff)) continue;
            struct kv_page page = kv_page(kv, x->layer, x->kv_head, tile / KV_PAGE + p);
            k[p] = page.k;
            v[p] = page.v;
            if (!direct && type->type_k != DT_F32) {
                f->tile->unpack_k(w->k + (size_t)p * KV_PAGE * kd, page.k, type->type_k, kd);
                k[p] = w->k + (size_t)p * KV_PAGE * kd;
            }
            if (!direct && type->type_v != DT_F32) {
                f->tile->unpack_v(w->v + (size_t)p * KV_PAGE * vd, page.v, type->type_v, vd);
                v[p] = w->v + (size_t)p * KV_PAGE * vd;
            }
        }
        ptrdiff_t ahead_k = 0, ahead_v = 0;
        const int later = direct ? next_page(span, n_spans, tile + TILE) : -1;
        if (later >= 0 && later * KV_PAGE <= x->pos) {
            const int p = __builtin_ctzll(keys) / KV_PAGE;
            struct kv_page next = kv_page(kv, x->layer, x->kv_head, later);
            ahead_k = (ptrdiff_t)((uintptr_t)next.k - (uintptr_t)k[p]);
            ahead_v = (ptrdiff_t)((uintptr_t)next.v - (uintptr_t)v[p]);
        }
        struct partial to = partial_at(part, first, vd);
        float *s = (f->keep ? masses_tile(f->keep, x->kv_head, tile) : w->s) + (size_t)first * TILE;
        f->tile->scores(s, w->q + (size_t)first * kd, rows, kd, k, direct ? type->type_k : DT_F32, ahead_k);
        const int cap = f->turns ? look_capped(f, w->capped, x, span, n_spans, tile) : 0;
        if (cap) {
            if (!turned) turn_queries(f, w->turned, w->q, x, cap), turned = 1;
            float *nearer = w->s_capped + (size_t)first * TILE;
            f->tile->scores(nearer, w->turned + (size_t)first * kd, rows, kd, k, direct ? type->type_k : DT_F32, ahead_k);
            take_capped(s, nearer, w->capped + first, rows);
        }
        f->tile->softmax(s, rows, w->seen + first, to.m, to.sum, to.out, vd);
        if (f->keep) memcpy(masses_reference(f->keep, x->kv_head, tile) + first, to.m, (size_t)rows * sizeof *to.m);
        f->tile->gather(to.out, s, rows, vd, v, direct ? type->type_v : DT_F32, keys, ahead_v);
        for (int r = first; r < last; r++) w->keys_read += (uint64_t)__builtin_popcountll(w->seen[r]);
    }
}

/* ---- Merging ---- */

static float lanes(const float *sum) {
    float s = 0;
    for (int i = 0; i < TILE_LANES; i++) s += sum[i];
    return s;
}

/* Adds what one segment found to the total, whose sum lives in lane 0. */
static void merge(struct partial total, struct partial part, int rows, int v_dim) {
    for (int r = 0; r < rows; r++) {
        struct partial t = partial_at(total, r, v_dim), p = partial_at(part, r, v_dim);
        if (*p.m == -INFINITY) continue;                   /* the row saw nothing of it */
        float top = *p.m > *t.m ? *p.m : *t.m;
        float a = exp2f(*t.m - top), b = exp2f(*p.m - top);
        *t.m = top;
        *t.sum = *t.sum * a + lanes(p.sum) * b;
        for (int i = 0; i < v_dim; i++) t.out[i] = t.out[i] * a + p.out[i] * b;
    }
}

static void store(const struct flash *f, float *out, struct partial total, const struct rows *x, int call_pos) {
    const int vd = f->shape.v_dim;
    for (int t = 0; t < x->n; t++)
        for (int h = 0; h < f->group; h++) {
            struct partial from = partial_at(total, (size_t)t * f->group + h, vd);
            size_t head = (size_t)x->kv_head * f->group + h, token = x->pos + t - call_pos;
            float *to = out + (token * f->shape.n_heads + head) * vd;
            for (int i = 0; i < vd; i++) to[i] = from.out[i] / *from.sum;
            if (f->keep) f->keep->top[head] = *from.m, f->keep->sum[head] = *from.sum;
        }
}

/* ---- Two ways to share the work; they give the same bits ---- */

/* The next segment, at or after the given one, that spans reach; *first is the first span that ends behind its
 * beginning. -1: there is none. */
static int next_segment(const struct attn_span *span, int n_spans, int segment, int *first) {
    while (*first < n_spans && span[*first].end <= segment * SEGMENT) ++*first;
    if (*first == n_spans) return -1;
    int at = span[*first].begin / SEGMENT;
    return at > segment ? at : segment;
}

static int ask(const struct flash *f, struct attn_mode *mode, struct attn_span *spans, const float *q,
               const struct kvcache *kv, const struct rows *x) {
    const struct attn_block b = {
        .layer = x->layer, .kv_head = x->kv_head, .pos = x->pos, .n = x->n, .q = q,
        .q_stride = (size_t)f->shape.n_heads * f->shape.k_dim, .kv = kv,
    };
    if (f->narrow && f->narrow[(size_t)x->layer * f->shape.n_kv_heads + x->kv_head]) return band_select(&f->band, &b, spans);
    int n = mode->ops->select(mode, &b, spans);
    assert(n >= 1 && n <= mode->max_spans);
    return n;
}

/* Many queries: a task is one block of queries of one KV head, and walks all its segments. */
static void attend_block(struct flash *f, struct worker *w, struct attn_mode *mode, float *out, const float *q,
                         const struct kvcache *kv, const struct rows *block, int call_pos) {
    const size_t q_token = (size_t)f->shape.n_heads * f->shape.k_dim;
    const float *q_head = q + (size_t)block->kv_head * f->group * f->shape.k_dim;
    const int most = f->rows / f->group;
    int n_spans = ask(f, mode, w->spans, q_head + (block->pos - call_pos) * q_token, kv, block);
    for (int t = 0; t < block->n; t += most) {
        struct rows x = *block;
        x.pos += t;
        x.n = block->n - t < most ? block->n - t : most;
        load_queries(f, w->q, q_head + (x.pos - call_pos) * q_token, &x);
        partial_clear(w->total, x.n * f->group, f->shape.v_dim);
        int first = 0, segment = 0;
        while ((segment = next_segment(w->spans, n_spans, segment, &first)) >= 0 && segment * SEGMENT < x.pos + x.n) {
            sweep(f, w, w->segment, &x, kv, w->spans + first, n_spans - first, segment++);
            merge(w->total, w->segment, x.n * f->group, f->shape.v_dim);
        }
        store(f, out, w->total, &x, call_pos);
    }
}

/* Threads may be fewer by now than at flash_open, never more than there is scratch for; and waking them costs some
 * microseconds, in which one of them does SMALL multiplications. */
static int threads(const struct flash *f, int pos, int n) {
    const double work = (double)n * f->shape.n_heads * (pos + n) * (f->shape.k_dim + f->shape.v_dim);
    int most = omp_get_max_threads();
    if (work < SMALL) return 1;
    return most < f->n_workers ? most : f->n_workers;
}

static void run_blocks(struct flash *f, struct attn_mode *mode, float *out, const float *q, const struct kvcache *kv,
                       int layer, int pos, int n) {
    const int heads = f->shape.n_kv_heads, from = pos / f->block, blocks = (pos + n - 1) / f->block - from + 1;
    #pragma omp parallel for schedule(dynamic, 1) num_threads(threads(f, pos, n))
    for (int i = blocks * heads - 1; i >= 0; i--) {        /* the last block sees most keys: it goes first */
        int begin = (from + i / heads) * f->block, end = begin + f->block;
        if (begin < pos) begin = pos;
        if (end > pos + n) end = pos + n;
        struct rows x = { layer, i % heads, begin, end - begin };
        attend_block(f, &f->workers[omp_get_thread_num()], mode, out, q, kv, &x, pos);
    }
}

/* Few queries, many keys: a task is one segment of one KV head. Segments go in waves of as many as there is room for
 * their results. All tokens of the call must belong to one selection block. */
static void run_segments(struct flash *f, struct attn_mode *mode, float *out, const float *q, const struct kvcache *kv,
                         int layer, int pos, int n) {
    const int heads = f->shape.n_kv_heads, vd = f->shape.v_dim, rows = n * f->group, wave = IN_FLIGHT / n;
    const size_t room = (size_t)IN_FLIGHT * f->group;
    for (int g = 0; g < heads; g++) {
        struct rows x = { layer, g, pos, n };
        f->n_spans[g] = ask(f, mode, f->spans + (size_t)g * f->max_spans, q + (size_t)g * f->group * f->shape.k_dim,
                            kv, &x);
        partial_clear(partial_at(f->totals, (size_t)g * f->rows, vd), rows, vd);
        f->n_pieces[g] = -1;                               /* not begun */
    }
    for (;;) {
        int most = 0;
        for (int g = 0; g < heads; g++) {
            struct piece *piece = f->pieces + (size_t)g * IN_FLIGHT, next = { 0, 0 };
            if (f->n_pieces[g] == 0) continue;
            if (f->n_pieces[g] > 0) next = piece[f->n_pieces[g] - 1], next.segment++;
            int count = 0;
            while (count < wave) {
                next.segment = next_segment(f->spans + (size_t)g * f->max_spans, f->n_spans[g], next.segment,
                                            &next.first_span);
                if (next.segment < 0 || next.segment * SEGMENT >= pos + n) break;
                piece[count++] = next;
                next.segment++;
            }
            f->n_pieces[g] = count;
            if (count > most) most = count;
        }
        if (!most) break;
        #pragma omp parallel num_threads(threads(f, pos, n))
        {
            struct worker *w = &f->workers[omp_get_thread_num()];
            #pragma omp for schedule(dynamic, 1) collapse(2)
            for (int g = 0; g < heads; g++)
                for (int i = 0; i < most; i++) {
                    if (i >= f->n_pieces[g]) continue;
                    const struct piece *piece = f->pieces + (size_t)g * IN_FLIGHT + i;
                    struct rows x = { layer, g, pos, n };
                    load_queries(f, w->q, q + (size_t)g * f->group * f->shape.k_dim, &x);
                    sweep(f, w, partial_at(f->parts, g * room + (size_t)i * rows, vd), &x, kv,
                          f->spans + (size_t)g * f->max_spans + piece->first_span,
                          f->n_spans[g] - piece->first_span, piece->segment);
                }
            #pragma omp for schedule(static)
            for (int g = 0; g < heads; g++)
                for (int i = 0; i < f->n_pieces[g]; i++)
                    merge(partial_at(f->totals, (size_t)g * f->rows, vd),
                          partial_at(f->parts, g * room + (size_t)i * rows, vd), rows, vd);
        }
    }
    for (int g = 0; g < heads; g++) {
        struct rows x = { layer, g, pos, n };
        store(f, out, partial_at(f->totals, (size_t)g * f->rows, vd), &x, pos);
    }
}

void flash_run(struct flash *f, struct attn_mode *mode, float *out, const float *q, const struct kvcache *kv, int layer,
               int pos, int n) {
    assert(n <= f->shape.max_batch);
    if (n < 1) return;
    f->keep = mode->want_masses ? f->masses : NULL;
    if (f->keep) {
        assert(n == 1 && pos < f->shape.max_tokens);
        masses_begin(f->keep, pos + 1);
    }
    const int one_block = pos / f->block == (pos + n - 1) / f->block;
    const int tasks = f->shape.n_kv_heads * ((n + f->block - 1) / f->block);
    if (one_block && 2 * n <= IN_FLIGHT && n * f->group <= f->rows && tasks < 4 * threads(f, pos, n) && pos + n > SEGMENT)
        run_segments(f, mode, out, q, kv, layer, pos, n);
    else
        run_blocks(f, mode, out, q, kv, layer, pos, n);
    f->rows_done += (uint64_t)n * f->shape.n_heads;
    if (f->keep) {
        masses_finish(f->keep, threads(f, pos, n));
        mode->ops->take_masses(mode, &(struct attn_masses){ layer, pos, pos / KV_PAGE + 1, f->keep->peak, f->keep->mean });
    }
}
