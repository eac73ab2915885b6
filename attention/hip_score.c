#include "attention/hip_score.h"
#include <math.h>
#include <string.h>

enum {
    AHEAD = 3,                      /* pages of keys on their way while one is scored */
    MATRIX_MIN = 2 * MATRIX_ROWS,   /* rows that repay turning keys into the matrix unit's order */
};

size_t hip_scorer_carve(struct hip_scorer *s, void *memory, const struct attn_shape *shape,
                        int n_heads, int n_tokens) {
    const size_t rows = (size_t)n_heads * n_tokens, dim = shape->k_dim;
    const size_t padded = rows + (size_t)n_heads * (PEAK_ROWS - 1);
    const size_t floats[] = { rows * dim, padded * dim, rows * TILE, TILE * dim, KV_PAGE * dim };
    float **part[] = { &s->q, &s->q_peak, &s->s, &s->keys, &s->page };
    size_t used = 0;
    s->shape = *shape;
    for (int i = 0; i < 5; i++) {
        *part[i] = memory ? (float *)((char *)memory + used) : NULL;
        used += (floats[i] * sizeof(float) + 63) / 64 * 64;
    }
    s->q_matrix = memory ? (char *)memory + used : NULL;
    used += matrix_room_q((int)rows + n_heads * (MATRIX_ROWS - 1), shape->k_dim);
    s->k_matrix = memory ? (char *)memory + used : NULL;
    used += matrix_room_k(shape->k_dim);
    s->last = memory ? (int *)((char *)memory + used) : NULL;
    return used + ((size_t)n_tokens * sizeof(int) + 63) / 64 * 64;
}

/* to[] = the mean of the queries of tokens from..to-1. */
static void mean(float *dst, const float *q, size_t q_stride, int from, int end, size_t dim) {
    for (size_t i = 0; i < dim; i++) {
        float sum = 0;
        for (int t = from; t < end; t++) sum += q[t * q_stride + i];
        dst[i] = sum / (float)(end - from);
    }
}

/* The rows of one KV head in blocks of PEAK_ROWS, the last one filled up with its last row. */
static void interleave(float *dst, const float *q, int rows, int dim) {
    for (int from = 0; from < rows; from += PEAK_ROWS)
        for (int i = 0; i < dim; i++)
            for (int r = 0; r < PEAK_ROWS; r++)
                *dst++ = q[(size_t)(from + r < rows ? from + r : rows - 1) * dim + i];
}

/* The same for the matrix unit, in blocks of MATRIX_ROWS. */
static void load_matrix(struct hip_scorer *s) {
    const struct tile_matrix *m = s->matrix;
    const int dim = s->shape.k_dim, rows = s->n_rows, padded = s->blocks_matrix * MATRIX_ROWS;
    const size_t row = matrix_room_q(1, dim);
    const enum dtype type = kv_shape(s->kv)->type_k;
    for (int g = 0; g < s->owner.n_kv_heads; g++) {
        const float *q = s->q + (size_t)g * rows * dim;
        char *to = (char *)s->q_matrix + (size_t)g * padded * row;
        m->load_q(to, q, rows, dim, type);
        for (int r = rows; r < padded; r++)
            m->load_q(to + r * row, q + (size_t)(rows - 1) * dim, 1, dim, type);
    }
}

void hip_load(struct hip_scorer *s, int layer, struct hip_owner o, const float *q, int pos, int n,
              int stride, int pool, int window) {
    const size_t dim = s->shape.k_dim, group = s->shape.n_heads / s->shape.n_kv_heads;
    const size_t q_stride = s->shape.n_heads * dim, width = o.n_heads * dim;
    s->layer = layer;
    s->owner = o;
    s->n_samples = pool || n < stride ? (n + stride - 1) / stride : n / stride;
    s->n_rows = s->n_samples * o.n_heads;
    for (int i = 0; i < s->n_samples; i++) {
        const int from = i * stride, end = from + stride < n ? from + stride : n;
        s->last[i] = pos + end - 1 - window;
        for (int g = 0; g < o.n_kv_heads; g++) {
            const float *src = q + ((o.kv_head + g) * group + o.head) * dim;
            mean(s->q + ((size_t)g * s->n_samples + i) * width, src, q_stride,
                 pool ? from : end - 1, end, width);
        }
    }
    s->blocks_matrix = s->matrix && kv_shape(s->kv)->type_k != DT_F32 && s->n_rows >= MATRIX_MIN
                     ? (s->n_rows + MATRIX_ROWS - 1) / MATRIX_ROWS : 0;
    if (s->blocks_matrix) {
        load_matrix(s);
        return;
    }
    const size_t padded = (size_t)(s->n_rows + PEAK_ROWS - 1) / PEAK_ROWS * PEAK_ROWS;
    for (int g = 0; g < o.n_kv_heads; g++)
        interleave(s->q_peak + g * padded * dim, s->q + (size_t)g * s->n_rows * dim, s->n_rows,
                   (int)dim);
}

