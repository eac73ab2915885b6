/* tile_bytes_amx.c - tile_matrix.h with AMX for Q8_0 and Q4_0, in whole numbers: the pages' own
 * bytes are multiplied, with queries and weights of 16 bits, which go in as two bytes each:
 * v = 256 high + low. Their products add up without a rounding; the sums are scaled, in f32.
 *
 *   A   high and low rows in turn                 B   keys: a page as it lies in the cache
 *   +-------+-------+   one register:             +--------+
 *   | q0 .. |   0   |   dimensions 0..31          | 0..31  |   64 dimensions (16 rows of quads)
 *   +-------+-------+                             +--------+   x 16 keys
 *   |   0   | .. q63|   the other: 32..63         | 32..63 |   one C for each block, which has
 *   +-------+-------+                             +--------+   scales of its own
 *
 *   A   64 weights, times the scales of a block   B   values: 64 tokens (16 rows of quads)
 *                                                     x 16 columns
 *
 * A page of keys is used where it lies; Q4_0 is widened to a page of Q8_0 first. Quads of
 * values are four tokens side by side. */
#include "kernels/tile_amx_unit.h"

enum {
    BLOCK = 32,                                          /* numbers that share a scale */
    FINE = 256, TOP = 127 * FINE,                        /* of a number in two bytes */
    ROWS = MATRIX_ROWS / 2,                              /* as many as A has room for */
    TWO = 2 * BLOCK                                      /* dimensions, or columns, in one go */
};

static size_t page_bytes(int dim) { return tile_k_bytes(DT_Q8_0, steps_of(dim) * STEP); }

/* Keys: pages of Q8_0, and what a tile reads behind the last one. Values: tiles [column / 16],
 * then scales [column / 32][TILE]. */
static size_t room_k(int dim) { return TILE_PAGES * page_bytes(dim) + TILE_BYTES; }
static size_t v_tiles(int dim) { return (size_t)columns_of(dim) * TILE_BYTES; }
static size_t room_v(int dim) {
    return v_tiles(dim) + (size_t)steps_of(dim) * TILE * sizeof(float);
}

/* The highest magnitude; infinite or NaN if any is. */
INLINE __m512i magnitude(__m512i most, __m512 x) {
    return _mm512_max_epi32(most, _mm512_and_si512(_mm512_castps_si512(x),
                                                   _mm512_set1_epi32(0x7fffffff)));
}

/* The rows of a block, as many at a time as A has room for. */
#define FOR_ROWS(r, n, rows) \
    for (int r = 0, n; n = (rows) - r < ROWS ? (rows) - r : ROWS, r < (rows); r += ROWS)

/* The highest of each of eight vectors of whole numbers: half of a vector with the other, then two
 * vectors side by side, until eight numbers are left. */
INLINE __m256i highest_of_each(const __m512i x[ROWS]) {
    __m256i one[ROWS], two[ROWS / 2], four[ROWS / 4];
    UNROLL for (int i = 0; i < ROWS; i++)
        one[i] = _mm256_max_epi32(_mm512_castsi512_si256(x[i]),
                                  _mm512_extracti64x4_epi64(x[i], 1));
    UNROLL for (int i = 0; i < ROWS / 2; i++)
        two[i] = _mm256_max_epi32(_mm256_unpacklo_epi32(one[2 * i], one[2 * i + 1]),
                                  _mm256_unpackhi_epi32(one[2 * i], one[2 * i + 1]));
    UNROLL for (int i = 0; i < ROWS / 4; i++)
        four[i] = _mm256_max_epi32(_mm256_unpacklo_epi64(two[2 * i], two[2 * i + 1]),
                                   _mm256_unpackhi_epi64(two[2 * i], two[2 * i + 1]));
    return _mm256_max_epi32(_mm256_permute2x128_si256(four[0], four[1], 0x20),
                            _mm256_permute2x128_si256(four[0], four[1], 0x31));
}

/* By their highest magnitudes: what takes each row to whole numbers up to TOP (0 where there is
 * none), and the unit these then count in (NaN where something is infinite). */
