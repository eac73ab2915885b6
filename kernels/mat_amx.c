/* mat_amx.c - the AMX tile for many tokens; everything else is the AVX-512 set's, and so are the
 * bits of the results: both add exact integers, then the same floats in the same order.
 *
 *     A  16 tokens x 32 columns, s8        B  32 columns x 16 rows, s8, as the strip has them
 *     C = A x B, 16 tokens x 16 rows, s32, through memory into
 *     16 vectors of f32 sums, one a token:  f32 += convert(s32) * row scales;
 *                              per block:   total += f32 * token scale
 *
 * The conversion sets the pace, not the matrix unit, which works three sub-blocks ahead. */
#include <immintrin.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "kernels/mat_strip.h"

#define INLINE static inline __attribute__((always_inline))

enum { TOKENS = 16 };

struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes_per_row[16];
    uint8_t rows[16];
};

/* Tiles 0..3: C; 4: A; 5: B. */
static void configure(int sub) {
    struct tile_config c = { .palette = 1 };
    for (int i = 0; i < 4; i++) c.rows[i] = TOKENS, c.bytes_per_row[i] = 4 * PANEL;
    c.rows[4] = TOKENS, c.bytes_per_row[4] = (uint16_t)sub;
    c.rows[5] = (uint8_t)(sub / 4), c.bytes_per_row[5] = 4 * PANEL;
    __asm__ volatile("" ::"r"(&c) : "memory");   /* the intrinsic does not say it reads all of c */
    _tile_loadconfig(&c);
}

#define MULTIPLY(c, sums) do { \
        __asm__ volatile("" ::: "memory");   /* nor these that they read q, code and write sums */ \
        _tile_zero(c); \
        _tile_loadd(4, q, cols); \
        _tile_loadd(5, code, 64); \
        _tile_dpbssd(c, 4, 5); \
        _tile_stored(c, sums, 64); \
        __asm__ volatile("" ::: "memory"); \
        q += sub; \
        code += sub * PANEL; \
    } while (0)

INLINE void convert(__m512 part[TOKENS], const int32_t *sums, int has_min, const float *row_scale,
                    const float *row_min, const float *sum) {
    __m512 ws = _mm512_loadu_ps(row_scale);
    #pragma GCC unroll 16
    for (int t = 0; t < TOKENS; t++)
        part[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sums + t * PANEL)), ws,
                                  part[t]);
    if (!has_min) return;
    __m512 wm = _mm512_loadu_ps(row_min);
    #pragma GCC unroll 16
    for (int t = 0; t < TOKENS; t++)
        part[t] = _mm512_fnmadd_ps(wm, _mm512_set1_ps(sum[t]), part[t]);
}

INLINE void multiply(int block, int sub, int has_min, float *y, size_t ldy, const struct strip *w,
                     __mmask16 mask, const struct qacts *x, int t0) {
    const size_t cols = (size_t)x->cols, subs = cols / (size_t)sub, ld = (size_t)x->n_tokens;
    const int8_t *q = x->q + (size_t)t0 * cols;
    const float *scale = x->scale + t0, *sum = x->sum + t0,
                *row_scale = w->scale, *row_min = w->min;
    const uint8_t *code = w->code;
    _Alignas(64) int32_t sums[4][TOKENS * PANEL];
    __m512 total[TOKENS], part[TOKENS];
    #pragma GCC unroll 16
    for (int t = 0; t < TOKENS; t++) total[t] = _mm512_setzero_ps();
    if (subs > 0) MULTIPLY(0, sums[0]);
    if (subs > 1) MULTIPLY(1, sums[1]);
    if (subs > 2) MULTIPLY(2, sums[2]);
    for (size_t s = 0; s < subs; scale += ld) {
        #pragma GCC unroll 16
        for (int t = 0; t < TOKENS; t++) part[t] = _mm512_setzero_ps();
        for (int i = 0; i < block / sub;
             i++, s++, sum += ld, row_scale += PANEL, row_min += PANEL) {
            if (s + 3 < subs) MULTIPLY(3, sums[(s + 3) % 4]);
            convert(part, sums[s % 4], has_min, row_scale, row_min, sum);
        }
        #pragma GCC unroll 16
        for (int t = 0; t < TOKENS; t++)
            total[t] = _mm512_fmadd_ps(part[t], _mm512_set1_ps(scale[t]), total[t]);
    }
    #pragma GCC unroll 16
    for (int t = 0; t < TOKENS; t++) _mm512_mask_storeu_ps(y + (size_t)t * ldy, mask, total[t]);
}

static void tile(float *y, size_t ldy, const struct mat_format *f, const struct strip *w, int rows,
                 const struct qacts *x, int t, int n) {
    (void)n;                                             /* always TOKENS */
    __mmask16 mask = (__mmask16)((1u << rows) - 1);
    int min = f->has_min;
    if (f->block == 32 && min) multiply(32, 32, 1, y, ldy, w, mask, x, t);
    else if (f->block == 32) multiply(32, 32, 0, y, ldy, w, mask, x, t);
    else if (f->sub == 32 && min) multiply(256, 32, 1, y, ldy, w, mask, x, t);
    else if (f->sub == 32) multiply(256, 32, 0, y, ldy, w, mask, x, t);
    else if (min) multiply(256, 16, 1, y, ldy, w, mask, x, t);
    else multiply(256, 16, 0, y, ldy, w, mask, x, t);
}

static void quant(float *y, size_t ldy, const struct mat_format *f, const void *w, int rows,
                  const struct qacts *x, void *scratch) {
    if (x->n_tokens >= TOKENS) configure(f->sub);
    mat_quant_avx512(y, ldy, f, w, rows, x, scratch, tile, TOKENS, 1);
    if (x->n_tokens >= TOKENS) _tile_release();
}

/* Linux lends the tile registers to a process that asks: ARCH_REQ_XCOMP_PERM, feature 18. */
int mat_amx_usable(void) {
    return !syscall(SYS_arch_prctl, 0x1023, 18);
}

const struct mat_kernels mat_amx = { 1, 0, mat_encode_avx512, quant, mat_real_avx512 };
