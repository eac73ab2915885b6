/* mat_q_avx2.c - block formats with AVX2: a panel is two halves of 8 rows;
 * 8 rows x 4 columns are one vector.
 *
 *       row 0        row 1              row 7
 *     |c0 c1 c2 c3|c0 c1 c2 c3| ...  |c0 c1 c2 c3|   codes, u8
 *   x |x0 x1 x2 x3|x0 x1 x2 x3| ...  |x0 x1 x2 x3|   activations, s8: one broadcast for both halves
 *   = |c0x0+c1x1 .|           | ...  |           |   s16 (maddubs), summed over a sub-block
 *   = |  sum 0    |  sum 1    | ...  |  sum 7    |   s32 (madd with ones)
 *
 * A sum of codes of 5 or 6 bits would not fit in s16, one of their levels does: 16 * 127 * 16 for
 * 32 columns of 5 bits, 8 * 127 * 32 for 16 columns of 6. So the s16 sums start at -centre * the
 * activations they will meet; that they wrap around on their way changes nothing.
 *
 * Codes of 8 bits would overflow maddubs itself: there |level| meets the activation with the
 * level's sign, and each result is widened to s32 at once. */
#include <immintrin.h>
#include "kernels/acts_encode.h"
#include "kernels/blocks.h"
#include "kernels/mat_f_avx2.h"
#include "kernels/mat_shape.h"
#include "kernels/mat_strip.h"

#define INLINE static inline __attribute__((always_inline))

typedef uint16_t lanes16 __attribute__((vector_size(32)));

INLINE int is_signed(struct shape f) { return f.bits == 8 || f.book; }

/* What is taken off every code in the s16 sums; formats with a minimum need it
 * only where they would overflow. */
INLINE int centre(struct shape f) { return !f.min ? f.centre : f.bits == 5 ? 16 : 0; }

/* Left for n > 0, right for n < 0; bits that cross a byte are masked off by the caller. */
INLINE __m256i shifted(__m256i v, int n) {
    return n > 0 ? (__m256i)((lanes16)v << n) : n < 0 ? (__m256i)((lanes16)v >> -n) : v;
}

INLINE __m256i load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

/* Bits of vector v (0..7) in a plane of `bits`, moved to start at `to`; p is at the half wanted. */
INLINE __m256i plane(const uint8_t *p, int bits, int v, int to) {
    __m256i raw = load(p + v % bits * 64);
    return _mm256_and_si256(shifted(raw, to - v / bits * bits),
                            _mm256_set1_epi8((char)(((1 << bits) - 1) << to)));
}

/* Half of vector v of 32 columns for maddubs: codes, or signed levels. Layouts as in mat_pack.h. */
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

INLINE __m256 half8(const uint8_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

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
    __m128i raw = _mm_loadl_epi64(
        (const __m128i *)((f.type == DT_Q2_K ? g->scale : g->min) + s * PANEL));
    if (f.type == DT_Q2_K) raw = _mm_and_si128(_mm_srli_epi16(raw, 4), _mm_set1_epi8(15));
    return _mm256_mul_ps(g->dmin, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(raw)));
}

/* The two halves of a panel, up to 4 tokens: what fits in 16 registers. */
enum { TOKENS = 4 };

/* dot += 16 rows x 4 columns of codes c * activations at q. */
INLINE void step(struct shape f, int nt, __m256i dot[2][TOKENS], const __m256i c[2],
                 const int8_t *q, size_t cols) {
    #pragma GCC unroll 4
    for (int t = 0; t < nt; t++) {
        int32_t four;
        memcpy(&four, q + (size_t)t * cols, 4);
        __m256i x = _mm256_set1_epi32(four);
        #pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            if (is_signed(f)) {
                __m256i m = _mm256_maddubs_epi16(_mm256_abs_epi8(c[h]), _mm256_sign_epi8(x, c[h]));
                dot[h][t] = _mm256_add_epi32(dot[h][t], _mm256_madd_epi16(m, _mm256_set1_epi16(1)));
            } else {
                dot[h][t] = _mm256_add_epi16(dot[h][t], _mm256_maddubs_epi16(c[h], x));
            }
        }
    }
}

INLINE void begin(struct shape f, int nt, __m256i dot[2][TOKENS], const int32_t *start) {
    const __m256i off = _mm256_set1_epi16((short)centre(f));
    #pragma GCC unroll 4
    for (int t = 0; t < nt; t++)
        dot[0][t] = dot[1][t] = is_signed(f) || !centre(f)
                                    ? _mm256_setzero_si256()
                                    : _mm256_mullo_epi16(_mm256_set1_epi32(start[t]), off);
}

/* The s16 sums to s32; what a format with a minimum had taken off comes back. */
INLINE void widen(struct shape f, int nt, __m256i dot[2][TOKENS], const int32_t *start) {
    if (is_signed(f)) return;
    #pragma GCC unroll 4
    for (int t = 0; t < nt; t++)
        #pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            dot[h][t] = _mm256_madd_epi16(dot[h][t], _mm256_set1_epi16(1));
            if (!f.min || !centre(f)) continue;
            __m256i off = _mm256_madd_epi16(_mm256_set1_epi32(start[t]),
                                            _mm256_set1_epi16((short)centre(f)));
            dot[h][t] = _mm256_sub_epi32(dot[h][t], off);
        }
}

