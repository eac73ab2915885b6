/* limits_avx512.c - AVX-512 and its extensions; instructions are named in asm, so
 * the callers ask the CPU for each. */
#include <immintrin.h>
#include "tools/common/limits_loop.h"

LIMITS_STEPS(limits_f32_avx512, __m512, LIMITS_SUMS_AVX512, "vfmadd231ps %1, %1, %0")
LIMITS_STEPS(limits_f16_avx512, __m512, LIMITS_SUMS_AVX512, "vfmadd231ph %1, %1, %0")
LIMITS_STEPS(limits_bf16_avx512, __m512, LIMITS_SUMS_AVX512, "vdpbf16ps %1, %1, %0")
LIMITS_STEPS(limits_int8_avx512, __m512i, LIMITS_SUMS_AVX512, "vpdpbusd %1, %1, %0")
LIMITS_READ(limits_read_avx512, __m512i)
