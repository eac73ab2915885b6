#include "attention/sweep.h"

void sweep_carve(struct sweep_scratch *w, struct carve *c, const struct sweep *f) {
    const size_t rows = f->rows, kd = f->shape.k_dim, vd = f->shape.v_dim;
    const struct tile_matrix *m = f->matrix;
    w->q = carve(c, rows * kd, sizeof(float));
    w->s = carve(c, rows * TILE, sizeof(float));
    const size_t room_k = m ? m->room_k(f->shape.k_dim) : TILE * kd * sizeof(float);
    const size_t room_v = m ? m->room_v(f->shape.v_dim) : TILE * vd * sizeof(float);
    w->k = carve(c, room_k, 1);
    w->v = carve(c, room_v, 1);
    w->seen = carve(c, rows, sizeof(uint64_t));
    if (m) w->q_matrix = carve(c, m->room_q(f->rows, f->shape.k_dim), 1);
    if (!f->turns) return;
    w->turned = carve(c, rows * kd, sizeof(float));
    w->s_capped = carve(c, rows * TILE, sizeof(float));
    w->capped = carve(c, rows, sizeof(uint64_t));
    if (m) w->turned_matrix = carve(c, m->room_q(f->rows, f->shape.k_dim), 1);
}

/* Times scale and log2(e), as exponentials are taken in base 2. */
void sweep_load(const struct sweep *f, struct sweep_scratch *w, const float *q, const struct rows *x) {
    const size_t dim = f->shape.k_dim, width = x->group * dim;
    const float scale = f->shape.scale * 1.44269504f;
    for (int t = 0; t < x->n; t++)
        for (size_t i = 0; i < width; i++)
            w->q[t * width + i] = scale * q[t * (size_t)f->shape.n_heads * dim + i];
    if (f->matrix) f->matrix->load_q(w->q_matrix, w->q, x->n * x->group, f->shape.k_dim);
}

/* The queries of the rows as RoPE would leave them at cap: those beyond it are turned back. */
static void turn_queries(const struct sweep *f, struct sweep_scratch *w, const struct rows *x, int cap) {
    const int kd = f->shape.k_dim, pairs = f->shape.n_rot / 2;
    const int step = f->shape.rope_split ? 1 : 2, apart = f->shape.rope_split ? pairs : 1;
    memcpy(w->turned, w->q, (size_t)x->n * x->group * kd * sizeof *w->q);
    for (int t = 0; t < x->n; t++) {
        const int back = x->pos + t - cap;
        for (int p = 0; back > 0 && p < pairs; p++) {
            const double c = cos(back * f->freq[p]), s = sin(back * f->freq[p]);
            for (int h = 0; h < x->group; h++) {
                float *a = w->turned + ((size_t)t * x->group + h) * kd + (size_t)p * step, *b = a + apart;
                const double x0 = *a, x1 = *b;
                *a = (float)(x0 * c + x1 * s);
                *b = (float)(x1 * c - x0 * s);
            }
        }
    }
    if (f->matrix) f->matrix->load_q(w->turned_matrix, w->turned, x->n * x->group, kd);
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
    uint64_t keys;                         /* that some row sees */
    const void *k[TILE_PAGES], *v[TILE_PAGES];
    ptrdiff_t ahead_k, ahead_v;            /* from a page to the one a tile later; 0: not known */
    enum dtype type_k, type_v;
    float *s;                              /* of row 0; of row 0 of the group where masses are kept */
    struct partial part;
};

/* With vectors: all rows at once; when they are many, pages are unpacked for them first. */
static void by_vectors(const struct sweep *f, struct sweep_scratch *w, struct tile t) {
    const int kd = f->shape.k_dim, vd = f->shape.v_dim, direct = t.rows <= f->tile->direct_rows;
    const size_t first = (size_t)t.first;
    struct partial to = partial_at(t.part, first, vd);
    float *s = t.s + first * TILE;
    for (int p = 0; p < TILE_PAGES && !direct; p++) {
        if (!t.k[p]) continue;
        float *k = (float *)w->k + (size_t)p * KV_PAGE * kd, *v = (float *)w->v + (size_t)p * KV_PAGE * vd;
        if (t.type_k != DT_F32) f->tile->unpack_k(k, t.k[p], t.type_k, kd), t.k[p] = k;
        if (t.type_v != DT_F32) f->tile->unpack_v(v, t.v[p], t.type_v, vd), t.v[p] = v;
    }
    if (!direct) t.type_k = t.type_v = DT_F32, t.ahead_k = t.ahead_v = 0;
    f->tile->scores(s, w->q + first * kd, t.rows, kd, t.k, t.type_k, t.ahead_k);
    if (t.capped) {
        float *nearer = w->s_capped + first * TILE;
        f->tile->scores(nearer, w->turned + first * kd, t.rows, kd, t.k, t.type_k, t.ahead_k);
        take_capped(s, nearer, w->capped + first, t.rows);
    }
    f->tile->softmax(s, t.rows, w->seen + first, to.m, to.sum, to.out, vd);
    f->tile->gather(to.out, s, t.rows, vd, t.v, t.type_v, t.keys, t.ahead_v);
}

/* Scores of n rows from row r on, to s. */
static void matrix_scores(const struct sweep *f, struct sweep_scratch *w, const struct tile *t, float *s, const void *q, int r,
                          int n) {
    const int kd = f->shape.k_dim;
    unsigned pages = 0;
    for (int p = 0; p < TILE_PAGES; p++) pages |= (unsigned)!!t->k[p] << p;
    if (t->rows <= MATRIX_ROWS) f->matrix->scores_once(s, q, r, n, kd, t->k, t->type_k, t->ahead_k);
    else f->matrix->scores(s, q, r, n, kd, w->k, t->type_k, pages);
}

