#include <immintrin.h>
#include "tools/common/limits_loop.h"

LIMITS_STEPS(limits_f32_avx2, __m256, LIMITS_SUMS_AVX2, "vfmadd231ps %1, %1, %0")
LIMITS_READ(limits_read_avx2, __m256i)
