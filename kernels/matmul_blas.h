/* matmul_blas.h - the optional way out to OpenBLAS (make OPENBLAS=1) for many tokens and F32,
 * F16 or BF16 weights. The sets that ask for it are the scalar one and AVX2 (prefers_blas);
 * our AVX-512 tile is faster than OpenBLAS. Its order of additions depends on the batch: in
 * such a build, long prefills of such models are equal to rounding only, no more bit for bit,
 * when batch size or threads change. */
#ifndef KERNELS_MATMUL_BLAS_H
#define KERNELS_MATMUL_BLAS_H
#include "kernels/acts.h"

/* 1: y is computed (as matmul promises). 0: not a product for BLAS, no BLAS in this build, or
 * no memory for the rows as f32. */
int matmul_blas(float *y, size_t ldy, const struct matrix *, struct acts *x);

#endif
