/* acts_encode.h - one row of floats to 8-bit integers, in C that the compiler turns into each
 * set's vectors. Included by mat_scalar.c, mat_q_avx2.c and mat_avx512.c; all give the same
 * bits (no fused operations in it).
 *
 * One scale serves `span` columns. The rule follows what other engines do,
 * so that results agree with theirs:
 *   span 32    scale = max |x| / 127; q = nearest(x / scale); then scale becomes a half float,
 *              and so does scale * sum of q, of which `sum` is the quotient
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

static inline uint32_t float_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float bits_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* To the 11 significant bits of a half float, ties to even; what is no
 * normal half float stays as it is. */
static inline float half_precision(float x) {
    uint32_t bits = float_bits(x);
    if (!(fabsf(x) >= 0x1p-14f && fabsf(x) <= 65504.f)) return x;
    return bits_float((bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu);
}

/* The q of one span; returns its scale, unrounded. span is a constant wherever this is used:
 * the loops become a few vectors. */
static inline __attribute__((always_inline))
float encode_span(int8_t *q, const float *x, int span) {
    uint32_t top = 0;                         /* largest magnitude: NaN > infinity > every number */
    for (int i = 0; i < span; i++) {
        uint32_t bits = float_bits(x[i]) & 0x7fffffff;
        top = bits > top ? bits : top;
    }
    float scale = bits_float(top) / 127, inverse = 127 / bits_float(top);
    if (span != 32) {
        int positive = 0;                     /* does the largest, or one of them, have no sign? */
        for (int i = 0; i < span; i++) positive |= float_bits(x[i]) == top;
        inverse = -127 / bits_float(positive ? top : top | 0x80000000);
        scale = 1 / inverse;
    }
    if (top >= 0x7f800000 || !(fabsf(inverse) < INFINITY)) {
        memset(q, 0, (size_t)span);
        return top >= 0x7f800000 ? NAN : 0;   /* 0: all zero, or less than a float can invert */
    }
    for (int i = 0; i < span; i++) {
        int32_t v = nearest(x[i] * inverse);
        q[i] = (int8_t)(v > 127 ? 127 : v);
    }
    return scale;
}

static inline __attribute__((always_inline))
void encode_row(const struct qacts *x, int t, const float *row, int span, int sub) {
    int8_t *q = x->q + (size_t)t * x->cols;
    size_t at = (size_t)t, ld = (size_t)x->n_tokens;
    float *scale_at = x->scale + t;
    for (int c = 0; c < x->cols; c += span, scale_at += ld) {
        float exact = encode_span(q + c, row + c, span),
              scale = span == 32 ? half_precision(exact) : exact;
        *scale_at = scale;
        for (int s = c; s < c + span; s += sub, at += ld) {
            int32_t total = 0;
            for (int i = 0; i < sub; i++) total += q[s + i];
            x->start[at] = -128 * total;
            x->sum[at] = (float)total;
            if (span == 32)
                x->sum[at] = scale > 0 ? half_precision(exact * (float)total) / scale : 0;
        }
    }
}

static void encode(const struct qacts *x, int t, const float *row) {
    if (x->span == 32) encode_row(x, t, row, 32, 32);
    else if (x->sub == 32) encode_row(x, t, row, 256, 32);
    else encode_row(x, t, row, 256, 16);
}

#endif