INLINE void units_of(const __m512i most[ROWS], float inverse[ROWS], float unit[ROWS]) {
    const __m256 top = _mm256_castsi256_ps(highest_of_each(most)), full = _mm256_set1_ps(TOP),
                 nan = _mm256_sub_ps(top, top);            /* of what is infinite; else 0 */
    const __mmask8 some = _mm256_cmp_ps_mask(top, _mm256_setzero_ps(), _CMP_GT_OQ);
    const __m256 one = _mm256_maskz_div_ps(some, _mm256_set1_ps(1), top);
    _mm256_storeu_ps(inverse, _mm256_mul_ps(one, full));
    _mm256_storeu_ps(unit, _mm256_div_ps(_mm256_add_ps(top, nan), full));
}

/* ---- Queries ---- */

/* High parts, then, half a row further, low ones; behind the high ones the row's unit. */
INLINE float *unit_at(char *row, int dim) { return (float *)(row + row_bytes(dim) / 2 - 64); }

INLINE void load_query(char *row, const float *q, int dim, __m512 inverse) {
    for (int i = 0; i < dim; i += 16) {
        const __m512i v = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(q + i), inverse));
        char *high = row + 2 * (i / BLOCK * BLOCK) + i % BLOCK + (i & BLOCK),
             *low = high + row_bytes(dim) / 2;
        _mm_storeu_si128((__m128i *)low, _mm512_cvtepi32_epi8(v));
        const __m512i up = _mm512_add_epi32(v, _mm512_set1_epi32(FINE / 2));
        _mm_storeu_si128((__m128i *)high, _mm512_cvtepi32_epi8(_mm512_srai_epi32(up, 8)));
    }
}

static void load_q(void *dst, const float *q, int rows, int dim, enum dtype type) {
    (void)type;
    char *row = dst;
    FOR_ROWS(first, n, rows) {
        __m512i most[ROWS];
        float inverse[ROWS], unit[ROWS];
        for (int r = 0; r < ROWS; r++) {
            most[r] = _mm512_setzero_si512();
            for (int i = 0; i < dim && r < n; i += 16)
                most[r] = magnitude(most[r], _mm512_loadu_ps(q + (size_t)r * dim + i));
        }
        units_of(most, inverse, unit);
        for (int r = 0; r < n; r++, q += dim, row += row_bytes(dim)) {
            memset(row, 0, row_bytes(dim));
            *unit_at(row, dim) = unit[r];
            load_query(row, q, dim, _mm512_set1_ps(inverse[r]));
        }
    }
}

/* ---- Scores ---- */

/* A page of Q4_0 as one of Q8_0. */
static void widen(char *to, const char *page, int dim) {
    const __m512i low = _mm512_set1_epi8(15), eight = _mm512_set1_epi8(8);
    const char *scales = page + (size_t)KV_PAGE * dim / 2;
    for (int i = 0; i < dim; i += 8, page += 64, to += 128) {
        const __m512i x = _mm512_load_si512(page);
        _mm512_store_si512(to, _mm512_sub_epi8(_mm512_and_si512(x, low), eight));
        _mm512_store_si512(to + 64, _mm512_sub_epi8(_mm512_and_si512(_mm512_srli_epi16(x, 4), low),
                                                    eight));
    }
    memcpy(to, scales, (size_t)dim / BLOCK * KV_PAGE * sizeof(uint16_t));
}

static void load_k(void *dst, const void *const page[TILE_PAGES], enum dtype type, int dim,
                   ptrdiff_t ahead) {
    for (int p = 0; p < TILE_PAGES; p++) {
        if (!page[p]) continue;
        char *to = (char *)dst + p * page_bytes(dim);
        tile_prefetch(ahead_of(page[p], 0, ahead), tile_k_bytes(type, dim));
        if (type == DT_Q4_0) widen(to, page[p], dim);
        else memcpy(to, page[p], page_bytes(dim));
    }
}

INLINE __m512 half16(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256(p)); }