/* Sixteen keys that are one whole page. */
static int whole_page(const int *key, int n) {
    return n >= KV_PAGE && key[0] % KV_PAGE == 0 && key[KV_PAGE - 1] == key[0] + KV_PAGE - 1;
}

static const void *unpacked(const struct hip_scorer *s, float *dst, const void *page) {
    const enum dtype type = kv_shape(s->kv)->type_k;
    if (type == DT_F32) return page;
    s->tile->unpack_k(dst, page, type, s->shape.k_dim);
    return dst;
}

/* Puts up to sixteen keys side by side. */
static void pack(const struct hip_scorer *s, float *dst, int kv_head, const int *key, int n) {
    const size_t dim = s->shape.k_dim;
    const float *from = NULL;
    int have = -1;
    for (int c = 0; c < n; c++) {
        if (key[c] / KV_PAGE != have) {
            have = key[c] / KV_PAGE;
            from = unpacked(s, s->page, kv_page(s->kv, s->layer, kv_head, have).k);
        }
        for (size_t i = 0; i < dim; i++)
            dst[i * KV_PAGE + c] = from[i * KV_PAGE + key[c] % KV_PAGE];
    }
}

/* Pages are far apart: the next tile's are asked for while this one is worked on. */
static void prefetch(const struct hip_scorer *s, int kv_head, const int *key, int n) {
    const size_t bytes = tile_k_bytes(kv_shape(s->kv)->type_k, s->shape.k_dim);
    int have = -1;
    for (int i = 0; i < n && i < TILE; i++) {
        if (key[i] / KV_PAGE == have) continue;
        have = key[i] / KV_PAGE;
        const char *page = kv_page(s->kv, s->layer, kv_head, have).k;
        tile_prefetch(page, bytes);
    }
}

/* best[c] = max over the rows that may judge key c. */
static void highest(const struct hip_scorer *s, float *best, const int *key, int n) {
    int newest = key[0];
    for (int c = 1; c < n; c++) newest = key[c] > newest ? key[c] : newest;
    if (newest <= s->last[0]) {
        for (int r = 0; r < s->n_rows; r++)
            for (int c = 0; c < n; c++) {
                const float x = s->s[(size_t)r * TILE + c];
                best[c] = x > best[c] ? x : best[c];       /* passes over a NaN */
            }
        return;
    }
    for (int c = 0; c < n; c++) {
        int sample = 0;
        while (sample < s->n_samples && s->last[sample] < key[c]) sample++;
        for (int r = sample * s->owner.n_heads; r < s->n_rows; r++)
            if (s->s[(size_t)r * TILE + c] > best[c]) best[c] = s->s[(size_t)r * TILE + c];
    }
}

void hip_score(struct hip_scorer *s, const int *key, int n, float *score) {
    const size_t dim = s->shape.k_dim;
    const enum dtype type = kv_shape(s->kv)->type_k;
    for (int i = 0; i < n; i++) score[i] = -INFINITY;
    for (int g = 0; g < s->owner.n_kv_heads; g++) {
        const int kv_head = s->owner.kv_head + g;
        for (int from = 0; from < n; from += TILE) {
            const int count = n - from < TILE ? n - from : TILE;
            const void *page[TILE_PAGES] = { NULL };
            int direct = s->n_rows <= s->tile->direct_rows;
            for (int c = 0; c < count; c += KV_PAGE)
                direct &= whole_page(key + from + c, count - c);
            for (int c = 0; c < count; c += KV_PAGE) {
                const int p = c / KV_PAGE, whole = whole_page(key + from + c, count - c);
                float *tile = s->keys + (size_t)p * KV_PAGE * dim;
                page[p] = tile;
                if (whole) {
                    page[p] = kv_page(s->kv, s->layer, kv_head, key[from + c] / KV_PAGE).k;
                    if (!direct) page[p] = unpacked(s, tile, page[p]);
                } else
                    pack(s, tile, kv_head, key + from + c,
                         count - c < KV_PAGE ? count - c : KV_PAGE);
            }
            prefetch(s, kv_head, key + from + count, n - from - count);
            s->tile->scores(s->s, s->q + (size_t)g * s->n_rows * dim, s->n_rows, s->shape.k_dim,
                            page, direct ? type : DT_F32, 0);
            highest(s, score + from, key + from, count);
        }
        s->scored += (uint64_t)n;
    }
}

