/* tile_halves_amx.c - tile_matrix.h with AMX for F16 and BF16. Scores and sums of values are the
 * same product of a row block with a tile of keys:
 *
 *                  B   32 dimensions (32 keys) x 16 keys (16 columns), bf16,
 *                      consecutive pairs of rows side by side
 *                  +--------+--------+--------+--------+
 *                  |  tile  |        |        |        |   high part, and low part if there is one
 *   A              +--------+--------+--------+--------+
 *   +----------+   +--------+--------+--------+--------+
 *   | high low |   |  C 0   |  C 1   |  C 2   |  C 3   |   rows x 16, f32: C += Ah Bh, Al Bh, Ah Bl
 *   +----------+   +--------+--------+--------+--------+   (third part of A)
 *     rows x 32
 *
 * scores: A is the queries, C a page each. gather: A is the weights, C 16 columns of the output
 * each. The four C take turns because a product waits for the one before it on the same C.
 *
 * Many rows share tiles of B that load_k and load_v have made. Few rows (decode) meet each of them
 * once: scores_run and gather_run make them in a small buffer while the unit multiplies with the
 * ones before, from one tile of keys to the next. */
#include "kernels/tile_amx_order.h"

/* The type becomes a constant. */
#define FOR_TYPE(type, call) \
    do { if ((type) == DT_F16) call(DT_F16); else call(DT_BF16); } while (0)
/* What makes tiles says whether a NaN was among the numbers; then they are made
 * once more, with care (put_parts). */
#define WITH_CARE(type, call, ...) do { \
        if (is_nan(call(__VA_ARGS__, 0)) && parts_of(type) == 2) call(__VA_ARGS__, 1); \
    } while (0)

INLINE __m512h load_k_of(char *dst, const void *const page[TILE_PAGES], const enum dtype type,
                         int dim, ptrdiff_t ahead, const int careful) {
    const int steps = steps_of(dim);
    __m512h seen = _mm512_setzero_ph();
    for (int p = 0; p < TILE_PAGES; p++)
        for (int i = 0; i < steps && page[p]; i++)
            for (int half = 0; half < 2; half++)
                k_half(dst + ((size_t)p * steps + i) * TILE_BYTES,
                       (size_t)TILE_PAGES * steps * TILE_BYTES, page[p], type, dim, i * STEP, half,
                       ahead_of(page[p], (size_t)i * TILE_BYTES, ahead), careful, &seen);
    return seen;
}

static void load_k(void *dst, const void *const page[TILE_PAGES], enum dtype type, int dim,
                   ptrdiff_t ahead) {
#define LOAD_K(type) WITH_CARE(type, load_k_of, dst, page, type, dim, ahead)
    FOR_TYPE(type, LOAD_K);
}

INLINE __m512h load_v_of(char *dst, const void *const page[TILE_PAGES], const enum dtype type,
                         int dim, uint64_t keys, ptrdiff_t ahead, const int careful) {
    const int columns = columns_of(dim);
    __m512h seen = _mm512_setzero_ph();
    for (int h = 0; h < 2; h++)
        for (int c = 0; c < columns; c++) {
            const uint32_t some = (uint32_t)(keys >> (h * 32));
            if (!some) continue;                           /* gather leaves the half out */
            for (int half = 0; half < 2; half++)
                v_half(dst + ((size_t)h * columns + c) * TILE_BYTES,
                       (size_t)2 * columns * TILE_BYTES, page + 2 * h, type, dim, c * COLS, half,
                       some, ahead, careful, &seen);
        }
    return seen;
}

static void load_v(void *dst, const void *const page[TILE_PAGES], enum dtype type, int dim,
                   uint64_t keys, ptrdiff_t ahead) {
#define LOAD_V(type) WITH_CARE(type, load_v_of, dst, page, type, dim, keys, ahead)
    FOR_TYPE(type, LOAD_V);
}

/* ---- Products ---- */

#define PRODUCT(C, A, B, at) { _tile_loadd(B, at, 64); _tile_dpbf16ps(C, A, B); }
/* A pass over all C before the next: none waits for the one before. */
#define PASS(A, tiles, at, next) \
    if ((tiles) & 1) PRODUCT(0, A, 6, at) \
    if ((tiles) & 2) PRODUCT(1, A, 7, (at) + (next)) \
    if ((tiles) & 4) PRODUCT(2, A, 6, (at) + 2 * (next)) \
    if ((tiles) & 8) PRODUCT(3, A, 7, (at) + 3 * (next))

