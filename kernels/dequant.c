/* dequant.c - the definition of every format: from blocks to floats. blocks.h draws the layouts.
 *
 * The products are rounded in the order written here, d * scale first: that is how the format is
 * defined, and what makes the values equal, bit for bit, to those of other engines. */
#include "kernels/blocks.h"
#include "kernels/dtype.h"
#include <assert.h>
#include <string.h>

const int8_t iq4_values[16] = {
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
};

/* Rows of 16-bit floats may start anywhere in a file. */
static uint16_t load16(const void *src, size_t i) {
    uint16_t h;
    memcpy(&h, (const char *)src + i * sizeof h, sizeof h);
    return h;
}

static void f16(const void *src, float *dst, size_t n) {
    for (size_t i = 0; i < n; i++) dst[i] = f16_to_f32(load16(src, i));
}

static void bf16(const void *src, float *dst, size_t n) {
    for (size_t i = 0; i < n; i++) dst[i] = bf16_to_f32(load16(src, i));
}

/* ---- blocks of 32 ---- */

static void q8_0(const struct block_q8_0 *b, float *y) {
    float d = f16_to_f32(b->d);
    for (int i = 0; i < QK; i++) y[i] = (float)b->qs[i] * d;
}

static void q4_0(const struct block_q4_0 *b, float *y) {
    float d = f16_to_f32(b->d);
    for (int i = 0; i < QK / 2; i++) {
        y[i] = (float)((b->qs[i] & 15) - 8) * d;
        y[i + QK / 2] = (float)((b->qs[i] >> 4) - 8) * d;
    }
}

static void q4_1(const struct block_q4_1 *b, float *y) {
    float d = f16_to_f32(b->d), m = f16_to_f32(b->m);
    for (int i = 0; i < QK / 2; i++) {
        y[i] = (float)(b->qs[i] & 15) * d + m;
        y[i + QK / 2] = (float)(b->qs[i] >> 4) * d + m;
    }
}

static void q5_0(const struct block_q5_0 *b, float *y) {
    float d = f16_to_f32(b->d);
    uint32_t high = q5_high_bits(b->qh);
    for (int i = 0; i < QK / 2; i++) {
        int lo = (b->qs[i] & 15) | (int)(high >> i & 1) << 4;
        int hi = b->qs[i] >> 4 | (int)(high >> (i + QK / 2) & 1) << 4;
        y[i] = (float)(lo - 16) * d;
        y[i + QK / 2] = (float)(hi - 16) * d;
    }
}

static void q5_1(const struct block_q5_1 *b, float *y) {
    float d = f16_to_f32(b->d), m = f16_to_f32(b->m);
    uint32_t high = q5_high_bits(b->qh);
    for (int i = 0; i < QK / 2; i++) {
        int lo = (b->qs[i] & 15) | (int)(high >> i & 1) << 4;
        int hi = b->qs[i] >> 4 | (int)(high >> (i + QK / 2) & 1) << 4;
        y[i] = (float)lo * d + m;
        y[i + QK / 2] = (float)hi * d + m;
    }
}

static void iq4_nl(const struct block_iq4_nl *b, float *y) {
    float d = f16_to_f32(b->d);
    for (int i = 0; i < QK / 2; i++) {
        y[i] = d * (float)iq4_values[b->qs[i] & 15];
        y[i + QK / 2] = d * (float)iq4_values[b->qs[i] >> 4];
    }
}

/* ---- blocks of 256 ---- */

static void q2_k(const struct block_q2_k *b, float *y) {
    float d = f16_to_f32(b->d), dmin = f16_to_f32(b->dmin);
    for (int i = 0; i < QK_K; i++) {
        int half = i / 128, pair = i / 32 % 4, q = b->qs[32 * half + i % 32] >> 2 * pair & 3;
        uint8_t s = b->scales[i / 16];
        y[i] = d * (float)(s & 15) * (float)q - dmin * (float)(s >> 4);
    }
}

static void q3_k(const struct block_q3_k *b, float *y) {
    float d = f16_to_f32(b->d);
    int8_t scales[16];
    q3_k_scales(b->scales, scales);
    for (int i = 0; i < QK_K; i++) {
        int half = i / 128, pair = i / 32 % 4, low = b->qs[32 * half + i % 32] >> 2 * pair & 3;
        int high = b->hmask[i % 32] >> i / 32 & 1;
        y[i] = d * (float)scales[i / 16] * (float)((low | high << 2) - 4);
    }
}

