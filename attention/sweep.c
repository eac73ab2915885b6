#include "attention/sweep.h"

enum { RUN = SEGMENT / TILE };             /* tiles of a segment */

void sweep_carve(struct sweep_scratch *w, struct carve *c, const struct sweep *f) {
    const size_t rows = f->rows, kd = f->shape.k_dim, vd = f->shape.v_dim;
    const struct tile_matrix *m = f->matrix;
    w->q = carve(c, rows * kd, sizeof(float));
    w->s = carve(c, rows * TILE, sizeof(float));
    const size_t room_k = m ? m->room_k(f->shape.k_dim) : TILE * kd * sizeof(float);
    const size_t room_v = m ? m->room_v(f->shape.v_dim) : TILE * vd * sizeof(float);
    w->k = carve(c, room_k, 1);
    w->v = carve(c, room_v, 1);
    w->seen = carve(c, rows * RUN, sizeof(uint64_t));
    if (m) w->q_matrix = carve(c, matrix_room_q(f->rows, f->shape.k_dim), 1);
    if (!f->turns) return;
    w->turned = carve(c, rows * kd, sizeof(float));
    w->s_capped = carve(c, rows * TILE, sizeof(float));
    w->capped = carve(c, rows, sizeof(uint64_t));
    if (m) w->turned_matrix = carve(c, matrix_room_q(f->rows, f->shape.k_dim), 1);
}

/* Times scale and log2(e), as exponentials are taken in base 2. */
void sweep_load(const struct sweep *f, struct sweep_scratch *w, const float *q,
                const struct rows *x, enum dtype type_k) {
    const size_t dim = f->shape.k_dim, width = x->group * dim;
    const float scale = f->shape.scale * 1.44269504f;
    for (int t = 0; t < x->n; t++)
        for (size_t i = 0; i < width; i++)
            w->q[t * width + i] = scale * q[t * (size_t)f->shape.n_heads * dim + i];
    if (f->matrix) f->matrix->load_q(w->q_matrix, w->q, x->n * x->group, f->shape.k_dim, type_k);
}

/* The queries of the rows as RoPE would leave them at cap: those beyond it are turned back. */
static void turn_queries(const struct sweep *f, struct sweep_scratch *w, const struct rows *x,
                         int cap, enum dtype type_k) {
    const int kd = f->shape.k_dim, pairs = f->shape.n_rot / 2;
    const int step = f->shape.rope_split ? 1 : 2, apart = f->shape.rope_split ? pairs : 1;
    memcpy(w->turned, w->q, (size_t)x->n * x->group * kd * sizeof *w->q);
    for (int t = 0; t < x->n; t++) {
        const int back = x->pos + t - cap;
        for (int p = 0; back > 0 && p < pairs; p++) {
            const double c = cos(back * f->freq[p]), s = sin(back * f->freq[p]);
            for (int h = 0; h < x->group; h++) {
                float *a = w->turned + ((size_t)t * x->group + h) * kd + (size_t)p * step,
                      *b = a + apart;
                const double x0 = *a, x1 = *b;
                *a = (float)(x0 * c + x1 * s);
                *b = (float)(x1 * c - x0 * s);
            }
        }
    }
    if (f->matrix) f->matrix->load_q(w->turned_matrix, w->turned, x->n * x->group, kd, type_k);
}

/* Puts the scores of the keys that are met as if nearer in their places. */
static void take_capped(float *s, const float *s_capped, const uint64_t *capped, int rows) {
    for (int r = 0; r < rows; r++)
        for (uint64_t left = capped[r]; left; left &= left - 1) {
            const size_t i = (size_t)r * TILE + (size_t)__builtin_ctzll(left);
            s[i] = s_capped[i];
        }
}

/* One tile of keys and the rows that see any of them. */
struct tile {
    int first, rows, capped;
    const uint64_t *seen;                  /* [rows] the keys each row sees */
    float *reference;                      /* [rows] where masses are kept; or NULL */
    struct matrix_tile pages;              /* keys: that some row sees */
};