/* A row block of A: where its first part is; how far it is from row to row, from part to part. */
struct block { const char *at; size_t row, part; };

INLINE void load_a(struct block a) {
    FENCE;
    _tile_loadd(4, a.at, a.row);
    _tile_loadd(5, a.at + a.part, a.row);
}

/* What the low parts of B are multiplied with. */
INLINE void load_third(struct block a) {
    FENCE;
    _tile_loadd(4, a.at + 2 * a.part, a.row);
}

INLINE void multiply(struct block a, unsigned tiles, const char *b, size_t next, size_t low) {
    load_a(a);
    PASS(4, tiles, b, next)
    PASS(5, tiles, b, next)
    if (low) {
        load_third(a);
        PASS(4, tiles, b + low, next)
    }
}

INLINE void clear(void) { _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3); }

INLINE void store(unsigned tiles, float *to, size_t next, size_t stride) {
    if (tiles & 1) _tile_stored(0, to, stride);
    if (tiles & 2) _tile_stored(1, to + next, stride);
    if (tiles & 4) _tile_stored(2, to + 2 * next, stride);
    if (tiles & 8) _tile_stored(3, to + 3 * next, stride);
    FENCE;
}

INLINE void load(unsigned tiles, const float *from, size_t next, size_t stride) {
    FENCE;
    if (tiles & 1) _tile_loadd(0, from, stride);
    if (tiles & 2) _tile_loadd(1, from + next, stride);
    if (tiles & 4) _tile_loadd(2, from + 2 * next, stride);
    if (tiles & 8) _tile_loadd(3, from + 3 * next, stride);
}

INLINE struct block queries(const char *q, int first, int dim) {
    return (struct block){ q + first * row_bytes(dim), row_bytes(dim), part_bytes(dim) };
}

INLINE void scores_of(float *s, const void *q, int first, int dim, const char *k,
                      const enum dtype type, unsigned pages) {
    const int steps = steps_of(dim);
    const size_t next = (size_t)steps * TILE_BYTES,
                 low = parts_of(type) == 2 ? TILE_PAGES * next : 0;
    struct block a = queries(q, first, dim);
    FENCE;
    clear();
    for (int i = 0; i < steps; i++, a.at += 64, k += TILE_BYTES) multiply(a, pages, k, next, low);
    store(pages, s, KV_PAGE, TILE * sizeof *s);
}

static void scores(float *s, const void *q, int first, int rows, int dim, const void *k,
                   enum dtype type, unsigned pages) {
    (void)rows;                                            /* shape has been told */
#define SCORES(type) scores_of(s, q, first, dim, k, type, pages)
    FOR_TYPE(type, SCORES);
}

/* C of columns c to dim - 1, at most four: the sums so far are loaded, and what becomes of them is
 * stored. The last few of an odd head size go through a buffer. */
struct sums { float *at; size_t stride; int c; unsigned tiles; };

INLINE struct sums sums_at(float *out, float *edge, int rows, int dim, int c) {
    const int n = (dim - c < 4 * COLS ? dim - c : 4 * COLS) / COLS;
    if (n) return (struct sums){ out + c, (size_t)dim * sizeof *out, c, (1u << n) - 1 };
    for (int r = 0; r < rows; r++)
        _mm512_store_ps(edge + r * COLS,
                        _mm512_maskz_loadu_ps(mask_of(dim - c), out + (size_t)r * dim + c));
    return (struct sums){ edge, COLS * sizeof *out, c, 1 };
}

INLINE void sums_store(const struct sums *x, float *out, const float *edge, int rows, int dim) {
    store(x->tiles, x->at, COLS, x->stride);
    for (int r = 0; r < rows && x->at == edge; r++)
        _mm512_mask_storeu_ps(out + (size_t)r * dim + x->c, mask_of(dim - x->c),
                              _mm512_load_ps(edge + r * COLS));
}

INLINE int columns_in(unsigned tiles) { return __builtin_popcount(tiles) * COLS; }

/* Weights of one half of the keys. */
INLINE struct block weights(const char *parts, int half) {
    return (struct block){ parts + half * STEP * sizeof(uint16_t), WEIGHTS, MATRIX_ROWS * WEIGHTS };
}

