/* tile_avx512.c - tile_scalar.c in vectors of 16 floats.
 *
 * One shape serves scores and sums of values alike: up to 8 rows times 2 vectors of accumulators,
 * each loaded vector used by all rows, each row's number broadcast from memory. Half and quantised
 * pages are widened as they are loaded. */
#include "kernels/tile.h"
#include <immintrin.h>
#include <math.h>
#include <string.h>

enum { BLOCK = 32, MAX_ROWS = 8 };

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

/* ---- Vectors of a page ---- */

INLINE __m512 widen_f16(__m256i h) { return _mm512_cvtph_ps(h); }

INLINE __m512 widen_bf16(__m256i h) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

INLINE __m512 half16(const uint16_t *p) {
    return widen_f16(_mm256_loadu_si256((const __m256i *)p));
}

INLINE float half1(uint16_t h) { return _cvtsh_ss(h); }

/* Dimension i + j of 16 keys, for a j below the step of the type. */
enum { STEP_FLOAT = 1, STEP_Q8 = 4, STEP_Q4 = 8 };

INLINE int step_of(enum dtype type) {
    return type == DT_Q8_0 ? STEP_Q8 : type == DT_Q4_0 ? STEP_Q4 : STEP_FLOAT;
}

INLINE __m512 key_vector(const void *page, enum dtype type, int dim, int i, int j) {
    switch (type) {
    case DT_F32: return _mm512_loadu_ps((const float *)page + (size_t)i * KV_PAGE);
    case DT_F16: return half16((const uint16_t *)page + (size_t)i * KV_PAGE);
    case DT_BF16: return widen_bf16(_mm256_loadu_si256((const __m256i *)page + i));
    case DT_Q8_0: {
        __m512i four = _mm512_loadu_si512((const char *)page + (size_t)i * KV_PAGE);
        __m512i one = _mm512_srai_epi32(_mm512_slli_epi32(four, 24 - 8 * j), 24);
        const uint16_t *scale = (const uint16_t *)((const char *)page + (size_t)KV_PAGE * dim);
        return _mm512_mul_ps(_mm512_cvtepi32_ps(one), half16(scale + i / BLOCK * KV_PAGE));
    }
    default: {
        __m512i eight = _mm512_loadu_si512((const char *)page + (size_t)i * KV_PAGE / 2);
        __m512i one = _mm512_and_si512(_mm512_srli_epi32(eight, j % 4 * 8 + j / 4 * 4),
                                       _mm512_set1_epi32(15));
        const uint16_t *scale = (const uint16_t *)((const char *)page + (size_t)KV_PAGE * dim / 2);
        return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(one, _mm512_set1_epi32(8))),
                             half16(scale + i / BLOCK * KV_PAGE));
    }
    }
}

/* Two vectors of one token's values, from column c on; mask says which of the 32 columns exist. */
INLINE void value_vectors(__m512 v[2], const void *page, enum dtype type, int dim, int slot, int c,
                          __mmask32 mask) {
    const size_t at = (size_t)slot * dim + c;
    switch (type) {
    case DT_F32:
        v[0] = _mm512_maskz_loadu_ps((__mmask16)mask, (const float *)page + at);
        v[1] = _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), (const float *)page + at + 16);
        break;
    case DT_F16:
        v[0] = widen_f16(_mm256_maskz_loadu_epi16((__mmask16)mask, (const uint16_t *)page + at));
        v[1] = widen_f16(_mm256_maskz_loadu_epi16((__mmask16)(mask >> 16),
                                                  (const uint16_t *)page + at + 16));
        break;
    case DT_BF16:
        v[0] = widen_bf16(_mm256_maskz_loadu_epi16((__mmask16)mask, (const uint16_t *)page + at));
        v[1] = widen_bf16(_mm256_maskz_loadu_epi16((__mmask16)(mask >> 16),
                                                   (const uint16_t *)page + at + 16));
        break;
    case DT_Q8_0: {
        const uint16_t *scales = (const uint16_t *)((const char *)page + (size_t)KV_PAGE * dim);
        __m512 scale = _mm512_set1_ps(half1(scales[at / BLOCK]));
        const __m128i *q = (const __m128i *)((const char *)page + at);
        v[0] = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(q))), scale);
        v[1] = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(q + 1))),
                             scale);
        break;
    }
    default: {
        const uint16_t *scales = (const uint16_t *)((const char *)page + (size_t)KV_PAGE * dim / 2);
        __m512 scale = _mm512_set1_ps(half1(scales[at / BLOCK]));
        __m512i q = _mm512_cvtepu8_epi32(
            _mm_loadu_si128((const __m128i *)((const char *)page + at / 2)));
        const __m512i low = _mm512_set1_epi32(15), centre = _mm512_set1_epi32(8);
        v[0] = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_and_si512(q, low), centre)),
                             scale);
        v[1] = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_srli_epi32(q, 4), centre)),
                             scale);
    }
    }
}