/* ---- Whole pages ---- */

static void prefetch_keys(const struct hip_scorer *s, int kv_head, const int *page, int n) {
    const size_t bytes = tile_k_bytes(kv_shape(s->kv)->type_k, s->shape.k_dim);
    for (int i = 0; i < n; i++) tile_prefetch(kv_page(s->kv, s->layer, kv_head, page[i]).k, bytes);
}

/* Many queries: all of them meet a tile of pages, which may lie anywhere, in the matrix unit. */
static void score_by_matrix(struct hip_scorer *s, int g, const int *page, int n, float *score) {
    const int dim = s->shape.k_dim, kv_head = s->owner.kv_head + g;
    const enum dtype type = kv_shape(s->kv)->type_k;
    const char *q = (const char *)s->q_matrix +
                    (size_t)g * matrix_room_q(s->blocks_matrix * MATRIX_ROWS, dim);
    s->matrix->shape(MATRIX_ROWS, type);
    for (int i = 0; i < n; i += TILE_PAGES) {
        const int count = n - i < TILE_PAGES ? n - i : TILE_PAGES, rest = n - i - count;
        const void *keys[TILE_PAGES] = { NULL };
        float peak[TILE_PAGES];
        for (int p = 0; p < count; p++) keys[p] = kv_page(s->kv, s->layer, kv_head, page[i + p]).k;
        s->matrix->load_k(s->k_matrix, keys, type, dim, 0);
        prefetch_keys(s, kv_head, page + i + count, rest < TILE_PAGES ? rest : TILE_PAGES);
        s->matrix->peaks(peak, q, s->blocks_matrix, dim, s->k_matrix, type, (1u << count) - 1);
        for (int p = 0; p < count; p++)
            if (peak[p] > score[i + p]) score[i + p] = peak[p];
    }
    s->matrix->shape(0, type);
}

/* Pages are far apart: those AHEAD are on their way while one is scored. Few queries read keys as
 * they are stored, for many it pays to unpack them once. */
static void score_head(struct hip_scorer *s, int g, const int *page, int n, float *score) {
    const enum dtype type = kv_shape(s->kv)->type_k;
    const int dim = s->shape.k_dim, blocks = (s->n_rows + PEAK_ROWS - 1) / PEAK_ROWS,
              kv_head = s->owner.kv_head + g;
    const int direct = type == DT_F32 || (blocks == 1 && (type == DT_F16 || type == DT_BF16));
    const size_t bytes = tile_k_bytes(type, dim);
    const float *q = s->q_peak + (size_t)g * blocks * dim * PEAK_ROWS;
    const char *coming[AHEAD];
    for (int i = 0; i < AHEAD && i < n; i++) {
        coming[i] = kv_page(s->kv, s->layer, kv_head, page[i]).k;
        tile_prefetch(coming[i], bytes);
    }
    for (int i = 0; i < n; i++) {
        const void *keys = coming[i % AHEAD];
        const char *next = NULL;
        if (i + AHEAD < n)
            next = coming[i % AHEAD] = kv_page(s->kv, s->layer, kv_head, page[i + AHEAD]).k;
        if (!direct) {
            if (next) tile_prefetch(next, bytes);
            s->tile->unpack_k(s->page, keys, type, dim);
            keys = s->page, next = NULL;
        }
        for (int b = 0; b < blocks; b++) {
            const float x = s->peak->page(q + (size_t)b * dim * PEAK_ROWS, dim, keys,
                                          direct ? type : DT_F32, b ? NULL : next);
            if (x > score[i]) score[i] = x;
        }
    }
}

void hip_score_pages(struct hip_scorer *s, const int *page, int n, float *score) {
    for (int i = 0; i < n; i++) score[i] = -INFINITY;
    for (int g = 0; g < s->owner.n_kv_heads; g++)
        if (s->blocks_matrix) score_by_matrix(s, g, page, n, score);
        else score_head(s, g, page, n, score);
    s->scored += (uint64_t)n * KV_PAGE * s->owner.n_kv_heads;
}
