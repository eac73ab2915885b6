/* mat_avx512.c - the mat group of the AVX-512 set, and its tile for many tokens:
 *
 *                 12 tokens
 *            +-----------------+   for each sub-block of 32 (or 16) columns:
 *   16 rows  | 12 s32 sums and |       8 (4) times: 1 load of 16 rows x 4 columns, 12 vpdpbusd
 *   as one   | 12 f32 sums,    |           with the activations of one token broadcast from memory
 *   vector   | all registers   |       12 times: f32 += convert(s32) * row scales
 *            +-----------------+   and for each block: total += f32 * token scale, in memory if a
 *                                  block has many sub-blocks */
#include <immintrin.h>
#include "kernels/acts_encode.h"
#include "kernels/mat_strip.h"

#define INLINE static inline __attribute__((always_inline))

INLINE __m512i dot4(__m512i sum, __m512i code, const int8_t *q) {
    int32_t four;
    memcpy(&four, q, 4);
    return _mm512_dpbusd_epi32(sum, code, _mm512_set1_epi32(four));
}

INLINE void tokens(int block, int sub, int has_min, int nt, float *y, size_t ldy,
                   const struct strip *w, __mmask16 mask, const struct qacts *x, int t0) {
    const size_t cols = (size_t)x->cols, ld = (size_t)x->n_tokens;
    const int8_t *q = x->q + (size_t)t0 * cols;
    const float *scale = x->scale + t0, *sum = x->sum + t0,
                *row_scale = w->scale, *row_min = w->min;
    const int32_t *start = x->start + t0;
    const uint8_t *code = w->code;
    __m512 total[12], part[12];
    #pragma GCC unroll 12
    for (int t = 0; t < nt; t++) total[t] = _mm512_setzero_ps();
    for (size_t c = 0; c < cols; c += (size_t)block, scale += ld) {
        #pragma GCC unroll 12
        for (int t = 0; t < nt; t++) part[t] = _mm512_setzero_ps();
        for (int s = 0; s < block / sub;
             s++, sum += ld, start += ld, row_scale += PANEL, row_min += PANEL) {
            __m512i dot[12];
            #pragma GCC unroll 12
            for (int t = 0; t < nt; t++)
                dot[t] = has_min ? _mm512_setzero_si512() : _mm512_set1_epi32(start[t]);
            #pragma GCC unroll 8
            for (int v = 0; v < sub / 4; v++, code += 64, q += 4) {
                __m512i u = _mm512_loadu_si512(code);
                #pragma GCC unroll 12
                for (int t = 0; t < nt; t++) dot[t] = dot4(dot[t], u, q + (size_t)t * cols);
            }
            __m512 ws = _mm512_loadu_ps(row_scale);
            #pragma GCC unroll 12
            for (int t = 0; t < nt; t++)
                part[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[t]), ws, part[t]);
            if (!has_min) continue;
            __m512 wm = _mm512_loadu_ps(row_min);
            #pragma GCC unroll 12
            for (int t = 0; t < nt; t++)
                part[t] = _mm512_fnmadd_ps(wm, _mm512_set1_ps(sum[t]), part[t]);
        }
        #pragma GCC unroll 12
        for (int t = 0; t < nt; t++)
            total[t] = _mm512_fmadd_ps(part[t], _mm512_set1_ps(scale[t]), total[t]);
    }
    #pragma GCC unroll 12
    for (int t = 0; t < nt; t++) _mm512_mask_storeu_ps(y + (size_t)t * ldy, mask, total[t]);
}

INLINE void any_tokens(int block, int sub, int has_min, float *y, size_t ldy,
                       const struct strip *w, __mmask16 mask, const struct qacts *x, int t, int n) {
    for (; n >= 12; n -= 12, t += 12, y += 12 * ldy)
        tokens(block, sub, has_min, 12, y, ldy, w, mask, x, t);
    for (; n >= 4; n -= 4, t += 4, y += 4 * ldy)
        tokens(block, sub, has_min, 4, y, ldy, w, mask, x, t);
    for (; n > 0; n--, t++, y += ldy)
        tokens(block, sub, has_min, 1, y, ldy, w, mask, x, t);
}

static void tile(float *y, size_t ldy, const struct mat_format *f, const struct strip *w, int rows,
                 const struct qacts *x, int t, int n) {
    __mmask16 mask = (__mmask16)((1u << rows) - 1);
    int min = f->has_min;
    if (f->block == 32 && min) any_tokens(32, 32, 1, y, ldy, w, mask, x, t, n);
    else if (f->block == 32) any_tokens(32, 32, 0, y, ldy, w, mask, x, t, n);
    else if (f->sub == 32 && min) any_tokens(256, 32, 1, y, ldy, w, mask, x, t, n);
    else if (f->sub == 32) any_tokens(256, 32, 0, y, ldy, w, mask, x, t, n);
    else if (min) any_tokens(256, 16, 1, y, ldy, w, mask, x, t, n);
    else any_tokens(256, 16, 0, y, ldy, w, mask, x, t, n);
}

static void quant(float *y, size_t ldy, const struct mat_format *f, const void *w, int rows,
                  const struct qacts *x, void *scratch) {
    mat_quant_avx512(y, ldy, f, w, rows, x, scratch, tile, 0, 0);
}

void mat_encode_avx512(const struct qacts *x, int t, const float *row) { encode(x, t, row); }

const struct mat_kernels mat_avx512 = { 1, 0, encode, quant, mat_real_avx512 };
