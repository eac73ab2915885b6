/* mat_q_avx2.c - block formats with AVX2: half a panel, 8 rows x 4 columns, is one vector.
 *
 *       row 0        row 1              row 7
 *     |c0 c1 c2 c3|c0 c1 c2 c3| ...  |c0 c1 c2 c3|   codes, u8
 *   x |x0 x1 x2 x3|x0 x1 x2 x3| ...  |x0 x1 x2 x3|   activations, s8, broadcast
 *   = |c0x0+c1x1 .|           | ...  |           |   s16 (maddubs), summed over several vectors while they cannot
 *   = |  sum 0    |  sum 1    | ...  |  sum 7    |   overflow, then s32 (madd with ones)
 *
 * Codes of 8 bits would overflow s16 as unsigned numbers: there |level| meets the activation with the level's sign. */
#include <immintrin.h>
#include "kernels/acts_encode.h"
#include "kernels/blocks.h"
#include "kernels/mat_f_avx2.h"
#include "kernels/mat_shape.h"
#include "kernels/mat_strip.h"

#define INLINE static inline __attribute__((always_inline))

typedef uint16_t lanes16 __attribute__((vector_size(32)));

INLINE int is_signed(struct shape f) { return f.bits == 8 || f.book; }

/* maddubs results that fit in s16 together: 2 * 127 * largest code each. */
INLINE int s16_run(struct shape f) { return is_signed(f) ? 1 : f.bits <= 4 ? 8 : f.bits == 5 ? 4 : 2; }

/* Left for n > 0, right for n < 0; bits that cross a byte are masked off by the caller. */
INLINE __m256i shifted(__m256i v, int n) {
    return n > 0 ? (__m256i)((lanes16)v << n) : n < 0 ? (__m256i)((lanes16)v >> -n) : v;
}

INLINE __m256i load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

/* Bits of vector v (0..7) in a plane of `bits`, moved to start at bit `to`; p is at the half wanted. */
INLINE __m256i plane(const uint8_t *p, int bits, int v, int to) {
    __m256i raw = load(p + v % bits * 64);
    return _mm256_and_si256(shifted(raw, to - v / bits * bits), _mm256_set1_epi8((char)(((1 << bits) - 1) << to)));
}

/* Half of vector v of 32 columns as maddubs wants it: codes, or signed levels. Layouts as in mat_pack.h. */
INLINE __m256i codes(struct shape f, const uint8_t *p, int v) {
    if (f.book) {
        __m256i book = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)iq4_values));
        return _mm256_shuffle_epi8(book, plane(p, 4, v, 0));
    }
    switch (f.bits) {
    case 2: return plane(p, 2, v, 0);
    case 3: return _mm256_or_si256(plane(p, 2, v, 0), plane(p + 128, 1, v, 2));
    case 4: return plane(p, 4, v, 0);
    case 5: return _mm256_or_si256(plane(p, 4, v, 0), plane(p + 256, 1, v, 4));
    case 6: return _mm256_or_si256(plane(p, 4, v, 0), plane(p + 256, 2, v, 4));
    default: return _mm256_xor_si256(load(p + v * 64), _mm256_set1_epi8((char)0x80));
    }
}

/* The head of one block of columns, at one half of the rows. */
struct head { const uint8_t *scale, *min; __m256 d, dmin; };

INLINE __m256 half8(const uint8_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }

INLINE struct head open_head(struct shape f, const uint8_t *p, int half) {
    struct head g = { .d = half8(p + 16 * half) };
    int subs = f.block / f.sub;
    p += 32;
    if (f.min) g.dmin = half8(p + 16 * half), p += 32;
    g.scale = p + 8 * half;
    if (f.block != 32) p += subs * PANEL;
    g.min = p + 8 * half;
    return g;
}

INLINE __m256 scale_of(struct shape f, const struct head *g, int s) {
    if (f.block == 32) return g->d;
    __m128i raw = _mm_loadl_epi64((const __m128i *)(g->scale + s * PANEL));
    if (f.type == DT_Q2_K) raw = _mm_and_si128(raw, _mm_set1_epi8(15));
    return _mm256_mul_ps(g->d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(raw)));
}

INLINE __m256 min_of(struct shape f, const struct head *g, int s) {
    if (f.block == 32) return g->dmin;
    __m128i raw = _mm_loadl_epi64((const __m128i *)((f.type == DT_Q2_K ? g->scale : g->min) + s * PANEL));
    if (f.type == DT_Q2_K) raw = _mm_and_si128(_mm_srli_epi16(raw, 4), _mm_set1_epi8(15));
    return _mm256_mul_ps(g->dmin, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(raw)));
}

INLINE __m256i start_of(struct shape f, int32_t start) {
    return f.min || is_signed(f) ? _mm256_setzero_si256() : _mm256_set1_epi32(start / (128 / f.centre));
}