/* What one row of C and the next add up to: high and low parts. */
INLINE __m512 joined(const int *c) {
    return _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(_mm512_load_si512(c), 8),
                                               _mm512_load_si512(c + COLS)));
}

/* s (+)= two C, of one page and two blocks of dimensions from i on, times the scales; with the
 * last, times the unit too. On the way it fetches `lines` from `fetch` on. */
INLINE void add_scaled_of(float *s, const int *c, const int rows, const char *q, int dim,
                          const char *page, int i, const char *fetch, int lines) {
    const char *scale =
        page + (size_t)KV_PAGE * dim + (size_t)i / BLOCK * KV_PAGE * sizeof(uint16_t);
    const int two = i + BLOCK < dim, last = i + TWO >= dim;
    const __m512 d0 = half16(scale),
                 d1 = two ? half16(scale + KV_PAGE * sizeof(uint16_t)) : _mm512_setzero_ps();
    UNROLL for (int r = 0; r < rows; r++, s += TILE, c += 2 * COLS, q += row_bytes(dim)) {
        if (2 * r < lines) prefetch(fetch, 2 * r), prefetch(fetch, 2 * r + 1);
        __m512 x = _mm512_mul_ps(joined(c), d0);
        if (two) x = _mm512_fmadd_ps(joined(c + TILE_BYTES / 4), d1, x);
        if (i) x = _mm512_add_ps(x, _mm512_loadu_ps(s));
        if (last) x = _mm512_mul_ps(x, _mm512_set1_ps(*unit_at((char *)q, dim)));
        _mm512_storeu_ps(s, x);
    }
    for (int line = 2 * rows; line < lines; line++) prefetch(fetch, line);
}

INLINE void add_scaled(float *s, const int *c, int rows, const char *q, int dim, const char *page,
                       int i, const char *fetch, int lines) {
    if (rows == ROWS && dim == TWO) add_scaled_of(s, c, ROWS, q, TWO, page, 0, fetch, lines);
    else if (rows == ROWS) add_scaled_of(s, c, ROWS, q, dim, page, i, fetch, lines);
    else add_scaled_of(s, c, rows, q, dim, page, i, fetch, lines);
}

#define PRODUCTS(C, D, B, at) { \
        _tile_zero(C); _tile_zero(D); \
        _tile_loadd(B, at, 64); _tile_dpbssd(C, 4, B); _tile_dpbssd(D, 5, B); \
    }
#define STORE(C, D, to) { _tile_stored(C, (to)[C], 64); _tile_stored(D, (to)[D], 64); }

/* Up to ROWS rows against pages of Q8_0 (NULL: none); those `ahead` of them are fetched. */
INLINE void scores_of(float *s, const char *q, int rows, int dim,
                      const char *const page[TILE_PAGES], ptrdiff_t ahead) {
    _Alignas(64) int c[4][TILE_BYTES / 4];
    const size_t half = row_bytes(dim) / 2;
    for (int p = 0; p < TILE_PAGES; p += 2) {
        const char *a = page[p], *b = page[p + 1];
        for (int i = 0; i < dim && (a || b); i += TWO) {
            FENCE;
            _tile_loadd(4, q + 2 * i, half);
            _tile_loadd(5, q + 2 * i + TWO, half);
            if (a) PRODUCTS(0, 1, 6, a + (size_t)i * KV_PAGE)
            if (b) PRODUCTS(2, 3, 7, b + (size_t)i * KV_PAGE)
            if (a) STORE(0, 1, c)
            if (b) STORE(2, 3, c)
            FENCE;
            const int lines = !ahead ? 0
                            : i + TWO < dim ? TILE_BYTES / 64 : (int)(page_bytes(dim) / 64) - i / 4;
            if (a) add_scaled(s + p * KV_PAGE, c[0], rows, q, dim, a, i,
                              ahead_of(a, i * KV_PAGE, ahead), lines);
            if (b) add_scaled(s + (p + 1) * KV_PAGE, c[2], rows, q, dim, b, i,
                              ahead_of(b, i * KV_PAGE, ahead), lines);
        }
    }
}

