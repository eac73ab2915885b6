/* tile_amx_unit.h - the AMX unit itself, and the geometry that
 * tile_halves_amx.c and tile_bytes_amx.c share.
 *
 * Eight registers of at most 16 rows of 64 bytes. A product C += A * B takes consecutive pairs
 * of bfloat16, or quads of int8, of a row of A with those of a row of B, and adds them up in
 * f32 or int32:
 *
 *     registers 0..3   C     16 columns                 rows of A
 *               4, 5   A     32 bfloat16, or 64 int8    rows of queries or of weights, in two parts
 *               6, 7   B     [16][16] pairs, or quads   16 keys, or 16 columns of values */
#ifndef KERNELS_TILE_AMX_UNIT_H
#define KERNELS_TILE_AMX_UNIT_H
#include "kernels/tile_matrix.h"
#include <immintrin.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")
#define KEEP_LOOP _Pragma("GCC unroll 1")   /* unrolled, its addresses would not fit registers */
/* The intrinsics do not say what memory they read and write. */
#define FENCE __asm__ volatile("" ::: "memory")

enum { STEP = 32, COLS = 16, TILE_BYTES = 1024 };

static inline int steps_of(int dim) { return (dim + STEP - 1) / STEP; }
static inline int columns_of(int dim) { return (dim + COLS - 1) / COLS; }

/* A row of queries, whose parts lie one kind behind the other: as
 * tile_amx_order.h and tile_bytes_amx.c say. */
static inline size_t row_bytes(int dim) { return matrix_room_q(1, dim); }

/* Making a tile brings in what a later one needs: lines from `fetch` on, as many as it reads. */
INLINE void prefetch(const char *fetch, int line) {
    _mm_prefetch(fetch + (size_t)line * 64, _MM_HINT_T0);
}

INLINE const char *ahead_of(const void *page, size_t offset, ptrdiff_t ahead) {
    return (const char *)((uintptr_t)page + offset + (uintptr_t)ahead);
}

/* By type of the pages; without shape and peaks, which they share. */
extern const struct tile_matrix tile_halves, tile_bytes;

#endif
