/* mat_pack.h - rows of a matrix side by side, as the AVX2 and AVX-512 sets read them.
 *
 * A panel is PANEL = 16 rows; a matrix is ceil(rows / 16) panels one after the other,
 * the last filled up with zero rows.
 *
 * F32, F16, BF16: [cols][16] values of the type.
 *
 * Block formats: first, for each block of columns (32 or 256), a head
 *     d      [16] f16
 *     dmin   [16] f16                 formats with minima
 *     scale  [block / sub][16] s8     blocks of 256; Q2_K: scale | min << 4, u8
 *     min    [block / sub][16] u8     blocks of 256 with minima, but Q2_K
 * then, from the next multiple of 64 bytes on, the codes: for each 32
 * columns, bit planes of 64-byte vectors.
 *
 * The codes of 32 columns x 16 rows are 8 vectors v0..v7 of bytes; byte 4 r + i of
 * vector v is row r, column 4 v + i:
 *
 *           byte   0  1  2  3 |  4  5  6  7 |  ...  | 60 61 62 63
 *     v0:  column  0  1  2  3 |  0  1  2  3 |       |  0  1  2  3
 *          row     0  0  0  0 |  1  1  1  1 |       | 15 15 15 15    one lane of 32 bits = one row,
 *     v1:  column  4  5  6  7 |  4  5  6  7 |  ...                   which is what vpdpbusd sums up
 *
 *     8 bits:   v0 .. v7
 *     4 bits:   4 vectors; vector i holds v[i] in its low and v[i + 4] in its high nibbles
 *     2 bits:   2 vectors; vector i holds v[i], v[i + 2], v[i + 4], v[i + 6], lowest bits first
 *     1 bit:    1 vector;  bit j of a byte belongs to v[j]
 * 6 bits are a 4-bit plane (the low bits) and a 2-bit plane behind it, 5 are 4 + 1, 3 are 2 + 1. */
#ifndef KERNELS_MAT_PACK_H
#define KERNELS_MAT_PACK_H
#include "kernels/mat.h"

size_t mat_panel_bytes(enum dtype, int cols);

/* One panel from n <= 16 rows as the file has them. */
void mat_pack_panel(enum dtype, const void *rows, int n, int cols, void *panel);

/* Bytes of one head, of all heads, and of the codes of 32 columns. */
static inline size_t mat_head_bytes(const struct mat_format *f) {
    size_t subs = (size_t)(f->block / f->sub), n = f->has_min ? 64 : 32;
    if (f->block == 32) return n;
    return n + subs * PANEL * (f->has_min && f->type != DT_Q2_K ? 2 : 1);
}
static inline size_t mat_heads_bytes(const struct mat_format *f, int cols) {
    return ((size_t)(cols / f->block) * mat_head_bytes(f) + 63) / 64 * 64;
}
static inline size_t mat_codes_bytes(const struct mat_format *f) { return (size_t)f->bits * 64; }

#endif
