/* mat_f_avx512.c - F32, F16 and BF16 panels times f32 activations.
 *
 *                 12 tokens       One step is one column: a vector of 16 (or two of them, 32) rows
 *            +-----------------+  times each token's activation, broadcast from memory. 256 columns
 *   2 x 16   | 24 f32 sums, all|  are summed in registers, then added to y: the weights of those
 *   rows     | in registers    |  columns stay in L1 while all tokens pass, and rounding errors
 *            +-----------------+  stay small. */
#include <immintrin.h>
#include "kernels/mat_pack.h"
#include "kernels/mat_strip.h"

#define INLINE static inline __attribute__((always_inline))

enum { SPAN = 256 };

INLINE __m512 weights(enum dtype type, const char *p) {
    if (type == DT_F32) return _mm512_loadu_ps(p);
    __m256i half = _mm256_loadu_si256((const __m256i *)p);
    if (type == DT_F16) return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* np panels (at w, w + stride, ...) x nt tokens, n columns; added to y, or stored
 * where these are the first columns. */
INLINE void span(enum dtype type, int np, int nt, float *y, size_t ldy, const char *w,
                 size_t stride, int rows, const float *x, size_t ldx, int n, int first) {
    const size_t step = (type == DT_F32 ? 4 : 2) * PANEL;
    __m512 sum[4][12];
    #pragma GCC unroll 4
    for (int p = 0; p < np; p++)
        #pragma GCC unroll 12
        for (int t = 0; t < nt; t++) {
            sum[p][t] = _mm512_setzero_ps();
            if (nt >= 12)                                  /* far apart */
                _mm_prefetch((const char *)(y + (size_t)t * ldy + p * PANEL), _MM_HINT_T0);
        }
    for (int c = 0; c < n; c++, w += step) {
        __m512 v[4];
        #pragma GCC unroll 4
        for (int p = 0; p < np; p++) {
            v[p] = weights(type, w + (size_t)p * stride);
            if (nt < 4) _mm_prefetch(w + (size_t)p * stride + 2048, _MM_HINT_T0);
        }
        #pragma GCC unroll 12
        for (int t = 0; t < nt; t++) {
            __m512 a = _mm512_set1_ps(x[(size_t)t * ldx + (size_t)c]);
            #pragma GCC unroll 4
            for (int p = 0; p < np; p++) sum[p][t] = _mm512_fmadd_ps(v[p], a, sum[p][t]);
        }
    }
    #pragma GCC unroll 4
    for (int p = 0; p < np; p++) {
        int left = rows - p * PANEL;
        __mmask16 mask = left >= PANEL ? 0xffff : (__mmask16)((1u << left) - 1);
        #pragma GCC unroll 12
        for (int t = 0; t < nt; t++) {
            float *to = y + (size_t)t * ldy + p * PANEL;
            if (!first) sum[p][t] = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to), sum[p][t]);
            _mm512_mask_storeu_ps(to, mask, sum[p][t]);
        }
    }
}

INLINE void batch(enum dtype type, float *y, size_t ldy, const char *w, int rows, int cols,
                  const float *x, int n_tokens) {
    const size_t column = (type == DT_F32 ? 4 : 2) * PANEL, stride = column * (size_t)cols,
                 ldx = (size_t)cols;
    for (int c = 0; c < cols || c == 0; c += SPAN) {
        int n = cols - c < SPAN ? cols - c : SPAN, t = 0;
        for (; t + 12 <= n_tokens; t += 12)
            for (int r = 0; r < rows; r += 2 * PANEL) {
                const char *from = w + (size_t)(r / PANEL) * stride + (size_t)c * column;
                float *to = y + (size_t)t * ldy + r;
                const float *at = x + (size_t)t * ldx + c;
                if (rows - r > PANEL)
                    span(type, 2, 12, to, ldy, from, stride, rows - r, at, ldx, n, !c);
                else
                    span(type, 1, 12, to, ldy, from, stride, rows - r, at, ldx, n, !c);
            }
        for (; t < n_tokens; t += n_tokens - t >= 4 ? 4 : 1)
            for (int r = 0; r < rows; r += 4 * PANEL) {
                const char *from = w + (size_t)(r / PANEL) * stride + (size_t)c * column;
                float *to = y + (size_t)t * ldy + r;
                const float *at = x + (size_t)t * ldx + c;
                int four = n_tokens - t >= 4, panels = (rows - r + PANEL - 1) / PANEL;
                if (panels >= 4 && four)
                    span(type, 4, 4, to, ldy, from, stride, rows - r, at, ldx, n, !c);
                else if (panels >= 4)
                    span(type, 4, 1, to, ldy, from, stride, rows - r, at, ldx, n, !c);
                else for (int p = 0; p < panels; p++, from += stride, to += PANEL) {
                    if (four) span(type, 1, 4, to, ldy, from, stride, rows - r - p * PANEL,
                                   at, ldx, n, !c);
                    else span(type, 1, 1, to, ldy, from, stride, rows - r - p * PANEL,
                              at, ldx, n, !c);
                }
            }
    }
}

void mat_real_avx512(float *y, size_t ldy, enum dtype type, const void *w, int rows, int cols,
                     const float *x, int n_tokens, void *scratch) {
    (void)scratch;
    if (type == DT_F32) batch(DT_F32, y, ldy, w, rows, cols, x, n_tokens);
    else if (type == DT_F16) batch(DT_F16, y, ldy, w, rows, cols, x, n_tokens);
    else batch(DT_BF16, y, ldy, w, rows, cols, x, n_tokens);
}
