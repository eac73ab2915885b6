/* tile_matrix.h - the products of attention by a matrix unit of bfloat16: an optional twin of scores and gather in tile.h.
 *
 * A bfloat16 has 8 significant bits, so numbers go in as sums of two: queries and weights to 2^-17 of themselves, an F16
 * exactly; BF16 and the quants of Q8_0 and Q4_0 are exact as they are, and their scales are applied in f32: to the sums of a
 * block of dimensions (keys), to the weights (values). All products of their parts are
 * added in f32, so what is lost is about 2^-17 of the terms, far less than the storage type has lost before. F32 pages would
 * lose: they are not taken. Infinity in a query, key or value comes out as NaN.
 *
 * Pages are turned into the unit's own order once per tile of keys and queries once per sweep, into room of the caller. As
 * in tile.h, no row's arithmetic depends on the rows beside it. */
#ifndef KERNELS_TILE_MATRIX_H
#define KERNELS_TILE_MATRIX_H
#include "kernels/tile.h"

enum { MATRIX_ROWS = 16 };                               /* most rows of one block */

/* A tile of a run. Its pages may be NULL, as in load_k and load_v. */
struct matrix_tile {
    float *s;                                            /* [rows][TILE]: scores, then weights */
    const void *k[TILE_PAGES], *v[TILE_PAGES];
    ptrdiff_t ahead_k, ahead_v;
    uint64_t keys;
};

struct tile_matrix {
    size_t (*room_q)(int rows, int dim);                 /* bytes, multiples of 64, as is the alignment wanted */
    size_t (*room_k)(int dim), (*room_v)(int dim);       /* for one tile of any type but F32 */

    void (*load_q)(void *dst, const float *q, int rows, int dim);
    /* Pages that are NULL are left out; so are the values of keys whose bit is not set, which may be anything. ahead: see
     * tile.h. */
    void (*load_k)(void *dst, const void *const page[TILE_PAGES], enum dtype, int dim, ptrdiff_t ahead);
    void (*load_v)(void *dst, const void *const page[TILE_PAGES], enum dtype, int dim, uint64_t keys, ptrdiff_t ahead);

    /* Sets the calling thread's unit up for blocks of so many rows, 1..MATRIX_ROWS; 0: gives it back. */
    void (*shape)(int rows);
    /* One block of rows, from row `first` of q on; bit i of pages: page i was there. */
    void (*scores)(float *s, const void *q, int first, int rows, int dim, const void *k, enum dtype, unsigned pages);
    /* peak[i] = the highest of the scores that any of some blocks of MATRIX_ROWS rows, the first ones of q, gives page i;
     * -INFINITY at least, and a NaN is passed over. What the unit is for a search: see peak.h. */
    void (*peaks)(float peak[TILE_PAGES], const void *q, int blocks, int dim, const void *k, enum dtype, unsigned pages);
    /* out[rows][dim] += p[rows][TILE] * values; keys as in load_v. */
    void (*gather)(float *out, const float *p, int rows, int dim, const void *v, enum dtype, uint64_t keys);
    /* The same for n tiles straight from their pages, when one block of rows is all that meets them. */
    void (*scores_run)(const struct matrix_tile *, int n, const void *q, int first, int rows, int dim, enum dtype);
    void (*gather_run)(float *out, const struct matrix_tile *, int n, int rows, int dim, enum dtype);
};

/* What room_q and room_k of every unit stay below, for scratch laid out before one is known: rows of two bfloat16 parts, and
 * scales. */
static inline size_t matrix_room_q(int rows, int dim) { return (size_t)rows * ((size_t)(dim + 31) / 32) * 128; }
static inline size_t matrix_room_k(int dim) { return matrix_room_q(TILE + 2, dim); }

extern const struct tile_matrix tile_amx;

#endif
