/* One broken weight in a file is found wherever it lies, in every type that can hold one, and the
 * first in the file is named. */
#include "model/check_tensors.h"
#include "model/gguf.h"
#include "model/gguf_write.h"
#include "tests/common/check.h"
#include "tests/common/temp.h"
#include <math.h>
#include <string.h>

enum { COLS = 256 * 33, ROWS = 3, TENSORS = 3 };            /* a row is more than two chunks */

static uint8_t data[TENSORS][ROWS * COLS * sizeof(float)];

/* Writes three tensors of a type as they are in data, and checks them. */
static int check(enum dtype type, struct err *err) {
    static const char *const name[] = { "c.weight", "a.weight", "b.weight" };
    static const uint64_t ne[] = { COLS, ROWS };
    const char *path = temp_path("checked.gguf");
    struct gguf_writer *w;
    struct gguf *g;
    assert_int_equal(gguf_write_open(&w, path, err), 0);
    for (int t = 0; t < TENSORS; t++) gguf_declare(w, name[t], type, 2, ne);
    assert_int_equal(gguf_write_begin(w, err), 0);
    for (int t = 0; t < TENSORS; t++)
        assert_int_equal(gguf_write_data(w, data[t], ROWS * dtype_row_bytes(type, COLS), err), 0);
    assert_int_equal(gguf_write_close(w, err), 0);
    assert_int_equal(gguf_open(&g, path, NULL, err), 0);
    err->msg[0] = 0;
    const int rc = check_tensors(g, err);
    gguf_close(g);
    return rc;
}

static void names(enum dtype type, const char *what) {
    struct err err;
    if (check(type, &err) != -1) fail_msg("%s in %s is not found", what, dtype_name(type));
    if (!strstr(err.msg, what)) fail_msg("\"%s\" lacks \"%s\"", err.msg, what);
    assert_non_null(strstr(err.msg, dtype_name(type)));
    assert_non_null(strstr(err.msg, "checked.gguf"));
}

static void whole_files_pass(void **state) {
    (void)state;
    static const enum dtype types[] = { DT_F32, DT_F16, DT_BF16, DT_Q4_0, DT_Q8_0, DT_Q4_K,
                                        DT_Q6_K, DT_IQ4_XS };
    static float row[COLS];
    for (int i = 0; i < COLS; i++) row[i] = (float)(i % 97 - 48) * (i % 5 ? 1e3f : 1e-7f);
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        for (int i = 0; i < TENSORS * ROWS; i++)
            quant_row(types[k], row, data[i / ROWS] + i % ROWS * dtype_row_bytes(types[k], COLS),
                      COLS);
        struct err err;
        if (check(types[k], &err)) fail_msg("%s: %s", dtype_name(types[k]), err.msg);
    }
}

static void one_value_is_found_wherever_it_is(void **state) {
    (void)state;
    static const struct { int col, row; float v; const char *what; } bad[] = {
        { 0, 0, NAN, "value 0 of row 0" }, { COLS - 1, ROWS - 1, INFINITY, "value 8447 of row 2" },
        { 4096, 1, -INFINITY, "value 4096 of row 1" }, { 4095, 1, NAN, "value 4095 of row 1" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        memset(data, 0, sizeof data);
        const float v = bad[i].v;
        const uint16_t half = f32_to_f16(v);
        const size_t at = (size_t)(bad[i].row * COLS + bad[i].col);
        memcpy(data[1] + at * sizeof v, &v, sizeof v);
        names(DT_F32, bad[i].what);
        names(DT_F32, "'a.weight'");
        memset(data, 0, sizeof data);
        memcpy(data[1] + at * sizeof half, &half, sizeof half);
        names(DT_F16, bad[i].what);
    }
}

static void a_scale_of_a_block_is_found(void **state) {
    (void)state;
    memset(data, 1, sizeof data);
    const uint16_t inf = f32_to_f16(INFINITY);
    const size_t block = 5, row = dtype_row_bytes(DT_Q8_0, COLS);
    memcpy(data[2] + row + block * (sizeof inf + 32), &inf, sizeof inf);
    names(DT_Q8_0, "'b.weight'");
    names(DT_Q8_0, "value 160 of row 1");
}

static void the_first_of_the_file_is_named(void **state) {
    (void)state;
    const float nan = NAN;
    memset(data, 0, sizeof data);
    memcpy(data[2], &nan, sizeof nan);
    memcpy(data[1] + 40, &nan, sizeof nan);
    memcpy(data[1] + 80, &nan, sizeof nan);
    for (int i = 0; i < 5; i++) names(DT_F32, "'a.weight' (F32): value 10 of row 0");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_files_pass),
        cmocka_unit_test(one_value_is_found_wherever_it_is),
        cmocka_unit_test(a_scale_of_a_block_is_found),
        cmocka_unit_test(the_first_of_the_file_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
