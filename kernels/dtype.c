/* dtype.c - what each storage type is called and how large it is; half floats and back. */
#include "kernels/dtype.h"
#include "kernels/blocks.h"
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const struct dtype_info known[] = {
    { "F32", DT_F32, 1, 4 },
    { "F16", DT_F16, 1, 2 },
    { "BF16", DT_BF16, 1, 2 },
    { "Q8_0", DT_Q8_0, QK, sizeof(struct block_q8_0) },
    { "Q4_0", DT_Q4_0, QK, sizeof(struct block_q4_0) },
    { "Q4_1", DT_Q4_1, QK, sizeof(struct block_q4_1) },
    { "Q5_0", DT_Q5_0, QK, sizeof(struct block_q5_0) },
    { "Q5_1", DT_Q5_1, QK, sizeof(struct block_q5_1) },
    { "Q2_K", DT_Q2_K, QK_K, sizeof(struct block_q2_k) },
    { "Q3_K", DT_Q3_K, QK_K, sizeof(struct block_q3_k) },
    { "Q4_K", DT_Q4_K, QK_K, sizeof(struct block_q4_k) },
    { "Q5_K", DT_Q5_K, QK_K, sizeof(struct block_q5_k) },
    { "Q6_K", DT_Q6_K, QK_K, sizeof(struct block_q6_k) },
    { "IQ4_NL", DT_IQ4_NL, QK, sizeof(struct block_iq4_nl) },
    { "IQ4_XS", DT_IQ4_XS, QK_K, sizeof(struct block_iq4_xs) },
};
enum { N_KNOWN = sizeof known / sizeof *known };

/* Types that files may carry and we only name, so that a refusal says what was found. Up to 96 the
 * numbers are ggml's (some withdrawn since); above, those of the ik_llama.cpp branch. */
static const struct { int type; const char *name; } others[] = {
    { 4, "Q4_2" }, { 5, "Q4_3" }, { 9, "Q8_1" }, { 15, "Q8_K" }, { 16, "IQ2_XXS" },
    { 17, "IQ2_XS" }, { 18, "IQ3_XXS" }, { 19, "IQ1_S" }, { 21, "IQ3_S" }, { 22, "IQ2_S" },
    { 24, "I8" }, { 25, "I16" }, { 26, "I32" }, { 27, "I64" }, { 28, "F64" }, { 29, "IQ1_M" },
    { 31, "Q4_0_4_4" }, { 32, "Q4_0_4_8" }, { 33, "Q4_0_8_8" }, { 34, "TQ1_0" }, { 35, "TQ2_0" },
    { 36, "IQ4_NL_4_4" }, { 37, "IQ4_NL_4_8" }, { 38, "IQ4_NL_8_8" }, { 39, "MXFP4" },
    { 40, "NVFP4" }, { 41, "Q1_0" }, { 42, "Q2_0" },
    { 97, "Q8_0_X4" }, { 98, "Q8_1_X4" }, { 99, "Q8_2_X4" }, { 133, "Q6_0" }, { 134, "IQ1_BN" },
    { 135, "IQ2_BN" }, { 136, "Q8_K64" }, { 137, "IQ2_K" }, { 138, "IQ3_K" }, { 139, "IQ4_K" },
    { 140, "IQ5_K" }, { 141, "IQ6_K" }, { 142, "IQ2_TN" }, { 143, "IQ1_TN" }, { 144, "IQ4_KS" },
    { 145, "IQ2_KS" }, { 146, "IQ4_KSS" }, { 147, "Q8_K16" }, { 148, "Q8_K32" },
    { 149, "Q8_KR8" }, { 150, "Q8_K128" }, { 151, "Q8_KV" }, { 152, "IQ5_KS" }, { 153, "IQ2_KT" },
    { 154, "IQ3_KT" }, { 155, "IQ4_KT" }, { 156, "IQ3_KS" }, { 157, "IQ2_KL" }, { 158, "IQ1_KT" },
    { 202, "Q4_0_R8" }, { 206, "Q5_0_R4" }, { 208, "Q8_0_R8" }, { 210, "Q2_K_R4" },
    { 211, "Q3_K_R4" }, { 212, "Q4_K_R4" }, { 213, "Q5_K_R4" }, { 214, "Q6_K_R4" },
    { 216, "IQ2_XXS_R4" }, { 217, "IQ2_XS_R4" }, { 218, "IQ3_XXS_R4" }, { 219, "IQ1_S_R4" },
    { 220, "IQ4_NL_R4" }, { 221, "IQ3_S_R4" }, { 222, "IQ2_S_R4" }, { 223, "IQ4_XS_R8" },
    { 229, "IQ1_M_R4" }, { 230, "BF16_R16" }, { 233, "Q6_0_R4" }, { 335, "IQ2_BN_R4" },
    { 337, "IQ2_K_R4" }, { 338, "IQ3_K_R4" }, { 339, "IQ4_K_R4" }, { 340, "IQ5_K_R4" },
    { 344, "IQ4_KS_R4" }, { 352, "IQ5_KS_R4" }, { 353, "MXFP4_R8" }, { 397, "Q8_K_R16" },
    { 398, "Q8_KV_R8" }, { 399, "Q8_K_R8" },
};
enum { N_OTHERS = sizeof others / sizeof *others };

