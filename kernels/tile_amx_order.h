/* tile_amx_order.h - pages and rows of halves in the order the AMX unit wants, for tile_halves_amx.c: bfloat16 in two parts,
 * B in pairs of rows.
 *
 *     a0 a1 a2 ...                                  high  a0 b0 a1 b1 a2 b2 ...
 *     b0 b1 b2 ...    two rows of B, widened   ->   low   the same of what the high parts leave */
#ifndef KERNELS_TILE_AMX_ORDER_H
#define KERNELS_TILE_AMX_ORDER_H
#include "kernels/tile_amx_unit.h"

/* The first n lanes. */
INLINE __mmask16 mask_of(int n) { return n < COLS ? (__mmask16)((1u << n) - 1) : (__mmask16)-1; }

INLINE int parts_of(enum dtype type) { return type == DT_F16 ? 2 : 1; }

/* Keys: tiles [part][page][step]. Values: tiles [part][half of the keys][column / 16]. */
static size_t room_k(int dim) { return (size_t)2 * TILE_PAGES * steps_of(dim) * TILE_BYTES; }
static size_t room_v(int dim) { return (size_t)2 * 2 * columns_of(dim) * TILE_BYTES; }

/* ---- Into the unit's order ---- */

INLINE __m512 widen_bf16(__m256i h) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)); }

/* 32 floats as high and low parts. */
INLINE void split(void *high, void *low, __m512 x0, __m512 x1) {
    const __m512i h = (__m512i)_mm512_cvtne2ps_pbh(x1, x0);
    const __m512 r0 = _mm512_sub_ps(x0, widen_bf16(_mm512_castsi512_si256(h)));
    const __m512 r1 = _mm512_sub_ps(x1, widen_bf16(_mm512_extracti64x4_epi64(h, 1)));
    _mm512_store_si512(high, h);
    _mm512_store_si512(low, (__m512i)_mm512_cvtne2ps_pbh(r1, r0));
}

static void load_q(void *dst, const float *q, int rows, int dim, enum dtype type) {
    (void)type;                                            /* queries are split alike for both */
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

/* One pair of rows of a tile of F16, and of the tile of low parts behind it. */
INLINE void put_parts(char *to, size_t low, __m256i x, __m256i y) {
    const __m512 a = _mm512_cvtph_ps(x), b = _mm512_cvtph_ps(y), high = upper(b);
    _mm512_store_si512(to, pair(a, high));
    _mm512_store_si512(to + low, pair(_mm512_sub_ps(a, upper(a)), _mm512_sub_ps(b, high)));    /* three bits each */
}

/* The same of BF16, as they are stored. */
INLINE void put_halves(char *to, __m256i a, __m256i b) {
    const __m512i in_turn = _mm512_set_epi32(0x1f000f, 0x1e000e, 0x1d000d, 0x1c000c, 0x1b000b, 0x1a000a, 0x190009, 0x180008,
                                             0x170007, 0x160006, 0x150005, 0x140004, 0x130003, 0x120002, 0x110001, 0x100000);
    _mm512_store_si512(to, _mm512_permutexvar_epi16(in_turn, _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1)));
}

INLINE void put_pair(char *to, size_t low, __m256i a, __m256i b, const enum dtype type) {
    if (type == DT_BF16) put_halves(to, a, b);
    else put_parts(to, low, a, b);
}

/* The tile of dimensions i..i+31 of one page of keys; those past the end are zero. */
INLINE void k_tile(char *to, size_t low, const char *page, const enum dtype type, int dim, int i, const char *fetch) {
    const __m256i *at = (const __m256i *)page + i, zero = _mm256_setzero_si256();
    const int whole = i + STEP <= dim;
    KEEP_LOOP for (int j = 0; j < STEP; j += 2, to += 64) {
        prefetch(fetch, j / 2);
        const __m256i a = whole || i + j < dim ? _mm256_load_si256(at + j) : zero;
        const __m256i b = whole || i + j + 1 < dim ? _mm256_load_si256(at + j + 1) : zero;
        put_pair(to, low, a, b, type);
    }
}

INLINE __m256i halves_of(const uint16_t *at, const int whole, __mmask16 mask) {
    return whole ? _mm256_loadu_si256((const __m256i *)at) : _mm256_maskz_loadu_epi16(mask, at);
}

/* Half the tile of columns c..c+15: the tokens of one page. whole: all of them are seen, and all columns there. */
INLINE void v_half_tile(char *to, size_t low, const uint16_t *page, const enum dtype type, int dim, int c, const int whole,
                        unsigned keys, __mmask16 mask, const char *fetch) {
    const uint16_t *at = page + c;
    KEEP_LOOP for (int slot = 0; slot < KV_PAGE; slot += 2, to += 64, at += 2 * dim) {
        const __mmask16 of_a = keys >> slot & 1 ? mask : 0, of_b = keys >> slot & 2 ? mask : 0;
        prefetch(fetch, slot / 2);
        put_pair(to, low, halves_of(at, whole, of_a), halves_of(at + dim, whole, of_b), type);
    }
}

/* The tile of columns c..c+15 of two pages of values. */
INLINE void v_tile(char *to, size_t low, const void *const page[2], const enum dtype type, int dim, int c, uint32_t keys,
                   ptrdiff_t ahead) {
    const __mmask16 mask = mask_of(dim - c);
    const size_t bytes = (size_t)dim * KV_PAGE * sizeof(uint16_t), offset = (size_t)c / COLS * TILE_BYTES;
    const void *near = page[offset / bytes] ? page[offset / bytes] : page[0] ? page[0] : page[1];
    const char *fetch = ahead_of(near, offset % bytes, ahead);
    for (int p = 0; p < 2; p++, to += TILE_BYTES / 2, keys >>= KV_PAGE, fetch += TILE_BYTES / 2) {
        const unsigned seen = page[p] ? keys & 0xffff : 0;
        if (!seen) {
            memset(to, 0, TILE_BYTES / 2);
            if (parts_of(type) == 2) memset(to + low, 0, TILE_BYTES / 2);
        } else if (seen == 0xffff && mask == 0xffff) v_half_tile(to, low, page[p], type, dim, c, 1, 0, 0, fetch);
        else v_half_tile(to, low, page[p], type, dim, c, 0, seen, mask, fetch);
    }
}

/* Weights as rows of two parts. */
INLINE void split_weights(uint16_t *parts, const float *p, int rows) {
    for (int r = 0; r < rows; r++, p += TILE, parts += TILE)
        UNROLL for (int j = 0; j < TILE; j += STEP)
            split(parts + j, parts + MATRIX_ROWS * TILE + j, _mm512_loadu_ps(p + j), _mm512_loadu_ps(p + j + 16));
}

#endif
