/* tile.h - pages of keys and values, and the loops that multiply queries with them.
 *
 * A page is KV_PAGE = 16 consecutive tokens of one KV head, keys and values apart, 64-byte aligned:
 *
 *          F32 F16 BF16               Q8_0                              Q4_0
 *   K      [dim][16]                  int8 [dim/4][16][4]               nibbles [dim/8][16][4]
 *   V      [16][dim]                  int8 [16][dim]                    nibbles [16][dim/32][16]
 *
 * K is transposed: one vector holds one dimension of 16 keys, so scores need no horizontal sums.
 * V is row-major: the output gathers p * V row. The quantised types keep the numbers of GGUF's
 * blocks (32 values along dim share an f16 scale, dim % 32 == 0) but store the scales behind the
 * quants: K [dim/32][16], V [16][dim/32]. A nibble byte of K holds dimension i (low) and i + 4
 * (high) of a group of 8; of V, value i (low) and i + 16 (high) of a block.
 *
 * A tile is TILE_PAGES pages. The attention kernel works tile by tile: scores of some query
 * rows, softmax, then the weighted sum of values. One row's arithmetic never depends on the
 * rows beside it: every variant adds the products of one score in order of dim, and those
 * of one output in order of keys. */
#ifndef KERNELS_TILE_H
#define KERNELS_TILE_H
#include <stddef.h>
#include <stdint.h>
#include "kernels/dtype.h"

enum { KV_PAGE = 16, TILE_PAGES = 4, TILE = TILE_PAGES * KV_PAGE, TILE_LANES = 16 };

/* 1 if keys and values of this type and head size can be stored. */
int tile_supports(enum dtype type, int dim);

size_t tile_k_bytes(enum dtype type, int dim);           /* one page, a multiple of 64 */
size_t tile_v_bytes(enum dtype type, int dim);
/* Asks for the lines of a page, or of its keys or values, that will be read soon. */
static inline void tile_prefetch(const void *page, size_t bytes) {
    for (size_t b = 0; b < bytes; b += 64) __builtin_prefetch((const char *)page + b);
}

/* Stores the dim floats x of one token, or reads them back to x[i * stride]; slot 0..KV_PAGE-1. */
void tile_put_k(void *page, enum dtype type, int dim, int slot, const float *x);
void tile_put_v(void *page, enum dtype type, int dim, int slot, const float *x);
void tile_get_k(const void *page, enum dtype type, int dim, int slot, float *x, int stride);
void tile_get_v(const void *page, enum dtype type, int dim, int slot, float *x, int stride);

struct tile_kernels {
    /* A whole page as f32: K to dst[dim][16], V to dst[16][dim]. */
    void (*unpack_k)(float *dst, const void *page, enum dtype type, int dim);
    void (*unpack_v)(float *dst, const void *page, enum dtype type, int dim);

    /* s[rows][TILE] = q[rows][dim] . keys of the pages of one tile; where page[i] is NULL, s is
     * left alone. type is DT_F32, or any type if rows <= direct_rows. ahead is a hint: the distance
     * in bytes from a page to the one whose turn comes a tile later, 0 if not known. */
    void (*scores)(float *s, const float *q, int rows, int dim, const void *const page[TILE_PAGES],
                   enum dtype type, ptrdiff_t ahead);

    /* One step of the online softmax, base 2. Row r sees key j of the tile iff bit j of seen[r] is
     * set. Its state is m[r], the reference all its exponentials are taken against, and
     * sum[r][TILE_LANES], partial sums of them. On return s[r][j] = 2^(s[r][j] - m[r]), 0 for keys
     * not seen. When a score exceeds m[r] by more than 8, m[r] is raised and sum[r] and out[r][dim]
     * are scaled down: rarely. A row that sees nothing keeps its state. */
    void (*softmax)(float *s, int rows, const uint64_t *seen, float *m, float *sum, float *out,
                    int dim);

    /* out[rows][dim] += p[rows][TILE] * values of the tile's keys whose bit is set in
     * keys; the rest as in scores. */
    void (*gather)(float *out, const float *p, int rows, int dim,
                   const void *const page[TILE_PAGES], enum dtype type, uint64_t keys,
                   ptrdiff_t ahead);

    /* Probabilities of some heads: x = e[r][j] * factor[r]. high[TILE] is raised to the
     * highest x over the rows, all[TILE] gets their sum added. A NaN does not raise. */
    void (*fold)(float *high, float *all, const float *e, const float *factor, int rows);

    /* Up to so many rows, scores and gather read any type; more rows pay an unpacking. */
    int direct_rows;
};

extern const struct tile_kernels tile_scalar, tile_avx2, tile_avx512;

#endif
