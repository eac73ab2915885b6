/* test_matmul.c - every weight type under every instruction set, as the file has it and repacked.
 *
 * The exact tests choose scales of one and integer activations that their 8-bit encoding keeps, so
 * that every sum is a small integer: results must equal a double-precision product over
 * dequant_row()'ed weights to the last bit, whatever the order. The others bound rounding: half an
 * ulp of the summed magnitudes for each addition. */
#include <float.h>
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "kernels/mat.h"
#include "kernels/matmul.h"   /* before cmocka.h, whose fail() is a macro */
#include <cmocka.h>

enum { ROWS = 40, TOKENS = 40, MAX_COLS = 1280 };

static const enum dtype types[] = {
    DT_F32, DT_F16, DT_BF16, DT_Q8_0, DT_Q4_0, DT_Q4_1, DT_Q5_0, DT_Q5_1, DT_IQ4_NL,
    DT_Q2_K, DT_Q3_K, DT_Q4_K, DT_Q5_K, DT_Q6_K, DT_IQ4_XS,
};
enum { N_TYPES = sizeof types / sizeof *types };

static const struct kernels *set(int i) {
    static const char *const names[] = { "scalar", "avx2", "avx512", "amx" };
    return kernels_pick(names[i]);
}
#define EACH_SET(k) \
    for (int i_ = 0; i_ < 4; i_++) for (const struct kernels *k = set(i_); k; k = NULL)
#define EACH_TYPE(t) \
    for (int t_ = 0, t = types[0]; t_ < N_TYPES; t_++, t = t_ < N_TYPES ? types[t_] : 0)

static uint32_t seed = 1;
static uint32_t bits(void) { return seed = seed * 1664525u + 1013904223u, seed >> 8; }
static int between(int lo, int hi) { return lo + (int)(bits() % (uint32_t)(hi - lo + 1)); }
static float uniform(float a) { return a * ((float)bits() / 8388608.f - 1); }

static int quantised(enum dtype t) { return dtype_info(t)->block > 1; }

/* Where the half floats of a block are; -1: none. */
static void scales_at(enum dtype t, int *d, int *m) {
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
    scales_at(t, &d, &m);
    for (int c = 0; c < cols; c += info->block, row += info->bytes) {
        if (quantised(t)) {
            for (int i = 0; i < info->bytes; i++) row[i] = (uint8_t)bits();
            uint16_t scale = f32_to_f16(exact ? 1 : uniform(0.01f));
            uint16_t min = f32_to_f16(exact ? 1 : uniform(0.01f));
            memcpy(row + d, &scale, 2);
            if (m >= 0) memcpy(row + m, &min, 2);
            continue;
        }
        float f = exact ? (float)between(-100, 100) : uniform(0.1f);
        if (t == DT_F32) memcpy(row, &f, 4);
        uint16_t h = t == DT_F16 ? f32_to_f16(f) : f32_to_bf16(f);
        if (t != DT_F32) memcpy(row, &h, 2);
    }
}

struct problem {
    struct matrix w;                   /* ROWS rows, over `file` */
    uint8_t *file;
    float *x, *dequantised;            /* [TOKENS][cols], [ROWS][cols] */
    double want[TOKENS][ROWS];
};

/* Activations that encode without loss: integers, one of 127
 * in every 32 columns. Mostly small, so that sums are. */
static void exact_row(float *x, int cols) {
    for (int c = 0; c < cols; c++) x[c] = (float)between(-3, 3);
    for (int c = 0; c < cols; c += 32) {
        int n = cols - c < 32 ? cols - c : 32;
        x[c + between(0, n - 1)] = bits() & 1 ? 127 : -127;
    }
}