static void scores(float *s, const void *q, int first, int rows, int dim, const void *k,
                   enum dtype type, unsigned pages) {
    (void)type;
    const char *page[TILE_PAGES];
    for (int p = 0; p < TILE_PAGES; p++)
        page[p] = pages >> p & 1 ? (const char *)k + p * page_bytes(dim) : NULL;
    FOR_ROWS(r, n, rows)
        scores_of(s + (size_t)r * TILE, (const char *)q + (first + r) * row_bytes(dim), n, dim,
                  page, 0);
}

static void scores_run(const struct matrix_tile *t, int n, void *room, const void *q, int first,
                       int rows, int dim, enum dtype type) {
    const int in_place = type == DT_Q8_0 && dim % TWO == 0;   /* else a tile reads past a page */
    for (const struct matrix_tile *end = t + n; t < end; t++) {
        const char *page[TILE_PAGES];
        if (!in_place) load_k(room, t->k, type, dim, t->ahead_k);
        for (int p = 0; p < TILE_PAGES; p++)
            page[p] = !t->k[p] ? NULL : in_place ? t->k[p] : (char *)room + p * page_bytes(dim);
        FOR_ROWS(r, m, rows)
            scores_of(t->s + (size_t)r * TILE, (const char *)q + (first + r) * row_bytes(dim), m,
                      dim, page, in_place && !r ? t->ahead_k : 0);
    }
}

/* ---- Values ---- */

/* Quads of 16 columns from four tokens on, `row` bytes apart. upper: of the upper nibbles. */
INLINE __m512i quads(const char *at, size_t row, const enum dtype type, int upper) {
    const __m512i in_turn = _mm512_add_epi32(
        _mm512_set1_epi32(0x30201000), _mm512_mullo_epi32(_mm512_set1_epi32(0x01010101),
            _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)));
    __m512i x = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)at));
    x = _mm512_inserti32x4(x, _mm_loadu_si128((const __m128i *)(at + row)), 1);
    x = _mm512_inserti32x4(x, _mm_loadu_si128((const __m128i *)(at + 2 * row)), 2);
    x = _mm512_inserti32x4(x, _mm_loadu_si128((const __m128i *)(at + 3 * row)), 3);
    if (type == DT_Q4_0) {
        if (upper) x = _mm512_srli_epi16(x, 4);
        x = _mm512_sub_epi8(_mm512_and_si512(x, _mm512_set1_epi8(15)), _mm512_set1_epi8(8));
    }
    return _mm512_permutexvar_epi8(in_turn, x);
}

/* Sixteen tokens of one page. Row 4 i + p of a tile has its tokens 4 i .. 4 i + 3: that is
 * the order weights are packed in. */
INLINE void load_page(char *to, const char *page, const enum dtype type, int dim, int p,
                      ptrdiff_t ahead) {
    const size_t row = type == DT_Q8_0 ? (size_t)dim : (size_t)dim / 2;
    const char *fetch = ahead_of(page, 0, ahead);
    for (int c = 0; c < dim; c += COLS, to += TILE_BYTES) {
        const char *at = page + (type == DT_Q8_0 ? c : c / BLOCK * COLS);
        UNROLL for (int i = 0; i < 4; i++) {
            _mm512_store_si512(to + (4 * i + p) * 64,
                               quads(at + 4 * i * row, row, type, c % BLOCK != 0));
            if (type == DT_Q8_0 || i % 2) prefetch(fetch, 0), fetch += 64;
        }
    }
}

