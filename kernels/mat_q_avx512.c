/* mat_q_avx512.c - block formats with AVX-512 VNNI: a few tokens straight from the packed
 * panel (decoding is bound by memory, so unpacking is free), and the unpacking into strips
 * for many tokens.
 *
 * One vector is 16 rows x 4 columns; vpdpbusd with the 4 activations of those
 * columns in every lane adds to 16 sums:
 *
 *       row 0        row 1              row 15
 *     |c0 c1 c2 c3|c0 c1 c2 c3| ...  |c0 c1 c2 c3|   codes, u8
 *   x |x0 x1 x2 x3|x0 x1 x2 x3| ...  |x0 x1 x2 x3|   activations, s8, broadcast
 *   = |  sum 0    |  sum 1    | ...  |  sum 15   |   s32 */
#include <immintrin.h>
#include "kernels/blocks.h"
#include "kernels/mat_shape.h"
#include "kernels/mat_strip.h"

#define INLINE static inline __attribute__((always_inline))

typedef uint16_t lanes16 __attribute__((vector_size(64)));

/* Left for n > 0, right for n < 0; bits that cross a byte are masked off by the caller. */
INLINE __m512i shifted(__m512i v, int n) {
    return n > 0 ? (__m512i)((lanes16)v << n) : n < 0 ? (__m512i)((lanes16)v >> -n) : v;
}

/* Bits of vector v (0..7) in a plane of `bits`, moved to start at bit `to`. */
INLINE __m512i plane(const uint8_t *p, int bits, int v, int to) {
    __m512i raw = _mm512_loadu_si512(p + v % bits * 64);
    return _mm512_and_si512(shifted(raw, to - v / bits * bits),
                            _mm512_set1_epi8((char)(((1 << bits) - 1) << to)));
}

/* The codes of vector v of 32 columns, layouts as in mat_pack.h. */
INLINE __m512i codes(const uint8_t *p, int bits, int v) {
    switch (bits) {
    case 2: return plane(p, 2, v, 0);
    case 3: return _mm512_or_si512(plane(p, 2, v, 0), plane(p + 128, 1, v, 2));
    case 4: return plane(p, 4, v, 0);
    case 5: return _mm512_or_si512(plane(p, 4, v, 0), plane(p + 256, 1, v, 4));
    case 6: return _mm512_or_si512(plane(p, 4, v, 0), plane(p + 256, 2, v, 4));
    default: return _mm512_loadu_si512(p + v * 64);
    }
}

/* Levels of the code book, unsigned by + 128, for _mm512_shuffle_epi8. */
INLINE __m512i unsigned_book(void) {
    __m128i book = _mm_loadu_si128((const __m128i *)iq4_values);
    return _mm512_broadcast_i32x4(_mm_xor_si128(book, _mm_set1_epi8((char)0x80)));
}

/* The head of one block of columns. */
struct head { const uint8_t *scale, *min; __m512 d, dmin; };

INLINE __m512 half16(const uint8_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

INLINE struct head open_head(struct shape f, const uint8_t *p) {
    struct head g = { .d = half16(p) };
    int subs = f.block / f.sub;
    p += 32;
    if (f.min) g.dmin = half16(p), p += 32;
    g.scale = p;
    if (f.block != 32) p += subs * PANEL;
    g.min = p;
    return g;
}

/* d * scale and dmin * min of sub-block s of a group. */
INLINE __m512 scale_of(struct shape f, const struct head *g, int s) {
    if (f.block == 32) return g->d;
    __m128i raw = _mm_loadu_si128((const __m128i *)(g->scale + s * PANEL));
    if (f.type == DT_Q2_K) raw = _mm_and_si128(raw, _mm_set1_epi8(15));
    return _mm512_mul_ps(g->d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(raw)));
}

INLINE __m512 min_of(struct shape f, const struct head *g, int s) {
    if (f.block == 32) return g->dmin;
    __m128i raw = _mm_loadu_si128(
        (const __m128i *)((f.type == DT_Q2_K ? g->scale : g->min) + s * PANEL));
    if (f.type == DT_Q2_K) raw = _mm_and_si128(_mm_srli_epi16(raw, 4), _mm_set1_epi8(15));
    return _mm512_mul_ps(g->dmin, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(raw)));
}

/* The start of a sum whose codes are level + centre, from that of level + 128. */
INLINE __m512i start_of(struct shape f, int32_t start) {
    return f.min ? _mm512_setzero_si512() : _mm512_set1_epi32(start / (128 / f.centre));
}

INLINE __m512i dot4(__m512i sum, __m512i code, const int8_t *q) {
    int32_t four;
    __builtin_memcpy(&four, q, 4);
    return _mm512_dpbusd_epi32(sum, code, _mm512_set1_epi32(four));
}

