/* matmul.h - y = x W^T with W in any block format, taken as it lies in the
 * file or repacked for the kernel set.
 *
 *   W [rows][cols] in blocks along cols,  x [n_tokens][cols] f32,  y [n_tokens][rows] f32
 *
 * Quantised weights meet activations quantised to 8 bits (one f32 scale per 32 or 256 columns, as
 * the peers do); F32, F16 and BF16 weights meet f32 activations. The result of a token does not
 * depend on the tokens beside it nor on the number of threads: the order of additions is fixed by
 * cols alone (but see matmul_blas.h). */
#ifndef KERNELS_MATMUL_H
#define KERNELS_MATMUL_H
#include <stddef.h>
#include "base/err.h"
#include "kernels/dtype.h"
#include "kernels/kernels.h"

struct matrix {
    enum dtype type;
    int rows, cols;
    const void *data;      /* rows x dtype_row_bytes(type, cols), borrowed (the mapped file) */
    void *packed;          /* owned; NULL while the kernels read `data` as it is */
};

/* Activations of one batch: set once, multiplied with several matrices (q, k and v share them);
 * each encoding a matrix asks for is made at first need and kept until the next acts_set. */
struct acts;
int acts_open(struct acts **out, int max_tokens, int max_cols, struct err *);
/* x is borrowed until the next acts_set. */
void acts_set(struct acts *, const float *x, int n_tokens, int cols);
size_t acts_bytes(const struct acts *);
void acts_close(struct acts *);        /* NULL is fine */

/* Repacks W for this kernel set where that is faster. 0, or -1 when memory
 * lacks (W stays usable as it is). */
int matrix_pack(const struct kernels *, struct matrix *, struct err *);
void matrix_unpack(struct matrix *);   /* frees what matrix_pack made */
size_t matrix_packed_bytes(const struct matrix *);

/* y[t * ldy + r] = sum over c of W[r][c] * x[t][c], parallel over rows by OpenMP's current team. */
void matmul(const struct kernels *, float *y, size_t ldy, const struct matrix *w, struct acts *x);

/* Up to MATMUL_MOST products with the same activations, shared out together: one start of
 * the team, one wait at the end. */
enum { MATMUL_MOST = 3 };
struct product { float *y; size_t ldy; const struct matrix *w; };
void matmul_all(const struct kernels *, const struct product *, int n, struct acts *x);

/* One row of W as f32: the embedding look-up. Reads packed matrices too. */
void matrix_row(const struct matrix *, int row, float *out);

#endif