/* Byte offsets in a page of keys (from dimension i on) and of values (from element n on). */
INLINE size_t values_at(enum dtype type, size_t n) {
    return type == DT_F32 ? 4 * n : type == DT_Q8_0 ? n : type == DT_Q4_0 ? n / 2 : 2 * n;
}
INLINE size_t keys_at(enum dtype type, int i) { return values_at(type, (size_t)i * KV_PAGE); }

/* The same place one tile later; the hardware's own prefetching stops at every 4 KiB. Pages that
 * are f32 are most often unpacked ones in the cache already. */
INLINE void prefetch(const void *page, size_t offset, ptrdiff_t ahead, const enum dtype type) {
    if (type != DT_F32)
        _mm_prefetch((const char *)((uintptr_t)page + offset + (uintptr_t)ahead), _MM_HINT_T0);
}

/* ---- Scores ---- */

INLINE void score_block(float *s, const float *q, const int rows, int dim, const void *const *page,
                        const int pages, const int *column, const enum dtype type,
                        ptrdiff_t ahead) {
    __m512 acc[MAX_ROWS][2];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int p = 0; p < pages; p++) acc[r][p] = _mm512_setzero_ps();
    const int step = step_of(type);
    for (int i = 0; i < dim; i += step) {
        UNROLL for (int p = 0; p < pages; p++) prefetch(page[p], keys_at(type, i), ahead, type);
        UNROLL for (int j = 0; j < step; j++) {
            __m512 k[2];
            UNROLL for (int p = 0; p < pages; p++) k[p] = key_vector(page[p], type, dim, i, j);
            UNROLL for (int r = 0; r < rows; r++) {
                __m512 x = _mm512_set1_ps(q[(size_t)r * dim + i + j]);
                UNROLL for (int p = 0; p < pages; p++)
                    acc[r][p] = _mm512_fmadd_ps(x, k[p], acc[r][p]);
            }
        }
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int p = 0; p < pages; p++)
            _mm512_storeu_ps(s + (size_t)r * TILE + column[p], acc[r][p]);
}

/* The row count becomes a constant, so that accumulators live in registers. */
#define FOR_ROWS(rows, call) \
    switch (rows) { \
    case 1: call(1); break; case 2: call(2); break; case 3: call(3); break; \
    case 4: call(4); break; case 5: call(5); break; case 6: call(6); break; \
    case 7: call(7); break; default: call(8); }

INLINE void scores_of(float *s, const float *q, int rows, int dim, const void *const *page,
                      const int *column, int pages, const enum dtype type, ptrdiff_t ahead) {
    for (int p = 0; p < pages; p += 2)
        for (int r = 0; r < rows; r += MAX_ROWS) {
            int n = rows - r < MAX_ROWS ? rows - r : MAX_ROWS;
            float *to = s + (size_t)r * TILE;
            const float *from = q + (size_t)r * dim;
            if (p + 1 < pages) {
#define PAIR(n) score_block(to, from, n, dim, page + p, 2, column + p, type, ahead)
                FOR_ROWS(n, PAIR)
            } else {
#define SINGLE(n) score_block(to, from, n, dim, page + p, 1, column + p, type, ahead)
                FOR_ROWS(n, SINGLE)
            }
        }
}

static void scores(float *s, const float *q, int rows, int dim, const void *const page[TILE_PAGES],
                   enum dtype type, ptrdiff_t ahead) {
    const void *used[TILE_PAGES];
    int column[TILE_PAGES], n = 0;
    for (int p = 0; p < TILE_PAGES; p++)
        if (page[p]) used[n] = page[p], column[n++] = p * KV_PAGE;
    switch (type) {
    case DT_F32: scores_of(s, q, rows, dim, used, column, n, DT_F32, ahead); break;
    case DT_F16: scores_of(s, q, rows, dim, used, column, n, DT_F16, ahead); break;
    case DT_BF16: scores_of(s, q, rows, dim, used, column, n, DT_BF16, ahead); break;
    case DT_Q8_0: scores_of(s, q, rows, dim, used, column, n, DT_Q8_0, ahead); break;
    default: scores_of(s, q, rows, dim, used, column, n, DT_Q4_0, ahead);
    }
}

/* ---- Softmax ---- */

/* 2^x where keep is set and x is not too small for a normal float; else 0.
 * See exp2_fast in tile_scalar.c. */
