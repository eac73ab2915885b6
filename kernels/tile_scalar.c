/* tile_scalar.c - the definition of the tile loops; the wider sets follow it to rounding. */
#include "kernels/tile.h"
#include <math.h>
#include <string.h>

static void unpack_k(float *dst, const void *page, enum dtype type, int dim) {
    for (int t = 0; t < KV_PAGE; t++) tile_get_k(page, type, dim, t, dst + t, KV_PAGE);
}

static void unpack_v(float *dst, const void *page, enum dtype type, int dim) {
    for (int t = 0; t < KV_PAGE; t++) tile_get_v(page, type, dim, t, dst + (size_t)t * dim, 1);
}

static void scores(float *s, const float *q, int rows, int dim, const void *const page[TILE_PAGES],
                   enum dtype type, ptrdiff_t ahead) {
    (void)type;
    (void)ahead;                                            /* direct_rows is 0: always f32 */
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < TILE_PAGES; p++) {
            if (!page[p]) continue;
            const float *k = page[p], *qr = q + (size_t)r * dim;
            float sum[KV_PAGE] = { 0 };
            for (int i = 0; i < dim; i++)
                for (int t = 0; t < KV_PAGE; t++) sum[t] += qr[i] * k[(size_t)i * KV_PAGE + t];
            memcpy(s + (size_t)r * TILE + p * KV_PAGE, sum, sizeof sum);
        }
}

/* 2^x for x <= 8 or so: x = whole + part, a polynomial for 2^part (|part| <= 1/2,
 * relative error 1e-7, exact at 0), and the whole goes to the exponent. Below the normal
 * floats the answer is 0; NaN stays NaN. */
static float exp2_fast(float x) {
    if (x < -126) return 0;
    if (x != x) return x;
    float whole = rintf(x), part = x - whole;
    float y = 0.0013264739f;
    y = y * part + 0.00967151672f;
    y = y * part + 0.0555073358f;
    y = y * part + 0.240222424f;
    y = y * part + 0.693147004f;
    y = y * part + 1;
    return ldexpf(y, (int)whole);
}

static void softmax(float *s, int rows, const uint64_t *seen, float *m, float *sum, float *out,
                    int dim) {
    for (int r = 0; r < rows; r++, s += TILE, sum += TILE_LANES, out += dim) {
        float top = -INFINITY;
        for (int j = 0; j < TILE; j++)
            if ((seen[r] >> j & 1) && s[j] > top) top = s[j];
        if (!seen[r]) {
            memset(s, 0, TILE * sizeof *s);
            continue;
        }
        /* only NaN and -infinity so far: say so */
        if (top == -INFINITY && m[r] == -INFINITY) top = NAN;
        if (!(top <= m[r] + 8)) {
            float shrink = exp2_fast(m[r] - top);          /* 0 the first time: m is -infinity */
            m[r] = top;
            for (int j = 0; j < TILE_LANES; j++) sum[j] *= shrink;
            for (int i = 0; i < dim; i++) out[i] *= shrink;
        }
        for (int j = 0; j < TILE; j++) {
            s[j] = seen[r] >> j & 1 ? exp2_fast(s[j] - m[r]) : 0;
            sum[j % TILE_LANES] += s[j];
        }
    }
}

static void gather(float *out, const float *p, int rows, int dim,
                   const void *const page[TILE_PAGES], enum dtype type, uint64_t keys,
                   ptrdiff_t ahead) {
    (void)type;
    (void)ahead;
    for (int r = 0; r < rows; r++, out += dim, p += TILE)
        for (int j = 0; j < TILE; j++) {
            if (!(keys >> j & 1)) continue;
            const float *v = (const float *)page[j / KV_PAGE] + (size_t)(j % KV_PAGE) * dim;
            for (int i = 0; i < dim; i++) out[i] += p[j] * v[i];
        }
}

static void fold(float *high, float *all, const float *e, const float *factor, int rows) {
    for (int r = 0; r < rows; r++, e += TILE)
        for (int j = 0; j < TILE; j++) {
            const float x = e[j] * factor[r];
            if (x > high[j]) high[j] = x;
            all[j] += x;
        }
}

const struct tile_kernels tile_scalar = { unpack_k, unpack_v, scores, softmax, gather, fold, 0 };
