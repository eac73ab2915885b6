/* mat_scalar.c - the mat group in plain C on the file's rows: what the wider sets must equal. */
#include "kernels/acts_encode.h"
#include "kernels/mat.h"

/* One block of weights taken apart times the same columns of a token, but for the token's scale. */
static float block_dot(const struct mat_format *f, const struct mat_codes *b, const int8_t *level,
                       const int8_t *q, const float *sum, size_t ld) {
    float d = f16_to_f32(b->d), dmin = f16_to_f32(b->dmin), part = 0;
    for (int s = 0; s < f->block / f->sub; s++) {
        int32_t dot = 0;
        for (int i = s * f->sub; i < (s + 1) * f->sub; i++) dot += level[i] * q[i];
        part += (float)dot * (d * (float)b->scale[s]);
        if (f->has_min) part -= dmin * (float)b->min[s] * sum[(size_t)s * ld];
    }
    return part;
}

static void quant(float *y, size_t ldy, const struct mat_format *f, const void *w, int rows,
                  const struct qacts *x, void *scratch) {
    (void)scratch;
    size_t block_bytes = dtype_row_bytes(f->type, (size_t)f->block);
    size_t blocks = (size_t)(x->cols / f->block), ld = (size_t)x->n_tokens;
    struct mat_codes b;
    int8_t level[256];
    for (int r = 0; r < rows; r++) {
        const char *row = (const char *)w + r * blocks * block_bytes;
        for (int t = 0; t < x->n_tokens; t++) y[t * ldy + r] = 0;
        for (size_t k = 0; k < blocks; k++) {
            mat_take_apart(f->type, row + k * block_bytes, &b);
            for (int i = 0; i < f->block; i++)
                level[i] = (int8_t)(f->book ? f->book[b.code[i]] : b.code[i] - f->centre);
            const float *sum = x->sum + k * (size_t)(f->block / f->sub) * ld;
            for (int t = 0; t < x->n_tokens; t++)
                y[t * ldy + r] += x->scale[k * ld + (size_t)t] *
                                  block_dot(f, &b, level, x->q + (size_t)t * x->cols + k * f->block,
                                            sum + t, ld);
        }
    }
}

/* Sums of 256 columns, then sums of those: the wider sets have the same order. */
static void real(float *y, size_t ldy, enum dtype type, const void *w, int rows, int cols,
                 const float *x, int n_tokens, void *scratch) {
    (void)scratch;
    float part[256];
    size_t bytes = dtype_row_bytes(type, 1);
    for (int r = 0; r < rows; r++) {
        for (int t = 0; t < n_tokens; t++) y[t * ldy + r] = 0;
        for (int c = 0; c < cols; c += 256) {
            int n = cols - c < 256 ? cols - c : 256;
            dequant_row(type, (const char *)w + ((size_t)r * cols + c) * bytes, part, (size_t)n);
            for (int t = 0; t < n_tokens; t++) {
                float sum = 0;
                for (int i = 0; i < n; i++) sum += part[i] * x[(size_t)t * cols + c + i];
                y[t * ldy + r] += sum;
            }
        }
    }
}

const struct mat_kernels mat_scalar = { 0, 1, encode, quant, real };