INLINE __m512 exp2_of(__m512 x, __mmask16 keep) {
    keep = _mm512_mask_cmp_ps_mask(keep, x, _mm512_set1_ps(-126), _CMP_NLT_UQ);
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 part = _mm512_sub_ps(x, whole);
    __m512 y = _mm512_set1_ps(0.0013264739f);
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(0.00967151672f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(0.0555073358f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(0.240222424f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(0.693147004f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(1));
    return _mm512_maskz_scalef_ps(keep, y, whole);
}

static void raise_reference(float top, float *m, float *sum, float *out, int dim) {
    __m512 shrink = exp2_of(_mm512_set1_ps(*m - top), (__mmask16)-1);
    *m = top;
    _mm512_storeu_ps(sum, _mm512_mul_ps(_mm512_loadu_ps(sum), shrink));
    for (int i = 0; i < dim; i += 16) {
        __mmask16 mask = dim - i < 16 ? (__mmask16)((1u << (dim - i)) - 1) : (__mmask16)-1;
        _mm512_mask_storeu_ps(out + i, mask,
                              _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, out + i), shrink));
    }
}

static void softmax(float *s, int rows, const uint64_t *seen, float *m, float *sum, float *out,
                    int dim) {
    const __m512 lowest = _mm512_set1_ps(-INFINITY);
    for (int r = 0; r < rows; r++, s += TILE, sum += TILE_LANES, out += dim) {
        __m512 x[TILE_PAGES], top = lowest;
        UNROLL for (int p = 0; p < TILE_PAGES; p++) {
            __mmask16 mask = (__mmask16)(seen[r] >> (p * KV_PAGE));
            x[p] = _mm512_mask_loadu_ps(lowest, mask, s + p * KV_PAGE);
            top = _mm512_max_ps(x[p], top);                /* a NaN is passed over */
        }
        if (!seen[r]) {
            memset(s, 0, TILE * sizeof *s);
            continue;
        }
        float highest = _mm512_reduce_max_ps(top);
        if (highest == -INFINITY && m[r] == -INFINITY) highest = NAN;
        if (!(highest <= m[r] + 8)) raise_reference(highest, &m[r], sum, out, dim);
        const __m512 reference = _mm512_set1_ps(m[r]);
        __m512 total = _mm512_loadu_ps(sum);
        UNROLL for (int p = 0; p < TILE_PAGES; p++) {
            __m512 e = exp2_of(_mm512_sub_ps(x[p], reference),
                               (__mmask16)(seen[r] >> (p * KV_PAGE)));
            _mm512_storeu_ps(s + p * KV_PAGE, e);
            total = _mm512_add_ps(total, e);
        }
        _mm512_storeu_ps(sum, total);
    }
}

/* ---- Weighted sums of values ---- */

INLINE void gather_block(float *out, const float *p, const int rows, int dim,
                         const void *const page[TILE_PAGES], uint64_t keys, int c,
                         const enum dtype type, ptrdiff_t ahead) {
    const __mmask32 mask = dim - c < 32 ? (1u << (dim - c)) - 1 : ~(__mmask32)0;
    __m512 acc[MAX_ROWS][2];
    UNROLL for (int r = 0; r < rows; r++) {
        acc[r][0] = _mm512_maskz_loadu_ps((__mmask16)mask, out + (size_t)r * dim + c);
        acc[r][1] = _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), out + (size_t)r * dim + c + 16);
    }
    for (int i = 0; i < TILE_PAGES; i++, p += KV_PAGE)
        for (uint32_t left = keys >> (i * KV_PAGE) & 0xffff; left; left &= left - 1) {
            int slot = __builtin_ctz(left);
            __m512 v[2];
            prefetch(page[i], values_at(type, (size_t)slot * dim + c), ahead, type);
            value_vectors(v, page[i], type, dim, slot, c, mask);
            UNROLL for (int r = 0; r < rows; r++) {
                __m512 x = _mm512_set1_ps(p[(size_t)r * TILE + slot]);
                acc[r][0] = _mm512_fmadd_ps(x, v[0], acc[r][0]);
                acc[r][1] = _mm512_fmadd_ps(x, v[1], acc[r][1]);
            }
        }
    UNROLL for (int r = 0; r < rows; r++) {
        _mm512_mask_storeu_ps(out + (size_t)r * dim + c, (__mmask16)mask, acc[r][0]);
        _mm512_mask_storeu_ps(out + (size_t)r * dim + c + 16, (__mmask16)(mask >> 16), acc[r][1]);
    }
}