/* Bytes the prefetch runs ahead of the codes; bytes that need no unpacking outrun it
 * sooner than their lines arrive. */
INLINE size_t ahead(struct shape f) { return f.bits == 8 ? 768 : 2048; }

/* np panels (bytes apart) times nt tokens, np * nt <= 4; each sum is added up in two chains. Two
 * panels at once are two streams, which memory serves faster than one. */
INLINE void few(struct shape f, int np, int nt, float *y, size_t ldy, const uint8_t *panel,
                size_t bytes, int rows, const struct qacts *x, int t0) {
    const size_t cols = (size_t)x->cols, ld = (size_t)x->n_tokens;
    const int8_t *q = x->q + (size_t)t0 * cols;
    const float *scale = x->scale + t0, *sum = x->sum + t0;
    const int32_t *start = x->start + t0;
    const __m512i book = unsigned_book();
    __m512 acc[2][4], part[2][4];
    #pragma GCC unroll 2
    for (int k = 0; k < np; k++)
        #pragma GCC unroll 4
        for (int t = 0; t < nt; t++) acc[k][t] = _mm512_setzero_ps();
    const uint8_t *code = panel + heads_bytes(f, cols);
    for (size_t c = 0; c < cols; c += (size_t)f.block, panel += head_bytes(f), scale += ld) {
        struct head g[2];
        #pragma GCC unroll 2
        for (int k = 0; k < np; k++) {
            g[k] = open_head(f, panel + (size_t)k * bytes);
            #pragma GCC unroll 4
            for (int t = 0; t < nt; t++) part[k][t] = _mm512_setzero_ps();
        }
        for (int b = 0; b < f.block / 32; b++, code += f.bits * 64) {
            #pragma GCC unroll 2
            for (int k = 0; k < np; k++)
                #pragma GCC unroll 8
                for (int i = 0; i < f.bits; i++)
                    _mm_prefetch((const char *)code + (size_t)k * bytes + ahead(f) + i * 64,
                                 _MM_HINT_T0);
            /* one sub-block of 32, or two of 16 */
            #pragma GCC unroll 2
            for (int h = 0; h < 32 / f.sub; h++, sum += ld, start += ld) {
                #pragma GCC unroll 2
                for (int k = 0; k < np; k++) {
                    const uint8_t *p = code + (size_t)k * bytes;
                    __m512 ws = scale_of(f, &g[k], b * (32 / f.sub) + h), wm = _mm512_setzero_ps();
                    if (f.min) wm = min_of(f, &g[k], b * (32 / f.sub) + h);
                    __m512i even[4], odd[4];
                    #pragma GCC unroll 4
                    for (int t = 0; t < nt; t++)
                        even[t] = start_of(f, start[t]), odd[t] = _mm512_setzero_si512();
                    #pragma GCC unroll 8
                    for (int v = h * f.sub / 4; v < (h + 1) * f.sub / 4; v += 2) {
                        __m512i c0 = codes(p, f.bits, v), c1 = codes(p, f.bits, v + 1);
                        if (f.book)
                            c0 = _mm512_shuffle_epi8(book, c0), c1 = _mm512_shuffle_epi8(book, c1);
                        #pragma GCC unroll 4
                        for (int t = 0; t < nt; t++) {
                            const int8_t *at = q + (size_t)t * cols + c + (size_t)(b * 32 + v * 4);
                            even[t] = dot4(even[t], c0, at);
                            odd[t] = dot4(odd[t], c1, at + 4);
                        }
                    }
                    #pragma GCC unroll 4
                    for (int t = 0; t < nt; t++) {
                        __m512 dot = _mm512_cvtepi32_ps(_mm512_add_epi32(even[t], odd[t]));
                        part[k][t] = _mm512_fmadd_ps(dot, ws, part[k][t]);
                        if (f.min)
                            part[k][t] = _mm512_fnmadd_ps(wm, _mm512_set1_ps(sum[t]), part[k][t]);
                    }
                }
            }
        }
        #pragma GCC unroll 2
        for (int k = 0; k < np; k++)
            #pragma GCC unroll 4
            for (int t = 0; t < nt; t++)
                acc[k][t] = _mm512_fmadd_ps(part[k][t], _mm512_set1_ps(scale[t]), acc[k][t]);
    }
    #pragma GCC unroll 2
    for (int k = 0; k < np; k++) {
        int left = rows - k * PANEL;
        __mmask16 mask = left >= PANEL ? 0xffff : (__mmask16)((1u << left) - 1);
        #pragma GCC unroll 4
        for (int t = 0; t < nt; t++)
            _mm512_mask_storeu_ps(y + (size_t)t * ldy + k * PANEL, mask, acc[k][t]);
    }
}

