/* test_matmul_extremes.c - products of what is at the end of a range or no number at all, for every
 * weight type under every instruction set. */
#include <float.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include "tests/common/check.h"
#include "tests/common/products.h"

/* The largest sums a format can make: every byte alike, every activation at an end of its grid. */
static void largest_sums(void **state) {
    (void)state;
    struct acts *a = product_acts();
    static float y[TOKENS][ROWS];
    const uint8_t bytes[] = { 0xff, 0x00, 0x80, 0x7f };
    EACH_TYPE(t) for (int b = 0; b < 4 && product_quantised(t); b++) {
        struct product_case p;
        int cols = 512, d, m, size = dtype_info(t)->bytes;
        product_setup(&p, t, cols, 1);
        product_scales(t, &d, &m);
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
            product_run(k, &p, a, ROWS, 0, TOKENS, y[0], ROWS);
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
        product_free(&p);
    }
    acts_close(a);
}

/* NaN or infinity in one token's activations reaches that token's results only. */
static void broken_activations(void **state) {
    (void)state;
    struct acts *a = product_acts();
    static float y[TOKENS][ROWS], broken[TOKENS][ROWS];
    const float bad[] = { NAN, INFINITY, -INFINITY };
    EACH_TYPE(t) for (int b = 0; b < 3; b++) {
        struct product_case p;
        product_setup(&p, t, 512, 0);
        EACH_SET(k) {
            float *x = p.x + 5 * 512 + 300, keep = *x;
            product_run(k, &p, a, ROWS, 0, TOKENS, y[0], ROWS);
            *x = bad[b];
            product_run(k, &p, a, ROWS, 0, TOKENS, broken[0], ROWS);
            *x = keep;
            for (int i = 0; i < TOKENS; i++)
                for (int r = 0; r < ROWS; r++)
                    if (i == 5 ? isfinite(broken[i][r]) : broken[i][r] != y[i][r])
                        fail_msg("%s %s: y[%d][%d] = %g", k->name, dtype_name(t), i, r,
                                 broken[i][r]);
        }
        product_free(&p);
    }
    acts_close(a);
}

/* Any bytes are a legal row: scales of NaN, infinity, denormals. Nothing hangs or traps, and a row
 * of sane numbers next to them keeps its result. */
static void any_bytes(void **state) {
    (void)state;
    struct acts *a = product_acts();
    static float y[TOKENS][ROWS], want[TOKENS][ROWS];
    EACH_TYPE(t) for (int pass = 0; pass < 4; pass++) {
        struct product_case p;
        int cols = 512, sane = 17;
        product_setup(&p, t, cols, 0);
        EACH_SET(k) {
            product_run(k, &p, a, ROWS, 0, TOKENS, want[0], ROWS);
            size_t row_bytes = dtype_row_bytes(t, (size_t)cols);
            uint8_t *fuzzed = malloc(ROWS * row_bytes);
            for (size_t i = 0; i < ROWS * row_bytes; i++)
                fuzzed[i] = pass == 0 ? 0xff : pass == 1 ? 0x7f : (uint8_t)product_bits();
            memcpy(fuzzed + sane * row_bytes, p.file + sane * row_bytes, row_bytes);
            p.w.data = fuzzed;
            for (int packed = 0; packed <= k->mat->packed; packed++) {
                if (packed) assert_int_equal(matrix_pack(k, &p.w, NULL), 0);
                product_run(k, &p, a, ROWS, 0, TOKENS, y[0], ROWS);
                for (int i = 0; i < TOKENS; i++) assert_true(y[i][sane] == want[i][sane]);
            }
            matrix_unpack(&p.w);
            p.w.data = p.file;
            free(fuzzed);
        }
        product_free(&p);
    }
    acts_close(a);
}

/* Activations at the ends of the float range: zero, the smallest, the largest. */
static void extreme_activations(void **state) {
    (void)state;
    struct acts *a = product_acts();
    static float y[TOKENS][ROWS];
    const float scale[] = { 0, 1e-45f, 1e-38f, 1e-20f, 1e20f };
    EACH_TYPE(t) for (int s = 0; s < 5; s++) {
        struct product_case p;
        product_setup(&p, t, 256, 1);
        for (int i = 0; i < TOKENS * 256; i++) p.x[i] *= scale[s];
        EACH_SET(k) {
            product_run(k, &p, a, ROWS, 0, TOKENS, y[0], ROWS);
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
        product_free(&p);
    }
    acts_close(a);
}

int main(void) {
    omp_set_num_threads(1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(largest_sums), cmocka_unit_test(broken_activations),
        cmocka_unit_test(any_bytes), cmocka_unit_test(extreme_activations),
    };
    return cmocka_run_group_tests_name("matmul_extremes", tests, NULL, NULL);
}