/* The scales of one page, those of keys that are not seen 0, to[column / 32][TILE]. */
INLINE void load_scales(float *to, const uint16_t *scale, int blocks, __mmask16 seen) {
    if (blocks == 2) {                       /* by far the most usual: 32 scales are one vector */
        const __m512i both = _mm512_loadu_si512(scale);
        const __m512 even = _mm512_maskz_cvtph_ps(seen, _mm512_cvtepi32_epi16(both));
        const __m512 uneven =
            _mm512_maskz_cvtph_ps(seen, _mm512_cvtepi32_epi16(_mm512_srli_epi32(both, 16)));
        _mm512_storeu_ps(to, even);
        _mm512_storeu_ps(to + TILE, uneven);
        return;
    }
    for (int b = 0; b < blocks; b++)
        for (int slot = 0; slot < KV_PAGE; slot++)
            to[b * TILE + slot] = seen >> slot & 1 ? _cvtsh_ss(scale[slot * blocks + b]) : 0;
}

static void load_v(void *dst, const void *const page[TILE_PAGES], enum dtype type, int dim,
                   uint64_t keys, ptrdiff_t ahead) {
    const int blocks = dim / BLOCK;
    float *scales = (float *)((char *)dst + v_tiles(dim));
    for (int p = 0; p < TILE_PAGES; p++, keys >>= KV_PAGE) {
        const __mmask16 seen = page[p] ? (__mmask16)keys : 0;
        if (!seen) {                         /* what lies in the tiles is multiplied by 0 */
            for (int b = 0; b < blocks; b++)
                _mm512_storeu_ps(scales + b * TILE + p * KV_PAGE, _mm512_setzero_ps());
            continue;
        }
        if (type == DT_Q8_0) load_page(dst, page[p], DT_Q8_0, dim, p, ahead);
        else load_page(dst, page[p], DT_Q4_0, dim, p, ahead);
        const size_t codes = (size_t)KV_PAGE * dim / (type == DT_Q8_0 ? 1 : 2);
        prefetch(ahead_of(page[p], codes, ahead), 0);
        load_scales(scales + p * KV_PAGE, (const uint16_t *)((const char *)page[p] + codes),
                    blocks, seen);
    }
}

/* ---- Weighted sums ---- */

/* A row of whole numbers as 64 high bytes and 64 low ones. */
INLINE void split(char *to, const __m512 w[TILE_PAGES], __m512 inverse) {
    static const _Alignas(64) unsigned char low_bytes[2 * KV_PAGE * 2] = {
#define EIGHT(at) at, at + 2, at + 4, at + 6, at + 8, at + 10, at + 12, at + 14
        EIGHT(0), EIGHT(64), EIGHT(16), EIGHT(80), EIGHT(32), EIGHT(96), EIGHT(48), EIGHT(112)
    };                                       /* of two vectors packed lane by lane */
    const __m512i low = _mm512_load_si512(low_bytes), up = _mm512_set1_epi16(FINE / 2),
                  high = _mm512_add_epi8(low, _mm512_set1_epi8(1));
    __m512i v[TILE_PAGES];
    UNROLL for (int i = 0; i < TILE_PAGES; i++)
        v[i] = _mm512_cvtps_epi32(_mm512_mul_ps(w[i], inverse));
    const __m512i a = _mm512_packs_epi32(v[0], v[1]), b = _mm512_packs_epi32(v[2], v[3]);
    _mm512_store_si512(to, _mm512_permutex2var_epi8(_mm512_add_epi16(a, up), high,
                                                    _mm512_add_epi16(b, up)));
    _mm512_store_si512(to + TILE, _mm512_permutex2var_epi8(a, low, b));
}

/* The highest magnitude of a row of weights times the scales of `blocks` blocks. */
INLINE __m512i highest_weight(const float *p, const float *scale, int blocks) {
    __m512i most = _mm512_setzero_si512();
    for (int b = 0; b < blocks; b++, scale += TILE)
        UNROLL for (int i = 0; i < TILE; i += KV_PAGE)
            most = magnitude(most, _mm512_mul_ps(_mm512_loadu_ps(p + i),
                                                 _mm512_load_ps(scale + i)));
    return most;
}

/* Rows of weights times the scales of one or two blocks; their units. All rows' highest magnitudes
 * are found before any row waits for its own. */
