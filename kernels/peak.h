/* peak.h - the highest score that any of some queries gives any key of a page:
 * what a search over pages asks for.
 *
 * The scores are those of tile.h, added in the same order, but only
 * the highest leaves the registers. */
#ifndef KERNELS_PEAK_H
#define KERNELS_PEAK_H
#include "kernels/dtype.h"
#include "kernels/tile.h"

enum { PEAK_ROWS = 8 };                        /* queries of one call; fewer: repeat one of them */

struct peak_kernels {
    /* max of q_r . key over PEAK_ROWS queries and KV_PAGE keys; -INFINITY at least, and a NaN is
     * passed over. q is [dim][PEAK_ROWS]; page holds keys of F32, F16 or BF16. The page at next is
     * asked for meanwhile; NULL: none. */
    float (*page)(const float *q, int dim, const void *page, enum dtype type, const void *next);
};

extern const struct peak_kernels peak_scalar, peak_avx2, peak_avx512;

#endif