/* With the matrix unit: a few rows at a time, so that their scores stay near. */
static void by_matrix(const struct sweep *f, struct sweep_scratch *w, const struct tile *t, int *shaped) {
    const int vd = f->shape.v_dim, once = t->rows <= MATRIX_ROWS;
    if (!once) {
        f->matrix->load_k(w->k, t->k, t->type_k, f->shape.k_dim, t->ahead_k);
        f->matrix->load_v(w->v, t->v, t->type_v, vd, t->keys, t->ahead_v);
    }
    for (int r = t->first, end = t->first + t->rows, n; r < end; r += n) {
        struct partial to = partial_at(t->part, (size_t)r, vd);
        float *s = t->s + (size_t)r * TILE;
        n = end - r < MATRIX_ROWS ? end - r : MATRIX_ROWS;
        if (n != *shaped) f->matrix->shape(n), *shaped = n;
        matrix_scores(f, w, t, s, w->q_matrix, r, n);
        if (t->capped) {
            float *nearer = w->s_capped + (size_t)r * TILE;
            matrix_scores(f, w, t, nearer, w->turned_matrix, r, n);
            take_capped(s, nearer, w->capped + r, n);
        }
        f->tile->softmax(s, n, w->seen + r, to.m, to.sum, to.out, vd);
        if (once) f->matrix->gather_once(to.out, s, n, vd, t->v, t->type_v, t->keys, t->ahead_v);
        else f->matrix->gather(to.out, s, n, vd, w->v, t->type_v, t->keys);
    }
}

/* The tile's pages that any row sees. */
static void take_pages(struct tile *t, const struct rows *x, const struct kvcache *kv, const int *page, int n) {
    for (int p = 0; p < n; p++) {
        if (!(t->keys >> (p * KV_PAGE) & 0xffff)) continue;
        const struct kv_page at = kv_page(kv, x->layer, x->kv_head, page[p]);
        t->k[p] = at.k, t->v[p] = at.v;
    }
}

/* The tile at an absolute position; its successor's pages are as far from its own as the first one's successor. */
static void take_in_place(struct tile *t, struct sweep_scratch *w, const struct rows *x, const struct kvcache *kv,
                          const struct attn_span *span, int n_spans, int at) {
    const int own = at / KV_PAGE, page[TILE_PAGES] = { own, own + 1, own + 2, own + 3 };
    int last;
    if (!(t->keys = look(w->seen, x, span, n_spans, at, &t->first, &last))) return;
    t->rows = last - t->first;
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
static void take_scattered(struct tile *t, struct sweep_scratch *w, const struct sweep *f, const struct rows *x,
                           const struct kvcache *kv, const struct attn_span *span, int n_spans, const int *page, int n) {
    const size_t k_bytes = tile_k_bytes(t->type_k, f->shape.k_dim), v_bytes = tile_v_bytes(t->type_v, f->shape.v_dim);
    const int own = n < TILE_PAGES ? n : TILE_PAGES;
    int last;
    if (!(t->keys = look_pages(w->seen, x, span, n_spans, page, own, &t->first, &last))) return;
    t->rows = last - t->first;
    take_pages(t, x, kv, page, own);
    for (int p = TILE_PAGES; p < n && p < 2 * TILE_PAGES; p++) {
        const struct kv_page next = kv_page(kv, x->layer, x->kv_head, page[p]);
        for (size_t b = 0; b < k_bytes; b += 64) __builtin_prefetch((const char *)next.k + b);
        for (size_t b = 0; b < v_bytes; b += 64) __builtin_prefetch((const char *)next.v + b);
    }
}

void sweep_segment(const struct sweep *f, struct sweep_scratch *w, struct partial part, const struct rows *x,
                   const struct kvcache *kv, const struct walk *walk, int first_span, int segment) {
    const struct kv_shape *type = kv_shape(kv);
    const struct attn_span *span = walk->span + first_span;
    int n_spans = walk->n_spans - first_span, turned = 0, shaped = 0;
    partial_clear(part, x->n * x->group, f->shape.v_dim);
    for (int i = segment * SEGMENT_PAGES, end = i + SEGMENT_PAGES; i < end; i += TILE_PAGES) {
        struct tile t = { .type_k = type->type_k, .type_v = type->type_v, .part = part };
        if (walk->page && i >= walk->n_pages) break;
        const int page = walk->page ? walk->page[i] : i, at = page * KV_PAGE;
        if (at >= x->pos + x->n) break;
        while (n_spans && span->end <= at) span++, n_spans--;
        if (!n_spans) break;
        if (walk->page) take_scattered(&t, w, f, x, kv, span, n_spans, walk->page + i, walk->n_pages - i);
        else take_in_place(&t, w, x, kv, span, n_spans, at);
        if (!t.keys) continue;
        t.capped = f->turns ? look_capped(w->capped, x, span, n_spans, at) : 0;
        if (t.capped && !turned) turn_queries(f, w, x, t.capped), turned = 1;
        t.s = f->keep ? masses_tile(f->keep, x->kv_head, at) : w->s;
        if (f->matrix && t.type_k != DT_F32 && t.type_v != DT_F32) by_matrix(f, w, &t, &shaped);
        else by_vectors(f, w, t);
        if (f->keep)
            memcpy(masses_reference(f->keep, x->kv_head, at) + t.first, part.m + t.first, (size_t)t.rows * sizeof *part.m);
        for (int r = t.first; r < t.first + t.rows; r++) w->keys_read += (uint64_t)__builtin_popcountll(w->seen[r]);
    }
    if (shaped) f->matrix->shape(0);
}