INLINE void load_weights(char to[2][ROWS][2 * TILE], const float *p, int rows, const float *scale,
                         int blocks, float unit[ROWS]) {
    __m512i most[ROWS];
    float inverse[ROWS];
    UNROLL for (int r = 0; r < ROWS; r++)
        most[r] = r < rows ? highest_weight(p + r * TILE, scale, blocks) : _mm512_setzero_si512();
    units_of(most, inverse, unit);
    for (int r = 0; r < rows; r++, p += TILE)
        for (int b = 0; b < blocks; b++) {
            __m512 w[TILE_PAGES];
            UNROLL for (int i = 0; i < TILE_PAGES; i++)
                w[i] = _mm512_mul_ps(_mm512_loadu_ps(p + i * KV_PAGE),
                                     _mm512_load_ps(scale + b * TILE + i * KV_PAGE));
            split(to[b][r], w, _mm512_set1_ps(inverse[r]));
        }
}

/* out[rows][BLOCK] += two C times their units. */
INLINE void add_columns(float *out, size_t stride, const int *c, int rows, const float *unit) {
    for (int r = 0; r < rows; r++, out += stride, c += 2 * COLS) {
        const __m512 u = _mm512_set1_ps(unit[r]);
        _mm512_storeu_ps(out, _mm512_fmadd_ps(joined(c), u, _mm512_loadu_ps(out)));
        _mm512_storeu_ps(out + COLS, _mm512_fmadd_ps(joined(c + TILE_BYTES / 4), u,
                                                     _mm512_loadu_ps(out + COLS)));
    }
}

#define COLUMNS(C, D, A, weights, at) { \
        _tile_zero(C); \
        _tile_zero(D); \
        _tile_loadd(6, at, 64); \
        _tile_loadd(7, (at) + TILE_BYTES, 64); \
        _tile_loadd(A, weights, TILE); \
        _tile_dpbssd(C, A, 6); \
        _tile_dpbssd(D, A, 7); \
    }

/* Up to ROWS rows: out[rows][dim] += p[rows][TILE] * values. */
INLINE void gather_of(float *out, const float *p, int rows, int dim, const char *v) {
    _Alignas(64) char weights[2][ROWS][2 * TILE];
    _Alignas(64) int c[4][TILE_BYTES / 4];
    float unit[ROWS];
    const float *scale = (const float *)(v + v_tiles(dim));
    for (int i = 0; i < dim; i += TWO, out += TWO, v += 4 * TILE_BYTES, scale += 2 * TILE) {
        const int two = i + BLOCK < dim;
        load_weights(weights, p, rows, scale, two ? 2 : 1, unit);
        FENCE;
        COLUMNS(0, 1, 4, weights[0], v)
        if (two) COLUMNS(2, 3, 5, weights[1], v + 2 * TILE_BYTES)
        STORE(0, 1, c)
        if (two) STORE(2, 3, c)
        FENCE;
        add_columns(out, dim, c[0], rows, unit);
        if (two) add_columns(out + BLOCK, dim, c[2], rows, unit);
    }
}

static void gather(float *out, const float *p, int rows, int dim, const void *v, enum dtype type,
                   uint64_t keys) {
    (void)type, (void)keys;                  /* of keys that are not seen the scales are 0 */
    FOR_ROWS(r, n, rows) {
        if (n == ROWS) gather_of(out + (size_t)r * dim, p + (size_t)r * TILE, ROWS, dim, v);
        else gather_of(out + (size_t)r * dim, p + (size_t)r * TILE, n, dim, v);
    }
}

static void gather_run(float *out, const struct matrix_tile *t, int n, void *room, int rows,
                       int dim, enum dtype type) {
    for (const struct matrix_tile *end = t + n; t < end; t++) {
        load_v(room, t->v, type, dim, t->keys, t->ahead_v);
        gather(out, t->s, rows, dim, room, type, t->keys);
    }
}

const struct tile_matrix tile_bytes = {
    .room_k = room_k, .room_v = room_v, .load_q = load_q, .load_k = load_k, .load_v = load_v,
    .scores = scores, .gather = gather, .scores_run = scores_run, .gather_run = gather_run
};
