/* tile_amx.c - tile_matrix.h with AMX. Scores and sums of values are the same product of a row block with a tile of keys:
 *
 *                        B   32 dimensions (32 keys) x 16 keys (16 columns), bf16, consecutive pairs of rows side by side
 *                        +--------+--------+--------+--------+
 *                        |  tile  |        |        |        |   high part, and low part if there is one
 *     A                  +--------+--------+--------+--------+
 *     +----------+       +--------+--------+--------+--------+
 *     | high low |       |  C 0   |  C 1   |  C 2   |  C 3   |   rows x 16, f32: C += Ah Bh, then Al Bh, then Ah Bl
 *     +----------+       +--------+--------+--------+--------+
 *       rows x 32
 *
 * scores: A is the queries, C a page each.  gather: A is the weights, C 16 columns of the output each. The four C take turns
 * because a product waits for the one before it on the same C. */
#include "kernels/tile_matrix.h"
#include <immintrin.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

enum { BLOCK = 32, STEP = 32, COLS = 16, TILE_BYTES = 1024 };

static int steps_of(int dim) { return (dim + STEP - 1) / STEP; }
static int columns_of(int dim) { return (dim + COLS - 1) / COLS; }
INLINE int quantised(enum dtype type) { return type == DT_Q8_0 || type == DT_Q4_0; }
INLINE int parts_of(enum dtype type) { return type == DT_F32 || type == DT_F16 ? 2 : 1; }

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

/* The upper halves of a and b, those of each lane side by side. */
INLINE __m512i pair(__m512 a, __m512 b) {
    return _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(_mm512_castps_si512(a), 16), _mm512_castps_si512(b));
}

/* What the upper half of a leaves of it; for floats, rounded to fit an upper half itself. */
INLINE __m512 remainder_of(__m512 a, const enum dtype type) {
    const __m512 high = _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32((int)0xffff0000)));
    const __m512 low = _mm512_sub_ps(a, high);
    if (type != DT_F32) return low;
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(low), _mm512_set1_epi32(0x8000)));
}

INLINE void put_pair(char *to, size_t part, __m512 a, __m512 b, const enum dtype type) {
    _mm512_store_si512(to, pair(a, b));
    if (parts_of(type) == 2) _mm512_store_si512(to + part, pair(remainder_of(a, type), remainder_of(b, type)));
}

INLINE void prefetch(const char *at, ptrdiff_t ahead) {
    _mm_prefetch((const char *)((uintptr_t)at + (uintptr_t)ahead), _MM_HINT_T0);
}

/* Integer i of the four (or eight) bytes (nibbles) in each lane. */
INLINE __m512 byte_of(__m512i x, int i) {
    return _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(x, (unsigned)(24 - 8 * i)), 24));
}
INLINE __m512 nibble_of(__m512i x, int i) {
    const __m512i low = _mm512_and_si512(_mm512_srli_epi32(x, (unsigned)(i % 4 * 8 + i / 4 * 4)), _mm512_set1_epi32(15));
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(low, _mm512_set1_epi32(8)));
}