enum { SET = 3 * MATRIX_ROWS * WEIGHTS };                /* the weights of a tile */
INLINE void gather_of(float *out, const float *p, int rows, int dim, const char *v,
                      const enum dtype type, uint64_t keys) {
    const size_t half = (size_t)columns_of(dim) * TILE_BYTES,
                 low = parts_of(type) == 2 ? 2 * half : 0;
    _Alignas(64) char parts[SET];
    _Alignas(64) float edge[MATRIX_ROWS * COLS];
    struct sums x;
    split_weights(parts, p, rows, type);
    for (int c = 0; c < dim; c += columns_in(x.tiles)) {
        x = sums_at(out, edge, rows, dim, c);
        load(x.tiles, x.at, COLS, x.stride);
        for (int h = 0; h < 2; h++) {
            if (!(uint32_t)(keys >> (32 * h))) continue;
            multiply(weights(parts, h), x.tiles, v + h * half + (size_t)c / COLS * TILE_BYTES,
                     TILE_BYTES, low);
        }
        sums_store(&x, out, edge, rows, dim);
    }
}

static void gather(float *out, const float *p, int rows, int dim, const void *v, enum dtype type,
                   uint64_t keys) {
#define GATHER(type) gather_of(out, p, rows, dim, v, type, keys)
    FOR_TYPE(type, GATHER);
}

/* ---- A run of tiles straight from their pages ---- */

/* A quarter: the tiles of B of all four C, each with its low part behind it. The vector unit
 * makes one while the matrix unit multiplies with the other, as what was just stored cannot be
 * loaded as a tile without a wait. */
enum { BOTH = 2 * TILE_BYTES, QUARTER = 4 * BOTH };

/* A pair of C and the two registers of B, if they are wanted. */
#define PAIR_LOAD(C, D, tiles, b) { \
        if ((tiles) >> C & 1) _tile_loadd(6, b, 64); \
        if ((tiles) >> D & 1) _tile_loadd(7, (b) + BOTH, 64); \
    }
#define PAIR(C, D, A, tiles) { \
        if ((tiles) >> C & 1) _tile_dpbf16ps(C, A, 6); \
        if ((tiles) >> D & 1) _tile_dpbf16ps(D, A, 7); \
    }

/* All four turns with one quarter, each between the halves of the making of one tile of the next
 * quarter, since what the unit is given takes long to come. A turn is for a pair of C: the high
 * parts of B with both parts of A, and, two turns later, the low ones with the third. Each C
 * adds in the order of multiply. */
#define IN_TURN(a, tiles, quarter, type, make) { \
        const char *const high = quarter, *const low = high + TILE_BYTES; \
        TURN(0, 1, tiles, high, 5, make, 0) \
        TURN(2, 3, tiles, high + 2 * BOTH, 5, make, 1) \
        if (parts_of(type) == 2) { \
            load_third(a); \
            TURN(0, 1, tiles, low, 0, make, 2) \
            TURN(2, 3, tiles, low + 2 * BOTH, 0, make, 3) \
        } else { \
            make(2, 0) make(2, 1) make(3, 0) make(3, 1) \
        } \
    }
#define TURN(C, D, tiles, b, second, make, turn) { \
        FENCE; \
        PAIR_LOAD(C, D, tiles, b) \
        make(turn, 0) \
        PAIR(C, D, 4, tiles) \
        make(turn, 1) \
        if (second) PAIR(C, D, 5, tiles) \
    }

/* The tiles of keys for C number n and the dimensions from i on; what is fetched
 * is fetched in order of memory. */
INLINE void make_keys(char *quarter, const struct matrix_tile *t, const enum dtype type, int dim,
                      int i, int n, int half, const int careful, __m512h *seen) {
    const int steps = steps_of(dim), turn = i / STEP * TILE_PAGES + n;
    const void *near = t->k[turn / steps] ? t->k[turn / steps] : t->k[n];
    if (!t->k[n]) return;
    k_half(quarter + n * BOTH, TILE_BYTES, t->k[n], type, dim, i, half,
           ahead_of(near, (size_t)(turn % steps) * TILE_BYTES, t->ahead_k), careful, seen);
}

