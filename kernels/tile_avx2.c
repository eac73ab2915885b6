/* tile_avx2.c - tile_scalar.c in vectors of 8 floats. Pages that are not f32 are unpacked first
 * (direct_rows is 0): with 16 registers there is no room to widen them on the way. */
#include "kernels/tile.h"
#include <immintrin.h>
#include <math.h>
#include <string.h>

enum { BLOCK = 32, MAX_ROWS = 4 };

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

/* ---- Scores and sums of values: 4 rows times 2 vectors ---- */

INLINE void score_block(float *s, const float *q, const int rows, int dim, const float *page) {
    __m256 acc[MAX_ROWS][2];
    UNROLL for (int r = 0; r < rows; r++) acc[r][0] = acc[r][1] = _mm256_setzero_ps();
    for (int i = 0; i < dim; i++) {
        __m256 k0 = _mm256_loadu_ps(page + (size_t)i * KV_PAGE),
               k1 = _mm256_loadu_ps(page + (size_t)i * KV_PAGE + 8);
        UNROLL for (int r = 0; r < rows; r++) {
            __m256 x = _mm256_broadcast_ss(q + (size_t)r * dim + i);
            acc[r][0] = _mm256_fmadd_ps(x, k0, acc[r][0]);
            acc[r][1] = _mm256_fmadd_ps(x, k1, acc[r][1]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++) {
        _mm256_storeu_ps(s + (size_t)r * TILE, acc[r][0]);
        _mm256_storeu_ps(s + (size_t)r * TILE + 8, acc[r][1]);
    }
}

#define FOR_ROWS(rows, call) \
    switch (rows) { \
    case 1: call(1); break; case 2: call(2); break; case 3: call(3); break; default: call(4); }

static void scores(float *s, const float *q, int rows, int dim, const void *const page[TILE_PAGES],
                   enum dtype type, ptrdiff_t ahead) {
    (void)type;
    (void)ahead;
    for (int p = 0; p < TILE_PAGES; p++)
        for (int r = 0; r < rows && page[p]; r += MAX_ROWS) {
#define SCORE(n) \
    score_block(s + (size_t)r * TILE + p * KV_PAGE, q + (size_t)r * dim, n, dim, page[p])
            FOR_ROWS(rows - r, SCORE)
        }
}

/* Columns c..c+15 of the output, or the 8 (or fewer) that are left. */
INLINE void gather_block(float *out, const float *p, const int rows, int dim,
                         const void *const page[TILE_PAGES], uint64_t keys, int c) {
    __m256 acc[MAX_ROWS][2];
    UNROLL for (int r = 0; r < rows; r++) {
        acc[r][0] = _mm256_loadu_ps(out + (size_t)r * dim + c);
        acc[r][1] = _mm256_loadu_ps(out + (size_t)r * dim + c + 8);
    }
    for (uint64_t left = keys; left; left &= left - 1) {
        int key = __builtin_ctzll(left);
        const float *v = (const float *)page[key / KV_PAGE] + (size_t)(key % KV_PAGE) * dim + c;
        __m256 v0 = _mm256_loadu_ps(v), v1 = _mm256_loadu_ps(v + 8);
        UNROLL for (int r = 0; r < rows; r++) {
            __m256 x = _mm256_broadcast_ss(p + (size_t)r * TILE + key);
            acc[r][0] = _mm256_fmadd_ps(x, v0, acc[r][0]);
            acc[r][1] = _mm256_fmadd_ps(x, v1, acc[r][1]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++) {
        _mm256_storeu_ps(out + (size_t)r * dim + c, acc[r][0]);
        _mm256_storeu_ps(out + (size_t)r * dim + c + 8, acc[r][1]);
    }
}

static void gather(float *out, const float *p, int rows, int dim,
                   const void *const page[TILE_PAGES], enum dtype type, uint64_t keys,
                   ptrdiff_t ahead) {
    (void)type;
    (void)ahead;
    int c = 0;
    for (; c + 16 <= dim; c += 16)
        for (int r = 0; r < rows; r += MAX_ROWS) {
#define GATHER(n) gather_block(out + (size_t)r * dim, p + (size_t)r * TILE, n, dim, page, keys, c)
            FOR_ROWS(rows - r, GATHER)
        }
    for (; c < dim; c++)                     /* the last columns of an odd head size */
        for (int r = 0; r < rows; r++) {
            float *to = out + (size_t)r * dim + c;
            for (uint64_t left = keys; left; left &= left - 1) {
                int key = __builtin_ctzll(left);
                *to += p[(size_t)r * TILE + key] *
                       ((const float *)page[key / KV_PAGE])[(size_t)(key % KV_PAGE) * dim + c];
            }
        }
}

/* ---- Softmax ---- */

/* All ones in the lanes whose bit is set. */
INLINE __m256 lanes_of(unsigned bits) {
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_castsi256_ps(
        _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)bits), bit), bit));
}

