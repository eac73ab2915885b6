/* partial.h - attention over some of the keys, and how two of them become one. */
#ifndef ATTENTION_PARTIAL_H
#define ATTENTION_PARTIAL_H
#include <math.h>
#include <string.h>
#include "kernels/tile.h"

/* Not yet divided: row r has seen exponentials 2^(s - m[r]) that add up to the lanes of sum[r], and
 * out[r] is the sum of values weighted by them. */
struct partial { float *m, *sum, *out; };       /* [rows], [rows][TILE_LANES], [rows][v_dim] */

static inline struct partial partial_at(struct partial p, size_t row, int v_dim) {
    return (struct partial){ p.m + row, p.sum + row * TILE_LANES, p.out + row * v_dim };
}

static inline void partial_clear(struct partial p, int rows, int v_dim) {
    for (int r = 0; r < rows; r++) p.m[r] = -INFINITY;
    memset(p.sum, 0, (size_t)rows * TILE_LANES * sizeof *p.sum);
    memset(p.out, 0, (size_t)rows * v_dim * sizeof *p.out);
}

/* Adds what one segment found to the total, whose sum lives in lane 0. */
static inline void partial_merge(struct partial total, struct partial part, int rows, int v_dim) {
    for (int r = 0; r < rows; r++) {
        struct partial t = partial_at(total, r, v_dim), p = partial_at(part, r, v_dim);
        if (*p.m == -INFINITY) continue;                   /* the row saw nothing of it */
        float sum = 0, top = *p.m > *t.m ? *p.m : *t.m;
        float a = exp2f(*t.m - top), b = exp2f(*p.m - top);
        for (int i = 0; i < TILE_LANES; i++) sum += p.sum[i];
        *t.m = top;
        *t.sum = *t.sum * a + sum * b;
        for (int i = 0; i < v_dim; i++) t.out[i] = t.out[i] * a + p.out[i] * b;
    }
}

#endif
