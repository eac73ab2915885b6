/* tile_amx_order.h - pages and rows in the order the AMX unit wants, for tile_amx.c: bfloat16 in two parts, B in pairs of rows.
 *
 *     a0 a1 a2 ...                                  high  a0 b0 a1 b1 a2 b2 ...
 *     b0 b1 b2 ...    two rows of B, widened   ->   low   the same of what the high parts leave */
#ifndef KERNELS_TILE_AMX_ORDER_H
#define KERNELS_TILE_AMX_ORDER_H
#include "kernels/tile_matrix.h"
#include <immintrin.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")
#define KEEP_LOOP _Pragma("GCC unroll 1")   /* unrolled, its addresses would not fit the registers */

enum { BLOCK = 32, STEP = 32, COLS = 16, TILE_BYTES = 1024 };

/* The first n lanes. */
INLINE __mmask16 mask_of(int n) { return n < COLS ? (__mmask16)((1u << n) - 1) : (__mmask16)-1; }

static int steps_of(int dim) { return (dim + STEP - 1) / STEP; }
static int columns_of(int dim) { return (dim + COLS - 1) / COLS; }
INLINE int quantised(enum dtype type) { return type == DT_Q8_0 || type == DT_Q4_0; }
INLINE int parts_of(enum dtype type) { return type == DT_F16 ? 2 : 1; }

static size_t row_bytes(int dim) { return (size_t)2 * STEP * steps_of(dim) * sizeof(uint16_t); }

/* A row of queries: all its high parts, then all its low ones. */
static size_t room_q(int rows, int dim) { return rows * row_bytes(dim); }

/* Keys: tiles [part][page][step], then scales [step][TILE]. Values: tiles [part][half of the keys][column / 16], then scales
 * [column / 32][TILE]. */
static size_t k_tiles(int dim) { return (size_t)2 * TILE_PAGES * steps_of(dim) * TILE_BYTES; }
static size_t v_tiles(int dim) { return (size_t)2 * 2 * columns_of(dim) * TILE_BYTES; }
static size_t room_k(int dim) { return k_tiles(dim) + (size_t)steps_of(dim) * TILE * sizeof(float); }
static size_t room_v(int dim) { return v_tiles(dim) + (size_t)steps_of(dim) * TILE * sizeof(float); }

/* ---- Into the unit's order ---- */

INLINE __m512 widen_bf16(__m256i h) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)); }
INLINE __m512 half16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }

/* 32 floats as high and low parts. */
INLINE void split(void *high, void *low, __m512 x0, __m512 x1) {
    const __m512i h = (__m512i)_mm512_cvtne2ps_pbh(x1, x0);
    const __m512 r0 = _mm512_sub_ps(x0, widen_bf16(_mm512_castsi512_si256(h)));
    const __m512 r1 = _mm512_sub_ps(x1, widen_bf16(_mm512_extracti64x4_epi64(h, 1)));
    _mm512_store_si512(high, h);
    _mm512_store_si512(low, (__m512i)_mm512_cvtne2ps_pbh(r1, r0));
}

static void load_q(void *dst, const float *q, int rows, int dim) {
    const size_t half = row_bytes(dim) / 2;
    char *to = dst;
    for (int r = 0; r < rows; r++, q += dim, to += 2 * half)
        for (int i = 0; i < dim; i += STEP) {
            const __mmask32 mask = dim - i < STEP ? (1u << (dim - i)) - 1 : ~(__mmask32)0;
            split(to + (size_t)i * sizeof(uint16_t), to + half + (size_t)i * sizeof(uint16_t),
                  _mm512_maskz_loadu_ps((__mmask16)mask, q + i), _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), q + i + 16));
        }
}

INLINE __m512 upper(__m512 x) {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32((int)0xffff0000)));
}

/* The upper halves of a and b, those of each lane side by side; the lower half of b is zero. */
INLINE __m512i pair(__m512 a, __m512 b) {
    return _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(a), 16), _mm512_castps_si512(b));
}

/* One pair of rows of a tile, and of the tile of low parts behind it. */
INLINE void put_pair(char *to, size_t low, __m512 a, __m512 b, const enum dtype type) {
    const __m512 high = upper(b);
    if (parts_of(type) == 1) {                           /* the lower halves are zero */
        _mm512_store_si512(to, pair(a, b));
        return;
    }
    _mm512_store_si512(to, pair(a, high));
    _mm512_store_si512(to + low, pair(_mm512_sub_ps(a, upper(a)), upper(_mm512_sub_ps(b, high))));
}

/* The same of bfloat16 as they are stored. */
INLINE void put_halves(char *to, __m256i a, __m256i b) {
    const __m512i in_turn = _mm512_set_epi32(0x1f000f, 0x1e000e, 0x1d000d, 0x1c000c, 0x1b000b, 0x1a000a, 0x190009, 0x180008,
                                             0x170007, 0x160006, 0x150005, 0x140004, 0x130003, 0x120002, 0x110001, 0x100000);
    _mm512_store_si512(to, _mm512_permutexvar_epi16(in_turn, _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1)));
}