/* 2^x where keep is set and x is not too small for a normal float; else 0.
 * See exp2_fast in tile_scalar.c. */
INLINE __m256 exp2_of(__m256 x, __m256 keep) {
    keep = _mm256_and_ps(keep, _mm256_cmp_ps(x, _mm256_set1_ps(-126), _CMP_NLT_UQ));
    __m256 whole = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 part = _mm256_sub_ps(x, whole);
    __m256 y = _mm256_set1_ps(0.0013264739f);
    y = _mm256_fmadd_ps(y, part, _mm256_set1_ps(0.00967151672f));
    y = _mm256_fmadd_ps(y, part, _mm256_set1_ps(0.0555073358f));
    y = _mm256_fmadd_ps(y, part, _mm256_set1_ps(0.240222424f));
    y = _mm256_fmadd_ps(y, part, _mm256_set1_ps(0.693147004f));
    y = _mm256_fmadd_ps(y, part, _mm256_set1_ps(1));
    /* 2^whole by its exponent bits; NaN in x made y NaN, and a product with anything keeps it */
    __m256i power = _mm256_slli_epi32(
        _mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127)), 23);
    return _mm256_and_ps(keep, _mm256_mul_ps(y, _mm256_castsi256_ps(power)));
}

static float highest(__m256 x) {
    __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_max_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
}

static void raise_reference(float top, float *m, float *sum, float *out, int dim) {
    __m256 shrink = exp2_of(_mm256_set1_ps(*m - top), lanes_of(255));
    const float factor = _mm256_cvtss_f32(shrink);
    *m = top;
    for (int j = 0; j < TILE_LANES; j += 8)
        _mm256_storeu_ps(sum + j, _mm256_mul_ps(_mm256_loadu_ps(sum + j), shrink));
    for (int i = 0; i < dim; i++) out[i] *= factor;
}

static void softmax(float *s, int rows, const uint64_t *seen, float *m, float *sum, float *out,
                    int dim) {
    const __m256 lowest = _mm256_set1_ps(-INFINITY);
    for (int r = 0; r < rows; r++, s += TILE, sum += TILE_LANES, out += dim) {
        if (!seen[r]) {
            memset(s, 0, TILE * sizeof *s);
            continue;
        }
        __m256 top = lowest;
        for (int j = 0; j < TILE; j += 8) {
            __m256 x = _mm256_blendv_ps(lowest, _mm256_loadu_ps(s + j),
                                        lanes_of((unsigned)(seen[r] >> j & 255)));
            top = _mm256_max_ps(x, top);                   /* a NaN is passed over */
        }
        float high = highest(top);
        if (high == -INFINITY && m[r] == -INFINITY) high = NAN;
        if (!(high <= m[r] + 8)) raise_reference(high, &m[r], sum, out, dim);
        const __m256 reference = _mm256_set1_ps(m[r]);
        __m256 total[2] = { _mm256_loadu_ps(sum), _mm256_loadu_ps(sum + 8) };
        for (int j = 0; j < TILE; j += 8) {
            __m256 x = _mm256_sub_ps(_mm256_loadu_ps(s + j), reference);
            __m256 e = exp2_of(x, lanes_of((unsigned)(seen[r] >> j & 255)));
            _mm256_storeu_ps(s + j, e);
            total[j / 8 % 2] = _mm256_add_ps(total[j / 8 % 2], e);
        }
        _mm256_storeu_ps(sum, total[0]);
        _mm256_storeu_ps(sum + 8, total[1]);
    }
}

/* ---- Unpacking ---- */

/* n numbers of a type without blocks: a page keeps the order of the unpacked one. */
static void widen(float *dst, const void *page, enum dtype type, size_t n) {
    const uint16_t *half = page;
    if (type == DT_F32) memcpy(dst, page, n * sizeof *dst);
    else if (type == DT_F16)                               /* n is a multiple of 16 */
        for (size_t i = 0; i < n; i += 8)
            _mm256_storeu_ps(dst + i,
                             _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(half + i))));
    else
        for (size_t i = 0; i < n; i += 8) {
            __m256i x = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(half + i)));
            _mm256_storeu_ps(dst + i, _mm256_castsi256_ps(_mm256_slli_epi32(x, 16)));
        }
}

INLINE void put_scaled(float *dst, __m256i q, __m256 scale) {
    _mm256_storeu_ps(dst, _mm256_mul_ps(_mm256_cvtepi32_ps(q), scale));
}