/* One panel to a strip; bias: what turns level + centre into the codes wanted. */
INLINE void unpack(struct shape f, const struct strip *out, const uint8_t *panel, int cols,
                   int is_signed) {
    const __m512i book = unsigned_book();
    int centre = f.min ? 0 : f.centre, wanted = f.min || is_signed ? 0 : 128;
    const __m512i bias = _mm512_set1_epi8((char)(wanted - centre));
    uint8_t *code = out->code;
    float *scale = out->scale, *min = out->min;
    const uint8_t *p = panel + heads_bytes(f, (size_t)cols);
    for (int c = 0; c < cols; c += f.block, panel += head_bytes(f)) {
        struct head g = open_head(f, panel);
        for (int s = 0; s < f.block / f.sub; s++, scale += PANEL) {
            _mm512_storeu_ps(scale, scale_of(f, &g, s));
            if (f.min) _mm512_storeu_ps(min, min_of(f, &g, s)), min += PANEL;
        }
        for (int b = 0; b < f.block / 32; b++, p += f.bits * 64, code += 512) {
            #pragma GCC unroll 8
            for (int v = 0; v < 8; v++) {
                __m512i u = codes(p, f.bits, v);
                if (f.book) u = _mm512_shuffle_epi8(book, u);
                if (!f.min) u = _mm512_add_epi8(u, bias);
                _mm512_storeu_si512(code + v * 64, u);
            }
        }
    }
}

/* The functions of each format. */
#define FEW(name, np, nt, type, ...) \
    static void name##_##type(float *y, size_t ldy, const uint8_t *panel, size_t bytes, int rows, \
                              const struct qacts *x, int t) { \
        few(MAT_SHAPE(type, __VA_ARGS__), np, nt, y, ldy, panel, bytes, rows, x, t); \
    }
#define FUNCTIONS(type, ...) \
    FEW(one, 1, 1, type, __VA_ARGS__) FEW(two_panels, 2, 1, type, __VA_ARGS__) \
    FEW(four, 1, 4, type, __VA_ARGS__) \
    static void unpack_##type(const struct strip *s, const uint8_t *panel, int cols, \
                              int is_signed) { \
        unpack(MAT_SHAPE(type, __VA_ARGS__), s, panel, cols, is_signed); \
    }
MAT_FORMATS(FUNCTIONS)

typedef void few_tokens(float *y, size_t ldy, const uint8_t *panel, size_t bytes, int rows,
                        const struct qacts *x, int t);
static const struct {
    enum dtype type;
    few_tokens *one, *two_panels, *four;
    void (*unpack)(const struct strip *, const uint8_t *panel, int cols, int is_signed);
} functions[] = {
#define ENTRY(type, ...) { DT_##type, one_##type, two_panels_##type, four_##type, unpack_##type },
    MAT_FORMATS(ENTRY)
};

void mat_quant_avx512(float *y, size_t ldy, const struct mat_format *f, const void *w, int rows,
                      const struct qacts *x, void *scratch, strip_tile *tile, int tile_tokens,
                      int is_signed) {
    int k = 0;
    while (functions[k].type != f->type) k++;
    const uint8_t *panel = w;
    size_t bytes = mat_panel_bytes(f->type, x->cols);
    int n_tiled = x->n_tokens < 6 ? 0
                : tile_tokens ? x->n_tokens / tile_tokens * tile_tokens : x->n_tokens;
    struct strip strips[MAX_STRIPS];
    if (n_tiled) {
        strips_place(strips, MAX_STRIPS, f, x->cols, scratch);
        for (int r = 0; r < rows; r += PANEL)
            functions[k].unpack(&strips[r / PANEL], panel + (size_t)(r / PANEL) * bytes, x->cols,
                                is_signed);
    }
    int step = tile_tokens ? tile_tokens : 12;
    for (int t = 0; t < n_tiled; t += step)
        for (int r = 0; r < rows; r += PANEL)
            tile(y + (size_t)t * ldy + r, ldy, f, &strips[r / PANEL],
                 rows - r < PANEL ? rows - r : PANEL, x, t,
                 n_tiled - t < step ? n_tiled - t : step);
    int n_fours = x->n_tokens - (x->n_tokens - n_tiled) % 4;
    for (int r = 0; r < rows; r += PANEL)
        for (int t = n_tiled; t < n_fours; t += 4)
            functions[k].four(y + (size_t)t * ldy + r, ldy, panel + (size_t)(r / PANEL) * bytes,
                              bytes, rows - r < PANEL ? rows - r : PANEL, x, t);
    for (int r = 0; r < rows; r += 2 * PANEL)
        for (int t = n_fours; t < x->n_tokens; t++)
            (rows - r > PANEL ? functions[k].two_panels : functions[k].one)
                (y + (size_t)t * ldy + r, ldy, panel + (size_t)(r / PANEL) * bytes, bytes,
                 rows - r, x, t);
}
