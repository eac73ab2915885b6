/* mat_strip.h - what several tokens multiply with: one packed panel of any block format unpacked to
 * bytes, in scratch, with its factors as floats. All formats meet here, so each instruction set
 * needs one tile kernel for all of them.
 *
 *     code   [cols / 4][16 rows][4]   level + 128, unsigned, or level, signed: as the kernel asks;
 *                                     formats with minima: always the bare level, which fits both
 *     scale  [cols / sub][16 rows]
 *     min    [cols / sub][16 rows]    formats with a minimum */
#ifndef KERNELS_MAT_STRIP_H
#define KERNELS_MAT_STRIP_H
#include "kernels/mat.h"

struct strip {
    uint8_t *code;
    float *scale, *min;
};

enum { MAX_STRIPS = MAT_ROWS / PANEL };

/* Cuts strips for n panels out of scratch (at most 24 bytes per column and panel). */
static inline void strips_place(struct strip *s, int n, const struct mat_format *f, int cols,
                                void *scratch) {
    char *at = scratch;
    size_t factors = (size_t)(cols / f->sub) * PANEL * sizeof(float);
    for (int i = 0; i < n; i++) {
        s[i].code = (uint8_t *)at, at += (size_t)cols * PANEL;
        s[i].scale = (float *)at, at += factors;
        s[i].min = (float *)at, at += f->has_min ? factors : 0;
    }
}

/* y[t * ldy + r], r < rows <= 16, for n tokens from token t on. */
typedef void strip_tile(float *y, size_t ldy, const struct mat_format *, const struct strip *,
                        int rows, const struct qacts *x, int t, int n);

/* The quant of the AVX-512 sets: few tokens straight from the panel; tiles of `tile_tokens` by
 * tile, from strips whose codes are signed or not; the tokens left over as if few. */
void mat_quant_avx512(float *y, size_t ldy, const struct mat_format *, const void *w, int rows,
                      const struct qacts *x, void *scratch, strip_tile *tile, int tile_tokens,
                      int is_signed);
/* Its part for floats, and for encodings. */
void mat_real_avx512(float *y, size_t ldy, enum dtype, const void *w, int rows, int cols,
                     const float *x, int n_tokens, void *scratch);
void mat_encode_avx512(const struct qacts *x, int t, const float *row);

#endif