INLINE __m256i products(struct shape f, __m256i code, const int8_t *q) {
    int32_t four;
    memcpy(&four, q, 4);
    __m256i x = _mm256_set1_epi32(four);
    if (is_signed(f)) return _mm256_maddubs_epi16(_mm256_abs_epi8(code), _mm256_sign_epi8(x, code));
    return _mm256_maddubs_epi16(code, x);
}

/* dot[t] += sub columns of codes (vectors `from` on, at p, `stride` apart if already unpacked) times nt tokens. */
INLINE void dots(struct shape f, int nt, __m256i *dot, const uint8_t *p, int unpacked, int from,
                 const int8_t *q, size_t cols) {
    const int run = s16_run(f);
    __m256i part[4];
    #pragma GCC unroll 8
    for (int v = 0; v < f.sub / 4; v++) {
        __m256i c = unpacked ? load(p + v * 64) : codes(f, p, from + v);
        #pragma GCC unroll 4
        for (int t = 0; t < nt; t++) {
            __m256i m = products(f, c, q + (size_t)t * cols + (size_t)v * 4);
            part[t] = v % run ? _mm256_add_epi16(part[t], m) : m;
            if (v % run == run - 1 || v == f.sub / 4 - 1)
                dot[t] = _mm256_add_epi32(dot[t], _mm256_madd_epi16(part[t], _mm256_set1_epi16(1)));
        }
    }
}

/* part += dot * row scales - row minima * sums of the activations: one sub-block. */
INLINE void add_sub_block(struct shape f, int nt, __m256 *part, const __m256i *dot, __m256 ws, __m256 wm,
                          const float *sum) {
    #pragma GCC unroll 4
    for (int t = 0; t < nt; t++) {
        part[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[t]), ws, part[t]);
        if (f.min) part[t] = _mm256_fnmadd_ps(wm, _mm256_set1_ps(sum[t]), part[t]);
    }
}

INLINE void store_rows(float *y, __m256 v, int rows) {
    if (rows >= 8) { _mm256_storeu_ps(y, v); return; }
    float all[8];
    _mm256_storeu_ps(all, v);
    for (int r = 0; r < rows; r++) y[r] = all[r];
}

enum { AHEAD = 2048 };

/* One panel times nt tokens, straight from the packed codes. */
INLINE void few(struct shape f, int nt, float *y, size_t ldy, const uint8_t *panel, int rows,
                const struct qacts *x, int t0) {
    const size_t cols = (size_t)x->cols, ld = (size_t)x->n_tokens;
    const int8_t *q = x->q + (size_t)t0 * cols;
    const float *scale = x->scale + t0, *sum = x->sum + t0;
    const int32_t *start = x->start + t0;
    const int subs = f.block / f.sub, per_block = 32 / f.sub;
    __m256 acc[2][4], part[2][4];
    #pragma GCC unroll 4
    for (int t = 0; t < nt; t++) acc[0][t] = acc[1][t] = _mm256_setzero_ps();
    const uint8_t *codes_at = panel + heads_bytes(f, cols);
    for (size_t c = 0; c < cols; c += (size_t)f.block, panel += head_bytes(f), q += f.block, scale += ld) {
        #pragma GCC unroll 4
        for (int t = 0; t < nt; t++) part[0][t] = part[1][t] = _mm256_setzero_ps();
        struct head g[2] = { open_head(f, panel, 0), open_head(f, panel, 1) };
        for (int s = 0; s < subs; s++, sum += ld, start += ld) {
            const uint8_t *p = codes_at + (c / 32 + (size_t)(s / per_block)) * (size_t)(f.bits * 64);
            for (int i = 0; i < f.bits / per_block; i++)
                _mm_prefetch((const char *)p + AHEAD + (s % per_block * f.bits / per_block + i) * 64, _MM_HINT_T0);
            #pragma GCC unroll 2
            for (int h = 0; h < 2; h++) {
                __m256i dot[4];
                #pragma GCC unroll 4
                for (int t = 0; t < nt; t++) dot[t] = start_of(f, start[t]);
                if (per_block == 1 || s % 2 == 0)        /* the vector numbers must be constants */
                    dots(f, nt, dot, p + 32 * h, 0, 0, q + s * f.sub, cols);
                else
                    dots(f, nt, dot, p + 32 * h, 0, 4, q + s * f.sub, cols);
                __m256 wm = f.min ? min_of(f, &g[h], s) : _mm256_setzero_ps();
                add_sub_block(f, nt, part[h], dot, scale_of(f, &g[h], s), wm, sum);
            }
        }
        #pragma GCC unroll 2
        for (int h = 0; h < 2; h++)
            #pragma GCC unroll 4
            for (int t = 0; t < nt; t++)
                acc[h][t] = _mm256_fmadd_ps(part[h][t], _mm256_set1_ps(scale[t]), acc[h][t]);
    }
    for (int h = 0; h < 2 && rows > 8 * h; h++)
        #pragma GCC unroll 4
        for (int t = 0; t < nt; t++) store_rows(y + (size_t)t * ldy + 8 * h, acc[h][t], rows - 8 * h);
}

