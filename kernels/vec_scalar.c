/* vec_scalar.c - the vec group in plain C: what the wider sets must equal. */
#include <math.h>
#include "kernels/vec.h"

static void rmsnorm(float *y, const float *x, const float *w, int n, float eps) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)x[i] * x[i];
    float scale = 1 / sqrtf((float)(sum / n) + eps);
    for (int i = 0; i < n; i++) y[i] = x[i] * scale * w[i];
}

static void add(float *y, const float *x, int n) {
    for (int i = 0; i < n; i++) y[i] += x[i];
}

static void swiglu(float *y, const float *gate, const float *up, int n) {
    for (int i = 0; i < n; i++) y[i] = gate[i] / (1 + expf(-gate[i])) * up[i];
}

static void rope(float *x, const float *cs, int n_pairs) {
    for (int p = 0; p < n_pairs; p++) {
        float a = x[2 * p], b = x[2 * p + 1], c = cs[2 * p], s = cs[2 * p + 1];
        x[2 * p] = a * c - b * s;
        x[2 * p + 1] = a * s + b * c;
    }
}

static void rope_split(float *x, const float *cs, int n_pairs) {
    for (int p = 0; p < n_pairs; p++) {
        float a = x[p], b = x[p + n_pairs], c = cs[2 * p], s = cs[2 * p + 1];
        x[p] = a * c - b * s;
        x[p + n_pairs] = a * s + b * c;
    }
}

const struct vec_kernels vec_scalar = { rmsnorm, add, swiglu, rope, rope_split };
