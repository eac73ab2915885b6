/* vec_avx2.c - the vec group on 8 floats at a time; tails run through a copy of 8 on the stack. */
#include <immintrin.h>
#include <math.h>
#include <string.h>
#include "kernels/vec.h"

/* Up to 8 floats with zeros behind, and back. */
static inline __m256 load(const float *p, int n) {
    if (n >= 8) return _mm256_loadu_ps(p);
    float t[8] = { 0 };
    memcpy(t, p, (size_t)n * sizeof *t);
    return _mm256_loadu_ps(t);
}

static inline void store(float *p, __m256 v, int n) {
    if (n >= 8) { _mm256_storeu_ps(p, v); return; }
    float t[8];
    _mm256_storeu_ps(t, v);
    memcpy(p, t, (size_t)n * sizeof *t);
}

/* exp by 2^k * e^r with |r| <= ln2 / 2; the clamps keep 2^k a normal number. NaN stays NaN. */
static inline __m256 exp8(__m256 x) {
    x = _mm256_max_ps(_mm256_set1_ps(-87), _mm256_min_ps(_mm256_set1_ps(88), x));
    __m256 k = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)), 8);
    __m256 r = _mm256_fnmadd_ps(k, _mm256_set1_ps(0.693145752f), x);      /* ln 2, high bits */
    r = _mm256_fnmadd_ps(k, _mm256_set1_ps(1.42860677e-6f), r);           /* ln 2, the rest */
    __m256 p = _mm256_set1_ps(1.f / 5040);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.f / 720));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.f / 120));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.f / 24));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.f / 6));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1));
    __m256i bits = _mm256_slli_epi32(_mm256_cvtps_epi32(k), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), bits));
}

static inline float hsum(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static void rmsnorm(float *y, const float *x, const float *w, int n, float eps) {
    __m256 sum = _mm256_setzero_ps();
    for (int i = 0; i < n; i += 8) {
        __m256 v = load(x + i, n - i);
        sum = _mm256_fmadd_ps(v, v, sum);
    }
    __m256 scale = _mm256_set1_ps(1 / sqrtf(hsum(sum) / n + eps));
    for (int i = 0; i < n; i += 8) {
        __m256 v = _mm256_mul_ps(load(x + i, n - i), scale);
        store(y + i, _mm256_mul_ps(v, load(w + i, n - i)), n - i);
    }
}

static void add(float *y, const float *x, int n) {
    for (int i = 0; i < n; i += 8)
        store(y + i, _mm256_add_ps(load(y + i, n - i), load(x + i, n - i)), n - i);
}

static void swiglu(float *y, const float *gate, const float *up, int n) {
    const __m256 one = _mm256_set1_ps(1), zero = _mm256_setzero_ps();
    for (int i = 0; i < n; i += 8) {
        __m256 g = load(gate + i, n - i);
        __m256 v = _mm256_div_ps(g, _mm256_add_ps(one, exp8(_mm256_sub_ps(zero, g))));
        store(y + i, _mm256_mul_ps(v, load(up + i, n - i)), n - i);
    }
}

static void rope(float *x, const float *cs, int n_pairs) {
    for (int i = 0, n = 2 * n_pairs; i < n; i += 8) {
        __m256 v = load(x + i, n - i), t = load(cs + i, n - i);
        __m256 swapped = _mm256_mul_ps(_mm256_permute_ps(v, 0xb1), _mm256_movehdup_ps(t));
        v = _mm256_fmaddsub_ps(v, _mm256_moveldup_ps(t), swapped);   /* even ac - bs, odd bc + as */
        store(x + i, v, n - i);
    }
}

static void rope_split(float *x, const float *cs, int n_pairs) {
    const __m256i order = _mm256_setr_epi32(0, 1, 4, 5, 2, 3, 6, 7);
    for (int i = 0; i < n_pairs; i += 8) {
        int n = n_pairs - i;
        __m256 lo = load(cs + 2 * i, 2 * n);
        __m256 hi = n > 4 ? load(cs + 2 * i + 8, 2 * n - 8) : lo;
        __m256 c = _mm256_shuffle_ps(lo, hi, 0x88), s = _mm256_shuffle_ps(lo, hi, 0xdd);
        c = _mm256_permutevar8x32_ps(c, order), s = _mm256_permutevar8x32_ps(s, order);
        __m256 a = load(x + i, n), b = load(x + n_pairs + i, n);
        store(x + i, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)), n);
        store(x + n_pairs + i, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)), n);
    }
}

const struct vec_kernels vec_avx2 = { rmsnorm, add, swiglu, rope, rope_split };
