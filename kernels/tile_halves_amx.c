/* tile_halves_amx.c - tile_matrix.h with AMX for F16 and BF16. Scores and sums of values are the same product of a row block
 * with a tile of keys:
 *
 *                        B   32 dimensions (32 keys) x 16 keys (16 columns), bf16, consecutive pairs of rows side by side
 *                        +--------+--------+--------+--------+
 *                        |  tile  |        |        |        |   high part, and low part if there is one
 *     A                  +--------+--------+--------+--------+
 *     +----------+       +--------+--------+--------+--------+
 *     | high low |       |  C 0   |  C 1   |  C 2   |  C 3   |   rows x 16, f32: C += Ah Bh, Al Bh, Ah Bl
 *     +----------+       +--------+--------+--------+--------+
 *       rows x 32
 *
 * scores: A is the queries, C a page each.  gather: A is the weights, C 16 columns of the output each. The four C take turns
 * because a product waits for the one before it on the same C.
 *
 * Many rows share tiles of B that load_k and load_v have made. Few rows (decode) meet each of them once: scores_run and gather_run
 * make them in a small buffer while the unit multiplies with the ones before, from one tile of keys to the next. */
#include "kernels/tile_amx_order.h"

/* The type becomes a constant. */
#define FOR_TYPE(type, call) if ((type) == DT_F16) call(DT_F16); else call(DT_BF16);

INLINE void load_k_of(char *dst, const void *const page[TILE_PAGES], const enum dtype type, int dim, ptrdiff_t ahead) {
    const int steps = steps_of(dim);
    for (int p = 0; p < TILE_PAGES; p++)
        for (int i = 0; i < steps && page[p]; i++)
            k_tile(dst + ((size_t)p * steps + i) * TILE_BYTES, (size_t)TILE_PAGES * steps * TILE_BYTES, page[p], type, dim,
                   i * STEP, ahead_of(page[p], (size_t)i * TILE_BYTES, ahead));
}

static void load_k(void *dst, const void *const page[TILE_PAGES], enum dtype type, int dim, ptrdiff_t ahead) {
#define LOAD_K(type) load_k_of(dst, page, type, dim, ahead)
    FOR_TYPE(type, LOAD_K)
}

INLINE void load_v_of(char *dst, const void *const page[TILE_PAGES], const enum dtype type, int dim, uint64_t keys,
                      ptrdiff_t ahead) {
    const int columns = columns_of(dim);
    for (int h = 0; h < 2; h++)
        for (int c = 0; c < columns; c++) {
            const uint32_t some = (uint32_t)(keys >> (h * 32));
            if (!some) continue;                           /* gather leaves the half out */
            v_tile(dst + ((size_t)h * columns + c) * TILE_BYTES, (size_t)2 * columns * TILE_BYTES, page + 2 * h, type, dim,
                   c * COLS, some, ahead);
        }
}

static void load_v(void *dst, const void *const page[TILE_PAGES], enum dtype type, int dim, uint64_t keys, ptrdiff_t ahead) {
#define LOAD_V(type) load_v_of(dst, page, type, dim, keys, ahead)
    FOR_TYPE(type, LOAD_V)
}

/* ---- Products ---- */

#define PRODUCT(C, A, B, at) { _tile_loadd(B, at, 64); _tile_dpbf16ps(C, A, B); }
/* A pass over all C before the next: none waits for the one before. */
#define PASS(A, tiles, at, next) \
    if ((tiles) & 1) PRODUCT(0, A, 6, at) \
    if ((tiles) & 2) PRODUCT(1, A, 7, (at) + (next)) \
    if ((tiles) & 4) PRODUCT(2, A, 6, (at) + 2 * (next)) \
    if ((tiles) & 8) PRODUCT(3, A, 7, (at) + 3 * (next))

INLINE void load_a(const void *high, const void *low, size_t stride) {
    FENCE;
    _tile_loadd(4, high, stride);
    _tile_loadd(5, low, stride);
}

