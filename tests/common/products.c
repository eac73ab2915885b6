#include "tests/common/products.h"
#include <stdlib.h>
#include <string.h>
#include "tests/common/check.h"

const enum dtype product_types[PRODUCT_TYPES] = {
    DT_F32, DT_F16, DT_BF16, DT_Q8_0, DT_Q4_0, DT_Q4_1, DT_Q5_0, DT_Q5_1, DT_IQ4_NL,
    DT_Q2_K, DT_Q3_K, DT_Q4_K, DT_Q5_K, DT_Q6_K, DT_IQ4_XS,
};

const struct kernels *product_kernels(int i) {
    static const char *const names[] = { "scalar", "avx2", "avx512", "amx" };
    return kernels_pick(names[i]);
}

static uint32_t seed = 1;
uint32_t product_bits(void) { return seed = seed * 1664525u + 1013904223u, seed >> 8; }
static int between(int lo, int hi) { return lo + (int)(product_bits() % (uint32_t)(hi - lo + 1)); }
float product_uniform(float a) { return a * ((float)product_bits() / 8388608.f - 1); }

int product_quantised(enum dtype t) { return dtype_info(t)->block > 1; }

void product_scales(enum dtype t, int *d, int *m) {
    *d = 0, *m = -1;
    if (t == DT_Q4_1 || t == DT_Q5_1 || t == DT_Q4_K || t == DT_Q5_K) *m = 2;
    if (t == DT_Q2_K) *d = 80, *m = 82;
    if (t == DT_Q3_K) *d = 108;
    if (t == DT_Q6_K) *d = 208;
}

/* A row of random codes. exact: scales of one and small integers; else random scales. */
static void random_row(enum dtype t, uint8_t *row, int cols, int exact) {
    const struct dtype_info *info = dtype_info(t);
    int d, m;
    product_scales(t, &d, &m);
    for (int c = 0; c < cols; c += info->block, row += info->bytes) {
        if (product_quantised(t)) {
            for (int i = 0; i < info->bytes; i++) row[i] = (uint8_t)product_bits();
            uint16_t scale = f32_to_f16(exact ? 1 : product_uniform(0.01f));
            uint16_t min = f32_to_f16(exact ? 1 : product_uniform(0.01f));
            memcpy(row + d, &scale, 2);
            if (m >= 0) memcpy(row + m, &min, 2);
            continue;
        }
        float f = exact ? (float)between(-100, 100) : product_uniform(0.1f);
        if (t == DT_F32) memcpy(row, &f, 4);
        uint16_t h = t == DT_F16 ? f32_to_f16(f) : f32_to_bf16(f);
        if (t != DT_F32) memcpy(row, &h, 2);
    }
}

/* Activations that encode without loss: integers, one of 127 in every 32 columns. Mostly small, so
 * that sums are. */
static void exact_row(float *x, int cols) {
    for (int c = 0; c < cols; c++) x[c] = (float)between(-3, 3);
    for (int c = 0; c < cols; c += 32) {
        int n = cols - c < 32 ? cols - c : 32;
        x[c + between(0, n - 1)] = product_bits() & 1 ? 127 : -127;
    }
}

void product_setup(struct product_case *p, enum dtype t, int cols, int exact) {
    size_t row_bytes = dtype_row_bytes(t, (size_t)cols);
    p->file = malloc(ROWS * row_bytes);
    p->x = malloc(sizeof(float) * TOKENS * (size_t)cols);
    p->dequantised = malloc(sizeof(float) * ROWS * (size_t)cols);
    p->w = (struct matrix){ .type = t, .rows = ROWS, .cols = cols, .data = p->file };
    for (size_t r = 0; r < ROWS; r++) {
        random_row(t, p->file + r * row_bytes, cols, exact);
        dequant_row(t, p->file + r * row_bytes, p->dequantised + r * (size_t)cols, (size_t)cols);
    }
    for (int i = 0; i < TOKENS; i++) {
        float *x = p->x + (size_t)i * (size_t)cols;
        exact_row(x, cols);
        for (int c = 0; c < cols && !exact; c++) x[c] *= 1.f / 64;
        for (int r = 0; r < ROWS; r++) {
            double sum = 0;
            for (int c = 0; c < cols; c++) sum += (double)x[c] * p->dequantised[r * cols + c];
            p->want[i][r] = sum;
        }
    }
}

void product_free(struct product_case *p) {
    matrix_unpack(&p->w);
    free(p->file);
    free(p->x);
    free(p->dequantised);
}

struct acts *product_acts(void) {
    struct acts *a;
    struct err err;
    if (acts_open(&a, TOKENS, MAX_COLS, &err)) fail_msg("%s", err.msg);
    return a;
}

void product_run(const struct kernels *k, const struct product_case *p, struct acts *a, int rows,
                 int first_token, int n_tokens, float *y, int ldy) {
    struct matrix w = p->w;
    w.rows = rows;
    acts_set(a, p->x + (size_t)first_token * (size_t)w.cols, n_tokens, w.cols);
    matmul(k, y, (size_t)ldy, &w, a);
}
