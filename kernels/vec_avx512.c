/* vec_avx512.c - the vec group on 16 floats at a time; tails are masked loads and stores. */
#include <immintrin.h>
#include <math.h>
#include "kernels/vec.h"

/* The first n - i lanes, at most 16. */
static inline __mmask16 tail(int i, int n) {
    return n - i >= 16 ? 0xffff : (__mmask16)((1u << (n - i)) - 1);
}

/* exp by 2^k * e^r with |r| <= ln2 / 2; scalef itself rounds to 0 and infinity. NaN stays NaN. */
static inline __m512 exp16(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-150), _mm512_min_ps(_mm512_set1_ps(150), x));
    __m512 k = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 8);
    __m512 r = _mm512_fnmadd_ps(k, _mm512_set1_ps(0.693145752f), x);      /* ln 2, high bits */
    r = _mm512_fnmadd_ps(k, _mm512_set1_ps(1.42860677e-6f), r);           /* ln 2, the rest */
    __m512 p = _mm512_set1_ps(1.f / 5040);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.f / 720));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.f / 120));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.f / 24));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.f / 6));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1));
    return _mm512_scalef_ps(p, k);
}

static void rmsnorm(float *y, const float *x, const float *w, int n, float eps) {
    __m512 sum = _mm512_setzero_ps();
    for (int i = 0; i < n; i += 16) {
        __m512 v = _mm512_maskz_loadu_ps(tail(i, n), x + i);
        sum = _mm512_fmadd_ps(v, v, sum);
    }
    __m512 scale = _mm512_set1_ps(1 / sqrtf(_mm512_reduce_add_ps(sum) / n + eps));
    for (int i = 0; i < n; i += 16) {
        __mmask16 m = tail(i, n);
        __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i), scale);
        _mm512_mask_storeu_ps(y + i, m, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(m, w + i)));
    }
}

static void add(float *y, const float *x, int n) {
    for (int i = 0; i < n; i += 16) {
        __mmask16 m = tail(i, n);
        __m512 v = _mm512_maskz_loadu_ps(m, y + i);
        _mm512_mask_storeu_ps(y + i, m, _mm512_add_ps(v, _mm512_maskz_loadu_ps(m, x + i)));
    }
}

static void swiglu(float *y, const float *gate, const float *up, int n) {
    const __m512 one = _mm512_set1_ps(1), zero = _mm512_setzero_ps();
    for (int i = 0; i < n; i += 16) {
        __mmask16 m = tail(i, n);
        __m512 g = _mm512_maskz_loadu_ps(m, gate + i);
        __m512 v = _mm512_div_ps(g, _mm512_add_ps(one, exp16(_mm512_sub_ps(zero, g))));
        _mm512_mask_storeu_ps(y + i, m, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(m, up + i)));
    }
}

static void rope(float *x, const float *cs, int n_pairs) {
    for (int i = 0, n = 2 * n_pairs; i < n; i += 16) {
        __mmask16 m = tail(i, n);
        __m512 v = _mm512_maskz_loadu_ps(m, x + i), t = _mm512_maskz_loadu_ps(m, cs + i);
        __m512 swapped = _mm512_mul_ps(_mm512_permute_ps(v, 0xb1), _mm512_movehdup_ps(t));
        v = _mm512_fmaddsub_ps(v, _mm512_moveldup_ps(t), swapped);   /* even ac - bs, odd bc + as */
        _mm512_mask_storeu_ps(x + i, m, v);
    }
}

static void rope_split(float *x, const float *cs, int n_pairs) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14,
                                           16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    for (int i = 0; i < n_pairs; i += 16) {
        __mmask16 m = tail(i, n_pairs);
        __m512 lo = _mm512_maskz_loadu_ps(tail(2 * i, 2 * n_pairs), cs + 2 * i);
        __m512 hi = 2 * i + 16 < 2 * n_pairs
            ? _mm512_maskz_loadu_ps(tail(2 * i + 16, 2 * n_pairs), cs + 2 * i + 16) : lo;
        __m512 c = _mm512_permutex2var_ps(lo, even, hi), s = _mm512_permutex2var_ps(lo, odd, hi);
        __m512 a = _mm512_maskz_loadu_ps(m, x + i), b = _mm512_maskz_loadu_ps(m, x + n_pairs + i);
        _mm512_mask_storeu_ps(x + i, m, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)));
        _mm512_mask_storeu_ps(x + n_pairs + i, m, _mm512_fmadd_ps(b, c, _mm512_mul_ps(a, s)));
    }
}

const struct vec_kernels vec_avx512 = { rmsnorm, add, swiglu, rope, rope_split };