/* One page; dim is at most 32 * steps, and what is missing is zero. */
INLINE void load_k_page(char *to, size_t part, const char *page, const enum dtype type, int dim, ptrdiff_t ahead) {
    const int even = STEP * steps_of(dim);
    int i = 0;
    for (; i + 1 < dim; ) {
        if (quantised(type)) {
            const int n = type == DT_Q8_0 ? 4 : 8;
            const char *at = page + (size_t)i * KV_PAGE * (type == DT_Q8_0 ? 2 : 1) / 2;
            const __m512i x = _mm512_loadu_si512(at);
            prefetch(at, ahead);
            UNROLL for (int j = 0; j < n; j += 2, to += 64)
                if (type == DT_Q8_0) put_pair(to, part, byte_of(x, j), byte_of(x, j + 1), type);
                else put_pair(to, part, nibble_of(x, j), nibble_of(x, j + 1), type);
            i += n;
            continue;
        }
        const char *at = page + (size_t)i * KV_PAGE * (type == DT_F32 ? 4 : 2);
        prefetch(at, ahead);
        if (type == DT_F32) {
            prefetch(at + 64, ahead);
            put_pair(to, part, _mm512_loadu_ps(at), _mm512_loadu_ps(at + 64), type);
        } else if (type == DT_F16) {
            put_pair(to, part, half16((const uint16_t *)at), half16((const uint16_t *)(at + 32)), type);
        } else {
            put_pair(to, part, widen_bf16(_mm256_loadu_si256((const __m256i *)at)),
                     widen_bf16(_mm256_loadu_si256((const __m256i *)(at + 32))), type);
        }
        i += 2, to += 64;
    }
    if (i < dim) {                                       /* an odd head size */
        const char *at = page + (size_t)i * KV_PAGE * (type == DT_F32 ? 4 : 2);
        const __m512 x = type == DT_F32 ? _mm512_loadu_ps(at) : type == DT_F16 ? half16((const uint16_t *)at)
                       : widen_bf16(_mm256_loadu_si256((const __m256i *)at));
        put_pair(to, part, x, _mm512_setzero_ps(), type);
        i += 2, to += 64;
    }
    for (; i < even; i += 2, to += 64) put_pair(to, part, _mm512_setzero_ps(), _mm512_setzero_ps(), type);
}

INLINE void load_k_of(char *dst, const void *const page[TILE_PAGES], const enum dtype type, int dim, ptrdiff_t ahead) {
    const int steps = steps_of(dim);
    const size_t part = (size_t)TILE_PAGES * steps * TILE_BYTES;
    float *scales = (float *)(dst + k_tiles(dim));
    for (int p = 0; p < TILE_PAGES; p++) {
        if (!page[p]) continue;
        load_k_page(dst + (size_t)p * steps * TILE_BYTES, part, page[p], type, dim, ahead);
        if (!quantised(type)) continue;
        const uint16_t *scale = (const uint16_t *)((const char *)page[p] + (size_t)KV_PAGE * dim / (type == DT_Q8_0 ? 1 : 2));
        prefetch((const char *)scale, ahead);
        for (int b = 0; b < steps; b++) _mm512_store_ps(scales + b * TILE + p * KV_PAGE, half16(scale + b * KV_PAGE));
    }
}

static void load_k(void *dst, const void *const page[TILE_PAGES], enum dtype type, int dim, ptrdiff_t ahead) {
    switch (type) {
    case DT_F32: load_k_of(dst, page, DT_F32, dim, ahead); break;
    case DT_F16: load_k_of(dst, page, DT_F16, dim, ahead); break;
    case DT_BF16: load_k_of(dst, page, DT_BF16, dim, ahead); break;
    case DT_Q8_0: load_k_of(dst, page, DT_Q8_0, dim, ahead); break;
    default: load_k_of(dst, page, DT_Q4_0, dim, ahead);
    }
}

/* Columns c..c+15 of one token; of a Q4_0 token they share bytes with 16 others. */
INLINE __m512 values(const char *page, const enum dtype type, int dim, int slot, int c, __mmask16 mask) {
    const size_t at = (size_t)slot * dim + c;
    switch (type) {
    case DT_F32: return _mm512_maskz_loadu_ps(mask, (const float *)page + at);
    case DT_F16: return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, (const uint16_t *)page + at));
    case DT_BF16: return widen_bf16(_mm256_maskz_loadu_epi16(mask, (const uint16_t *)page + at));
    case DT_Q8_0:
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, page + at)));
    default: {
        const __m512i x = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(page + (at - c % BLOCK) / 2)));
        const __m512i q = c % BLOCK ? _mm512_srli_epi32(x, 4) : _mm512_and_si512(x, _mm512_set1_epi32(15));
        return _mm512_maskz_cvtepi32_ps(mask, _mm512_sub_epi32(q, _mm512_set1_epi32(8)));
    }
    }
}