/* part += dot * row scales - row minima * sums of the activations: one sub-block. */
INLINE void add_sub_block(struct shape f, int nt, __m256 part[2][TOKENS], __m256i dot[2][TOKENS],
                          const __m256 ws[2], const __m256 wm[2], const float *sum) {
    #pragma GCC unroll 4
    for (int t = 0; t < nt; t++)
        #pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            __m256 d = _mm256_cvtepi32_ps(dot[h][t]);
            part[h][t] = f.block == f.sub ? _mm256_mul_ps(d, ws[h])
                                          : _mm256_fmadd_ps(d, ws[h], part[h][t]);
            if (f.min) part[h][t] = _mm256_fnmadd_ps(wm[h], _mm256_set1_ps(sum[t]), part[h][t]);
        }
}

INLINE void clear(int nt, __m256 v[2][TOKENS]) {
    #pragma GCC unroll 4
    for (int t = 0; t < nt; t++) v[0][t] = v[1][t] = _mm256_setzero_ps();
}

/* acc += part * the scales of the activations: one block. */
INLINE void add_block(int nt, __m256 acc[2][TOKENS], __m256 part[2][TOKENS], const float *scale) {
    #pragma GCC unroll 4
    for (int t = 0; t < nt; t++)
        #pragma GCC unroll 2
        for (int h = 0; h < 2; h++)
            acc[h][t] = _mm256_fmadd_ps(part[h][t], _mm256_set1_ps(scale[t]), acc[h][t]);
}

INLINE void store_rows(float *y, __m256 v, int rows) {
    if (rows >= 8) { _mm256_storeu_ps(y, v); return; }
    float all[8];
    _mm256_storeu_ps(all, v);
    for (int r = 0; r < rows; r++) y[r] = all[r];
}

enum { AHEAD = 2048 };

INLINE void store_tile(int nt, float *y, size_t ldy, __m256 acc[2][TOKENS], int rows) {
    for (int h = 0; h < 2 && rows > 8 * h; h++)
        #pragma GCC unroll 4
        for (int t = 0; t < nt; t++)
            store_rows(y + (size_t)t * ldy + 8 * h, acc[h][t], rows - 8 * h);
}

/* One panel times nt tokens, straight from the packed codes. */
INLINE void few(struct shape f, int nt, float *y, size_t ldy, const uint8_t *panel, int rows,
                const struct qacts *x, int t0) {
    const size_t cols = (size_t)x->cols, ld = (size_t)x->n_tokens;
    const int8_t *q = x->q + (size_t)t0 * cols;
    const float *scale = x->scale + t0, *sum = x->sum + t0;
    const int32_t *start = x->start + t0;
    const int per_vectors = 32 / f.sub;                  /* sub-blocks in 32 columns */
    __m256 acc[2][TOKENS], part[2][TOKENS];
    clear(nt, acc);
    const uint8_t *p = panel + heads_bytes(f, cols);
    for (size_t c = 0; c < cols; c += (size_t)f.block, panel += head_bytes(f), scale += ld) {
        struct head g[2] = { open_head(f, panel, 0), open_head(f, panel, 1) };
        clear(nt, part);
        for (int b = 0; b < f.block / 32; b++, p += f.bits * 64) {
            #pragma GCC unroll 8
            for (int i = 0; i < f.bits; i++)
                _mm_prefetch((const char *)p + AHEAD + i * 64, _MM_HINT_T0);
            #pragma GCC unroll 2
            for (int i = 0; i < per_vectors; i++, q += f.sub, sum += ld, start += ld) {
                __m256i dot[2][TOKENS];
                __m256 ws[2], wm[2] = { 0 };
                #pragma GCC unroll 2
                for (int h = 0; h < 2; h++) {
                    ws[h] = scale_of(f, &g[h], b * per_vectors + i);
                    if (f.min) wm[h] = min_of(f, &g[h], b * per_vectors + i);
                }
                begin(f, nt, dot, start);
                #pragma GCC unroll 8
                for (int v = 0; v < f.sub / 4; v++) {
                    int of_32 = i * f.sub / 4 + v;
                    __m256i two[2] = { codes(f, p, of_32), codes(f, p + 32, of_32) };
                    step(f, nt, dot, two, q + v * 4, cols);
                }
                widen(f, nt, dot, start);
                add_sub_block(f, nt, part, dot, ws, wm, sum);
            }
        }
        add_block(nt, acc, part, scale);
    }
    store_tile(nt, y, ldy, acc, rows);
}