/* 8 rows of a strip times nt tokens. */
INLINE void tokens(struct shape f, int nt, float *y, size_t ldy, const struct strip *w, int half, int rows,
                   const struct qacts *x, int t0) {
    const size_t cols = (size_t)x->cols, ld = (size_t)x->n_tokens;
    const int8_t *q = x->q + (size_t)t0 * cols;
    const float *scale = x->scale + t0, *sum = x->sum + t0;
    const int32_t *start = x->start + t0;
    const uint8_t *code = w->code + 32 * half;
    const float *row_scale = w->scale + 8 * half, *row_min = w->min + 8 * half;
    __m256 acc[4], part[4];
    #pragma GCC unroll 4
    for (int t = 0; t < nt; t++) acc[t] = _mm256_setzero_ps();
    for (size_t c = 0; c < cols; c += (size_t)f.block, scale += ld) {
        #pragma GCC unroll 4
        for (int t = 0; t < nt; t++) part[t] = _mm256_setzero_ps();
        for (int s = 0; s < f.block / f.sub; s++, q += f.sub, code += f.sub * PANEL) {
            __m256i dot[4];
            #pragma GCC unroll 4
            for (int t = 0; t < nt; t++) dot[t] = start_of(f, start[t]);
            dots(f, nt, dot, code, 1, 0, q, cols);
            __m256 wm = f.min ? _mm256_loadu_ps(row_min) : _mm256_setzero_ps();
            add_sub_block(f, nt, part, dot, _mm256_loadu_ps(row_scale), wm, sum);
            sum += ld, start += ld, row_scale += PANEL, row_min += PANEL;
        }
        #pragma GCC unroll 4
        for (int t = 0; t < nt; t++) acc[t] = _mm256_fmadd_ps(part[t], _mm256_set1_ps(scale[t]), acc[t]);
    }
    #pragma GCC unroll 4
    for (int t = 0; t < nt; t++) store_rows(y + (size_t)t * ldy, acc[t], rows);
}

/* One panel to a strip: codes, or signed levels where maddubs needs those. */
INLINE void unpack(struct shape f, const struct strip *out, const uint8_t *panel, int cols) {
    uint8_t *code = out->code;
    float *scale = out->scale, *min = out->min;
    const uint8_t *codes_at = panel + heads_bytes(f, (size_t)cols);
    for (int c = 0; c < cols; c += f.block, panel += head_bytes(f))
        for (int h = 0; h < 2; h++) {
            struct head g = open_head(f, panel, h);
            for (int s = 0; s < f.block / f.sub; s++) {
                size_t at = (size_t)(c / f.sub + s) * PANEL + 8 * (size_t)h;
                _mm256_storeu_ps(scale + at, scale_of(f, &g, s));
                if (f.min) _mm256_storeu_ps(min + at, min_of(f, &g, s));
            }
            for (int b = 0; b < f.block / 32; b++) {
                size_t block = (size_t)(c / 32 + b);
                const uint8_t *p = codes_at + block * (size_t)(f.bits * 64) + 32 * h;
                uint8_t *to = code + block * 512 + 32 * (size_t)h;
                #pragma GCC unroll 8
                for (int v = 0; v < 8; v++)
                    _mm256_storeu_si256((__m256i *)(to + v * 64), codes(f, p, v));
            }
        }
}

INLINE void quant_as(struct shape f, float *y, size_t ldy, const uint8_t *panel, int rows,
                     const struct qacts *x, void *scratch) {
    const struct mat_format *format = mat_format((enum dtype)f.type);
    size_t bytes = mat_panel_bytes(format->type, x->cols);
    struct strip strip;
    for (int r = 0; r < rows; r += PANEL, panel += bytes, y += PANEL) {
        int left = rows - r < PANEL ? rows - r : PANEL, t = 0;
        if (x->n_tokens >= 8) {
            strips_place(&strip, 1, format, x->cols, scratch);
            unpack(f, &strip, panel, x->cols);
            for (; t + 4 <= x->n_tokens; t += 4)
                for (int h = 0; 8 * h < left; h++)
                    tokens(f, 4, y + (size_t)t * ldy + 8 * h, ldy, &strip, h, left - 8 * h, x, t);
        }
        for (; t + 2 <= x->n_tokens; t += 2) few(f, 2, y + (size_t)t * ldy, ldy, panel, left, x, t);
        for (; t < x->n_tokens; t++) few(f, 1, y + (size_t)t * ldy, ldy, panel, left, x, t);
    }
}

static void quant(float *y, size_t ldy, const struct mat_format *f, const void *w, int rows,
                  const struct qacts *x, void *scratch) {
    switch (f->type) {
#define CASE(type, ...) \
    case DT_##type: \
        quant_as(MAT_SHAPE(type, __VA_ARGS__), y, ldy, w, rows, x, scratch); \
        break;
    MAT_FORMATS(CASE)
    default: break;
    }
}

const struct mat_kernels mat_avx2 = { 1, 1, encode, quant, mat_real_avx2 };