static void setup(struct problem *p, enum dtype t, int cols, int exact) {
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

static void teardown(struct problem *p) {
    matrix_unpack(&p->w);
    free(p->file);
    free(p->x);
    free(p->dequantised);
}

static struct acts *open_acts(void) {
    struct acts *a;
    struct err err;
    if (acts_open(&a, TOKENS, MAX_COLS, &err)) fail_msg("%s", err.msg);
    return a;
}

static void multiply(const struct kernels *k, const struct problem *p, struct acts *a, int rows,
                     int first_token, int n_tokens, float *y, int ldy) {
    struct matrix w = p->w;
    w.rows = rows;
    acts_set(a, p->x + (size_t)first_token * (size_t)w.cols, n_tokens, w.cols);
    matmul(k, y, (size_t)ldy, &w, a);
}

/* Every count of rows and tokens from 1 to 40; nothing is written beside the result. */
static void check_exact(const struct kernels *k, struct problem *p, struct acts *a) {
    enum { LD = ROWS + 3 };
    static float y[TOKENS + 1][LD];
    int step = k->mat->packed ? 1 : 7;                   /* the scalar set treats all rows alike */
    for (int rows = 1; rows <= ROWS; rows += step) {
        int tokens = rows * 11 % 40 + 1;
        for (int t = 0; t <= TOKENS; t++)
            for (int r = 0; r < LD; r++) y[t][r] = 12345.5f;
        multiply(k, p, a, rows, TOKENS - tokens, tokens, y[0], LD);
        for (int t = 0; t <= TOKENS; t++)
            for (int r = 0; r < LD; r++) {
                int inside = t < tokens && r < rows;
                double want = inside ? p->want[TOKENS - tokens + t][r] : 12345.5;
                if (y[t][r] != want)
                    fail_msg("%s %s%s, %d columns, %d rows, %d tokens: "
                             "y[%d][%d] = %.9g, wanted %.9g", k->name, dtype_name(p->w.type),
                             p->w.packed ? " packed" : "", p->w.cols, rows, tokens, t, r,
                             y[t][r], want);
            }
    }
}

static void exact_products(void **state) {
    (void)state;
    struct acts *a = open_acts();
    EACH_TYPE(t) {
        int block = dtype_info(t)->block;
        const int cols[] = { block, 2 * block, block > 1 ? 3 * block : 77,
                             block < 256 ? 9 * block : 5 * block };
        for (int i = 0; i < 4; i++) {
            struct problem p;
            setup(&p, t, cols[i], 1);
            EACH_SET(k) {
                assert_int_equal(matrix_pack(k, &p.w, NULL), 0);
                assert_true(!p.w.packed == !k->mat->packed);
                check_exact(k, &p, a);
                matrix_unpack(&p.w);
            }
            teardown(&p);
        }
    }
    acts_close(a);
}

/* Scales of any value: each sub-block (16 columns at least) adds twice and rounds three factors on
 * the way. A difference of scale * code and minimum may be 3 times smaller than its parts. Plain
 * types round at every column at worst. */
static void rounded_products(void **state) {
    (void)state;
    struct acts *a = open_acts();
    static float y[TOKENS][ROWS];
    EACH_TYPE(t) {
        struct problem p;
        int cols = 5 * 256;
        setup(&p, t, cols, 0);
        EACH_SET(k) {
            assert_int_equal(matrix_pack(k, &p.w, NULL), 0);
            multiply(k, &p, a, ROWS, 0, TOKENS, y[0], ROWS);
            for (int i = 0; i < TOKENS; i++)
                for (int r = 0; r < ROWS; r++) {
                    const float *w = p.dequantised + r * cols, *x = p.x + i * cols;
                    double top = 0, sum = 0, products = 0;
                    for (int c = 0; c < cols; c++) {
                        top = fmax(top, fabs(w[c]));
                        sum += fabs(x[c]);
                        products += fabs((double)w[c] * x[c]);
                    }
                    double tolerance = quantised(t)
                        ? (2 * cols / 16 + 4) * FLT_EPSILON / 2 * 3 * top * sum
                        : (256 + 5) * FLT_EPSILON / 2 * products;
                    if (!(fabs(y[i][r] - p.want[i][r]) <= tolerance))
                        fail_msg("%s %s: y[%d][%d] = %.9g, wanted %.9g +- %.2g", k->name,
                                 dtype_name(t), i, r, y[i][r], p.want[i][r], tolerance);
                }
            matrix_unpack(&p.w);
        }
        teardown(&p);
    }
    acts_close(a);
}

/* Activations of any value: at most half a step of their 8-bit grid away,
 * and the step is the largest of 256 / 127. */
static void encoded_activations(void **state) {
    (void)state;
    struct acts *a = open_acts();
    static float y[TOKENS][ROWS];
    EACH_TYPE(t) {
        struct problem p;
        int cols = 3 * 256;
        setup(&p, t, cols, 0);
        for (int i = 0; i < TOKENS * cols; i++) p.x[i] = uniform(i / cols % 2 ? 30 : 0.01f);
        EACH_SET(k) {
            multiply(k, &p, a, ROWS, 0, TOKENS, y[0], ROWS);
            for (int i = 0; i < TOKENS; i++)
                for (int r = 0; r < ROWS; r++) {
                    double want = 0, slack = 0, top = i % 2 ? 30 : 0.01;
                    for (int c = 0; c < cols; c++) {
                        double w = p.dequantised[r * cols + c];
                        want += w * p.x[i * cols + c];
                        slack += fabs(w) * top / 127 * (quantised(t) ? 0.51 + 127 / 2048. : 0);
                    }
                    slack += 1e-4 * fabs(want) + 1e-5 * top;
                    if (!(fabs(y[i][r] - want) <= slack))
                        fail_msg("%s %s: y[%d][%d] = %.9g, wanted %.9g +- %.2g", k->name,
                                 dtype_name(t), i, r, y[i][r], want, slack);
                }
        }
        teardown(&p);
    }
    acts_close(a);
}

#ifdef HAVE_OPENBLAS
enum { SAME = 31 };                         /* OpenBLAS multiplies floats from 32 tokens on */
#else
enum { SAME = TOKENS };
#endif

/* The same bits alone or among others, packed or not, with one thread or three. */
static void same_bits(void **state) {
    (void)state;
    static float all[TOKENS][ROWS], one[TOKENS][ROWS];
    int threads = omp_get_max_threads();
    omp_set_num_threads(3);
    struct acts *a = open_acts();
    EACH_TYPE(t) {
        struct problem p;
        setup(&p, t, 3 * 256, 0);
        for (int i = 0; i < TOKENS * p.w.cols; i++) p.x[i] = uniform(3);
        EACH_SET(k) for (int packed = 0; packed <= k->mat->packed; packed++) {
            if (packed) assert_int_equal(matrix_pack(k, &p.w, NULL), 0);
            omp_set_num_threads(3);
            if (!packed) multiply(k, &p, a, ROWS, 0, SAME, all[0], ROWS);
            multiply(k, &p, a, ROWS, 0, SAME, one[0], ROWS);
            assert_memory_equal(one, all, sizeof all);
            omp_set_num_threads(1);
            memset(one, 0, sizeof one);
            for (int i = 0; i < SAME; i++) multiply(k, &p, a, ROWS, i, 1, one[i], ROWS);
            assert_memory_equal(one, all, sizeof all);
            for (int n = 2; n < 20 && k->mat->packed; n++) {
                multiply(k, &p, a, ROWS, 7, n, one[7], ROWS);
                assert_memory_equal(one, all, sizeof all);
            }
            matrix_unpack(&p.w);
        }
        teardown(&p);
    }
    acts_close(a);
    omp_set_num_threads(threads);
}

/* Matrices of several types, lengths and packings shared out together:
 * each gets all its rows, with any team. */
static void products_together(void **state) {
    (void)state;
    enum { COLS = 512, LD = 5 * ROWS };
    const enum dtype type[MATMUL_MOST] = { DT_Q4_0, DT_Q6_K, DT_F32 };
    const int copies[MATMUL_MOST] = { 5, 1, 3 }, batches[] = { 1, 2, TOKENS };
    static float y[MATMUL_MOST][TOKENS][LD];
    int threads = omp_get_max_threads();
    omp_set_num_threads(3);
    struct acts *a = open_acts();
    struct problem p[MATMUL_MOST];
    struct product all[MATMUL_MOST];
    for (int i = 0; i < MATMUL_MOST; i++) {
        setup(&p[i], type[i], COLS, 1);
        size_t bytes = ROWS * dtype_row_bytes(type[i], COLS);
        p[i].file = realloc(p[i].file, (size_t)copies[i] * bytes);
        for (int c = 1; c < copies[i]; c++) memcpy(p[i].file + (size_t)c * bytes, p[i].file, bytes);
        p[i].w.data = p[i].file, p[i].w.rows = copies[i] * ROWS;
        all[i] = (struct product){ y[i][0], LD, &p[i].w };
        for (int t = 0; t < TOKENS; t++)                 /* one input for all */
            for (int r = 0; r < ROWS && i > 0; r++) {
                double sum = 0;
                for (int c = 0; c < COLS; c++)
                    sum += (double)p[0].x[t * COLS + c] * p[i].dequantised[r * COLS + c];
                p[i].want[t][r] = sum;
            }
    }
    EACH_SET(k) for (int team = 1; team <= 3; team += 2)
    for (int b = 0; b < 3; b++) for (int n = 1; n <= MATMUL_MOST; n++) {
        omp_set_num_threads(team);
        assert_int_equal(matrix_pack(k, &p[1].w, NULL), 0);
        memset(y, 0, sizeof y);
        acts_set(a, p[0].x, batches[b], COLS);
        matmul_all(k, all, n, a);
        for (int i = 0; i < MATMUL_MOST; i++)
            for (int t = 0; t < TOKENS; t++)
                for (int r = 0; r < LD; r++) {
                    int inside = i < n && t < batches[b] && r < copies[i] * ROWS;
                    double want = inside ? p[i].want[t][r % ROWS] : 0;
                    if (y[i][t][r] != want)
                        fail_msg("%s, %d threads, %d of %d products, %d tokens: "
                                 "y[%d][%d] = %g, wanted %g", k->name, team, i + 1, n,
                                 batches[b], t, r, y[i][t][r], want);
                }
        matrix_unpack(&p[1].w);
    }
    for (int i = 0; i < MATMUL_MOST; i++) teardown(&p[i]);
    acts_close(a);
    omp_set_num_threads(threads);
}

/* The largest sums a format can make: every byte alike, every activation at an end of its grid. */
static void largest_sums(void **state) {
    (void)state;
    struct acts *a = open_acts();
    static float y[TOKENS][ROWS];
    const uint8_t bytes[] = { 0xff, 0x00, 0x80, 0x7f };
    EACH_TYPE(t) for (int b = 0; b < 4 && quantised(t); b++) {
        struct problem p;
        int cols = 512, d, m, size = dtype_info(t)->bytes;
        setup(&p, t, cols, 1);
        scales_at(t, &d, &m);
        memset(p.file, bytes[b], ROWS * dtype_row_bytes(t, (size_t)cols));
        for (uint8_t *at = p.file; at < p.file + ROWS * dtype_row_bytes(t, (size_t)cols);
             at += size) {
            uint16_t one = f32_to_f16(1);
            memcpy(at + d, &one, 2);
            if (m >= 0) memcpy(at + m, &one, 2);
        }
        dequant_row(t, p.file, p.dequantised, (size_t)cols);
        for (int i = 0; i < TOKENS * cols; i++) p.x[i] = i / cols % 2 ? 127 : -127;
        EACH_SET(k) {
            multiply(k, &p, a, ROWS, 0, TOKENS, y[0], ROWS);
            for (int i = 0; i < TOKENS; i++) {
                double want = 0, top = 0;
                for (int c = 0; c < cols; c++) {
                    want += (double)p.dequantised[c] * p.x[i * cols + c];
                    top = fmax(top, fabs(p.dequantised[c]));
                }
                for (int r = 0; r < ROWS; r++)
                    if (!(fabs(y[i][r] - want) <=
                          (2 * cols / 16 + 4) * FLT_EPSILON / 2 * 3 * top * 127 * cols))
                        fail_msg("%s %s of %02x: y[%d][%d] = %g, wanted %g", k->name, dtype_name(t),
                                 bytes[b], i, r, y[i][r], want);
            }
        }
        teardown(&p);
    }
    acts_close(a);
}

/* AMX changes the speed, not one bit of the result. */
static void amx_is_avx512(void **state) {
    (void)state;
    const struct kernels *amx = kernels_pick("amx");
    if (!amx) skip();
    struct acts *a = open_acts();
    static float y[TOKENS][ROWS], want[TOKENS][ROWS];
    EACH_TYPE(t) {
        struct problem p;
        setup(&p, t, 5 * 256, 0);
        for (int i = 0; i < TOKENS * p.w.cols; i++) p.x[i] = uniform(3);
        multiply(kernels_pick("avx512"), &p, a, ROWS, 0, TOKENS, want[0], ROWS);
        multiply(amx, &p, a, ROWS, 0, TOKENS, y[0], ROWS);
        assert_memory_equal(y, want, sizeof y);
        teardown(&p);
    }
    acts_close(a);
}

static void rows_read_back(void **state) {
    (void)state;
    static float row[MAX_COLS];
    EACH_TYPE(t) {
        struct problem p;
        setup(&p, t, 768, 0);
        EACH_SET(k) {
            assert_int_equal(matrix_packed_bytes(&p.w), 0);
            assert_int_equal(matrix_pack(k, &p.w, NULL), 0);
            size_t size = 48 * dtype_row_bytes(t, 768);            /* whole panels of 16 */
            assert_true(matrix_packed_bytes(&p.w) <= size + size / 20);
            for (int r = 0; r < ROWS; r++) {
                matrix_row(&p.w, r, row);
                assert_memory_equal(row, p.dequantised + r * 768, 768 * sizeof *row);
            }
            matrix_unpack(&p.w);
        }
        teardown(&p);
    }
}

/* NaN or infinity in one token's activations reaches that token's results only. */
static void broken_activations(void **state) {
    (void)state;
    struct acts *a = open_acts();
    static float y[TOKENS][ROWS], broken[TOKENS][ROWS];
    const float bad[] = { NAN, INFINITY, -INFINITY };
    EACH_TYPE(t) for (int b = 0; b < 3; b++) {
        struct problem p;
        setup(&p, t, 512, 0);
        EACH_SET(k) {
            float *x = p.x + 5 * 512 + 300, keep = *x;
            multiply(k, &p, a, ROWS, 0, TOKENS, y[0], ROWS);
            *x = bad[b];
            multiply(k, &p, a, ROWS, 0, TOKENS, broken[0], ROWS);
            *x = keep;
            for (int i = 0; i < TOKENS; i++)
                for (int r = 0; r < ROWS; r++)
                    if (i == 5 ? isfinite(broken[i][r]) : broken[i][r] != y[i][r])
                        fail_msg("%s %s: y[%d][%d] = %g", k->name, dtype_name(t), i, r,
                                 broken[i][r]);
        }
        teardown(&p);
    }
    acts_close(a);
}

/* Any bytes are a legal row: scales of NaN, infinity, denormals. Nothing hangs or traps, and a row
 * of sane numbers next to them keeps its result. */
static void any_bytes(void **state) {
    (void)state;
    struct acts *a = open_acts();
    static float y[TOKENS][ROWS], want[TOKENS][ROWS];
    EACH_TYPE(t) for (int pass = 0; pass < 4; pass++) {
        struct problem p;
        int cols = 512, sane = 17;
        setup(&p, t, cols, 0);
        EACH_SET(k) {
            multiply(k, &p, a, ROWS, 0, TOKENS, want[0], ROWS);
            size_t row_bytes = dtype_row_bytes(t, (size_t)cols);
            uint8_t *fuzzed = malloc(ROWS * row_bytes);
            for (size_t i = 0; i < ROWS * row_bytes; i++)
                fuzzed[i] = pass == 0 ? 0xff : pass == 1 ? 0x7f : (uint8_t)bits();
            memcpy(fuzzed + sane * row_bytes, p.file + sane * row_bytes, row_bytes);
            p.w.data = fuzzed;
            for (int packed = 0; packed <= k->mat->packed; packed++) {
                if (packed) assert_int_equal(matrix_pack(k, &p.w, NULL), 0);
                multiply(k, &p, a, ROWS, 0, TOKENS, y[0], ROWS);
                for (int i = 0; i < TOKENS; i++) assert_true(y[i][sane] == want[i][sane]);
            }
            matrix_unpack(&p.w);
            p.w.data = p.file;
            free(fuzzed);
        }
        teardown(&p);
    }
    acts_close(a);
}

/* Activations at the ends of the float range: zero, the smallest, the largest. */
static void extreme_activations(void **state) {
    (void)state;
    struct acts *a = open_acts();
    static float y[TOKENS][ROWS];
    const float scale[] = { 0, 1e-45f, 1e-38f, 1e-20f, 1e20f };
    EACH_TYPE(t) for (int s = 0; s < 5; s++) {
        struct problem p;
        setup(&p, t, 256, 1);
        for (int i = 0; i < TOKENS * 256; i++) p.x[i] *= scale[s];
        EACH_SET(k) {
            multiply(k, &p, a, ROWS, 0, TOKENS, y[0], ROWS);
            for (int i = 0; i < TOKENS; i++)
                for (int r = 0; r < ROWS; r++) {
                    double want = p.want[i][r] * scale[s];
                    double slack = (fabs(p.want[i][r]) + 1e5) *
                                   (scale[s] < 1e-36f ? scale[s] * 200 : scale[s] * 1e-4);
                    if (!(fabs(y[i][r] - want) <= slack))
                        fail_msg("%s %s: y[%d][%d] = %g, wanted %g", k->name, dtype_name(t), i, r,
                                 y[i][r], want);
                }
        }
        teardown(&p);
    }
    acts_close(a);
}

int main(void) {
    omp_set_num_threads(1);                              /* teams of several: same_bits */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_products), cmocka_unit_test(rounded_products),
        cmocka_unit_test(encoded_activations), cmocka_unit_test(same_bits),
        cmocka_unit_test(products_together),
        cmocka_unit_test(amx_is_avx512), cmocka_unit_test(largest_sums),
        cmocka_unit_test(rows_read_back), cmocka_unit_test(broken_activations),
        cmocka_unit_test(any_bytes), cmocka_unit_test(extreme_activations),
    };
    return cmocka_run_group_tests_name("matmul", tests, NULL, NULL);
}
