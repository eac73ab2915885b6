/* tile_amx.c - tile_matrix.h with AMX. Scores and sums of values are the same product of a row block with a tile of keys:
 *
 *                        B   32 dimensions (32 keys) x 16 keys (16 columns), bf16, consecutive pairs of rows side by side
 *                        +--------+--------+--------+--------+
 *                        |  tile  |        |        |        |   high part, and low part if there is one
 *     A                  +--------+--------+--------+--------+
 *     +----------+       +--------+--------+--------+--------+
 *     | high low |       |  C 0   |  C 1   |  C 2   |  C 3   |   rows x 16, f32: C += Ah Bh, Al Bh, Ah Bl, Al Bl
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

/* The upper halves of a and b, those of each lane side by side. */
INLINE __m512i pair(__m512 a, __m512 b) {
    const __m512i upper = _mm512_set_epi32(0x3f001f, 0x3d001d, 0x3b001b, 0x390019, 0x370017, 0x350015, 0x330013, 0x310011,
                                           0x2f000f, 0x2d000d, 0x2b000b, 0x290009, 0x270007, 0x250005, 0x230003, 0x210001);
    return _mm512_permutex2var_epi16(_mm512_castps_si512(a), upper, _mm512_castps_si512(b));
}

/* What the upper half of a leaves of it. */
INLINE __m512 remainder_of(__m512 a) {
    const __m512i high = _mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32((int)0xffff0000));
    return _mm512_sub_ps(a, _mm512_castsi512_ps(high));
}

/* One pair of rows of a tile, and of the tile of low parts behind it. */
INLINE void put_pair(char *to, size_t low, __m512 a, __m512 b, const enum dtype type) {
    _mm512_store_si512(to, pair(a, b));
    if (parts_of(type) == 2) _mm512_store_si512(to + low, pair(remainder_of(a), remainder_of(b)));
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

/* Dimension i of 16 keys, of the types that are not quantised; zero if there is none. */
INLINE __m512 key(const char *page, const enum dtype type, const int there, int i) {
    const char *at = page + (size_t)i * KV_PAGE * 2;
    if (!there) return _mm512_setzero_ps();
    return type == DT_F16 ? half16((const uint16_t *)at) : widen_bf16(_mm256_loadu_si256((const __m256i *)at));
}

/* The tile of dimensions i..i+31 of one page of keys. */
INLINE void k_tile(char *to, size_t low, const char *page, const enum dtype type, int dim, int i, ptrdiff_t ahead) {
    if (quantised(type)) {
        const int n = type == DT_Q8_0 ? 4 : 8;
        for (int end = i + STEP; i < end; i += n, to += n / 2 * 64) {
            const char *at = page + (size_t)i * KV_PAGE * (type == DT_Q8_0 ? 2 : 1) / 2;
            const __m512i x = _mm512_loadu_si512(at);
            prefetch(at, ahead);
            UNROLL for (int j = 0; j < n; j += 2)
                if (type == DT_Q8_0) put_pair(to + j * 32, low, byte_of(x, j), byte_of(x, j + 1), type);
                else put_pair(to + j * 32, low, nibble_of(x, j), nibble_of(x, j + 1), type);
        }
        return;
    }
    if (i + STEP <= dim) {
        for (int j = 0; j < STEP; j += 2) {
            prefetch(page + (size_t)(i + j) * KV_PAGE * 2, ahead);
            put_pair(to + j * 32, low, key(page, type, 1, i + j), key(page, type, 1, i + j + 1), type);
        }
        return;
    }
    for (int end = i + STEP; i < end; i += 2, to += 64)
        put_pair(to, low, key(page, type, i < dim, i), key(page, type, i + 1 < dim, i + 1), type);
}

/* The scales of one block of dimensions. */
INLINE __m512 k_scales(const char *page, enum dtype type, int dim, int block) {
    return half16((const uint16_t *)(page + (size_t)KV_PAGE * dim / (type == DT_Q8_0 ? 1 : 2)) + block * KV_PAGE);
}

/* n values of a row, in bytes. */
INLINE size_t value_bytes(const enum dtype type, int n) {
    return type == DT_Q8_0 ? (size_t)n : type == DT_Q4_0 ? (size_t)n / 2 : (size_t)n * 2;
}

/* Sixteen columns of one token; those of Q4_0 share bytes with 16 others, and `upper` says which half is meant. */
INLINE __m512 value(const char *at, const enum dtype type, const int whole, __mmask16 mask, int upper) {
    switch (type) {
    case DT_F16: return whole ? half16((const uint16_t *)at) : _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, at));
    case DT_BF16: return widen_bf16(whole ? _mm256_loadu_si256((const __m256i *)at) : _mm256_maskz_loadu_epi16(mask, at));
    case DT_Q8_0:
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(whole ? _mm_loadu_si128((const __m128i *)at) : _mm_maskz_loadu_epi8(mask, at)));
    default: {
        const __m512i x = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)at));
        const __m512i q = upper ? _mm512_srli_epi32(x, 4) : _mm512_and_si512(x, _mm512_set1_epi32(15));
        return _mm512_maskz_cvtepi32_ps(whole ? 0xffff : mask, _mm512_sub_epi32(q, _mm512_set1_epi32(8)));
    }
    }
}