static void q4_k(const struct block_q4_k *b, float *y) {
    float d = f16_to_f32(b->d), dmin = f16_to_f32(b->dmin);
    for (int s = 0; s < 8; s++) {
        const uint8_t *qs = b->qs + 32 * (s / 2);
        uint8_t scale, min;
        q4_k_scale(b->scales, s, &scale, &min);
        float ds = d * (float)scale, ms = dmin * (float)min;
        for (int j = 0; j < 32; j++)
            y[32 * s + j] = ds * (float)(qs[j] >> 4 * (s % 2) & 15) - ms;
    }
}

static void q5_k(const struct block_q5_k *b, float *y) {
    float d = f16_to_f32(b->d), dmin = f16_to_f32(b->dmin);
    for (int s = 0; s < 8; s++) {
        const uint8_t *qs = b->qs + 32 * (s / 2);
        uint8_t scale, min;
        q4_k_scale(b->scales, s, &scale, &min);
        float ds = d * (float)scale, ms = dmin * (float)min;
        for (int j = 0; j < 32; j++) {
            int q = (qs[j] >> 4 * (s % 2) & 15) | (b->qh[j] >> s & 1) << 4;
            y[32 * s + j] = ds * (float)q - ms;
        }
    }
}

static void q6_k(const struct block_q6_k *b, float *y) {
    float d = f16_to_f32(b->d);
    for (int i = 0; i < QK_K; i++) {
        int half = i / 128, quarter = i / 32 % 4, j = i % 32;
        int low = b->ql[64 * half + 32 * (quarter % 2) + j] >> 4 * (quarter / 2) & 15;
        int high = b->qh[32 * half + j] >> 2 * quarter & 3;
        y[i] = d * (float)b->scales[i / 16] * (float)((low | high << 4) - 32);
    }
}

static void iq4_xs(const struct block_iq4_xs *b, float *y) {
    float d = f16_to_f32(b->d);
    for (int s = 0; s < 8; s++) {
        const uint8_t *qs = b->qs + 16 * s;
        float ds = d * (float)iq4_xs_scale(b, s);
        for (int j = 0; j < 16; j++) {
            y[32 * s + j] = ds * (float)iq4_values[qs[j] & 15];
            y[32 * s + 16 + j] = ds * (float)iq4_values[qs[j] >> 4];
        }
    }
}

#define EACH_BLOCK(format, size) do {                                                         \
        const struct block_##format *b = src;                                                 \
        for (size_t i = 0; i < n / (size); i++) format(b + i, dst + i * (size));              \
    } while (0)

void dequant_row(enum dtype type, const void *src, float *dst, size_t n) {
    assert(dtype_info(type) && n % (size_t)dtype_info(type)->block == 0);
    switch (type) {
    case DT_F32: memcpy(dst, src, n * sizeof *dst); break;
    case DT_F16: f16(src, dst, n); break;
    case DT_BF16: bf16(src, dst, n); break;
    case DT_Q8_0: EACH_BLOCK(q8_0, QK); break;
    case DT_Q4_0: EACH_BLOCK(q4_0, QK); break;
    case DT_Q4_1: EACH_BLOCK(q4_1, QK); break;
    case DT_Q5_0: EACH_BLOCK(q5_0, QK); break;
    case DT_Q5_1: EACH_BLOCK(q5_1, QK); break;
    case DT_IQ4_NL: EACH_BLOCK(iq4_nl, QK); break;
    case DT_Q2_K: EACH_BLOCK(q2_k, QK_K); break;
    case DT_Q3_K: EACH_BLOCK(q3_k, QK_K); break;
    case DT_Q4_K: EACH_BLOCK(q4_k, QK_K); break;
    case DT_Q5_K: EACH_BLOCK(q5_k, QK_K); break;
    case DT_Q6_K: EACH_BLOCK(q6_k, QK_K); break;
    case DT_IQ4_XS: EACH_BLOCK(iq4_xs, QK_K); break;
    }
}
