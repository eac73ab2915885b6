/* quant.c - from floats to blocks, row by row, and the blocks of 32 values. */
#include "kernels/quant.h"
#include "kernels/blocks.h"
#include <assert.h>
#include <math.h>
#include <string.h>

/* The low four bits of value i and of value i + 16 share byte i. */
static void pack_nibbles(const uint8_t *q, uint8_t *qs) {
    for (int i = 0; i < QK / 2; i++) qs[i] = (uint8_t)((q[i] & 15) | (q[i + QK / 2] & 15) << 4);
}

/* The fifth bits. */
static void pack_high(const uint8_t *q, uint8_t qh[4]) {
    uint32_t high = 0;
    for (int i = 0; i < QK; i++) high |= (uint32_t)(q[i] >> 4) << i;
    for (int i = 0; i < 4; i++) qh[i] = (uint8_t)(high >> 8 * i);
}

static uint16_t finite_half(float f) {
    return f32_to_f16(f < -65504 ? -65504 : f > 65504 ? 65504 : f);
}

/* Values are rounded to what the stored f16 will say, not to the scale that was found: hence the
 * way there and back in the next two functions. */
static uint16_t to_scale(const struct grid *g, const float *x, uint8_t *q) {
    uint16_t d = finite_half(fit_scale(g, x, QK));
    grid_round(g, x, QK, f16_to_f32(d), q);
    return d;
}

static uint16_t to_line(int top, const float *x, uint8_t *q, uint16_t *m) {
    float low, step = fit_line(x, QK, top, false, &low);
    uint16_t d = finite_half(step);
    *m = finite_half(low);
    line_round(x, QK, f16_to_f32(d), f16_to_f32(*m), top, q);
    return d;
}

/* Eight bits need no search: the scale spans the block, and no value is off by more than d / 2. */
static void q8_0(const float *x, struct block_q8_0 *b) {
    float most = 0;
    for (int i = 0; i < QK; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    b->d = half_up(most / 127);
    float d = f16_to_f32(b->d), inv = d > 0 ? 1 / d : 0;
    for (int i = 0; i < QK; i++) {
        float t = x[i] * inv;
        t = t < -127 ? -127 : t > 127 ? 127 : t;
        b->qs[i] = (int8_t)(t + (t < 0 ? -0.5f : 0.5f));
    }
}

static void block_32(enum dtype type, const float *x, void *block) {
    static const struct grid four_bits = { -8, 7, NULL }, five_bits = { -16, 15, NULL };
    static const struct grid book = { -127, 113, iq4_values };
    uint8_t q[QK];
    uint16_t d, m;
    switch (type) {
    case DT_Q4_0: {
        struct block_q4_0 *b = block;
        b->d = to_scale(&four_bits, x, q);
        pack_nibbles(q, b->qs);
        break;
    }
    case DT_Q4_1: {
        struct block_q4_1 *b = block;
        d = to_line(15, x, q, &m);
        b->d = d, b->m = m;
        pack_nibbles(q, b->qs);
        break;
    }
    case DT_Q5_0: {
        struct block_q5_0 *b = block;
        b->d = to_scale(&five_bits, x, q);
        pack_nibbles(q, b->qs);
        pack_high(q, b->qh);
        break;
    }
    case DT_Q5_1: {
        struct block_q5_1 *b = block;
        d = to_line(31, x, q, &m);
        b->d = d, b->m = m;
        pack_nibbles(q, b->qs);
        pack_high(q, b->qh);
        break;
    }
    case DT_IQ4_NL: {
        struct block_iq4_nl *b = block;
        b->d = to_scale(&book, x, q);
        pack_nibbles(q, b->qs);
        break;
    }
    default: q8_0(x, block);
    }
}

/* ---- rows ---- */

static void to_halves(enum dtype type, const float *src, char *dst, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint16_t h = type == DT_F16 ? f32_to_f16(src[i]) : f32_to_bf16(src[i]);
        memcpy(dst + i * sizeof h, &h, sizeof h);
    }
}

/* What the block formats can hold: their scales are f16, so nothing beyond its range. */
static void clean(const float *src, float *x, int n) {
    for (int i = 0; i < n; i++) {
        float t = src[i] < -65504 ? -65504 : src[i] > 65504 ? 65504 : src[i];
        x[i] = t == t ? t : 0;
    }
}

void quant_row(enum dtype type, const float *src, void *dst, size_t n) {
    const struct dtype_info *info = dtype_info(type);
    assert(info && n % (size_t)info->block == 0);
    if (type == DT_F32) { memcpy(dst, src, n * sizeof *src); return; }
    if (type == DT_F16 || type == DT_BF16) { to_halves(type, src, dst, n); return; }
    char *out = dst;
    for (size_t i = 0; i < n; i += (size_t)info->block, out += info->bytes) {
        float x[QK_K];
        clean(src + i, x, info->block);
        if (info->block == QK) block_32(type, x, out);
        else quant_block_k(type, x, out);
    }
}
