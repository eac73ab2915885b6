/* peak_avx512.c - all keys of a page in one vector, a vector of scores for each query. */
#include <immintrin.h>
#include <math.h>
#include "kernels/peak.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

INLINE __m512 keys(const char *p, const enum dtype type) {
    if (type == DT_F32) return _mm512_loadu_ps(p);
    const __m256i half = _mm256_loadu_si256((const __m256i *)p);
    return type == DT_F16 ? _mm512_cvtph_ps(half)
                          : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

INLINE float peak(const float *q, int dim, const char *page, const enum dtype type,
                  const char *next) {
    const size_t bytes = KV_PAGE * (type == DT_F32 ? 4 : 2);       /* of one dimension */
    __m512 acc[PEAK_ROWS], top = _mm512_set1_ps(-INFINITY);
    UNROLL for (int r = 0; r < PEAK_ROWS; r++) acc[r] = _mm512_setzero_ps();
    for (int i = 0; i < dim; i++, q += PEAK_ROWS, page += bytes) {
        const __m512 k = keys(page, type);
        if (next) _mm_prefetch(next + (size_t)i * bytes, _MM_HINT_T0);
        UNROLL for (int r = 0; r < PEAK_ROWS; r++)
            acc[r] = _mm512_fmadd_ps(_mm512_set1_ps(q[r]), k, acc[r]);
    }
    UNROLL for (int r = 0; r < PEAK_ROWS; r++)
        top = _mm512_max_ps(acc[r], top);                  /* a NaN gives way to the second */
    return _mm512_reduce_max_ps(top);
}

static float page_peak(const float *q, int dim, const void *page, enum dtype type,
                       const void *next) {
    switch (type) {
    case DT_F32: return peak(q, dim, page, DT_F32, next);
    case DT_F16: return peak(q, dim, page, DT_F16, next);
    default: return peak(q, dim, page, DT_BF16, next);
    }
}

const struct peak_kernels peak_avx512 = { page_peak };