/* Half a tile's rows: the tokens of one page, pair by pair. */
INLINE void load_v_page(char *to, size_t part, const char *page, const enum dtype type, int dim, unsigned keys,
                        ptrdiff_t ahead) {
    const int columns = columns_of(dim);
    for (int slot = 0; slot < KV_PAGE; slot += 2, to += 64) {
        const unsigned a = keys >> slot & 1, b = keys >> slot & 2;
        const size_t bytes = type == DT_F32 ? 8 : type == DT_Q8_0 ? 2 : type == DT_Q4_0 ? 1 : 4;
        for (size_t i = 0; i < bytes * dim; i += 64) prefetch(page + slot / 2 * bytes * dim + i, ahead);
        for (int c = 0; c < columns; c++) {
            const __mmask16 mask = dim - c * COLS < COLS ? (__mmask16)((1u << (dim - c * COLS)) - 1) : (__mmask16)-1;
            put_pair(to + (size_t)c * TILE_BYTES, part, values(page, type, dim, slot, c * COLS, a ? mask : 0),
                     values(page, type, dim, slot + 1, c * COLS, b ? mask : 0), type);
        }
    }
}

static void load_v_scales(float *scales, const char *page, enum dtype type, int dim, unsigned keys) {
    const int blocks = dim / BLOCK;
    const uint16_t *scale = (const uint16_t *)(page + (size_t)KV_PAGE * dim / (type == DT_Q8_0 ? 1 : 2));
    for (int slot = 0; slot < KV_PAGE; slot++)
        for (int b = 0; b < blocks; b++)
            scales[b * TILE + slot] = keys >> slot & 1 ? _cvtsh_ss(scale[slot * blocks + b]) : 0;
}

INLINE void load_v_of(char *dst, const void *const page[TILE_PAGES], const enum dtype type, int dim, uint64_t keys,
                      ptrdiff_t ahead) {
    const size_t half = (size_t)columns_of(dim) * TILE_BYTES;
    float *scales = (float *)(dst + v_tiles(dim));
    for (int p = 0; p < TILE_PAGES; p++) {
        char *to = dst + p / 2 * half + p % 2 * (TILE_BYTES / 2);
        const unsigned seen = page[p] ? (unsigned)(keys >> (p * KV_PAGE)) & 0xffff : 0;
        if (!(keys >> (p / 2 * 32) & 0xffffffff)) continue;          /* gather skips the half */
        if (!seen) {
            for (int i = 0; i < parts_of(type); i++)
                for (int c = 0; c < columns_of(dim); c++)
                    memset(to + i * 2 * half + (size_t)c * TILE_BYTES, 0, TILE_BYTES / 2);
            if (quantised(type))
                for (int b = 0; b < dim / BLOCK; b++) memset(scales + b * TILE + p * KV_PAGE, 0, KV_PAGE * sizeof *scales);
            continue;
        }
        if (seen == 0xffff) load_v_page(to, 2 * half, page[p], type, dim, 0xffff, ahead);
        else load_v_page(to, 2 * half, page[p], type, dim, seen, ahead);
        if (quantised(type)) load_v_scales(scales + p * KV_PAGE, page[p], type, dim, seen);
    }
}

static void load_v(void *dst, const void *const page[TILE_PAGES], enum dtype type, int dim, uint64_t keys, ptrdiff_t ahead) {
    switch (type) {
    case DT_F32: load_v_of(dst, page, DT_F32, dim, keys, ahead); break;
    case DT_F16: load_v_of(dst, page, DT_F16, dim, keys, ahead); break;
    case DT_BF16: load_v_of(dst, page, DT_BF16, dim, keys, ahead); break;
    case DT_Q8_0: load_v_of(dst, page, DT_Q8_0, dim, keys, ahead); break;
    default: load_v_of(dst, page, DT_Q4_0, dim, keys, ahead);
    }
}