/* The 16 rows of a strip times nt tokens. */
INLINE void tokens(struct shape f, int nt, float *y, size_t ldy, const struct strip *w, int rows,
                   const struct qacts *x, int t0) {
    const size_t cols = (size_t)x->cols, ld = (size_t)x->n_tokens;
    const int8_t *q = x->q + (size_t)t0 * cols;
    const float *scale = x->scale + t0, *sum = x->sum + t0,
                *row_scale = w->scale, *row_min = w->min;
    const int32_t *start = x->start + t0;
    const uint8_t *code = w->code;
    __m256 acc[2][TOKENS], part[2][TOKENS];
    clear(nt, acc);
    for (size_t c = 0; c < cols; c += (size_t)f.block, scale += ld) {
        clear(nt, part);
        for (int s = 0; s < f.block / f.sub;
             s++, q += f.sub, code += f.sub * PANEL, sum += ld, start += ld) {
            __m256i dot[2][TOKENS];
            __m256 ws[2] = { _mm256_loadu_ps(row_scale), _mm256_loadu_ps(row_scale + 8) },
                   wm[2] = { 0 };
            if (f.min) wm[0] = _mm256_loadu_ps(row_min), wm[1] = _mm256_loadu_ps(row_min + 8);
            begin(f, nt, dot, start);
            /* the registers are for what the loop needs */
            __asm__ volatile("" :: "r"(acc), "r"(part) : "memory");
            #pragma GCC unroll 2
            for (int v = 0; v < f.sub / 4; v++) {
                __m256i two[2] = { load(code + v * 64), load(code + v * 64 + 32) };
                step(f, nt, dot, two, q + v * 4, cols);
            }
            widen(f, nt, dot, start);
            add_sub_block(f, nt, part, dot, ws, wm, sum);
            row_scale += PANEL, row_min += PANEL;
        }
        add_block(nt, acc, part, scale);
    }
    store_tile(nt, y, ldy, acc, rows);
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

/* The functions of each format: each small enough for the compiler to find registers. */
typedef void some_tokens(float *y, size_t ldy, const void *w, int rows, const struct qacts *x,
                         int t);
#define FUNCTIONS(type, ...) \
    static void one_##type(float *y, size_t ldy, const void *w, int rows, const struct qacts *x, \
                           int t) { \
        few(MAT_SHAPE(type, __VA_ARGS__), 1, y, ldy, w, rows, x, t); \
    } \
    static void two_##type(float *y, size_t ldy, const void *w, int rows, const struct qacts *x, \
                           int t) { \
        few(MAT_SHAPE(type, __VA_ARGS__), 2, y, ldy, w, rows, x, t); \
    } \
    static void tile_##type(float *y, size_t ldy, const void *w, int rows, const struct qacts *x, \
                            int t) { \
        tokens(MAT_SHAPE(type, __VA_ARGS__), TOKENS, y, ldy, w, rows, x, t); \
    } \
    static void unpack_##type(const struct strip *s, const uint8_t *panel, int cols) { \
        unpack(MAT_SHAPE(type, __VA_ARGS__), s, panel, cols); \
    }
MAT_FORMATS(FUNCTIONS)

static const struct {
    enum dtype type;
    some_tokens *one, *two, *tile;                       /* of a panel, of a panel, of a strip */
    void (*unpack)(const struct strip *, const uint8_t *panel, int cols);
} functions[] = {
#define ENTRY(type, ...) { DT_##type, one_##type, two_##type, tile_##type, unpack_##type },
    MAT_FORMATS(ENTRY)
};

static void quant(float *y, size_t ldy, const struct mat_format *f, const void *w, int rows,
                  const struct qacts *x, void *scratch) {
    int k = 0;
    while (functions[k].type != f->type) k++;
    const uint8_t *panel = w;
    size_t bytes = mat_panel_bytes(f->type, x->cols);
    struct strip strip;
    for (int r = 0; r < rows; r += PANEL, panel += bytes, y += PANEL) {
        int left = rows - r < PANEL ? rows - r : PANEL, t = 0;
        if (x->n_tokens >= 8) {
            strips_place(&strip, 1, f, x->cols, scratch);
            functions[k].unpack(&strip, panel, x->cols);
            for (; t + TOKENS <= x->n_tokens; t += TOKENS)
                functions[k].tile(y + (size_t)t * ldy, ldy, &strip, left, x, t);
        }
        for (; t + 2 <= x->n_tokens; t += 2)
            functions[k].two(y + (size_t)t * ldy, ldy, panel, left, x, t);
        for (; t < x->n_tokens; t++) functions[k].one(y + (size_t)t * ldy, ldy, panel, left, x, t);
    }
}

/* Where the s16 sums start: in x->start lies, for the even and the odd s16 of every
 * lane, -sum of the q they meet. */
static void encode_pairs(const struct qacts *x, int t, const float *row) {
    encode(x, t, row);
    const int8_t *q = x->q + (size_t)t * (size_t)x->cols;
    int32_t *start = x->start + t;
    for (int c = 0; c < x->cols; c += x->sub, start += x->n_tokens) {
        int16_t pair[2] = { 0 };
        for (int i = c; i < c + x->sub; i += 4) {
            pair[0] = (int16_t)(pair[0] - q[i] - q[i + 1]);
            pair[1] = (int16_t)(pair[1] - q[i + 2] - q[i + 3]);
        }
        memcpy(start, pair, sizeof pair);
    }
}

const struct mat_kernels mat_avx2 = { 1, 1, encode_pairs, quant, mat_real_avx2 };