/* Half the tile of columns c..c+15: the tokens of one page. whole: all of them are seen, and all columns there. */
INLINE void v_half_tile(char *to, size_t low, const char *page, const enum dtype type, int dim, int c, const int whole,
                        unsigned keys, __mmask16 mask, ptrdiff_t ahead) {
    const size_t row = value_bytes(type, dim), first = value_bytes(type, type == DT_Q4_0 ? c / BLOCK * BLOCK : c);
    const int upper = c % BLOCK != 0, new_line = first % 64 == 0 && !(type == DT_Q4_0 && upper);
    const char *at = page + first;
    for (int slot = 0; slot < KV_PAGE; slot += 2, to += 64, at += 2 * row) {
        if (new_line) prefetch(at, ahead), prefetch(at + row, ahead);
        put_pair(to, low, value(at, type, whole, keys >> slot & 1 ? mask : 0, upper),
                 value(at + row, type, whole, keys >> slot & 2 ? mask : 0, upper), type);
    }
}

/* The tile of columns c..c+15 of two pages of values. */
INLINE void v_tile(char *to, size_t low, const void *const page[2], const enum dtype type, int dim, int c, uint32_t keys,
                   ptrdiff_t ahead) {
    const __mmask16 mask = dim - c < COLS ? (__mmask16)((1u << (dim - c)) - 1) : (__mmask16)-1;
    for (int p = 0; p < 2; p++, to += TILE_BYTES / 2, keys >>= KV_PAGE) {
        const unsigned seen = page[p] ? keys & 0xffff : 0;
        if (!seen) {
            memset(to, 0, TILE_BYTES / 2);
            if (parts_of(type) == 2) memset(to + low, 0, TILE_BYTES / 2);
        } else if (seen == 0xffff && mask == 0xffff) v_half_tile(to, low, page[p], type, dim, c, 1, 0, 0, ahead);
        else v_half_tile(to, low, page[p], type, dim, c, 0, seen, mask, ahead);
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

/* The type becomes a constant. */
#define FOR_TYPE(type, call) \
    switch (type) { \
    case DT_F16: call(DT_F16); break; case DT_BF16: call(DT_BF16); break; \
    case DT_Q8_0: call(DT_Q8_0); break; default: call(DT_Q4_0); \
    }

INLINE void load_k_of(char *dst, const void *const page[TILE_PAGES], const enum dtype type, int dim, ptrdiff_t ahead) {
    const int steps = steps_of(dim);
    const size_t low = (size_t)TILE_PAGES * steps * TILE_BYTES;
    float *scales = (float *)(dst + k_tiles(dim));
    for (int p = 0; p < TILE_PAGES; p++)
        for (int i = 0; i < steps && page[p]; i++) {
            k_tile(dst + ((size_t)p * steps + i) * TILE_BYTES, low, page[p], type, dim, i * STEP, ahead);
            if (quantised(type)) _mm512_store_ps(scales + i * TILE + p * KV_PAGE, k_scales(page[p], type, dim, i));
        }
}

static void load_k(void *dst, const void *const page[TILE_PAGES], enum dtype type, int dim, ptrdiff_t ahead) {
#define LOAD_K(type) load_k_of(dst, page, type, dim, ahead)
    FOR_TYPE(type, LOAD_K)
}

INLINE void load_v_of(char *dst, const void *const page[TILE_PAGES], const enum dtype type, int dim, uint64_t keys,
                      ptrdiff_t ahead) {
    const int columns = columns_of(dim);
    for (int h = 0; h < 2; h++)
        for (int c = 0; c < columns; c++) {
            const uint32_t some = (uint32_t)(keys >> (h * 32));
            if (!some) continue;                           /* gather leaves the half out */
            v_tile(dst + ((size_t)h * columns + c) * TILE_BYTES, (size_t)2 * columns * TILE_BYTES, page + 2 * h, type, dim,
                   c * COLS, some, ahead);
        }
    float *scales = (float *)(dst + v_tiles(dim));
    for (int b = 0; quantised(type) && b < dim / BLOCK; b++) v_scales(scales + b * TILE, page, type, dim, b, keys);
}

static void load_v(void *dst, const void *const page[TILE_PAGES], enum dtype type, int dim, uint64_t keys, ptrdiff_t ahead) {
#define LOAD_V(type) load_v_of(dst, page, type, dim, keys, ahead)
    FOR_TYPE(type, LOAD_V)
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

/* Where the tiles of B are. Prepared: at `at`, with so many bytes from one C's to the next C's and from a high part to its
 * low part. Else pages, and `at` is room for four tiles, high and low. */
struct from {
    const char *at;
    size_t next, low;
    const void *const *page;   /* NULL: prepared */
    ptrdiff_t ahead;
};

#define PRODUCT(C, A, B, at) { _tile_loadd(B, at, 64); _tile_dpbf16ps(C, A, B); }
/* A pass over all C before the next: none waits for the one before. */
#define PASS(A, tiles, at, next) \
    if ((tiles) & 1) PRODUCT(0, A, 6, at) \
    if ((tiles) & 2) PRODUCT(1, A, 7, (at) + (next)) \
    if ((tiles) & 4) PRODUCT(2, A, 6, (at) + 2 * (next)) \
    if ((tiles) & 8) PRODUCT(3, A, 7, (at) + 3 * (next))
/* All that one C gets from the tile in its part of the room. */
#define ALL(C, room, type) { \
        FENCE; \
        PRODUCT(C, 4, 6, (room) + C * ONCE) \
        _tile_dpbf16ps(C, 5, 6); \
        if (parts_of(type) == 2) { \
            PRODUCT(C, 4, 7, (room) + C * ONCE + TILE_BYTES) \
            _tile_dpbf16ps(C, 5, 7); \
        } \
    }

INLINE void load_a(const void *high, const void *low, size_t stride) {
    _tile_loadd(4, high, stride);
    _tile_loadd(5, low, stride);
}

INLINE void multiply(unsigned tiles, const char *b, size_t next, size_t low) {
    PASS(4, tiles, b, next)
    PASS(5, tiles, b, next)
    if (low) {
        PASS(4, tiles, b + low, next)
        PASS(5, tiles, b + low, next)
    }
}

enum { ONCE = 2 * TILE_BYTES };                          /* room for the two parts of one tile */

/* The vector unit makes the tile of one C, then the matrix unit gets the one before: what was just stored cannot be loaded
 * as a tile without a wait. */
#define IN_TURN(tiles, make, room, type) \
    if ((tiles) & 1) make(0); \
    if ((tiles) & 2) make(1); \
    if ((tiles) & 1) ALL(0, room, type) \
    if ((tiles) & 4) make(2); \
    if ((tiles) & 2) ALL(1, room, type) \
    if ((tiles) & 8) make(3); \
    if ((tiles) & 4) ALL(2, room, type) \
    if ((tiles) & 8) ALL(3, room, type)

INLINE void multiply_keys(unsigned tiles, char *room, const struct from *b, const enum dtype type, int dim, int i) {
#define MAKE_K(C) k_tile(room + C * ONCE, TILE_BYTES, b->page[C], type, dim, i, b->ahead)
    IN_TURN(tiles, MAKE_K, room, type)
}

INLINE void multiply_values(unsigned tiles, char *room, const struct from *b, const enum dtype type, int dim, int c,
                            uint32_t keys) {
#define MAKE_V(C) v_tile(room + C * ONCE, TILE_BYTES, b->page, type, dim, c + C * COLS, keys, b->ahead)
    IN_TURN(tiles, MAKE_V, room, type)
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

/* s (+)= the sums of one block of dimensions times the scales of the keys. */
INLINE void add_scaled(float *s, const float *sums, int rows, const float *scale, unsigned pages, int first_block) {
    for (int r = 0; r < rows; r++, s += TILE, sums += TILE)
        UNROLL for (int p = 0; p < TILE; p += KV_PAGE) {
            if (!(pages >> (p / KV_PAGE) & 1)) continue;
            const __m512 x = _mm512_load_ps(sums + p), d = _mm512_load_ps(scale + p);
            _mm512_storeu_ps(s + p, first_block ? _mm512_mul_ps(x, d) : _mm512_fmadd_ps(x, d, _mm512_loadu_ps(s + p)));
        }
}

INLINE void scores_of(float *s, const void *q, int first, int rows, int dim, const struct from *k, const enum dtype type,
                      unsigned pages) {
    const int steps = steps_of(dim);
    const size_t row = row_bytes(dim);
    const char *a = (const char *)q + first * row;
    _Alignas(64) float sums[MATRIX_ROWS * TILE], scales[TILE];
    _Alignas(64) char room[4 * ONCE];
    FENCE;
    clear();
    for (int i = 0; i < steps; i++, a += 64) {
        load_a(a, a + row / 2, row);
        if (k->page) multiply_keys(pages, room, k, type, dim, i * STEP);
        else multiply(pages, k->at + (size_t)i * TILE_BYTES, k->next, parts_of(type) == 2 ? k->low : 0);
        if (!quantised(type)) continue;
        const float *scale = k->page ? scales : (const float *)(k->at + k_tiles(dim)) + i * TILE;
        for (int p = 0; k->page && p < TILE_PAGES; p++)
            if (pages >> p & 1) _mm512_store_ps(scales + p * KV_PAGE, k_scales(k->page[p], type, dim, i));
        store(pages, sums, KV_PAGE, TILE * sizeof *sums);
        clear();
        add_scaled(s, sums, rows, scale, pages, i == 0);
    }
    if (!quantised(type)) store(pages, s, KV_PAGE, TILE * sizeof *s);
}

static void scores(float *s, const void *q, int first, int rows, int dim, const void *k, enum dtype type, unsigned pages) {
    const size_t next = (size_t)steps_of(dim) * TILE_BYTES;
    const struct from from = { .at = k, .next = next, .low = TILE_PAGES * next };
#define SCORES(type) scores_of(s, q, first, rows, dim, &from, type, pages)
    FOR_TYPE(type, SCORES)
}

static void scores_once(float *s, const void *q, int first, int rows, int dim, const void *const page[TILE_PAGES],
                        enum dtype type, ptrdiff_t ahead) {
    const struct from from = { .page = page, .ahead = ahead };
    unsigned pages = 0;
    for (int p = 0; p < TILE_PAGES; p++) pages |= (unsigned)!!page[p] << p;
    FOR_TYPE(type, SCORES)
}

INLINE void peaks_of(float peak[TILE_PAGES], const void *q, int blocks, int dim, const struct from *k, const enum dtype type,
                     unsigned pages) {
    __m512 top[TILE_PAGES];
    _Alignas(64) float s[2][MATRIX_ROWS * TILE];           /* in turns: one is looked through while the other is written */
    UNROLL for (int p = 0; p < TILE_PAGES; p++) top[p] = _mm512_set1_ps(-__builtin_inff());
    for (int b = 0; b < blocks; b++) {
        scores_of(s[b % 2], q, b * MATRIX_ROWS, MATRIX_ROWS, dim, k, type, pages);
        for (int r = 0; r < MATRIX_ROWS; r++)
            UNROLL for (int p = 0; p < TILE_PAGES; p++)    /* of a NaN the second is taken */
                if (pages >> p & 1) top[p] = _mm512_max_ps(_mm512_load_ps(s[b % 2] + r * TILE + p * KV_PAGE), top[p]);
    }
    UNROLL for (int p = 0; p < TILE_PAGES; p++) peak[p] = _mm512_reduce_max_ps(top[p]);
}

static void peaks(float peak[TILE_PAGES], const void *q, int blocks, int dim, const void *k, enum dtype type, unsigned pages) {
    const size_t next = (size_t)steps_of(dim) * TILE_BYTES;
    const struct from from = { .at = k, .next = next, .low = TILE_PAGES * next };
#define PEAKS(type) peaks_of(peak, q, blocks, dim, &from, type, pages)
    FOR_TYPE(type, PEAKS)
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

/* C += weights * values, for columns from c on whose C are loaded. */
INLINE void gather_tiles(unsigned tiles, const uint16_t *parts, const struct from *v, const enum dtype type, int dim, int c,
                         uint64_t keys, char *room) {
    const size_t stride = TILE * sizeof *parts, half = (size_t)columns_of(dim) * TILE_BYTES;
    for (int h = 0; h < 2; h++, keys >>= 32, parts += STEP) {
        if (!(keys & 0xffffffff)) continue;
        load_a(parts, parts + MATRIX_ROWS * TILE, stride);
        if (v->page) {
            const struct from pages = { .page = v->page + 2 * h, .ahead = v->ahead };
            multiply_values(tiles, room, &pages, type, dim, c, (uint32_t)keys);
        } else multiply(tiles, v->at + h * half + (size_t)c / COLS * TILE_BYTES, TILE_BYTES, parts_of(type) == 2 ? v->low : 0);
    }
}

INLINE void gather_of(float *out, const float *p, int rows, int dim, const struct from *v, const enum dtype type,
                      uint64_t keys) {
    const int whole = dim / COLS * COLS, most = quantised(type) ? BLOCK : 4 * COLS;  /* columns that share their weights */
    const size_t stride = (size_t)dim * sizeof *out;
    _Alignas(64) uint16_t parts[2 * MATRIX_ROWS * TILE];
    _Alignas(64) float scales[TILE], edge[MATRIX_ROWS * COLS];
    _Alignas(64) char room[4 * ONCE];
    if (!quantised(type)) split_weights(parts, p, rows, NULL);
    for (int c = 0; c < whole; c += most) {
        const unsigned tiles = (1u << ((whole - c < most ? whole - c : most) / COLS)) - 1;
        if (quantised(type)) {
            if (v->page) v_scales(scales, v->page, type, dim, c / BLOCK, keys);
            split_weights(parts, p, rows, v->page ? scales : (const float *)(v->at + v_tiles(dim)) + c / BLOCK * TILE);
        }
        load(tiles, out + c, COLS, stride);
        gather_tiles(tiles, parts, v, type, dim, c, keys, room);
        store(tiles, out + c, COLS, stride);
    }
    if (whole == dim) return;
    const __mmask16 mask = (__mmask16)((1u << (dim - whole)) - 1);
    for (int r = 0; r < rows; r++)
        _mm512_store_ps(edge + r * COLS, _mm512_maskz_loadu_ps(mask, out + (size_t)r * dim + whole));
    load(1, edge, COLS, COLS * sizeof *edge);
    gather_tiles(1, parts, v, type, dim, whole, keys, room);
    store(1, edge, COLS, COLS * sizeof *edge);
    for (int r = 0; r < rows; r++)
        _mm512_mask_storeu_ps(out + (size_t)r * dim + whole, mask, _mm512_load_ps(edge + r * COLS));
}

static void gather(float *out, const float *p, int rows, int dim, const void *v, enum dtype type, uint64_t keys) {
    const struct from from = { .at = v, .low = (size_t)2 * columns_of(dim) * TILE_BYTES };
#define GATHER(type) gather_of(out, p, rows, dim, &from, type, keys)
    FOR_TYPE(type, GATHER)
}

static void gather_once(float *out, const float *p, int rows, int dim, const void *const page[TILE_PAGES], enum dtype type,
                        uint64_t keys, ptrdiff_t ahead) {
    const struct from from = { .page = page, .ahead = ahead };
    FOR_TYPE(type, GATHER)
}

const struct tile_matrix tile_amx = {
    room_q, room_k, room_v, load_q, load_k, load_v, shape, scores, peaks, gather, scores_once, gather_once
};
