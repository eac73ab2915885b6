/* tile_amx_order.h - pages and rows of halves in the order the AMX unit wants, for
 * tile_halves_amx.c: bfloat16 in two parts, B in pairs of rows.
 *
 *     a0 a1 a2 ...                         high  a0 b0 a1 b1 a2 b2 ...
 *     b0 b1 b2 ...    two rows of B   ->   low   the same of what the high parts leave
 *
 * An F16 is taken apart as it is, without widening it. Its bits moved by three places are a
 * bfloat16 of 2^-112 times its value, but for the last three bits; what those are worth is the low
 * part, 128 times so that little of it is too small for an F16. A is made to suit: 2^112 times
 * queries or weights, and a third part of it for the low parts of B. The unit takes what a bfloat16
 * has no exponent for as 0, which are numbers below 2^-14 and low parts below 2^-21. */
#ifndef KERNELS_TILE_AMX_ORDER_H
#define KERNELS_TILE_AMX_ORDER_H
#include "kernels/tile_amx_unit.h"

/* The first n lanes. */
INLINE __mmask16 mask_of(int n) { return n < COLS ? (__mmask16)((1u << n) - 1) : (__mmask16)-1; }

INLINE int parts_of(enum dtype type) { return type == DT_F16 ? 2 : 1; }

/* Keys: tiles [part][page][step]. Values: tiles [part][half of the keys][column / 16]. */
static size_t room_k(int dim) { return (size_t)2 * TILE_PAGES * steps_of(dim) * TILE_BYTES; }
static size_t room_v(int dim) { return (size_t)2 * 2 * columns_of(dim) * TILE_BYTES; }

/* Of a row of queries of one part; of a row of weights of one part. */
static size_t part_bytes(int dim) { return (size_t)steps_of(dim) * STEP * sizeof(uint16_t); }
enum { WEIGHTS = TILE * sizeof(uint16_t) };

/* ---- Into the unit's order ---- */

INLINE __m512 widen_bf16(__m256i h) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

/* 32 floats as high and low parts. */
INLINE void split(void *high, void *low, __m512 x0, __m512 x1) {
    const __m512i h = (__m512i)_mm512_cvtne2ps_pbh(x1, x0);
    const __m512 r0 = _mm512_sub_ps(x0, widen_bf16(_mm512_castsi512_si256(h)));
    const __m512 r1 = _mm512_sub_ps(x1, widen_bf16(_mm512_extracti64x4_epi64(h, 1)));
    _mm512_store_si512(high, h);
    _mm512_store_si512(low, (__m512i)_mm512_cvtne2ps_pbh(r1, r0));
}

/* What A is multiplied with for F16, whose pairs of rows are 2^-112 of what they stand for; their
 * low parts are 2^LOW_BITS times that (put_parts), which the third part of A makes good. */
#define FOR_F16 0x1p112f
enum { LOW_BITS = 7 };

/* A row of A: high parts, low parts; for F16 the high ones once more, for the low parts of B. */
INLINE void split_row(char *to, size_t part, __m512 x0, __m512 x1, const enum dtype type) {
    if (type == DT_F16)
        x0 = _mm512_mul_ps(x0, _mm512_set1_ps(FOR_F16)),
        x1 = _mm512_mul_ps(x1, _mm512_set1_ps(FOR_F16));
    split(to, to + part, x0, x1);
    const __m512 less = _mm512_set1_ps(1.0f / (1 << LOW_BITS));
    if (type == DT_F16)
        _mm512_store_si512(to + 2 * part, (__m512i)_mm512_cvtne2ps_pbh(_mm512_mul_ps(x1, less),
                                                                       _mm512_mul_ps(x0, less)));
}

static void load_q(void *dst, const float *q, int rows, int dim, enum dtype type) {
    const size_t part = part_bytes(dim);
    char *to = dst;
    for (int r = 0; r < rows; r++, q += dim, to += row_bytes(dim))
        for (int i = 0; i < dim; i += STEP) {
            const __mmask32 mask = dim - i < STEP ? (1u << (dim - i)) - 1 : ~(__mmask32)0;
            split_row(to + (size_t)i * sizeof(uint16_t), part,
                      _mm512_maskz_loadu_ps((__mmask16)mask, q + i),
                      _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), q + i + 16), type);
        }
}

