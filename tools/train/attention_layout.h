/* attention_layout.h - rows of heads in and out of a tensor, rotated, transposed, and as the words
 * of attention_product.h. */
#ifndef ATTENTION_LAYOUT_H
#define ATTENTION_LAYOUT_H
#include "attention_vec.h"

/* 16 x 16 words, transposed; lds and ldd in words. */
static void transpose(uint32_t *d, size_t ldd, const uint32_t *s, size_t lds) {
#ifdef __AVX512F__
    __m512i r[16], t[16];
    for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_si512(s + (size_t)i * lds);
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {                       /* columns i, 4 + i, 8 + i, 12 + i */
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        _mm512_storeu_si512(d + (size_t)i * ldd, _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88));
        _mm512_storeu_si512(d + (size_t)(i + 8) * ldd, _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd));
        _mm512_storeu_si512(d + (size_t)(i + 4) * ldd,
                            _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88));
        _mm512_storeu_si512(d + (size_t)(i + 12) * ldd,
                            _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd));
    }
#else
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++)
            d[(size_t)j * ldd + (size_t)i] = s[(size_t)i * lds + (size_t)j];
#endif
}

/* rows x cols of bf16 as words of two numbers of a row, for a product that adds over the columns:
 * [cols / 2][rows]. */
static void words_of_rows(uint32_t *d, const bf16 *s, int rows, int cols) {
    const uint32_t *w = (const uint32_t *)(const void *)s;
    for (int r = 0; r < rows; r += 16)
        for (int c = 0; c < cols / 2; c += 16)
            transpose(d + (size_t)c * (size_t)rows + r, (size_t)rows,
                      w + (size_t)r * (size_t)(cols / 2) + c, (size_t)(cols / 2));
}

/* The same as words of two numbers of a column, for a product that adds over the rows:
 * [rows / 2][cols]. */
static void words_of_columns(uint32_t *d, const bf16 *s, int rows, int cols) {
    for (int r = 0; r < rows; r += 2, s += 2 * cols, d += cols)
        for (int c = 0; c < cols; c++) d[c] = s[c] | (uint32_t)s[cols + c] << 16;
}

/* Blocks of 32 tokens x dim, each transposed: [tokens / 32][dim][32]. */
static void transpose_blocks(bf16 *d, const bf16 *s, size_t tokens, int dim) {
    uint32_t w[KEYS / 2 * MAX_HEAD];
    for (size_t t = 0; t < tokens; t += KEYS) {
        words_of_columns(w, s + t * (size_t)dim, KEYS, dim);
        for (int c = 0; c < dim; c += 16)
            transpose((uint32_t *)(void *)(d + (t * (size_t)dim + (size_t)c * KEYS)), KEYS / 2,
                      w + c, (size_t)dim);
    }
}

/* One head's rows out of (or into) a tensor whose tokens are `width` apart, rotated by cs (into:
 * back). */
static void read_rows(bf16 *d, const bf16 *s, size_t width, size_t tokens, int dim) {
    for (size_t t = 0; t < tokens; t++)
        memcpy(d + t * (size_t)dim, s + t * width, (size_t)dim * sizeof *d);
}

static void rotate_rows(const struct attention *a, bf16 *x, const float *cs, size_t tokens) {
    for (size_t t = 0; t < tokens; t++, x += a->head_dim)
        for (int64_t i = 0; i < a->n_pairs; i++, cs += 2) {
            bf16 *p = x + 2 * a->pairs[i];
            float u = to_float(p[0]), v = to_float(p[1]);
            p[0] = to_bf16(u * cs[0] - v * cs[1]);
            p[1] = to_bf16(u * cs[1] + v * cs[0]);
        }
}

static void unrotate_rows(const struct attention *a, float *x, const float *cs, size_t tokens) {
    for (size_t t = 0; t < tokens; t++, x += a->head_dim)
        for (int64_t i = 0; i < a->n_pairs; i++, cs += 2) {
            float *p = x + 2 * a->pairs[i], u = p[0], v = p[1];
            p[0] = u * cs[0] + v * cs[1];
            p[1] = v * cs[0] - u * cs[1];
        }
}

static void write_rows(bf16 *d, size_t width, const float *s, size_t tokens, int dim,
                       float factor) {
    vec f = all(factor);
    for (size_t t = 0; t < tokens; t++)
        for (int c = 0; c < dim; c += 2 * LANES) {
            const float *p = s + t * (size_t)dim + c;
            store_bf16(d + t * width + c, mul(f, load(p)), mul(f, load(p + LANES)));
        }
}

/* dim x 64 floats to 64 x dim. */
static void transpose_queries(float *d, const float *s, int dim) {
    for (int c = 0; c < dim; c += 16)
        for (int q = 0; q < QUERIES; q += 16)
            transpose((uint32_t *)(void *)(d + (size_t)q * (size_t)dim + c), (size_t)dim,
                      (const uint32_t *)(const void *)(s + (size_t)c * QUERIES + q), QUERIES);
}

#endif
