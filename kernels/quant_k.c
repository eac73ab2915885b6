/* quant_k.c - blocks of 256 values: find the two levels of scales, round, and pack the bits as
 * blocks.h draws them. */
#include "kernels/quant.h"
#include "kernels/blocks.h"
#include <assert.h>
#include <string.h>

/* ---- where the bits of q[256] go ---- */

/* Two bits each, Q2_K and the low bits of Q3_K. */
static void pack_pairs(const uint8_t *q, uint8_t *qs) {
    for (int h = 0; h < 2; h++)
        for (int j = 0; j < 32; j++) {
            const uint8_t *v = q + 128 * h + j;
            qs[32 * h + j] = (uint8_t)((v[0] & 3) | (v[32] & 3) << 2 | (v[64] & 3) << 4
                                       | (v[96] & 3) << 6);
        }
}

/* The low four bits; values i and i + apart share a byte, in runs of `apart`. */
static void pack_nibbles(const uint8_t *q, int apart, uint8_t *qs) {
    for (int i = 0; i < QK_K / 2; i++) {
        const uint8_t *v = q + i / apart * 2 * apart + i % apart;
        qs[i] = (uint8_t)((v[0] & 15) | (v[apart] & 15) << 4);
    }
}

/* Bit `bit` of values j, j + 32, j + 64, ... becomes bits 0, 1, 2, ... of out[j]. */
static void pack_bit(const uint8_t *q, int bit, uint8_t out[32]) {
    for (int j = 0; j < 32; j++) {
        unsigned byte = 0;
        for (int s = 0; s < 8; s++) byte |= (unsigned)(q[32 * s + j] >> bit & 1) << s;
        out[j] = (uint8_t)byte;
    }
}

/* The inverse of q4_k_scale(). */
static void pack_q4_k_scales(const uint8_t scale[8], const uint8_t min[8], uint8_t out[12]) {
    for (int i = 0; i < 4; i++) {
        out[i] = (uint8_t)(scale[i] | scale[i + 4] >> 4 << 6);
        out[i + 4] = (uint8_t)(min[i] | min[i + 4] >> 4 << 6);
        out[i + 8] = (uint8_t)((scale[i + 4] & 15) | (min[i + 4] & 15) << 4);
    }
}

/* The inverse of q3_k_scales(). */
static void pack_q3_k_scales(const int8_t scale[16], uint8_t out[12]) {
    memset(out, 0, 12);
    for (int s = 0; s < 16; s++) {
        int v = scale[s] + 32;
        out[s % 8] |= (uint8_t)((v & 15) << 4 * (s / 8));
        out[8 + s % 4] |= (uint8_t)(v >> 4 << 2 * (s / 4));
    }
}

/* ---- rounding a block to scales that are settled ---- */

static void round_scales(const struct grid *g, const float *x, int n, uint16_t d,
                         const int8_t *scale, uint8_t *q) {
    int size = QK_K / n;
    for (int s = 0; s < n; s++)
        grid_round(g, x + s * size, size, f16_to_f32(d) * (float)scale[s], q + s * size);
}

static void round_lines(const float *x, int n, int top, uint16_t d, uint16_t dmin,
                        const uint8_t *scale, const uint8_t *min, uint8_t *q) {
    int size = QK_K / n;
    for (int s = 0; s < n; s++)
        line_round(x + s * size, size, f16_to_f32(d) * (float)scale[s],
                   -(f16_to_f32(dmin) * (float)min[s]), top, q + s * size);
}

/* ---- the formats ---- */

static void q2_k(const float *x, struct block_q2_k *b) {
    uint8_t scale[16], min[16], q[QK_K];
    uint16_t d, dmin;
    fit_lines(x, 16, 16, 3, 15, &d, &dmin, scale, min);
    round_lines(x, 16, 3, d, dmin, scale, min, q);
    b->d = d, b->dmin = dmin;
    for (int s = 0; s < 16; s++) b->scales[s] = (uint8_t)(scale[s] | min[s] << 4);
    pack_pairs(q, b->qs);
}

static void q3_k(const float *x, struct block_q3_k *b) {
    static const struct grid grid = { -4, 3, NULL };
    int8_t scale[16];
    uint8_t q[QK_K];
    b->d = fit_scales(&grid, x, 16, 16, -32, 31, scale);
    round_scales(&grid, x, 16, b->d, scale, q);
    pack_q3_k_scales(scale, b->scales);
    pack_pairs(q, b->qs);
    pack_bit(q, 2, b->hmask);
}

static void q4_k(const float *x, struct block_q4_k *b) {
    uint8_t scale[8], min[8], q[QK_K];
    uint16_t d, dmin;
    fit_lines(x, 8, 32, 15, 63, &d, &dmin, scale, min);
    round_lines(x, 8, 15, d, dmin, scale, min, q);
    b->d = d, b->dmin = dmin;
    pack_q4_k_scales(scale, min, b->scales);
    pack_nibbles(q, 32, b->qs);
}

static void q5_k(const float *x, struct block_q5_k *b) {
    uint8_t scale[8], min[8], q[QK_K];
    uint16_t d, dmin;
    fit_lines(x, 8, 32, 31, 63, &d, &dmin, scale, min);
    round_lines(x, 8, 31, d, dmin, scale, min, q);
    b->d = d, b->dmin = dmin;
    pack_q4_k_scales(scale, min, b->scales);
    pack_nibbles(q, 32, b->qs);
    pack_bit(q, 4, b->qh);
}

static void q6_k(const float *x, struct block_q6_k *b) {
    static const struct grid grid = { -32, 31, NULL };
    uint8_t q[QK_K];
    int8_t scale[16];
    b->d = fit_scales(&grid, x, 16, 16, -128, 127, scale);
    round_scales(&grid, x, 16, b->d, scale, q);
    memcpy(b->scales, scale, sizeof scale);
    pack_nibbles(q, 64, b->ql);
    for (int i = 0; i < QK_K; i++) q[i] >>= 4;     /* the two high bits */
    pack_pairs(q, b->qh);
}

static void iq4_xs(const float *x, struct block_iq4_xs *b) {
    static const struct grid book = { -127, 113, iq4_values };
    uint8_t q[QK_K];
    int8_t scale[8];
    unsigned high = 0;
    b->d = fit_scales(&book, x, 8, 32, -32, 31, scale);
    round_scales(&book, x, 8, b->d, scale, q);
    memset(b->scales_l, 0, sizeof b->scales_l);
    for (int s = 0; s < 8; s++) {
        int v = scale[s] + 32;
        b->scales_l[s / 2] |= (uint8_t)((v & 15) << 4 * (s % 2));
        high |= (unsigned)(v >> 4) << 2 * s;
    }
    b->scales_h = (uint16_t)high;
    pack_nibbles(q, 16, b->qs);
}

void quant_block_k(enum dtype type, const float *x, void *block) {
    switch (type) {
    case DT_Q2_K: q2_k(x, block); break;
    case DT_Q3_K: q3_k(x, block); break;
    case DT_Q4_K: q4_k(x, block); break;
    case DT_Q5_K: q5_k(x, block); break;
    case DT_Q6_K: q6_k(x, block); break;
    case DT_IQ4_XS: iq4_xs(x, block); break;
    default: assert(!"a type of 256 values");
    }
}