/* Making a tile brings in what a later one will need: the lines from `fetch` on, as many as it reads. */
INLINE void prefetch(const char *fetch, int line) { _mm_prefetch(fetch + (size_t)line * 64, _MM_HINT_T1); }

INLINE const char *ahead_of(const void *page, size_t offset, ptrdiff_t ahead) {
    return (const char *)((uintptr_t)page + offset + (uintptr_t)ahead);
}

/* Byte i of each lane, 2^24 times too large; k_scales makes up for it. */
enum { BYTE_SHIFT = 24 };
INLINE __m512 byte_of(__m512i x, int i) {
    const __m512i lane = _mm512_set4_epi32(12 << 24, 8 << 24, 4 << 24, 0 << 24), none = _mm512_set1_epi32(0x808080);
    const __m512i to_top = _mm512_add_epi32(_mm512_or_si512(lane, none), _mm512_set1_epi32(i << 24));
    return _mm512_cvtepi32_ps(_mm512_shuffle_epi8(x, to_top));
}
INLINE __m512 nibble_of(__m512i x, int i) {
    const __m512i low = _mm512_and_si512(_mm512_srli_epi32(x, (unsigned)(i % 4 * 8 + i / 4 * 4)), _mm512_set1_epi32(15));
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(low, _mm512_set1_epi32(8)));
}

/* Bytes of one tile's numbers in a page of keys, or in two of values. */
INLINE size_t tile_source(const enum dtype type) { return type == DT_Q8_0 ? 512 : type == DT_Q4_0 ? 256 : 1024; }

/* Dimensions i and i + 1 of 16 keys; those past the end are zero. */
INLINE void key_pair(char *to, size_t low, const char *page, const enum dtype type, int dim, int i) {
    const __m256i *at = (const __m256i *)page + i, zero = _mm256_setzero_si256();
    const __m256i a = i < dim ? _mm256_load_si256(at) : zero, b = i + 1 < dim ? _mm256_load_si256(at + 1) : zero;
    if (type == DT_BF16) put_halves(to, a, b);
    else put_pair(to, low, _mm512_cvtph_ps(a), _mm512_cvtph_ps(b), type);
}

/* The tile of dimensions i..i+31 of one page of keys. */
INLINE void k_tile(char *to, size_t low, const char *page, const enum dtype type, int dim, int i, const char *fetch) {
    if (quantised(type)) {
        const int n = type == DT_Q8_0 ? 4 : 8;
        const char *at = page + (size_t)i / STEP * tile_source(type);
        KEEP_LOOP for (int line = 0; line < STEP / n; line++, at += 64, to += n / 2 * 64) {
            const __m512i x = _mm512_load_si512(at);
            prefetch(fetch, line);
            UNROLL for (int j = 0; j < n; j += 2)
                if (type == DT_Q8_0) put_pair(to + j * 32, low, byte_of(x, j), byte_of(x, j + 1), type);
                else put_pair(to + j * 32, low, nibble_of(x, j), nibble_of(x, j + 1), type);
        }
    } else if (i + STEP <= dim) {
        KEEP_LOOP for (int j = 0; j < STEP; j += 2) {
            prefetch(fetch, j / 2);
            key_pair(to + j * 32, low, page, type, i + STEP, i + j);
        }
    } else KEEP_LOOP for (int j = 0; j < STEP; j += 2) key_pair(to + j * 32, low, page, type, dim, i + j);
}

/* The scales of one block of dimensions. */
INLINE __m512 k_scales(const char *page, enum dtype type, int dim, int block) {
    const __m512 d = half16((const uint16_t *)(page + (size_t)KV_PAGE * dim / (type == DT_Q8_0 ? 1 : 2)) + block * KV_PAGE);
    return type == DT_Q8_0 ? _mm512_mul_ps(d, _mm512_set1_ps(1.0f / (1 << BYTE_SHIFT))) : d;
}

/* n values of a row, in bytes. */
INLINE size_t value_bytes(const enum dtype type, int n) {
    return type == DT_Q8_0 ? (size_t)n : type == DT_Q4_0 ? (size_t)n / 2 : (size_t)n * 2;
}

INLINE __m256i halves_of(const char *at, const int whole, __mmask16 mask) {
    return whole ? _mm256_loadu_si256((const __m256i *)at) : _mm256_maskz_loadu_epi16(mask, at);
}

/* Sixteen columns of one token; those of Q4_0 share bytes with 16 others, and `upper` says which half is meant. */
INLINE __m512 value(const char *at, const enum dtype type, const int whole, __mmask16 mask, int upper) {
    switch (type) {
    case DT_F16: return _mm512_cvtph_ps(halves_of(at, whole, mask));
    case DT_Q8_0:
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(whole ? _mm_loadu_si128((const __m128i *)at)
                                                             : _mm_maskz_loadu_epi8(mask, at)));
    default: {
        const __m512i x = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)at));
        const __m512i q = upper ? _mm512_srli_epi32(x, 4) : _mm512_and_si512(x, _mm512_set1_epi32(15));
        return _mm512_maskz_cvtepi32_ps(whole ? 0xffff : mask, _mm512_sub_epi32(q, _mm512_set1_epi32(8)));
    }
    }
}