/* A segment on its way. */
struct course {
    const struct sweep *f;
    struct sweep_scratch *w;
    struct partial part;
    enum dtype type_k, type_v;
    int shaped;                            /* rows the matrix unit is set up for, */
    enum dtype shaped_type;                /* and of what */
};

static void softmax(const struct course *c, const struct tile *t, int from, int rows, float *out,
                    int dim) {
    const int row = t->first + from;
    c->f->tile->softmax(t->pages.s + (size_t)from * TILE, rows, t->seen + from, c->part.m + row,
                        c->part.sum + (size_t)row * TILE_LANES, out, dim);
    if (t->reference)
        memcpy(t->reference + from, c->part.m + row, (size_t)rows * sizeof *c->part.m);
}

/* With vectors: all rows at once; when they are many, pages are unpacked for them first. */
static void by_vectors(const struct course *c, struct tile t) {
    const struct sweep *f = c->f;
    struct sweep_scratch *w = c->w;
    const int kd = f->shape.k_dim, vd = f->shape.v_dim, direct = t.rows <= f->tile->direct_rows;
    const size_t first = (size_t)t.first;
    float *out = c->part.out + first * vd;
    struct matrix_tile *x = &t.pages;
    enum dtype type_k = c->type_k, type_v = c->type_v;
    for (int p = 0; p < TILE_PAGES && !direct; p++) {
        if (!x->k[p]) continue;
        float *k = (float *)w->k + (size_t)p * KV_PAGE * kd,
              *v = (float *)w->v + (size_t)p * KV_PAGE * vd;
        if (type_k != DT_F32) f->tile->unpack_k(k, x->k[p], type_k, kd), x->k[p] = k;
        if (type_v != DT_F32) f->tile->unpack_v(v, x->v[p], type_v, vd), x->v[p] = v;
    }
    if (!direct) type_k = type_v = DT_F32, x->ahead_k = x->ahead_v = 0;
    f->tile->scores(x->s, w->q + first * kd, t.rows, kd, x->k, type_k, x->ahead_k);
    if (t.capped) {
        float *nearer = w->s_capped + first * TILE;
        f->tile->scores(nearer, w->turned + first * kd, t.rows, kd, x->k, type_k, x->ahead_k);
        take_capped(x->s, nearer, w->capped + first, t.rows);
    }
    softmax(c, &t, 0, t.rows, out, vd);
    f->tile->gather(out, x->s, t.rows, vd, x->v, type_v, x->keys, x->ahead_v);
}

static void shape(struct course *c, int rows, enum dtype type) {
    if (rows == c->shaped && type == c->shaped_type) return;
    c->f->matrix->shape(rows, type);
    c->shaped = rows, c->shaped_type = type;
}

/* With the matrix unit: a few rows at a time, so that their scores stay near. */
static void by_matrix(struct course *c, const struct tile *t) {
    const struct sweep *f = c->f;
    struct sweep_scratch *w = c->w;
    const struct matrix_tile *x = &t->pages;
    const int kd = f->shape.k_dim, vd = f->shape.v_dim;
    const unsigned pages = matrix_pages(x);
    f->matrix->load_k(w->k, x->k, c->type_k, kd, x->ahead_k);
    f->matrix->load_v(w->v, x->v, c->type_v, vd, x->keys, x->ahead_v);
    for (int r = 0, n; r < t->rows; r += n) {
        const int row = t->first + r;
        float *s = x->s + (size_t)r * TILE, *out = c->part.out + (size_t)row * vd;
        n = t->rows - r < MATRIX_ROWS ? t->rows - r : MATRIX_ROWS;
        shape(c, n, c->type_k);
        f->matrix->scores(s, w->q_matrix, row, n, kd, w->k, c->type_k, pages);
        if (t->capped) {
            float *nearer = w->s_capped + (size_t)row * TILE;
            f->matrix->scores(nearer, w->turned_matrix, row, n, kd, w->k, c->type_k, pages);
            take_capped(s, nearer, w->capped + row, n);
        }
        softmax(c, t, r, n, out, vd);
        shape(c, n, c->type_v);
        f->matrix->gather(out, s, n, vd, w->v, c->type_v, x->keys);
    }
}