const struct dtype_info *dtype_info(int type) {
    for (int i = 0; i < N_KNOWN; i++) if ((int)known[i].type == type) return &known[i];
    return NULL;
}

const char *dtype_name(int type) {
    static _Thread_local char number[24];
    const struct dtype_info *info = dtype_info(type);
    if (info) return info->name;
    for (int i = 0; i < N_OTHERS; i++) if (others[i].type == type) return others[i].name;
    snprintf(number, sizeof number, "type %d", type);
    return number;
}

const struct dtype_info *dtype_by_name(const char *name) {
    for (int i = 0; i < N_KNOWN; i++) if (!strcasecmp(known[i].name, name)) return &known[i];
    return NULL;
}

size_t dtype_row_bytes(enum dtype type, size_t n) {
    const struct dtype_info *info = dtype_info(type);
    assert(info && n % (size_t)info->block == 0);
    return n / (size_t)info->block * (size_t)info->bytes;
}

/* ---- half floats: plain integer arithmetic, so every build gives the same bits ---- */

static uint32_t bits_of(float f) { uint32_t u; memcpy(&u, &f, sizeof u); return u; }
static float float_of(uint32_t u) { float f; memcpy(&f, &u, sizeof f); return f; }

/* f16: 1 sign, 5 exponent (bias 15), 10 mantissa bits. f32: 1, 8 (bias 127), 23. */
float f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, magnitude = h & 0x7fff;
    if (magnitude >= 0x7c00)                               /* infinity, NaN: all exponent bits */
        return float_of(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
    if (magnitude >= 0x400)
        return float_of(sign | ((magnitude << 13) + ((127 - 15) << 23)));
    return float_of(sign | bits_of((float)magnitude * 0x1p-24f));      /* subnormal, or zero */
}

uint16_t f32_to_f16(float f) {
    uint32_t bits = bits_of(f), magnitude = bits & 0x7fffffff;
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    if (magnitude > 0x7f800000)                            /* NaN: quiet, its top payload bits */
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x1ff));
    if (magnitude >= 0x477ff000) return sign | 0x7c00;     /* from 65520 on: rounds to infinity */
    if (magnitude < 0x38800000) {
        /* Below 2^-14 an f16 counts in steps of 2^-24, which is the step of f32 just above 0.5:
         * the addition rounds, and the mantissa is the count. */
        return (uint16_t)(sign | (bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f)));
    }
    /* Round to nearest, ties to even: add just under half a step, plus one if the kept part is odd.
     * A carry out of the mantissa correctly steps the exponent. */
    magnitude += 0xfff + (magnitude >> 13 & 1);
    return (uint16_t)(sign | (magnitude - ((127u - 15) << 23)) >> 13);
}

/* bf16: the upper half of an f32. */
float bf16_to_f32(uint16_t h) { return float_of((uint32_t)h << 16); }

uint16_t f32_to_bf16(float f) {
    uint32_t bits = bits_of(f);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);   /* quiet NaN */
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