/* Bits 3 to 14 where bfloat16 has them, and the sign. */
INLINE __m512i upper(__m512i x) {
    return _mm512_and_si512(_mm512_srai_epi16(x, 3), _mm512_set1_epi16((short)0x8fff));
}

/* A row of B of F16, and of the tile of low parts behind it: what the other three bits are
 * worth, 2^LOW_BITS times. Of a NaN or an infinity they become NaN if careful, and *seen
 * does in any case: else it stays 0. */
INLINE void put_parts(char *to, size_t low, __m512i x, const int careful, __m512h *seen) {
    const __m512i high = _mm512_and_si512(x, _mm512_set1_epi16((short)0xfff8));
    const __m512h rest = _mm512_sub_ph((__m512h)x, (__m512h)high);
    __m512i rest_high = upper((__m512i)_mm512_mul_ph(rest, _mm512_set1_ph(1 << LOW_BITS)));
    *seen = _mm512_fmadd_ph(rest, _mm512_setzero_ph(), *seen);
    if (careful)
        rest_high = _mm512_mask_set1_epi16(rest_high,
                                           _mm512_cmp_ph_mask(rest, rest, _CMP_UNORD_Q), 0x7fff);
    _mm512_store_si512(to, upper(x));
    _mm512_store_si512(to + low, rest_high);
}

INLINE int is_nan(__m512h seen) { return _mm512_cmp_ph_mask(seen, seen, _CMP_UNORD_Q) != 0; }

/* Two rows of halves, one behind the other, as pairs. */
INLINE void put_pair(char *to, size_t low, __m512i rows, const enum dtype type, const int careful,
                     __m512h *seen) {
    const __m512i in_turn = _mm512_set_epi32(
        0x1f000f, 0x1e000e, 0x1d000d, 0x1c000c, 0x1b000b, 0x1a000a, 0x190009, 0x180008,
        0x170007, 0x160006, 0x150005, 0x140004, 0x130003, 0x120002, 0x110001, 0x100000);
    const __m512i x = _mm512_permutexvar_epi16(in_turn, rows);
    if (type == DT_BF16) _mm512_store_si512(to, x);
    else put_parts(to, low, x, careful, seen);
}

/* Tiles are made in two halves of eight rows of B, so that the unit can get work in between. */
enum { HALF = 8, HALF_BYTES = TILE_BYTES / 2 };

INLINE void k_rows(char *to, size_t low, const char *at, const enum dtype type, const int whole,
                   int left, const char *fetch, const int careful, __m512h *seen) {
    KEEP_LOOP for (int j = 0; j < HALF; j++, left -= 2, to += 64, at += 64, fetch += 64) {
        prefetch(fetch, 0);
        put_pair(to, low,
                 whole ? _mm512_load_si512(at)
                       : _mm512_maskz_loadu_epi16(left > 1 ? ~0u : left > 0 ? 0xffff : 0, at),
                 type, careful, seen);
    }
}

/* One half of the tile of dimensions i..i+31 of one page of keys; those past the end are zero. */
INLINE void k_half(char *to, size_t low, const char *page, const enum dtype type, int dim, int i,
                   int half, const char *fetch, const int careful, __m512h *seen) {
    i += half * STEP / 2, to += half * HALF_BYTES, fetch += half * HALF_BYTES;
    const char *at = page + (size_t)i * KV_PAGE * sizeof(uint16_t);
    if (i + STEP / 2 <= dim) k_rows(to, low, at, type, 1, 0, fetch, careful, seen);
    else k_rows(to, low, at, type, 0, dim - i, fetch, careful, seen);
}

INLINE __m256i halves_of(const uint16_t *at, const int whole, __mmask16 mask) {
    return whole ? _mm256_loadu_si256((const __m256i *)at) : _mm256_maskz_loadu_epi16(mask, at);
}

/* Pairs of the tokens of two pages of values, `dim` numbers apart. whole: all of them
 * are seen, and all columns there. */
