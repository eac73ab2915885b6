/* mat_codes.c - every block format as integer codes and integer scales, in column order. */
#include <string.h>
#include "kernels/blocks.h"
#include "kernels/mat.h"

static const struct mat_format formats[] = {
#define FORMAT(type, block, sub, bits, centre, min, book) \
    { DT_##type, block, sub, bits, centre, min, book ? iq4_values : NULL },
    MAT_FORMATS(FORMAT)
#undef FORMAT
};

const struct mat_format *mat_format(enum dtype type) {
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (formats[i].type == type) return &formats[i];
    return NULL;
}

/* 2 * n nibbles: the low halves of qs first, the high halves behind them. */
static inline void nibbles(uint8_t *restrict out, const uint8_t *restrict qs, int n) {
    for (int j = 0; j < n; j++) out[j] = qs[j] & 15;
    for (int j = 0; j < n; j++) out[j + n] = qs[j] >> 4;
}

/* Eight bits at a time: bit j of a byte to bit 4 of byte j. */
static void fifth_bits(uint8_t code[32], const uint8_t qh[4]) {
    const uint64_t each = 0x0101010101010101;
    for (int i = 0; i < 4; i++) {
        uint64_t eight, picked = qh[i] * each & 0x8040201008040201;
        memcpy(&eight, code + 8 * i, 8);
        eight |= (picked + 0x7f * each) >> 3 & each << 4;
        memcpy(code + 8 * i, &eight, 8);
    }
}

/* 32 values with one scale and perhaps a minimum; m is added in the file, subtracted here. */
static void plain(struct mat_codes *out, uint16_t d, uint16_t m) {
    out->d = d;
    out->dmin = m ^ 0x8000;
    out->scale[0] = 1;
    out->min[0] = 1;
}

static void q2_bits(uint8_t *restrict code, const uint8_t *restrict qs) {
    for (int h = 0; h < 2; h++, code += 128, qs += 32)
        for (int j = 0; j < 32; j++) {
            code[j] = qs[j] & 3;
            code[j + 32] = qs[j] >> 2 & 3;
            code[j + 64] = qs[j] >> 4 & 3;
            code[j + 96] = qs[j] >> 6;
        }
}

/* Bit s of high[j] is bit `to` of value j of the s-th 32. */
static void high_bits(uint8_t *restrict code, const uint8_t *restrict high, int to) {
    for (int s = 0; s < 8; s++)
        for (int j = 0; j < 32; j++) code[32 * s + j] |= (uint8_t)((high[j] >> s & 1) << to);
}

static void q2_k(struct mat_codes *out, const struct block_q2_k *b) {
    out->d = b->d, out->dmin = b->dmin;
    for (int s = 0; s < 16; s++) out->scale[s] = b->scales[s] & 15, out->min[s] = b->scales[s] >> 4;
    q2_bits(out->code, b->qs);
}

static void q3_k(struct mat_codes *out, const struct block_q3_k *b) {
    out->d = b->d;
    q3_k_scales(b->scales, out->scale);
    q2_bits(out->code, b->qs);
    high_bits(out->code, b->hmask, 2);
}

static void q4_k_scales(struct mat_codes *out, const uint8_t scales[12]) {
    for (int s = 0; s < 8; s++) {
        uint8_t scale;
        q4_k_scale(scales, s, &scale, &out->min[s]);
        out->scale[s] = (int8_t)scale;
    }
}

static void q4_k(struct mat_codes *out, const struct block_q4_k *b) {
    out->d = b->d, out->dmin = b->dmin;
    q4_k_scales(out, b->scales);
    for (int p = 0; p < 4; p++) nibbles(out->code + 64 * p, b->qs + 32 * p, 32);
}

static void q5_k(struct mat_codes *out, const struct block_q5_k *b) {
    out->d = b->d, out->dmin = b->dmin;
    q4_k_scales(out, b->scales);
    for (int p = 0; p < 4; p++) nibbles(out->code + 64 * p, b->qs + 32 * p, 32);
    high_bits(out->code, b->qh, 4);
}

static void q6_k(struct mat_codes *out, const struct block_q6_k *b) {
    out->d = b->d;
    memcpy(out->scale, b->scales, 16);
    for (int h = 0; h < 2; h++) {
        uint8_t *code = out->code + 128 * h;
        nibbles(code, b->ql + 64 * h, 64);
        for (int k = 0; k < 4; k++)
            for (int j = 0; j < 32; j++)
                code[32 * k + j] |= (uint8_t)((b->qh[32 * h + j] >> 2 * k & 3) << 4);
    }
}

static void iq4_xs(struct mat_codes *out, const struct block_iq4_xs *b) {
    out->d = b->d;
    for (int s = 0; s < 8; s++) {
        out->scale[s] = (int8_t)iq4_xs_scale(b, s);
        nibbles(out->code + 32 * s, b->qs + 16 * s, 16);
    }
}

void mat_take_apart(enum dtype type, const void *block, struct mat_codes *out) {
    switch (type) {
    case DT_Q8_0: {
        const struct block_q8_0 *b = block;
        plain(out, b->d, 0);
        for (int c = 0; c < 32; c++) out->code[c] = (uint8_t)(b->qs[c] + 128);
        break;
    }
    case DT_Q4_0: {
        const struct block_q4_0 *b = block;
        plain(out, b->d, 0);
        nibbles(out->code, b->qs, 16);
        break;
    }
    case DT_Q4_1: {
        const struct block_q4_1 *b = block;
        plain(out, b->d, b->m);
        nibbles(out->code, b->qs, 16);
        break;
    }
    case DT_Q5_0: {
        const struct block_q5_0 *b = block;
        plain(out, b->d, 0);
        nibbles(out->code, b->qs, 16);
        fifth_bits(out->code, b->qh);
        break;
    }
    case DT_Q5_1: {
        const struct block_q5_1 *b = block;
        plain(out, b->d, b->m);
        nibbles(out->code, b->qs, 16);
        fifth_bits(out->code, b->qh);
        break;
    }
    case DT_IQ4_NL: {
        const struct block_iq4_nl *b = block;
        plain(out, b->d, 0);
        nibbles(out->code, b->qs, 16);
        break;
    }
    case DT_Q2_K: q2_k(out, block); break;
    case DT_Q3_K: q3_k(out, block); break;
    case DT_Q4_K: q4_k(out, block); break;
    case DT_Q5_K: q5_k(out, block); break;
    case DT_Q6_K: q6_k(out, block); break;
    case DT_IQ4_XS: iq4_xs(out, block); break;
    case DT_F32: case DT_F16: case DT_BF16: break;
    }
}