/* With the matrix unit, one block of rows that meets n tiles: all scores, then all weights, then
 * all values, so that the unit always has a next tile. A reference that rises scales the sums, so
 * the values before it are gathered first. */
static void by_matrix_run(struct course *c, const struct tile *t, int n) {
    const struct sweep *f = c->f;
    const int first = t->first, rows = t->rows, vd = f->shape.v_dim;
    static const float ones[MATRIX_ROWS] = { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 };
    struct matrix_tile pages[RUN];
    float *out = c->part.out + (size_t)first * vd;
    int done = 0;
    for (int i = 0; i < n; i++) pages[i] = t[i].pages;
    shape(c, rows, c->type_k);
    f->matrix->scores_run(pages, n, c->w->k, c->w->q_matrix, first, rows, f->shape.k_dim,
                          c->type_k);
    if (t->capped) {                                       /* alone in its run */
        struct matrix_tile nearer = *pages;
        nearer.s = c->w->s_capped + (size_t)first * TILE;
        f->matrix->scores_run(&nearer, 1, c->w->k, c->w->turned_matrix, first, rows, f->shape.k_dim,
                              c->type_k);
        take_capped(pages->s, nearer.s, c->w->capped + first, rows);
    }
    shape(c, rows, c->type_v);
    for (int i = 0; i < n; i++) {
        float scale[MATRIX_ROWS];
        memcpy(scale, ones, sizeof scale);
        softmax(c, &t[i], 0, rows, scale, 1);
        if (!memcmp(scale, ones, sizeof scale)) continue;
        if (done < i)
            f->matrix->gather_run(out, pages + done, i - done, c->w->v, rows, vd, c->type_v);
        done = i;
        for (int r = 0; r < rows; r++) {
            float *row = out + (size_t)r * vd, by = scale[r];
            if (by != 1) for (int j = 0; j < vd; j++) row[j] *= by;
        }
    }
    f->matrix->gather_run(out, pages + done, n - done, c->w->v, rows, vd, c->type_v);
}

/* Tiles of a run: the scores and weights of many rows, or two sets of weights with scales, would
 * crowd out of the nearest cache what was fetched into it. */
static int longest(const struct course *c, int rows) {
    const int halves = c->type_v == DT_F16 || c->type_v == DT_BF16;
    return halves && rows <= MATRIX_ROWS / 4 ? RUN : 2;
}

/* The tile's pages that any row sees. */
static void take_pages(struct matrix_tile *t, const struct rows *x, const struct kvcache *kv,
                       const int *page, int n) {
    for (int p = 0; p < n; p++) {
        if (!(t->keys >> (p * KV_PAGE) & 0xffff)) continue;
        const struct kv_page at = kv_page(kv, x->layer, x->kv_head, page[p]);
        t->k[p] = at.k, t->v[p] = at.v;
    }
}

/* The tile at an absolute position. The pages of the next one are taken to be as far from its own
 * as the first page seen here is from the first one there. */
static void take_in_place(struct tile *tile, uint64_t *seen, const struct rows *x,
                          const struct kvcache *kv, const struct attn_span *span, int n_spans,
                          int at) {
    const int own = at / KV_PAGE, page[TILE_PAGES] = { own, own + 1, own + 2, own + 3 };
    struct matrix_tile *t = &tile->pages;
    int last;
    if (!(t->keys = look(seen, x, span, n_spans, at, &tile->first, &last))) return;
    tile->rows = last - tile->first;
    take_pages(t, x, kv, page, TILE_PAGES);
    const int later = look_ahead(span, n_spans, at + TILE);
    if (later >= 0 && later * KV_PAGE <= x->pos) {
        const int p = __builtin_ctzll(t->keys) / KV_PAGE;
        struct kv_page next = kv_page(kv, x->layer, x->kv_head, later);
        t->ahead_k = (ptrdiff_t)((uintptr_t)next.k - (uintptr_t)t->k[p]);
        t->ahead_v = (ptrdiff_t)((uintptr_t)next.v - (uintptr_t)t->v[p]);
    }
}

