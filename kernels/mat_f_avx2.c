/* mat_f_avx2.c - F32, F16 and BF16 panels times f32 activations with AVX2: 16 rows (two
 * vectors) x 6 tokens, one column a step, 256 columns in registers before they are
 * added to y, as in mat_f_avx512.c. */
#include "kernels/mat_f_avx2.h"
#include <immintrin.h>
#include "kernels/mat_pack.h"

#define INLINE static inline __attribute__((always_inline))

enum { SPAN = 256 };

INLINE __m256 weights(enum dtype type, const char *p) {
    if (type == DT_F32) return _mm256_loadu_ps((const float *)p);
    __m128i half = _mm_loadu_si128((const __m128i *)p);
    if (type == DT_F16) return _mm256_cvtph_ps(half);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

INLINE void finish(float *y, __m256 sum, int rows, int first) {
    float old[8] = { 0 };
    int n = rows < 8 ? rows : 8;
    if (!first) {
        for (int r = 0; r < n; r++) old[r] = y[r];
        sum = _mm256_add_ps(_mm256_loadu_ps(old), sum);
    }
    if (n == 8) { _mm256_storeu_ps(y, sum); return; }
    _mm256_storeu_ps(old, sum);
    for (int r = 0; r < n; r++) y[r] = old[r];
}

/* One panel x nt tokens, n columns; added to y, or stored where these are the first columns. */
INLINE void span(enum dtype type, int nt, float *y, size_t ldy, const char *w, int rows,
                 const float *x, size_t ldx, int n, int first) {
    const size_t half = (type == DT_F32 ? 4 : 2) * PANEL / 2;
    __m256 low[6], high[6];
    #pragma GCC unroll 6
    for (int t = 0; t < nt; t++) low[t] = high[t] = _mm256_setzero_ps();
    for (int c = 0; c < n; c++, w += 2 * half) {
        __m256 a = weights(type, w), b = weights(type, w + half);
        if (nt == 1) _mm_prefetch(w + 4096, _MM_HINT_T0);
        #pragma GCC unroll 6
        for (int t = 0; t < nt; t++) {
            __m256 v = _mm256_set1_ps(x[(size_t)t * ldx + (size_t)c]);
            low[t] = _mm256_fmadd_ps(a, v, low[t]);
            high[t] = _mm256_fmadd_ps(b, v, high[t]);
        }
    }
    #pragma GCC unroll 6
    for (int t = 0; t < nt; t++) {
        finish(y + (size_t)t * ldy, low[t], rows, first);
        if (rows > 8) finish(y + (size_t)t * ldy + 8, high[t], rows - 8, first);
    }
}

INLINE void batch(enum dtype type, float *y, size_t ldy, const char *w, int rows, int cols,
                  const float *x, int n_tokens) {
    const size_t column = (type == DT_F32 ? 4 : 2) * PANEL, stride = column * (size_t)cols,
                 ldx = (size_t)cols;
    for (int r = 0; r < rows; r += PANEL, w += stride, y += PANEL)
        for (int c = 0; c < cols; c += SPAN) {
            int n = cols - c < SPAN ? cols - c : SPAN, t = 0;
            const char *from = w + (size_t)c * column;
            for (; t + 6 <= n_tokens; t += 6)
                span(type, 6, y + (size_t)t * ldy, ldy, from, rows - r,
                     x + (size_t)t * ldx + c, ldx, n, !c);
            for (; t + 2 <= n_tokens; t += 2)
                span(type, 2, y + (size_t)t * ldy, ldy, from, rows - r,
                     x + (size_t)t * ldx + c, ldx, n, !c);
            for (; t < n_tokens; t++)
                span(type, 1, y + (size_t)t * ldy, ldy, from, rows - r,
                     x + (size_t)t * ldx + c, ldx, n, !c);
        }
}

void mat_real_avx2(float *y, size_t ldy, enum dtype type, const void *w, int rows, int cols,
                   const float *x, int n_tokens, void *scratch) {
    (void)scratch;
    if (type == DT_F32) batch(DT_F32, y, ldy, w, rows, cols, x, n_tokens);
    else if (type == DT_F16) batch(DT_F16, y, ldy, w, rows, cols, x, n_tokens);
    else batch(DT_BF16, y, ldy, w, rows, cols, x, n_tokens);
}
