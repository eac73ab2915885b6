/* quant.h - inside quant_row(): the searches for scales; for kernels/quant*.c only.
 *
 * A group is 16 or 32 finite floats that share one scale. Every search minimises the plain squared
 * error, which is what a dot product with unknown activations feels. All of them work the same way:
 * from several scales near the one that just spans the group, round to the levels, move the scale
 * to the least-squares optimum for that rounding, keep the best. Deterministic: fixed candidates,
 * fixed order of additions. */
#ifndef KERNELS_QUANT_H
#define KERNELS_QUANT_H
#include <stdbool.h>
#include <stdint.h>
#include "kernels/dtype.h"

/* The f16 at d or next to it, away from zero. Small ones are so coarse (steps of 2^-24) that a
 * scale rounded down may leave the largest value out of reach. */
uint16_t half_up(float d);

/* The integers a format can store, to be multiplied by a scale: lo..hi, or the 16 entries of a
 * code book in ascending order (lo and hi are then its ends). lo < 0 < hi <= -lo. */
struct grid { int lo, hi; const int8_t *book; };

/* The codes a block stores, q[n] = level - lo (or the place in the book), of the levels nearest to
 * x[n] / d; x / 0 counts as 0. */
void grid_round(const struct grid *, const float *x, int n, float d, uint8_t *q);

/* The d (of either sign) for which d * level comes closest to x[n]; 0 if all x are 0. */
float fit_scale(const struct grid *, const float *x, int n);

/* q[n] in 0..top such that d * q + m is nearest to x[n]; d >= 0; d == 0 gives q = 0. */
void line_round(const float *x, int n, float d, float m, int top, uint8_t *q);

/* The line d * q + m, d >= 0, that comes closest to x[n]. below: m <= 0 is required, as in the
 * K-quants, which store only -m. */
float fit_line(const float *x, int n, int top, bool below, float *m);

/* One level up: a block of n groups of `size` values, n <= 16, whose scales are integers scale[s]
 * in lo..hi (lo < 0 < hi <= -lo) times one f16. Fills scale[n]; returns the bits of the f16. */
uint16_t fit_scales(const struct grid *, const float *x, int n, int size, int lo, int hi,
                    int8_t *scale);

/* Likewise with lines: group s is (d * scale[s]) * q - (dmin * min[s]), q in 0..top, both integers
 * in 0..max. Fills everything behind max; d and dmin are the bits of f16. */
void fit_lines(const float *x, int n, int size, int top, int max, uint16_t *d, uint16_t *dmin,
               uint8_t *scale, uint8_t *min);

/* One block of 256 finite values: the K-quants and IQ4_XS. */
void quant_block_k(enum dtype, const float *x, void *block);

#endif
