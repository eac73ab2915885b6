/* test_matmul.c - every weight type under every instruction set, as the file has it and repacked.
 *
 * The exact tests choose scales of one and integer activations that their 8-bit encoding keeps, so
 * that every sum is a small integer: results must equal a double-precision product over
 * dequant_row()'ed weights to the last bit, whatever the order. The others bound rounding: half an
 * ulp of the summed magnitudes for each addition. */
#include <float.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/common/check.h"
#include "tests/common/products.h"

/* Every count of rows and tokens from 1 to 40; nothing is written beside the result. */
static void check_exact(const struct kernels *k, struct product_case *p, struct acts *a) {
    enum { LD = ROWS + 3 };
    static float y[TOKENS + 1][LD];
    int step = k->mat->packed ? 1 : 7;                   /* the scalar set treats all rows alike */
    for (int rows = 1; rows <= ROWS; rows += step) {
        int tokens = rows * 11 % 40 + 1;
        for (int t = 0; t <= TOKENS; t++)
            for (int r = 0; r < LD; r++) y[t][r] = 12345.5f;
        product_run(k, p, a, rows, TOKENS - tokens, tokens, y[0], LD);
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
    struct acts *a = product_acts();
    EACH_TYPE(t) {
        int block = dtype_info(t)->block;
        const int cols[] = { block, 2 * block, block > 1 ? 3 * block : 77,
                             block < 256 ? 9 * block : 5 * block };
        for (int i = 0; i < 4; i++) {
            struct product_case p;
            product_setup(&p, t, cols[i], 1);
            EACH_SET(k) {
                assert_int_equal(matrix_pack(k, &p.w, NULL), 0);
                assert_true(!p.w.packed == !k->mat->packed);
                check_exact(k, &p, a);
                matrix_unpack(&p.w);
            }
            product_free(&p);
        }
    }
    acts_close(a);
}

/* Scales of any value: each sub-block (16 columns at least) adds twice and rounds three factors on
 * the way. A difference of scale * code and minimum may be 3 times smaller than its parts. Plain
 * types round at every column at worst. */
static void rounded_products(void **state) {
    (void)state;
    struct acts *a = product_acts();
    static float y[TOKENS][ROWS];
    EACH_TYPE(t) {
        struct product_case p;
        int cols = 5 * 256;
        product_setup(&p, t, cols, 0);
        EACH_SET(k) {
            assert_int_equal(matrix_pack(k, &p.w, NULL), 0);
            product_run(k, &p, a, ROWS, 0, TOKENS, y[0], ROWS);
            for (int i = 0; i < TOKENS; i++)
                for (int r = 0; r < ROWS; r++) {
                    const float *w = p.dequantised + r * cols, *x = p.x + i * cols;
                    double top = 0, sum = 0, products = 0;
                    for (int c = 0; c < cols; c++) {
                        top = fmax(top, fabs(w[c]));
                        sum += fabs(x[c]);
                        products += fabs((double)w[c] * x[c]);
                    }
                    double tolerance = product_quantised(t)
                        ? (2 * cols / 16 + 4) * FLT_EPSILON / 2 * 3 * top * sum
                        : (256 + 5) * FLT_EPSILON / 2 * products;
                    if (!(fabs(y[i][r] - p.want[i][r]) <= tolerance))
                        fail_msg("%s %s: y[%d][%d] = %.9g, wanted %.9g +- %.2g", k->name,
                                 dtype_name(t), i, r, y[i][r], p.want[i][r], tolerance);
                }
            matrix_unpack(&p.w);
        }
        product_free(&p);
    }
    acts_close(a);
}

/* Activations of any value: at most half a step of their 8-bit grid away,
 * and the step is the largest of 256 / 127. */
static void encoded_activations(void **state) {
    (void)state;
    struct acts *a = product_acts();
    static float y[TOKENS][ROWS];
    EACH_TYPE(t) {
        struct product_case p;
        int cols = 3 * 256;
        product_setup(&p, t, cols, 0);
        for (int i = 0; i < TOKENS * cols; i++) p.x[i] = product_uniform(i / cols % 2 ? 30 : 0.01f);
        EACH_SET(k) {
            product_run(k, &p, a, ROWS, 0, TOKENS, y[0], ROWS);
            for (int i = 0; i < TOKENS; i++)
                for (int r = 0; r < ROWS; r++) {
                    double want = 0, slack = 0, top = i % 2 ? 30 : 0.01;
                    for (int c = 0; c < cols; c++) {
                        double w = p.dequantised[r * cols + c];
                        want += w * p.x[i * cols + c];
                        if (product_quantised(t))
                            slack += fabs(w) * top / 127 * (0.51 + 127 / 2048.);
                    }
                    slack += 1e-4 * fabs(want) + 1e-5 * top;
                    if (!(fabs(y[i][r] - want) <= slack))
                        fail_msg("%s %s: y[%d][%d] = %.9g, wanted %.9g +- %.2g", k->name,
                                 dtype_name(t), i, r, y[i][r], want, slack);
                }
        }
        product_free(&p);
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
    struct acts *a = product_acts();
    EACH_TYPE(t) {
        struct product_case p;
        product_setup(&p, t, 3 * 256, 0);
        for (int i = 0; i < TOKENS * p.w.cols; i++) p.x[i] = product_uniform(3);
        EACH_SET(k) for (int packed = 0; packed <= k->mat->packed; packed++) {
            if (packed) assert_int_equal(matrix_pack(k, &p.w, NULL), 0);
            omp_set_num_threads(3);
            if (!packed) product_run(k, &p, a, ROWS, 0, SAME, all[0], ROWS);
            product_run(k, &p, a, ROWS, 0, SAME, one[0], ROWS);
            assert_memory_equal(one, all, sizeof all);
            omp_set_num_threads(1);
            memset(one, 0, sizeof one);
            for (int i = 0; i < SAME; i++) product_run(k, &p, a, ROWS, i, 1, one[i], ROWS);
            assert_memory_equal(one, all, sizeof all);
            for (int n = 2; n < 20 && k->mat->packed; n++) {
                product_run(k, &p, a, ROWS, 7, n, one[7], ROWS);
                assert_memory_equal(one, all, sizeof all);
            }
            matrix_unpack(&p.w);
        }
        product_free(&p);
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
    struct acts *a = product_acts();
    struct product_case p[MATMUL_MOST];
    struct product all[MATMUL_MOST];
    for (int i = 0; i < MATMUL_MOST; i++) {
        product_setup(&p[i], type[i], COLS, 1);
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
    for (int i = 0; i < MATMUL_MOST; i++) product_free(&p[i]);
    acts_close(a);
    omp_set_num_threads(threads);
}

/* AMX changes the speed, not one bit of the result. */
static void amx_is_avx512(void **state) {
    (void)state;
    const struct kernels *amx = kernels_pick("amx");
    if (!amx) skip();
    struct acts *a = product_acts();
    static float y[TOKENS][ROWS], want[TOKENS][ROWS];
    EACH_TYPE(t) {
        struct product_case p;
        product_setup(&p, t, 5 * 256, 0);
        for (int i = 0; i < TOKENS * p.w.cols; i++) p.x[i] = product_uniform(3);
        product_run(kernels_pick("avx512"), &p, a, ROWS, 0, TOKENS, want[0], ROWS);
        product_run(amx, &p, a, ROWS, 0, TOKENS, y[0], ROWS);
        assert_memory_equal(y, want, sizeof y);
        product_free(&p);
    }
    acts_close(a);
}

static void rows_read_back(void **state) {
    (void)state;
    static float row[MAX_COLS];
    EACH_TYPE(t) {
        struct product_case p;
        product_setup(&p, t, 768, 0);
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
        product_free(&p);
    }
}

int main(void) {
    omp_set_num_threads(1);                              /* teams of several: same_bits */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_products), cmocka_unit_test(rounded_products),
        cmocka_unit_test(encoded_activations), cmocka_unit_test(same_bits),
        cmocka_unit_test(products_together), cmocka_unit_test(amx_is_avx512),
        cmocka_unit_test(rows_read_back),
    };
    return cmocka_run_group_tests_name("matmul", tests, NULL, NULL);
}
