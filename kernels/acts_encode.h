/* acts_encode.h - one row of floats to 8-bit integers, in C that the compiler turns into each set's vectors. Included by
 * mat_scalar.c, mat_avx2.c and mat_avx512.c; all give the same bits (no fused operations in it).
 *
 * One scale serves `span` columns. The rule follows what other engines do, so that results agree with theirs:
 *   span 32    scale = max |x| / 127, kept as a half float; q = nearest(x / unrounded scale)
 *   span 256   scale = -(the x of largest magnitude) / 127, a float; so that x becomes exactly -127
 * A span that holds NaN or infinity gets scale NaN: what it multiplies says so. */
#ifndef KERNELS_ACTS_ENCODE_H
#define KERNELS_ACTS_ENCODE_H
#include <math.h>
#include <string.h>
#include "kernels/mat.h"

/* Nearest integer, ties to even, for |x| < 2^22: adding 1.5 * 2^23 leaves it in the low bits. */
static inline int32_t nearest(float x) {
    float magic = x + 12582912.f;
    int32_t bits;
    memcpy(&bits, &magic, sizeof bits);
    return (bits & 0x7fffff) - 0x400000;
}

/* Largest magnitude as bits without sign: NaN > infinity > every number. */
static inline uint32_t largest_bits(const float *x, unsigned n) {
    uint32_t top = 0;
    for (unsigned i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7fffffff;
        top = bits > top ? bits : top;
    }
    return top;
}

/* A half float where it is a normal number, else as it is. */
static inline float half_precision(float x) {
    return x >= 0x1p-14f && x <= 65504.f ? f16_to_f32(f32_to_f16(x)) : x;
}

static inline float encode_span(int8_t *q, const float *x, unsigned span) {
    uint32_t bits = largest_bits(x, span);
    float top, inverse, scale;
    memcpy(&top, &bits, sizeof top);
    if (bits == 0 || bits >= 0x7f800000) {
        memset(q, 0, span);
        return bits == 0 ? 0 : NAN;
    }
    if (span == 32) {
        scale = top / 127;
        inverse = 1 / scale;
        scale = half_precision(scale);
    } else {
        for (unsigned i = 0; i < span; i++)                   /* the first of that magnitude gives the sign */
            if (fabsf(x[i]) == top) { top = x[i]; break; }
        inverse = -127 / top;
        scale = 1 / inverse;
    }
    if (!(fabsf(inverse) < INFINITY)) {                  /* all but zero: below what a float can invert */
        memset(q, 0, span);
        return 0;
    }
    for (unsigned i = 0; i < span; i++) {
        int32_t v = nearest(x[i] * inverse);
        q[i] = (int8_t)(v > 127 ? 127 : v);
    }
    return scale;
}

static void encode(const struct qacts *x, int t, const float *row, int span) {
    int8_t *q = x->q + (size_t)t * x->cols;
    size_t n = (size_t)(x->cols / x->sub);
    float *scale = x->scale + t * n, *sum = x->sum + t * n;
    int32_t *start = x->start + t * n;
    int per_span = span / x->sub;
    for (int c = 0; c < x->cols; c += span) {
        float s = encode_span(q + c, row + c, (unsigned)span);
        for (int i = 0; i < per_span; i++) scale[c / x->sub + i] = s;
    }
    for (size_t s = 0; s < n; s++) {
        int32_t total = 0;
        for (int i = 0; i < x->sub; i++) total += q[s * x->sub + i];
        start[s] = -128 * total;
        sum[s] = scale[s] * (float)total;
    }
}

#endif