INLINE void v_rows(char *to, size_t low, const uint16_t *a, const uint16_t *b,
                   const enum dtype type, int dim, const int whole, uint32_t keys, __mmask16 mask,
                   const char *fetch, const int careful, __m512h *seen) {
    KEEP_LOOP for (int j = 0; j < HALF;
                   j++, to += 64, a += dim, b += dim, keys >>= 1, fetch += 64) {
        const __m256i x = halves_of(a, whole, keys & 1 ? mask : 0),
                      y = halves_of(b, whole, keys >> KV_PAGE & 1 ? mask : 0);
        prefetch(fetch, 0);
        put_pair(to, low, _mm512_inserti64x4(_mm512_castsi256_si512(x), y, 1), type, careful, seen);
    }
}

/* One half of the tile of columns c..c+15 of two pages, whose row i is the pair of their tokens i.
 * keys: those seen, of both pages; a page that is not there has none. */
INLINE void v_half(char *to, size_t low, const void *const page[2], const enum dtype type, int dim,
                   int c, int half, uint32_t keys, ptrdiff_t ahead, const int careful,
                   __m512h *seen) {
    const __mmask16 mask = mask_of(dim - c);
    const size_t bytes = (size_t)dim * KV_PAGE * sizeof(uint16_t),
                 offset = (size_t)c / COLS * TILE_BYTES + half * HALF_BYTES;
    const void *any = page[0] ? page[0] : page[1];
    const uint16_t *a = page[0] ? page[0] : any, *b = page[1] ? page[1] : any;
    const size_t at = (size_t)half * HALF * dim + c;
    const char *fetch = offset < bytes ? ahead_of(a, offset, ahead)
                                       : ahead_of(b, offset - bytes, ahead);
    if (!page[0]) keys &= 0xffff0000;
    if (!page[1]) keys &= 0xffff;
    to += half * HALF_BYTES, a += at, b += at;
    if (keys == 0xffffffff && mask == 0xffff)
        v_rows(to, low, a, b, type, dim, 1, 0, 0, fetch, careful, seen);
    else
        v_rows(to, low, a, b, type, dim, 0, keys >> half * HALF, mask, fetch, careful, seen);
}

INLINE __m512i kept(void) { return _mm512_set1_epi32((int)0xffff0000); }

/* Bfloat16 of two vectors, those of each lane side by side: cut off. */
INLINE __m512i pair(__m512 a, __m512 b) {
    return _mm512_ternarylogic_epi32(_mm512_srli_epi32(_mm512_castps_si512(a), 16),
                                     _mm512_castps_si512(b), kept(),
                                     0xf8);   /* the first, or the second and the third */
}

/* What that leaves. */
INLINE __m512 rest(__m512 x) {
    return _mm512_sub_ps(x, _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x), kept())));
}
INLINE __m512 rounded(__m512 x) {          /* half a step up, before it is cut off */
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000)));
}

/* Weights as rows of parts, those of each kind together, in pairs as v_half makes them. */
INLINE void split_weights(char *parts, const float *p, int rows, const enum dtype type) {
    const size_t part = MATRIX_ROWS * WEIGHTS;
    for (int r = 0; r < rows; r++, p += TILE, parts += WEIGHTS)
        UNROLL for (int j = 0; j < TILE; j += STEP) {
            char *to = parts + j * sizeof(uint16_t);
            __m512 a = _mm512_loadu_ps(p + j), b = _mm512_loadu_ps(p + j + 16);
            if (type == DT_F16)
                a = _mm512_mul_ps(a, _mm512_set1_ps(FOR_F16)),
                b = _mm512_mul_ps(b, _mm512_set1_ps(FOR_F16));
            const __m512i high = pair(a, b);
            _mm512_store_si512(to, high);
            _mm512_store_si512(to + part, pair(rounded(rest(a)), rounded(rest(b))));
            if (type == DT_F16)
                _mm512_store_si512(to + 2 * part,
                                   _mm512_subs_epu16(high, _mm512_set1_epi16(LOW_BITS << 7)));
        }
}

#endif
