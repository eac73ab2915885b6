/* peak_avx2.c - eight keys of a page in a vector, so two passes over it. */
#include <immintrin.h>
#include <math.h>
#include "kernels/peak.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

enum { LANES = 8 };

INLINE __m256 keys(const char *p, const enum dtype type) {
    if (type == DT_F32) return _mm256_loadu_ps((const float *)p);
    const __m128i half = _mm_loadu_si128((const __m128i *)p);
    return type == DT_F16 ? _mm256_cvtph_ps(half)
                          : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

INLINE __m256 peaks(const float *q, int dim, const char *page, const enum dtype type,
                    const char *next, __m256 top) {
    const size_t bytes = KV_PAGE * (type == DT_F32 ? 4 : 2);       /* of one dimension */
    __m256 acc[PEAK_ROWS];
    UNROLL for (int r = 0; r < PEAK_ROWS; r++) acc[r] = _mm256_setzero_ps();
    for (int i = 0; i < dim; i++, q += PEAK_ROWS, page += bytes) {
        const __m256 k = keys(page, type);
        if (next) _mm_prefetch(next + (size_t)i * bytes, _MM_HINT_T0);
        UNROLL for (int r = 0; r < PEAK_ROWS; r++)
            acc[r] = _mm256_fmadd_ps(_mm256_broadcast_ss(q + r), k, acc[r]);
    }
    UNROLL for (int r = 0; r < PEAK_ROWS; r++)
        top = _mm256_max_ps(acc[r], top);                  /* a NaN gives way to the second */
    return top;
}

INLINE float peak(const float *q, int dim, const char *page, const enum dtype type,
                  const char *next) {
    const size_t half = LANES * (type == DT_F32 ? 4 : 2);
    const __m256 first = peaks(q, dim, page, type, next, _mm256_set1_ps(-INFINITY));
    __m256 top = peaks(q, dim, page + half, type, NULL, first);
    top = _mm256_max_ps(top, _mm256_permute2f128_ps(top, top, 1));
    top = _mm256_max_ps(top, _mm256_permute_ps(top, 0x4e));
    top = _mm256_max_ps(top, _mm256_permute_ps(top, 0xb1));
    return _mm256_cvtss_f32(top);
}

static float page_peak(const float *q, int dim, const void *page, enum dtype type,
                       const void *next) {
    switch (type) {
    case DT_F32: return peak(q, dim, page, DT_F32, next);
    case DT_F16: return peak(q, dim, page, DT_F16, next);
    default: return peak(q, dim, page, DT_BF16, next);
    }
}

const struct peak_kernels peak_avx2 = { page_peak };