static void unpack_k(float *dst, const void *page, enum dtype type, int dim) {
    const __m256i low = _mm256_set1_epi32(15), centre = _mm256_set1_epi32(8);
    const uint16_t *scales =
        (const uint16_t *)((const char *)page + (size_t)KV_PAGE * dim / (type == DT_Q4_0 ? 2 : 1));
    if (type != DT_Q8_0 && type != DT_Q4_0) {
        widen(dst, page, type, (size_t)KV_PAGE * dim);
        return;
    }
    for (int i = 0; i < dim; i += type == DT_Q8_0 ? 4 : 8)
        for (int half = 0; half < 2; half++) {             /* keys 0..7, keys 8..15 */
            const __m128i *h = (const __m128i *)(scales + i / BLOCK * KV_PAGE) + half;
            const __m256 scale = _mm256_cvtph_ps(_mm_loadu_si128(h));
            float *to = dst + (size_t)i * KV_PAGE + 8 * half;
            if (type == DT_Q8_0) {
                __m256i q = _mm256_loadu_si256(
                    (const __m256i *)((const char *)page + (size_t)i * KV_PAGE) + half);
                put_scaled(to, _mm256_srai_epi32(_mm256_slli_epi32(q, 24), 24), scale);
                put_scaled(to + KV_PAGE, _mm256_srai_epi32(_mm256_slli_epi32(q, 16), 24), scale);
                put_scaled(to + 2 * KV_PAGE, _mm256_srai_epi32(_mm256_slli_epi32(q, 8), 24), scale);
                put_scaled(to + 3 * KV_PAGE, _mm256_srai_epi32(q, 24), scale);
            } else {
                __m256i q = _mm256_loadu_si256(
                    (const __m256i *)((const char *)page + (size_t)i * KV_PAGE / 2) + half);
                for (int j = 0; j < 8; j++) {
                    __m256i one = _mm256_and_si256(_mm256_srli_epi32(q, j % 4 * 8 + j / 4 * 4),
                                                   low);
                    put_scaled(to + j * KV_PAGE, _mm256_sub_epi32(one, centre), scale);
                }
            }
        }
}

static void unpack_v(float *dst, const void *page, enum dtype type, int dim) {
    const __m128i low = _mm_set1_epi8(15), centre = _mm_set1_epi8(8);
    const size_t n = (size_t)KV_PAGE * dim;
    const uint16_t *scales = (const uint16_t *)((const char *)page + n / (type == DT_Q4_0 ? 2 : 1));
    if (type != DT_Q8_0 && type != DT_Q4_0) {
        widen(dst, page, type, n);
        return;
    }
    for (size_t at = 0; at < n; at += BLOCK) {     /* rows are whole blocks, one after another */
        const __m256 scale = _mm256_set1_ps(_cvtsh_ss(scales[at / BLOCK]));
        __m128i q[2];
        if (type == DT_Q8_0) {
            q[0] = _mm_loadu_si128((const __m128i *)((const char *)page + at));
            q[1] = _mm_loadu_si128((const __m128i *)((const char *)page + at + 16));
        } else {
            __m128i both = _mm_loadu_si128((const __m128i *)((const char *)page + at / 2));
            q[0] = _mm_sub_epi8(_mm_and_si128(both, low), centre);
            q[1] = _mm_sub_epi8(_mm_and_si128(_mm_srli_epi16(both, 4), low), centre);
        }
        for (int i = 0; i < 2; i++) {
            put_scaled(dst + at + 16 * i, _mm256_cvtepi8_epi32(q[i]), scale);
            put_scaled(dst + at + 16 * i + 8, _mm256_cvtepi8_epi32(_mm_srli_si128(q[i], 8)), scale);
        }
    }
}

/* Half a tile at a time: 8 accumulators and a factor fit the 16 registers. */
static void fold(float *high, float *all, const float *e, const float *factor, int rows) {
    for (int half = 0; half < TILE; half += TILE / 2) {
        __m256 top[4], sum[4];
        UNROLL for (int i = 0; i < 4; i++) {
            top[i] = _mm256_loadu_ps(high + half + 8 * i);
            sum[i] = _mm256_loadu_ps(all + half + 8 * i);
        }
        for (int r = 0; r < rows; r++) {
            const __m256 f = _mm256_broadcast_ss(factor + r);
            UNROLL for (int i = 0; i < 4; i++) {
                const __m256 x =
                    _mm256_mul_ps(_mm256_loadu_ps(e + (size_t)r * TILE + half + 8 * i), f);
                top[i] = _mm256_max_ps(x, top[i]);         /* a NaN is passed over */
                sum[i] = _mm256_add_ps(sum[i], x);
            }
        }
        UNROLL for (int i = 0; i < 4; i++) {
            _mm256_storeu_ps(high + half + 8 * i, top[i]);
            _mm256_storeu_ps(all + half + 8 * i, sum[i]);
        }
    }
}

const struct tile_kernels tile_avx2 = { unpack_k, unpack_v, scores, softmax, gather, fold, 0 };