/* ---- Products ---- */

struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes_per_row[16];
    uint8_t rows[16];
};

/* The intrinsics do not say what memory they read and write. */
#define FENCE __asm__ volatile("" ::: "memory")

/* Registers 0..3: C; 4, 5: A, high and low; 6, 7: B. */
static void shape(int rows) {
    struct tile_config c = { .palette = 1 };
    if (!rows) {
        _tile_release();
        return;
    }
    for (int i = 0; i < 8; i++) c.rows[i] = (uint8_t)(i < 6 ? rows : 16), c.bytes_per_row[i] = 64;
    __asm__ volatile("" ::"r"(&c) : "memory");
    _tile_loadconfig(&c);
}

/* How the tiles of B lie: bytes from one C's to the next C's, and from a high part to its low part (0: there is none). */
struct lie { size_t next, low; };

#define PRODUCT(C, A, B, tiles, at) if ((tiles) >> C & 1) { _tile_loadd(B, at, 64); _tile_dpbf16ps(C, A, B); }
#define PRODUCTS(A, tiles, b, next) \
    PRODUCT(0, A, 6, tiles, b) PRODUCT(1, A, 7, tiles, (b) + (next)) \
    PRODUCT(2, A, 6, tiles, (b) + 2 * (next)) PRODUCT(3, A, 7, tiles, (b) + 3 * (next))

INLINE void multiply(unsigned tiles, const char *high, const char *low, size_t stride, const char *b, const struct lie lie) {
    _tile_loadd(4, high, stride);
    _tile_loadd(5, low, stride);
    PRODUCTS(4, tiles, b, lie.next)
    PRODUCTS(5, tiles, b, lie.next)
    if (lie.low) { PRODUCTS(4, tiles, b + lie.low, lie.next) }
}

INLINE void clear(void) { _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3); }

INLINE void store(unsigned tiles, float *to, size_t next, size_t stride) {
    if (tiles & 1) _tile_stored(0, to, stride);
    if (tiles & 2) _tile_stored(1, to + next, stride);
    if (tiles & 4) _tile_stored(2, to + 2 * next, stride);
    if (tiles & 8) _tile_stored(3, to + 3 * next, stride);
    FENCE;
}

INLINE void load(unsigned tiles, const float *from, size_t next, size_t stride) {
    FENCE;
    if (tiles & 1) _tile_loadd(0, from, stride);
    if (tiles & 2) _tile_loadd(1, from + next, stride);
    if (tiles & 4) _tile_loadd(2, from + 2 * next, stride);
    if (tiles & 8) _tile_loadd(3, from + 3 * next, stride);
}

static void scores(float *s, const void *q, int first, int rows, int dim, const void *k, enum dtype type, unsigned pages) {
    const int steps = steps_of(dim);
    const size_t row = row_bytes(dim), next = (size_t)steps * TILE_BYTES;
    const struct lie lie = { next, parts_of(type) == 2 ? TILE_PAGES * next : 0 };
    const char *high = (const char *)q + first * row, *low = high + row / 2, *b = k;
    const float *scale = (const float *)(b + k_tiles(dim));
    _Alignas(64) float sums[MATRIX_ROWS * TILE];
    FENCE;
    clear();
    for (int i = 0; i < steps; i++, high += 64, low += 64, b += TILE_BYTES, scale += TILE) {
        multiply(pages, high, low, row, b, lie);
        if (!quantised(type)) continue;
        store(pages, sums, KV_PAGE, TILE * sizeof *sums);
        clear();
        for (int r = 0; r < rows; r++)
            UNROLL for (int p = 0; p < TILE_PAGES; p++) {
                if (!(pages >> p & 1)) continue;
                float *to = s + (size_t)r * TILE + p * KV_PAGE;
                const __m512 x = _mm512_load_ps(sums + r * TILE + p * KV_PAGE), d = _mm512_load_ps(scale + p * KV_PAGE);
                _mm512_storeu_ps(to, i ? _mm512_fmadd_ps(x, d, _mm512_loadu_ps(to)) : _mm512_mul_ps(x, d));
            }
    }
    if (!quantised(type)) store(pages, s, KV_PAGE, TILE * sizeof *s);
}

