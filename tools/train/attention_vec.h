/* attention_vec.h - one vector of 16 floats, with AVX-512 or without, what is stored as bf16, and
 * the sizes that all parts of the kernel share. */
#ifndef ATTENTION_VEC_H
#define ATTENTION_VEC_H
#include <math.h>
#include <stddef.h>
#include <string.h>
#include "attention.h"
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

enum {
    LANES = 16,
    QUERIES = 64,   /* a query block */
    VECTORS = QUERIES / LANES,
    KEYS = 32,      /* a key block: what the masks skip, a step of a product that adds over keys */
    GROUP = 4,      /* key blocks a softmax step takes together, forward */
    MAX_HEAD = 128,
    MAX_STEPS = MAX_HEAD / KEYS > GROUP ? MAX_HEAD / KEYS : GROUP
};

INLINE float to_float(bf16 x) {
    uint32_t u = (uint32_t)x << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

INLINE bf16 to_bf16(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return (bf16)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* 2^x for the fraction of x, times 2^floor(x): a polynomial of relative error 1e-7. */
static const float P0 = 0.999999925f, P1 = 0.693153073f, P2 = 0.240153617f, P3 = 0.0558263179f,
                   P4 = 0.00898934028f, P5 = 0.0018775766f;

#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512BW__)
typedef __m512 vec;
INLINE vec load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void store(float *p, vec a) { _mm512_storeu_ps(p, a); }
INLINE vec all(float x) { return _mm512_set1_ps(x); }
INLINE vec add(vec a, vec b) { return _mm512_add_ps(a, b); }
INLINE vec sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
INLINE vec mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
INLINE vec fma_(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vec max_(vec a, vec b) { return _mm512_max_ps(a, b); }
INLINE vec pick(uint16_t m, vec a, vec b) { return _mm512_mask_mov_ps(b, m, a); }
INLINE int any_above(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0; }
INLINE vec exp2_(vec x) {
    vec f = _mm512_reduce_ps(x, 1), p = all(P5);                /* x - floor(x) */
    p = fma_(p, f, all(P4));
    p = fma_(p, f, all(P3));
    p = fma_(p, f, all(P2));
    p = fma_(p, f, all(P1));
    p = fma_(p, f, all(P0));
    return _mm512_scalef_ps(p, x);                              /* it takes the floor itself */
}
#else
typedef struct { float v[LANES]; } vec;
#define EACH(expression) vec r; for (int i = 0; i < LANES; i++) r.v[i] = (expression); return r
INLINE vec load(const float *p) { EACH(p[i]); }
INLINE void store(float *p, vec a) { memcpy(p, a.v, sizeof a.v); }
INLINE vec all(float x) { EACH(x); }
INLINE vec add(vec a, vec b) { EACH(a.v[i] + b.v[i]); }
INLINE vec sub(vec a, vec b) { EACH(a.v[i] - b.v[i]); }
INLINE vec mul(vec a, vec b) { EACH(a.v[i] * b.v[i]); }
INLINE vec fma_(vec a, vec b, vec c) { EACH(a.v[i] * b.v[i] + c.v[i]); }
INLINE vec max_(vec a, vec b) { EACH(a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
INLINE vec pick(uint16_t m, vec a, vec b) { EACH(m >> i & 1 ? a.v[i] : b.v[i]); }
INLINE int any_above(vec a, vec b) {
    int n = 0;
    for (int i = 0; i < LANES; i++) n += a.v[i] > b.v[i];
    return n != 0;
}
INLINE float exp2_one(float x) {
    if (x < -126) return 0;
    float n = floorf(x), f = x - n;
    return ldexpf(((((P5 * f + P4) * f + P3) * f + P2) * f + P1) * f + P0, (int)n);
}
INLINE vec exp2_(vec x) { EACH(exp2_one(x.v[i])); }
#endif

/* 32 floats as 32 bf16 in their order. */
INLINE void store_bf16(bf16 *p, vec a, vec b) {
#ifdef __AVX512BF16__
    _mm512_storeu_si512(p, (__m512i)_mm512_cvtne2ps_pbh(b, a));
#else
    float f[2 * LANES];
    store(f, a), store(f + LANES, b);
    for (int i = 0; i < 2 * LANES; i++) p[i] = to_bf16(f[i]);
#endif
}

/* 16 words: even[i] in the low half, odd[i] in the high half, as bf16. */
INLINE void store_words(uint32_t *p, vec even, vec odd) {
#ifdef __AVX512BF16__
    static const uint16_t order[32] = { 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8,
                                        24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31 };
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
    _mm512_storeu_si512(p, _mm512_permutexvar_epi16(_mm512_loadu_si512(order), both));
#else
    float f[2 * LANES];
    store(f, even), store(f + LANES, odd);
    for (int i = 0; i < LANES; i++) p[i] = to_bf16(f[i]) | (uint32_t)to_bf16(f[LANES + i]) << 16;
#endif
}

#endif