INLINE void gather_of(float *out, const float *p, int rows, int dim,
                      const void *const page[TILE_PAGES], uint64_t keys, const enum dtype type,
                      ptrdiff_t ahead) {
    for (int c = 0; c < dim; c += 32)
        for (int r = 0; r < rows; r += MAX_ROWS) {
            int n = rows - r < MAX_ROWS ? rows - r : MAX_ROWS;
            float *to = out + (size_t)r * dim;
            const float *from = p + (size_t)r * TILE;
#define GATHER(n) gather_block(to, from, n, dim, page, keys, c, type, ahead)
            FOR_ROWS(n, GATHER)
        }
}

static void gather(float *out, const float *p, int rows, int dim,
                   const void *const page[TILE_PAGES], enum dtype type, uint64_t keys,
                   ptrdiff_t ahead) {
    switch (type) {
    case DT_F32: gather_of(out, p, rows, dim, page, keys, DT_F32, ahead); break;
    case DT_F16: gather_of(out, p, rows, dim, page, keys, DT_F16, ahead); break;
    case DT_BF16: gather_of(out, p, rows, dim, page, keys, DT_BF16, ahead); break;
    case DT_Q8_0: gather_of(out, p, rows, dim, page, keys, DT_Q8_0, ahead); break;
    default: gather_of(out, p, rows, dim, page, keys, DT_Q4_0, ahead);
    }
}

/* ---- Unpacking ---- */

INLINE void unpack_k_of(float *dst, const void *page, int dim, const enum dtype type) {
    const int step = step_of(type);
    for (int i = 0; i < dim; i += step)
        UNROLL for (int j = 0; j < step; j++)
            _mm512_storeu_ps(dst + (size_t)(i + j) * KV_PAGE, key_vector(page, type, dim, i, j));
}

static void unpack_k(float *dst, const void *page, enum dtype type, int dim) {
    switch (type) {
    case DT_F32: memcpy(dst, page, (size_t)KV_PAGE * dim * sizeof *dst); break;
    case DT_F16: unpack_k_of(dst, page, dim, DT_F16); break;
    case DT_BF16: unpack_k_of(dst, page, dim, DT_BF16); break;
    case DT_Q8_0: unpack_k_of(dst, page, dim, DT_Q8_0); break;
    default: unpack_k_of(dst, page, dim, DT_Q4_0);
    }
}

INLINE void unpack_v_of(float *dst, const void *page, int dim, const enum dtype type) {
    for (int slot = 0; slot < KV_PAGE; slot++)
        for (int c = 0; c < dim; c += 32) {
            const __mmask32 mask = dim - c < 32 ? (1u << (dim - c)) - 1 : ~(__mmask32)0;
            __m512 v[2];
            value_vectors(v, page, type, dim, slot, c, mask);
            _mm512_mask_storeu_ps(dst + (size_t)slot * dim + c, (__mmask16)mask, v[0]);
            _mm512_mask_storeu_ps(dst + (size_t)slot * dim + c + 16, (__mmask16)(mask >> 16), v[1]);
        }
}

static void unpack_v(float *dst, const void *page, enum dtype type, int dim) {
    switch (type) {
    case DT_F32: memcpy(dst, page, (size_t)KV_PAGE * dim * sizeof *dst); break;
    case DT_F16: unpack_v_of(dst, page, dim, DT_F16); break;
    case DT_BF16: unpack_v_of(dst, page, dim, DT_BF16); break;
    case DT_Q8_0: unpack_v_of(dst, page, dim, DT_Q8_0); break;
    default: unpack_v_of(dst, page, dim, DT_Q4_0);
    }
}

static void fold(float *high, float *all, const float *e, const float *factor, int rows) {
    __m512 top[TILE_PAGES], sum[TILE_PAGES];
    UNROLL for (int p = 0; p < TILE_PAGES; p++) {
        top[p] = _mm512_loadu_ps(high + p * KV_PAGE);
        sum[p] = _mm512_loadu_ps(all + p * KV_PAGE);
    }
    for (int r = 0; r < rows; r++, e += TILE) {
        const __m512 f = _mm512_set1_ps(factor[r]);
        UNROLL for (int p = 0; p < TILE_PAGES; p++) {
            const __m512 x = _mm512_mul_ps(_mm512_loadu_ps(e + p * KV_PAGE), f);
            top[p] = _mm512_max_ps(x, top[p]);             /* a NaN is passed over */
            sum[p] = _mm512_add_ps(sum[p], x);
        }
    }
    UNROLL for (int p = 0; p < TILE_PAGES; p++) {
        _mm512_storeu_ps(high + p * KV_PAGE, top[p]);
        _mm512_storeu_ps(all + p * KV_PAGE, sum[p]);
    }
}

const struct tile_kernels tile_avx512 = {
    unpack_k, unpack_v, scores, softmax, gather, fold, MAX_ROWS
};