/* A tile of pages that lie anywhere: those of its successor are asked for here. */
static void take_scattered(struct tile *tile, uint64_t *seen, const struct course *c,
                           const struct rows *x, const struct kvcache *kv,
                           const struct attn_span *span, int n_spans, const int *page, int n) {
    const size_t k_bytes = tile_k_bytes(c->type_k, c->f->shape.k_dim),
                 v_bytes = tile_v_bytes(c->type_v, c->f->shape.v_dim);
    const int own = n < TILE_PAGES ? n : TILE_PAGES;
    int last;
    if (!(tile->pages.keys = look_pages(seen, x, span, n_spans, page, own, &tile->first, &last)))
        return;
    tile->rows = last - tile->first;
    take_pages(&tile->pages, x, kv, page, own);
    for (int p = TILE_PAGES; p < n && p < 2 * TILE_PAGES; p++) {
        const struct kv_page next = kv_page(kv, x->layer, x->kv_head, page[p]);
        tile_prefetch(next.k, k_bytes);
        tile_prefetch(next.v, v_bytes);
    }
}

static uint64_t keys_of(const struct tile *t) {
    uint64_t sum = 0, n = 0;
    for (int r = 0; r < t->rows; r++, sum += n)            /* most rows see the same */
        if (!r || t->seen[r] != t->seen[r - 1]) n = (uint64_t)__builtin_popcountll(t->seen[r]);
    return sum;
}

void sweep_segment(const struct sweep *f, struct sweep_scratch *w, struct partial part,
                   const struct rows *x, const struct kvcache *kv, const struct walk *walk,
                   int first_span, int segment) {
    const struct kv_shape *type = kv_shape(kv);
    const int matrix = f->matrix && type->type_k != DT_F32 && type->type_v != DT_F32;
    struct course c = { .f = f, .w = w, .part = part, .type_k = type->type_k,
                        .type_v = type->type_v };
    const struct attn_span *span = walk->span + first_span;
    struct tile run[RUN];
    int n_spans = walk->n_spans - first_span, turned = 0, n = 0;   /* n: tiles of a waiting run */
    partial_clear(part, x->n * x->group, f->shape.v_dim);
    for (int i = 0; i < RUN; i++) {
        const int index = segment * SEGMENT_PAGES + i * TILE_PAGES;
        if (walk->page && index >= walk->n_pages) break;
        const int at = (walk->page ? walk->page[index] : index) * KV_PAGE;
        uint64_t *seen = w->seen + (size_t)i * f->rows;
        struct tile t = { 0 };
        if (at >= x->pos + x->n) break;
        while (n_spans && span->end <= at) span++, n_spans--;
        if (!n_spans) break;
        if (walk->page)
            take_scattered(&t, seen, &c, x, kv, span, n_spans, walk->page + index,
                           walk->n_pages - index);
        else
            take_in_place(&t, seen, x, kv, span, n_spans, at);
        if (!t.pages.keys) continue;
        t.seen = seen + t.first;
        t.capped = f->turns ? look_capped(w->capped, x, span, n_spans, at) : 0;
        if (t.capped && !turned) turn_queries(f, w, x, t.capped, c.type_k), turned = 1;
        const int few = matrix && t.rows <= MATRIX_ROWS;
        if (n && (!few || t.capped || t.first != run->first || t.rows != run->rows))
            by_matrix_run(&c, run, n), n = 0;
        t.pages.s = few ? w->s + (size_t)i * MATRIX_ROWS * TILE : w->s;
        if (f->keep) {
            t.pages.s = masses_tile(f->keep, x->kv_head, at) + (size_t)t.first * TILE;
            t.reference = masses_reference(f->keep, x->kv_head, at) + t.first;
        }
        w->keys_read += keys_of(&t);
        if (few) run[n++] = t;
        else if (matrix) by_matrix(&c, &t);
        else by_vectors(&c, t);
        if (n && (t.capped || n == longest(&c, t.rows))) by_matrix_run(&c, run, n), n = 0;
    }
    if (n) by_matrix_run(&c, run, n);
    if (c.shaped) f->matrix->shape(0, c.shaped_type);
}
