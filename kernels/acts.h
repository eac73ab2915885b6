/* acts.h - the inside of struct acts (matmul.h), for the driver: the batch as floats, its 8-bit
 * encodings, and the scratch of each thread. */
#ifndef KERNELS_ACTS_H
#define KERNELS_ACTS_H
#include "kernels/mat.h"
#include "kernels/matmul.h"

enum { ACTS_ENCODINGS = 3 };   /* spans of 32; spans of 256 with factors per 32; and per 16 */

struct acts {
    int max_tokens, max_cols;
    int n_tokens, cols;
    const float *x;                         /* borrowed, [n_tokens][cols] */
    struct qacts encoded[ACTS_ENCODINGS];
    int valid[ACTS_ENCODINGS];
    int n_threads;                          /* scratch exists for so many */
    char *scratch;
    size_t scratch_bytes, bytes;            /* of one thread; of everything */
    float *widened;                         /* matmul_blas.c: weights as f32; NULL until needed */
};

/* The batch in the encoding that format multiplies with, made now if this is the first request. */
const struct qacts *acts_encoded(struct acts *, const struct mat_kernels *,
                                 const struct mat_format *);

/* Threads that may compute with it: the team that is usual now, as far as there is scratch. */
int acts_team(const struct acts *);

static inline void *acts_scratch(const struct acts *a, int thread) {
    return a->scratch + (size_t)thread * a->scratch_bytes;
}

#endif