INLINE __m512h scores_run_of(const struct matrix_tile *t, int n, const char *q, int dim,
                             const enum dtype type, const int careful) {
    __m512h seen = _mm512_setzero_ph();
    _Alignas(64) char quarter[2][QUARTER];
    const struct matrix_tile *end = t + n;
    for (int j = 0; j < TILE_PAGES; j++)
        for (int half = 0; half < 2; half++)
            make_keys(quarter[0], t, type, dim, 0, j, half, careful, &seen);
    FENCE;
    for (int at = 0; t < end; t++) {
        struct block a = queries(q, 0, dim);
        clear();
        for (int i = 0; i < dim; i += STEP, at ^= 1, a.at += 64) {
            const int last = i + STEP >= dim, more = !last || t + 1 < end;
            load_a(a);
#define NEXT_KEYS(j, half) \
        if (more) make_keys(quarter[!at], t + last, type, dim, last ? 0 : i + STEP, j, half, \
                            careful, &seen);
            IN_TURN(a, 15, quarter[at], type, NEXT_KEYS)   /* nothing is stored of absent pages */
        }
        store(matrix_pages(t), t->s, KV_PAGE, TILE * sizeof *t->s);
    }
    return seen;
}

static void scores_run(const struct matrix_tile *t, int n, void *room, const void *q, int first,
                       int rows, int dim, enum dtype type) {
    const char *a = (const char *)q + first * row_bytes(dim);
    (void)room, (void)rows;
#define SCORES_RUN(type) WITH_CARE(type, scores_run_of, t, n, a, dim, type)
    FOR_TYPE(type, SCORES_RUN);
}

/* What is multiplied in one go: some columns, one half of the keys of one tile. */
struct step { const struct matrix_tile *t; int half; };

INLINE struct step step_at(const struct matrix_tile *t) {
    return (struct step){ t, !(uint32_t)t->keys };
}
INLINE struct step step_after(struct step x, const struct matrix_tile *end) {
    if (!x.half && x.t->keys >> 32) return (struct step){ x.t, 1 };
    return x.t + 1 < end ? step_at(x.t + 1) : (struct step){ end, 0 };
}

INLINE void make_values(char *quarter, struct step x, const enum dtype type, int dim, int c, int j,
                        int half, const int careful, __m512h *seen) {
    v_half(quarter + j * BOTH, TILE_BYTES, x.t->v + 2 * x.half, type, dim, c + j * COLS, half,
           (uint32_t)(x.t->keys >> (32 * x.half)), x.t->ahead_v, careful, seen);
}

/* Columns c.. of one go; what they add up to stays with the unit. */
INLINE __m512h gather_columns(const struct sums *x, const struct matrix_tile *t, int n, int rows,
                              int dim, const enum dtype type, const int careful) {
    _Alignas(64) char sets[2][SET], quarter[2][QUARTER];
    __m512h seen = _mm512_setzero_ph();
    struct step step = step_at(t), next;
    split_weights(sets[0], t->s, rows, type);
    for (int j = 0; j < 8; j++)
        if (x->tiles >> j / 2 & 1)
            make_values(quarter[0], step, type, dim, x->c, j / 2, j % 2, careful, &seen);
    load(x->tiles, x->at, COLS, x->stride);
    for (int at = 0, own = 0; step.t < t + n; at ^= 1, own ^= next.t != step.t, step = next) {
        next = step_after(step, t + n);
        const int more = next.t < t + n;
        const struct block a = weights(sets[own], step.half);
        load_a(a);
        if (more && next.t != step.t) split_weights(sets[!own], next.t->s, rows, type);
#define NEXT_VALUES(j, half) \
        if (more && x->tiles >> (j) & 1) \
            make_values(quarter[!at], next, type, dim, x->c, j, half, careful, &seen);
        IN_TURN(a, x->tiles, quarter[at], type, NEXT_VALUES)
    }
    return seen;
}

INLINE void gather_run_of(float *out, const struct matrix_tile *t, int n, int rows, int dim,
                          const enum dtype type) {
    _Alignas(64) float edge[MATRIX_ROWS * COLS];
    struct sums x;
    for (int c = 0; c < dim; c += columns_in(x.tiles)) {
        x = sums_at(out, edge, rows, dim, c);
        WITH_CARE(type, gather_columns, &x, t, n, rows, dim, type);
        sums_store(&x, out, edge, rows, dim);
    }
}

static void gather_run(float *out, const struct matrix_tile *t, int n, void *room, int rows,
                       int dim, enum dtype type) {
    (void)room;
#define GATHER_RUN(type) gather_run_of(out, t, n, rows, dim, type)
    FOR_TYPE(type, GATHER_RUN);
}

const struct tile_matrix tile_halves = {
    .room_k = room_k, .room_v = room_v, .load_q = load_q, .load_k = load_k, .load_v = load_v,
    .scores = scores, .gather = gather, .scores_run = scores_run, .gather_run = gather_run
};
