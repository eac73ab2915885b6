/* tile_matrix.h - the products of attention by a matrix unit of bfloat16 and bytes: an optional
 * twin of scores and gather in tile.h.
 *
 * F16 and BF16: a bfloat16 has 8 significant bits, so numbers go in as sums of two: queries
 * and weights to 2^-17 of themselves, an F16 to 2^-21 (below 2^-14 it counts as 0). The
 * products of their parts are added in f32, but for that of both low ones: what is lost is
 * about 2^-16 of the terms.
 * Q8_0 and Q4_0: their own whole numbers are multiplied, with queries and weights rounded to 16
 * bits: to 2^-16 of the largest of a row (of a query; of the weights of one tile, times the scales
 * of a block of columns). The sums of a block are exact; scales are applied to them in f32.
 * Either is far less than the storage type has lost before. F32 pages would lose: they are not
 * taken. Infinity in a query, key or value comes out as NaN.
 *
 * Pages are turned into the unit's own order once per tile of keys and queries once per sweep, into
 * room of the caller. As in tile.h, no row's arithmetic depends on the rows beside it. */
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

/* Bit i: page i of the keys is there. */
static inline unsigned matrix_pages(const struct matrix_tile *t) {
    unsigned pages = 0;
    for (int p = 0; p < TILE_PAGES; p++) pages |= (unsigned)!!t->k[p] << p;
    return pages;
}

struct tile_matrix {
    /* Bytes for one tile of any type but F32, multiples of 64, as is the alignment wanted.
     * Queries take matrix_room_q. */
    size_t (*room_k)(int dim), (*room_v)(int dim);

    /* Queries for keys of that type. */
    void (*load_q)(void *dst, const float *q, int rows, int dim, enum dtype);
    /* Pages that are NULL are left out; so are the values of keys whose bit is not set, which may
     * be anything. ahead: see tile.h. */
    void (*load_k)(void *dst, const void *const page[TILE_PAGES], enum dtype, int dim,
                   ptrdiff_t ahead);
    void (*load_v)(void *dst, const void *const page[TILE_PAGES], enum dtype, int dim,
                   uint64_t keys, ptrdiff_t ahead);

    /* Sets the calling thread's unit up for blocks of so many rows, 1..MATRIX_ROWS, and keys or
     * values of that type; 0: gives it back. */
    void (*shape)(int rows, enum dtype);
    /* One block of rows, from row `first` of q on; bit i of pages: page i was there. */
    void (*scores)(float *s, const void *q, int first, int rows, int dim, const void *k,
                   enum dtype, unsigned pages);
    /* peak[i] = the highest of the scores that any of some blocks of MATRIX_ROWS rows, the
     * first ones of q, gives page i; -INFINITY at least, and a NaN is passed over. What the
     * unit is for a search: see peak.h. */
    void (*peaks)(float peak[TILE_PAGES], const void *q, int blocks, int dim, const void *k,
                  enum dtype, unsigned pages);
    /* out[rows][dim] += p[rows][TILE] * values; keys as in load_v. */
    void (*gather)(float *out, const float *p, int rows, int dim, const void *v, enum dtype,
                   uint64_t keys);
    /* The same for n tiles straight from their pages, when one block of rows is all that meets
     * them. room: as for load_k, load_v. */
    void (*scores_run)(const struct matrix_tile *, int n, void *room, const void *q, int first,
                       int rows, int dim, enum dtype);
    void (*gather_run)(float *out, const struct matrix_tile *, int n, void *room, int rows,
                       int dim, enum dtype);
};

/* Rows of queries: up to three parts of 16 bits, in pairs of blocks of 32 dimensions, and
 * scales; and the most that room_k of any unit asks for. */
static inline size_t matrix_room_q(int rows, int dim) {
    return (size_t)rows * (((size_t)(dim + 63) / 64) * 384 + 128);
}
static inline size_t matrix_room_k(int dim) { return matrix_room_q(TILE + 2, dim); }

extern const struct tile_matrix tile_amx;

#endif
