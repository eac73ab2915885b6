/* mat_f_avx2.h - AVX2's product of F32, F16 and BF16 panels with floats (mat_kernels.real). */
#ifndef KERNELS_MAT_F_AVX2_H
#define KERNELS_MAT_F_AVX2_H
#include <stddef.h>
#include "kernels/dtype.h"

void mat_real_avx2(float *y, size_t ldy, enum dtype, const void *w, int rows, int cols,
                   const float *x, int n_tokens, void *scratch);

#endif
