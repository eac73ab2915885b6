/* mat.h - inside the matrix kernels: what matmul.c (which knows threads) hands
 * to a kernel set (which does not).
 *
 * A block format is taken apart into integers once, in mat_codes.c; the scalar kernel computes on
 * those, mat_pack.c lays them into panels for the wider sets. For column c of a block, s = c / sub:
 *
 *     weight = d * scale[s] * level(code[c]) - dmin * min[s],
 *     level(u) = book ? book[u] : u - centre
 *
 * and a block times activations x = scale_x * q, with sum_x[s] the sum of q over a sub-block, is
 *
 *     y += scale_x * sum over s of ( (d * scale[s]) * sum(level * q) - (dmin * min[s]) * sum_x[s] )
 *
 * with the inner sums exact in int32, sub-blocks and blocks in ascending order: the
 * same bits for any batch and team. */
#ifndef KERNELS_MAT_H
#define KERNELS_MAT_H
#include <stddef.h>
#include <stdint.h>
#include "kernels/dtype.h"

/*      type    block sub bits centre min book */
#define MAT_FORMATS(X) \
    X(Q8_0,   32,   32, 8,  128,  0,  0) \
    X(Q4_0,   32,   32, 4,    8,  0,  0) \
    X(Q4_1,   32,   32, 4,    0,  1,  0) \
    X(Q5_0,   32,   32, 5,   16,  0,  0) \
    X(Q5_1,   32,   32, 5,    0,  1,  0) \
    X(IQ4_NL, 32,   32, 4,  128,  0,  1) \
    X(Q2_K,   256,  16, 2,    0,  1,  0) \
    X(Q3_K,   256,  16, 3,    4,  0,  0) \
    X(Q4_K,   256,  32, 4,    0,  1,  0) \
    X(Q5_K,   256,  32, 5,    0,  1,  0) \
    X(Q6_K,   256,  16, 6,   32,  0,  0) \
    X(IQ4_XS, 256,  32, 4,  128,  0,  1)

struct mat_format {
    enum dtype type;
    int block;            /* columns that share d and dmin: 32 or 256 */
    int sub;              /* columns that share one factor: 32 or 16 */
    int bits;             /* of a code: 2 3 4 5 6 8 */
    int centre;           /* level = code - centre; a book's levels plus this are unsigned */
    int has_min;          /* has a minimum or a centre, never both */
    const int8_t *book;   /* code -> level, or NULL */
};

struct mat_codes {
    uint16_t d, dmin;     /* f16 bits; dmin already has the sign of the formula above */
    int8_t scale[16];     /* 1 where the format has no sub-scales */
    uint8_t min[16];
    uint8_t code[256];
};

const struct mat_format *mat_format(enum dtype);                 /* NULL for F32, F16, BF16 */
void mat_take_apart(enum dtype, const void *block, struct mat_codes *out);

/* A batch of activations as 8-bit integers, with factors per span and per sub
 * columns (cols % span == 0): those of all tokens side by side, so that a tile
 * finds its own at fixed distances. */
struct qacts {
    int n_tokens, cols, span, sub;     /* span: the block of the formats that use it */
    int8_t *q;          /* [n_tokens][cols] */
    float *scale;       /* [cols / span][n_tokens] */
    int32_t *start;     /* [cols / sub][n_tokens]  -128 * sum of q: starts a dot with level + 128 */
    float *sum;         /* [cols / sub][n_tokens]  sum of q: what a minimum multiplies */
};

enum {
    PANEL = 16,           /* rows side by side in a packed panel */
    MAT_ROWS = 64,        /* most rows in one call: what shares one pass over the activations */
    MAT_SCRATCH = 160     /* bytes of scratch per column a call may use */
};

/* One call: rows <= MAT_ROWS consecutive rows, all tokens; y is that of the first row. */
struct mat_kernels {
    int packed;           /* w: whole panels (mat_pack.h) rather than rows as the file has them */
    int prefers_blas;     /* for floats and many tokens, if OpenBLAS is linked */
    /* Row t of x->q and its factors from cols floats. */
    void (*encode)(const struct qacts *x, int t, const float *row);
    void (*quant)(float *y, size_t ldy, const struct mat_format *, const void *w, int rows,
                  const struct qacts *x, void *scratch);
    void (*real)(float *y, size_t ldy, enum dtype, const void *w, int rows, int cols,
                 const float *x, int n_tokens, void *scratch);
};

extern const struct mat_kernels mat_scalar, mat_avx2, mat_avx512, mat_amx;
int mat_amx_usable(void);     /* on a CPU that has AMX: does the operating system lend it? */

#endif