INLINE void multiply(unsigned tiles, const char *b, size_t next, size_t low) {
    PASS(4, tiles, b, next)
    PASS(5, tiles, b, next)
    if (low) {
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

INLINE void scores_of(float *s, const void *q, int first, int dim, const char *k, const enum dtype type,
                      unsigned pages) {
    const int steps = steps_of(dim);
    const size_t row = row_bytes(dim), next = (size_t)steps * TILE_BYTES, low = parts_of(type) == 2 ? TILE_PAGES * next : 0;
    const char *a = (const char *)q + first * row;
    FENCE;
    clear();
    for (int i = 0; i < steps; i++, a += 64, k += TILE_BYTES) {
        load_a(a, a + row / 2, row);
        multiply(pages, k, next, low);
    }
    store(pages, s, KV_PAGE, TILE * sizeof *s);
}

static void scores(float *s, const void *q, int first, int rows, int dim, const void *k, enum dtype type, unsigned pages) {
    (void)rows;                                            /* shape has been told */
#define SCORES(type) scores_of(s, q, first, dim, k, type, pages)
    FOR_TYPE(type, SCORES)
}

/* C of columns c to dim - 1, at most four: the sums so far are loaded, and what becomes of them is stored. The last few of an
 * odd head size go through a buffer. */
struct sums { float *at; size_t stride; int c; unsigned tiles; };

INLINE struct sums sums_at(float *out, float *edge, int rows, int dim, int c) {
    const int n = (dim - c < 4 * COLS ? dim - c : 4 * COLS) / COLS;
    if (n) return (struct sums){ out + c, (size_t)dim * sizeof *out, c, (1u << n) - 1 };
    for (int r = 0; r < rows; r++)
        _mm512_store_ps(edge + r * COLS, _mm512_maskz_loadu_ps(mask_of(dim - c), out + (size_t)r * dim + c));
    return (struct sums){ edge, COLS * sizeof *out, c, 1 };
}

INLINE void sums_store(const struct sums *x, float *out, const float *edge, int rows, int dim) {
    store(x->tiles, x->at, COLS, x->stride);
    for (int r = 0; r < rows && x->at == edge; r++)
        _mm512_mask_storeu_ps(out + (size_t)r * dim + x->c, mask_of(dim - x->c), _mm512_load_ps(edge + r * COLS));
}

INLINE int columns_in(unsigned tiles) { return __builtin_popcount(tiles) * COLS; }

/* Weights of one half of the keys. */
INLINE void load_weights(const uint16_t *parts, int half) {
    const uint16_t *a = parts + half * STEP;
    load_a(a, a + MATRIX_ROWS * TILE, TILE * sizeof *a);
}

INLINE void gather_of(float *out, const float *p, int rows, int dim, const char *v, const enum dtype type, uint64_t keys) {
    const size_t half = (size_t)columns_of(dim) * TILE_BYTES, low = parts_of(type) == 2 ? 2 * half : 0;
    _Alignas(64) uint16_t parts[2 * MATRIX_ROWS * TILE];
    _Alignas(64) float edge[MATRIX_ROWS * COLS];
    struct sums x;
    split_weights(parts, p, rows);
    for (int c = 0; c < dim; c += columns_in(x.tiles)) {
        x = sums_at(out, edge, rows, dim, c);
        load(x.tiles, x.at, COLS, x.stride);
        for (int h = 0; h < 2; h++) {
            if (!(uint32_t)(keys >> (32 * h))) continue;
            load_weights(parts, h);
            multiply(x.tiles, v + h * half + (size_t)c / COLS * TILE_BYTES, TILE_BYTES, low);
        }
        sums_store(&x, out, edge, rows, dim);
    }
}

static void gather(float *out, const float *p, int rows, int dim, const void *v, enum dtype type, uint64_t keys) {
#define GATHER(type) gather_of(out, p, rows, dim, v, type, keys)
    FOR_TYPE(type, GATHER)
}

/* ---- A run of tiles straight from their pages ---- */

/* A quarter: the tiles of B of all four C, each with its low part behind it. The vector unit makes one while the matrix
 * unit multiplies with the other, as what was just stored cannot be loaded as a tile without a wait. */
enum { BOTH = 2 * TILE_BYTES, QUARTER = 4 * BOTH };

/* Two C get what both parts of A make of the high part of their tiles, or the high part of A of the low one; or one C does. */
#define PAIR(C, D, tiles, b, low) { \
        if ((tiles) >> C & 1) _tile_loadd(6, b, 64); \
        if ((tiles) >> D & 1) _tile_loadd(7, (b) + BOTH, 64); \
        if ((tiles) >> C & 1) _tile_dpbf16ps(C, 4, 6); \
        if ((tiles) >> D & 1) _tile_dpbf16ps(D, 4, 7); \
        if (!(low) && (tiles) >> C & 1) _tile_dpbf16ps(C, 5, 6); \
        if (!(low) && (tiles) >> D & 1) _tile_dpbf16ps(D, 5, 7); \
    }

/* Turn n of four. With two parts: a pair of C with the high or, later, the low parts of a quarter; with one: one C. Each C
 * adds in the order of multiply. */
INLINE void pass_pair(int n, unsigned tiles, const char *quarter) {
    const char *b = quarter + (n & 1) * 2 * BOTH + n / 2 * TILE_BYTES;
    FENCE;
    if (n & 1) PAIR(2, 3, tiles, b, n / 2)
    else PAIR(0, 1, tiles, b, n / 2)
}

#define ALONE(C, B, at) { PRODUCT(C, 4, B, at) _tile_dpbf16ps(C, 5, B); }
INLINE void pass_one(int n, unsigned tiles, const char *quarter) {
    const char *b = quarter + n * BOTH;
    FENCE;
    if (!(tiles >> n & 1)) return;
    switch (n) {
    case 0: ALONE(0, 6, b) break;
    case 1: ALONE(1, 7, b) break;
    case 2: ALONE(2, 6, b) break;
    default: ALONE(3, 7, b)
    }
}

/* All turns with one quarter, before each the making of one tile of the next quarter. */
#define IN_TURN(tiles, quarter, type, make) \
    for (int turn = 0; turn < 4; turn++) { \
        make(turn); \
        if (parts_of(type) == 2) pass_pair(turn, tiles, quarter); \
        else pass_one(turn, tiles, quarter); \
    }

/* The tiles of keys for C number n and the dimensions from i on; what is fetched is fetched in order of memory. */
INLINE void make_keys(char *quarter, const struct matrix_tile *t, const enum dtype type, int dim, int i, int n) {
    const int steps = steps_of(dim), turn = i / STEP * TILE_PAGES + n;
    const void *near = t->k[turn / steps] ? t->k[turn / steps] : t->k[n];
    if (!t->k[n]) return;
    k_tile(quarter + n * BOTH, TILE_BYTES, t->k[n], type, dim, i,
           ahead_of(near, (size_t)(turn % steps) * TILE_BYTES, t->ahead_k));
}

INLINE void scores_run_of(const struct matrix_tile *t, int n, const char *q, int dim, const enum dtype type) {
    const size_t row = row_bytes(dim);
    _Alignas(64) char quarter[2][QUARTER];
    const struct matrix_tile *end = t + n;
    for (int j = 0; j < TILE_PAGES; j++) make_keys(quarter[0], t, type, dim, 0, j);
    FENCE;
    for (int at = 0; t < end; t++) {
        const unsigned pages = matrix_pages(t);
        clear();
        for (int i = 0; i < dim; i += STEP, at ^= 1) {
            const int last = i + STEP >= dim, more = !last || t + 1 < end;
            const char *a = q + (size_t)i * sizeof(uint16_t);
            load_a(a, a + row / 2, row);
#define NEXT_KEYS(j) if (more) make_keys(quarter[!at], t + last, type, dim, last ? 0 : i + STEP, j)
            IN_TURN(pages, quarter[at], type, NEXT_KEYS)
        }
        store(pages, t->s, KV_PAGE, TILE * sizeof *t->s);
    }
}

static void scores_run(const struct matrix_tile *t, int n, void *room, const void *q, int first, int rows, int dim,
                       enum dtype type) {
    const char *a = (const char *)q + first * row_bytes(dim);
    (void)room, (void)rows;
#define SCORES_RUN(type) scores_run_of(t, n, a, dim, type)
    FOR_TYPE(type, SCORES_RUN)
}

/* What is multiplied in one go: some columns, one half of the keys of one tile. */
struct step { const struct matrix_tile *t; int half; };

INLINE struct step step_at(const struct matrix_tile *t) { return (struct step){ t, !(uint32_t)t->keys }; }
INLINE struct step step_after(struct step x, const struct matrix_tile *end) {
    if (!x.half && x.t->keys >> 32) return (struct step){ x.t, 1 };
    return x.t + 1 < end ? step_at(x.t + 1) : (struct step){ end, 0 };
}

INLINE void make_values(char *quarter, struct step x, const enum dtype type, int dim, int c, int j) {
    v_tile(quarter + j * BOTH, TILE_BYTES, x.t->v + 2 * x.half, type, dim, c + j * COLS, (uint32_t)(x.t->keys >> (32 * x.half)),
           x.t->ahead_v);
}

enum { SET = 2 * MATRIX_ROWS * TILE };                   /* the weights of a tile */
INLINE void gather_run_of(float *out, const struct matrix_tile *t, int n, int rows, int dim, const enum dtype type) {
    _Alignas(64) uint16_t sets[2][SET];
    _Alignas(64) float edge[MATRIX_ROWS * COLS];
    _Alignas(64) char quarter[2][QUARTER];
    struct sums x;
    for (int c = 0; c < dim; c += columns_in(x.tiles)) {
        struct step step = step_at(t), next;
        x = sums_at(out, edge, rows, dim, c);
        split_weights(sets[0], t->s, rows);
        for (int j = 0; j < 4; j++) if (x.tiles >> j & 1) make_values(quarter[0], step, type, dim, c, j);
        load(x.tiles, x.at, COLS, x.stride);
        for (int at = 0, own = 0; step.t < t + n; at ^= 1, own ^= next.t != step.t, step = next) {
            next = step_after(step, t + n);
            const int more = next.t < t + n;
            load_weights(sets[own], step.half);
            if (more && next.t != step.t) split_weights(sets[!own], next.t->s, rows);
#define NEXT_VALUES(j) if (more && x.tiles >> (j) & 1) make_values(quarter[!at], next, type, dim, c, j)
            IN_TURN(x.tiles, quarter[at], type, NEXT_VALUES)
        }
        sums_store(&x, out, edge, rows, dim);
    }
}

static void gather_run(float *out, const struct matrix_tile *t, int n, void *room, int rows, int dim, enum dtype type) {
    (void)room;
#define GATHER_RUN(type) gather_run_of(out, t, n, rows, dim, type)
    FOR_TYPE(type, GATHER_RUN)
}

const struct tile_matrix tile_halves = {
    .room_k = room_k, .room_v = room_v, .load_q = load_q, .load_k = load_k, .load_v = load_v, .scores = scores,
    .gather = gather, .scores_run = scores_run, .gather_run = gather_run
};