/* Half the tile of columns c..c+15: the tokens of one page. whole: all of them are seen, and all columns there. */
INLINE void v_half_tile(char *to, size_t low, const char *page, const enum dtype type, int dim, int c, const int whole,
                        unsigned keys, __mmask16 mask, const char *fetch) {
    const size_t row = value_bytes(type, dim), first = value_bytes(type, type == DT_Q4_0 ? c / BLOCK * BLOCK : c);
    const int upper_half = c % BLOCK != 0, per_line = (int)(1024 / tile_source(type));
    const char *at = page + first;
    KEEP_LOOP for (int slot = 0; slot < KV_PAGE; slot += 2, to += 64, at += 2 * row) {
        const __mmask16 of_a = keys >> slot & 1 ? mask : 0, of_b = keys >> slot & 2 ? mask : 0;
        if (slot / 2 % per_line == 0) prefetch(fetch, slot / 2 / per_line);
        if (type == DT_BF16) put_halves(to, halves_of(at, whole, of_a), halves_of(at + row, whole, of_b));
        else put_pair(to, low, value(at, type, whole, of_a, upper_half), value(at + row, type, whole, of_b, upper_half), type);
    }
}

/* The tile of columns c..c+15 of two pages of values. */
INLINE void v_tile(char *to, size_t low, const void *const page[2], const enum dtype type, int dim, int c, uint32_t keys,
                   ptrdiff_t ahead) {
    const __mmask16 mask = mask_of(dim - c);
    const size_t bytes = value_bytes(type, dim) * KV_PAGE, offset = (size_t)c / COLS * tile_source(type);
    const void *near = page[offset / bytes] ? page[offset / bytes] : page[0] ? page[0] : page[1];
    const char *fetch = ahead_of(near, offset % bytes, ahead);
    for (int p = 0; p < 2; p++, to += TILE_BYTES / 2, keys >>= KV_PAGE, fetch += tile_source(type) / 2) {
        const unsigned seen = page[p] ? keys & 0xffff : 0;
        if (!seen) {
            memset(to, 0, TILE_BYTES / 2);
            if (parts_of(type) == 2) memset(to + low, 0, TILE_BYTES / 2);
        } else if (seen == 0xffff && mask == 0xffff) v_half_tile(to, low, page[p], type, dim, c, 1, 0, 0, fetch);
        else v_half_tile(to, low, page[p], type, dim, c, 0, seen, mask, fetch);
    }
}

/* The scales of one block of columns: those of all keys, side by side. */
static void v_scales(float *to, const void *const page[TILE_PAGES], enum dtype type, int dim, int block, uint64_t keys) {
    const int blocks = dim / BLOCK;
    for (int p = 0; p < TILE_PAGES; p++, to += KV_PAGE, keys >>= KV_PAGE) {
        const __mmask16 seen = page[p] ? (__mmask16)keys : 0;
        if (!seen) {
            _mm512_storeu_ps(to, _mm512_setzero_ps());
            continue;
        }
        const uint16_t *scale = (const uint16_t *)((const char *)page[p] + (size_t)KV_PAGE * dim / (type == DT_Q8_0 ? 1 : 2));
        if (blocks == 2) {                               /* by far the most usual: 32 scales are one vector */
            const __m512i of = _mm512_add_epi16(_mm512_set1_epi16((short)block), _mm512_set_epi32(
                0, 0, 0, 0, 0, 0, 0, 0, 0x1e001c, 0x1a0018, 0x160014, 0x120010, 0xe000c, 0xa0008, 0x60004, 0x20000));
            const __m512i x = _mm512_permutexvar_epi16(of, _mm512_loadu_si512(scale));
            _mm512_storeu_ps(to, _mm512_maskz_cvtph_ps(seen, _mm512_castsi512_si256(x)));
            continue;
        }
        for (int slot = 0; slot < KV_PAGE; slot++) to[slot] = seen >> slot & 1 ? _cvtsh_ss(scale[slot * blocks + block]) : 0;
    }
}

/* Weights times scale (NULL: 1) as rows of two parts. */
INLINE void split_weights(uint16_t *parts, const float *p, int rows, const float *scale) {
    for (int r = 0; r < rows; r++, p += TILE, parts += TILE)
        UNROLL for (int j = 0; j < TILE; j += STEP) {
            __m512 x0 = _mm512_loadu_ps(p + j), x1 = _mm512_loadu_ps(p + j + 16);
            if (scale) {
                x0 = _mm512_mul_ps(x0, _mm512_load_ps(scale + j));
                x1 = _mm512_mul_ps(x1, _mm512_load_ps(scale + j + 16));
            }
            split(parts + j, parts + MATRIX_ROWS * TILE + j, x0, x1);
        }
}

#endif
