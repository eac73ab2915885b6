#include "kernels/acts_encode.h"
#include "kernels/mat.h"
static void quant(float *y, size_t ldy, const struct mat_format *f, const void *w, int rows,
                  const struct qacts *x, void *scratch) { mat_scalar.quant(y, ldy, f, w, rows, x, scratch); }
static void real(float *y, size_t ldy, enum dtype type, const void *w, int rows, int cols,
                 const float *x, int n_tokens, void *scratch) { mat_scalar.real(y, ldy, type, w, rows, cols, x, n_tokens, scratch); }
const struct mat_kernels mat_avx2 = { 0, encode, quant, real };
