#include <math.h>
#include "kernels/blocks.h"
#include "kernels/peak.h"

static float page_peak(const float *q, int dim, const void *page, enum dtype type,
                       const void *next) {
    float best = -INFINITY;
    (void)next;
    for (int j = 0; j < KV_PAGE; j++) {
        float score[PEAK_ROWS] = { 0 };
        for (int i = 0; i < dim; i++) {
            const size_t at = (size_t)i * KV_PAGE + j;
            const float k = type == DT_F32 ? ((const float *)page)[at]
                          : type == DT_F16 ? f16_to_f32(((const uint16_t *)page)[at])
                                           : bf16_to_f32(((const uint16_t *)page)[at]);
            for (int r = 0; r < PEAK_ROWS; r++) score[r] += q[(size_t)i * PEAK_ROWS + r] * k;
        }
        for (int r = 0; r < PEAK_ROWS; r++)
            if (score[r] > best) best = score[r];
    }
    return best;
}

const struct peak_kernels peak_scalar = { page_peak };