/* Weights times scale (NULL: 1) as rows of two parts. */
INLINE void split_weights(uint16_t *parts, const float *p, int rows, const float *scale) {
    for (int r = 0; r < rows; r++, p += TILE, parts += TILE)
        UNROLL for (int j = 0; j < TILE; j += STEP) {
            __m512 x0 = _mm512_loadu_ps(p + j), x1 = _mm512_loadu_ps(p + j + 16);
            if (scale) x0 = _mm512_mul_ps(x0, _mm512_load_ps(scale + j)), x1 = _mm512_mul_ps(x1, _mm512_load_ps(scale + j + 16));
            split(parts + j, parts + MATRIX_ROWS * TILE + j, x0, x1);
        }
}

/* C += weights * values, for columns that lie there already. */
INLINE void gather_tiles(unsigned tiles, const uint16_t *parts, const char *b, const struct lie lie, size_t half,
                         uint64_t keys) {
    const size_t stride = TILE * sizeof *parts;
    const char *high = (const char *)parts, *low = (const char *)(parts + MATRIX_ROWS * TILE);
    if (keys & 0xffffffff) multiply(tiles, high, low, stride, b, lie);
    if (keys >> 32) multiply(tiles, high + 64, low + 64, stride, b + half, lie);
}

static void gather(float *out, const float *p, int rows, int dim, const void *v, enum dtype type, uint64_t keys) {
    const int whole = dim / COLS;
    const size_t half = (size_t)columns_of(dim) * TILE_BYTES, stride = (size_t)dim * sizeof *out;
    const struct lie lie = { TILE_BYTES, parts_of(type) == 2 ? 2 * half : 0 };
    const int most = quantised(type) ? BLOCK / COLS : 4;             /* columns of 16 that share their weights */
    const float *scale = (const float *)((const char *)v + v_tiles(dim));
    _Alignas(64) uint16_t parts[2 * MATRIX_ROWS * TILE];
    if (!quantised(type)) split_weights(parts, p, rows, NULL);
    for (int c = 0; c < whole; c += most) {
        const unsigned tiles = whole - c < most ? (1u << (whole - c)) - 1 : (1u << most) - 1;
        if (quantised(type)) split_weights(parts, p, rows, scale + c / 2 * TILE);
        load(tiles, out + c * COLS, COLS, stride);
        gather_tiles(tiles, parts, (const char *)v + (size_t)c * TILE_BYTES, lie, half, keys);
        store(tiles, out + c * COLS, COLS, stride);
    }
    if (whole * COLS == dim) return;
    const __mmask16 mask = (__mmask16)((1u << (dim - whole * COLS)) - 1);
    _Alignas(64) float edge[MATRIX_ROWS * COLS];
    float *last = out + whole * COLS;
    for (int r = 0; r < rows; r++) _mm512_store_ps(edge + r * COLS, _mm512_maskz_loadu_ps(mask, last + (size_t)r * dim));
    load(1, edge, COLS, COLS * sizeof *edge);
    gather_tiles(1, parts, (const char *)v + (size_t)whole * TILE_BYTES, lie, half, keys);
    store(1, edge, COLS, COLS * sizeof *edge);
    for (int r = 0; r < rows; r++) _mm512_mask_storeu_ps(last + (size_t)r * dim, mask, _mm512_load_ps(edge + r * COLS));
}

const struct tile_matrix tile_amx = { room_q, room_k, room_v, load_q, load_k, load_v, shape, scores, gather };
