/* dtype.h - the storage types of tensors and KV caches: the block formats GGUF files use, with
 * GGUF's numbers. A row of n values is n / block blocks of `bytes` bytes each; n must be a
 * multiple of block. Little-endian. */
#ifndef KERNELS_DTYPE_H
#define KERNELS_DTYPE_H
#include <stddef.h>
#include <stdint.h>

enum dtype {
    DT_F32 = 0, DT_F16 = 1, DT_Q4_0 = 2, DT_Q4_1 = 3, DT_Q5_0 = 6, DT_Q5_1 = 7, DT_Q8_0 = 8,
    DT_Q2_K = 10, DT_Q3_K = 11, DT_Q4_K = 12, DT_Q5_K = 13, DT_Q6_K = 14,
    DT_IQ4_NL = 20, DT_IQ4_XS = 23, DT_BF16 = 30,
};

struct dtype_info {
    const char *name;      /* "F32", "Q4_K", ... */
    enum dtype type;
    int block, bytes;      /* values per block, bytes per block */
};

const struct dtype_info *dtype_info(int type);       /* NULL: no type this engine computes with */
const char *dtype_name(int type);                    /* of any type GGUF knows; else "type N" */
const struct dtype_info *dtype_by_name(const char *name);  /* case-blind; NULL if unknown */
size_t dtype_row_bytes(enum dtype type, size_t n);   /* of a row of n values (n % block == 0) */

/* Rounding is to nearest even; what overflows an f16 becomes infinity; NaN stays NaN. */
float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);
float bf16_to_f32(uint16_t h);
uint16_t f32_to_bf16(float f);

/* The definition of each format: n values (n % block == 0) from src to dst, exactly as it says. */
void dequant_row(enum dtype type, const void *src, float *dst, size_t n);

/* The way back, for bin/quantize, bin/synth and KV caches: n values (n % block == 0), the same on
 * every machine. Values a format cannot hold are clamped; NaN counts as 0 in the block formats. */
void quant_row(enum dtype type, const float *src, void *dst, size_t n);

#endif
