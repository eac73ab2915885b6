/* The highest score in a page: the very number that the highest of
 * tile.h's scores is, for each set of kernels. */
#include "kernels/kernels.h"
#include "kernels/peak.h"
#include "kernels/tile_matrix.h"
#include "tests/common/check.h"
#include "base/rand.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const enum dtype types[] = { DT_F32, DT_F16, DT_BF16 };
static const int dims[] = { 1, 7, 24, 64, 80, 128, 256 };

static float highest(const struct kernels *k, const float *q, int dim, const void *page,
                     enum dtype type) {
    static float rows[PEAK_ROWS * 256], s[PEAK_ROWS * TILE], wide[KV_PAGE * 256];
    const void *tile[TILE_PAGES] = { page };
    float best = -INFINITY;
    for (int r = 0; r < PEAK_ROWS; r++)
        for (int i = 0; i < dim; i++) rows[r * dim + i] = q[i * PEAK_ROWS + r];
    if (type != DT_F32) k->tile->unpack_k(wide, page, type, dim), *tile = wide;
    k->tile->scores(s, rows, PEAK_ROWS, dim, tile, DT_F32, 0);
    for (int r = 0; r < PEAK_ROWS; r++)
        for (int j = 0; j < KV_PAGE; j++)
            if (s[r * TILE + j] > best) best = s[r * TILE + j];
    return best;
}

/* Every place of the page and every query gets its turn as the best one;
 * then keys that are no numbers. */
static void peaks(const struct kernels *k) {
    struct rand r = { 1 };
    float q[256 * PEAK_ROWS], key[256];
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        for (size_t d = 0; d < sizeof dims / sizeof *dims; d++) {
            const int dim = dims[d];
            char *page = aligned_alloc(64, 2 * tile_k_bytes(DT_F32, dim)),
                 *next = page + tile_k_bytes(types[t], dim);
            for (int turn = 0; turn < KV_PAGE * PEAK_ROWS + 2; turn++) {
                for (int i = 0; i < dim * PEAK_ROWS; i++) q[i] = rand_normal(&r);
                for (int j = 0; j < KV_PAGE; j++) {
                    for (int i = 0; i < dim; i++)
                        key[i] = rand_normal(&r) +
                                 (j == turn % KV_PAGE
                                      ? 9 * q[i * PEAK_ROWS + turn / KV_PAGE % PEAK_ROWS] : 0);
                    if (turn == KV_PAGE * PEAK_ROWS && j != 5) *key = NAN;
                    if (turn > KV_PAGE * PEAK_ROWS) *key = j == 3 ? INFINITY : NAN;
                    tile_put_k(page, types[t], dim, j, key);
                }
                const float want = highest(k, q, dim, page, types[t]);
                const float got = k->peak->page(q, dim, page, types[t], turn % 2 ? next : NULL);
                if (memcmp(&got, &want, sizeof got))
                    fail_msg("%s, %s, %d floats, turn %d: %.9g, wanted %.9g", k->name,
                             dtype_name(types[t]), dim, turn, got, want);
            }
            for (int j = 0; j < KV_PAGE; j++) *key = NAN, tile_put_k(page, types[t], dim, j, key);
            assert_true(k->peak->page(q, dim, page, types[t], NULL) == -INFINITY);
            free(page);
        }
}

static void test_peaks(void **state) {
    char names[64];
    (void)state;
    snprintf(names, sizeof names, "%s", kernels_names());
    for (char *name = strtok(names, " "); name; name = strtok(NULL, " ")) peaks(kernels_pick(name));
}

/* The matrix unit's: of its own scores the highest, for any number
 * of pages and blocks, NaN or not. */
static void matrix_peaks(const struct tile_matrix *m, enum dtype type, int dim, struct rand *r) {
    enum { BLOCKS = 5, ROWS = BLOCKS * MATRIX_ROWS };
    char *pages = aligned_alloc(64, TILE_PAGES * tile_k_bytes(type, dim));
    void *k = aligned_alloc(64, matrix_room_k(dim)),
         *q_order = aligned_alloc(64, matrix_room_q(ROWS, dim));
    static float q[ROWS * 256], s[MATRIX_ROWS * TILE], key[256];
    const void *page[TILE_PAGES] = { NULL };
    assert_true(m->room_k(dim) <= matrix_room_k(dim));
    for (int turn = 0; turn < 12; turn++) {
        const int blocks = 1 + turn % BLOCKS, count = 1 + turn % TILE_PAGES;
        for (int i = 0; i < ROWS * dim; i++) q[i] = rand_normal(r);
        for (int p = 0; p < count; p++) {
            page[p] = pages + (size_t)p * tile_k_bytes(type, dim);
            for (int j = 0; j < KV_PAGE; j++) {
                for (int i = 0; i < dim; i++) key[i] = rand_normal(r);
                if (turn > 8 && j == turn && (type == DT_F16 || type == DT_BF16)) *key = NAN;
                tile_put_k((void *)page[p], type, dim, j, key);
            }
        }
        for (int p = count; p < TILE_PAGES; p++) page[p] = NULL;
        float got[TILE_PAGES], want[TILE_PAGES] = { -INFINITY, -INFINITY, -INFINITY, -INFINITY };
        m->load_q(q_order, q, ROWS, dim, type);
        m->load_k(k, page, type, dim, 0);
        m->shape(MATRIX_ROWS, type);
        for (int b = 0; b < blocks; b++) {
            m->scores(s, q_order, b * MATRIX_ROWS, MATRIX_ROWS, dim, k, type, (1u << count) - 1);
            for (int i = 0; i < MATRIX_ROWS * TILE; i++)
                if (i % TILE < count * KV_PAGE && s[i] > want[i % TILE / KV_PAGE])
                    want[i % TILE / KV_PAGE] = s[i];
        }
        m->peaks(got, q_order, blocks, dim, k, type, (1u << count) - 1);
        m->shape(0, type);
        if (memcmp(got, want, sizeof got))
            fail_msg("%s, %d floats, %d blocks, %d pages: %g %g %g %g", dtype_name(type), dim,
                     blocks, count, got[0], got[1], got[2], got[3]);
    }
    free(pages), free(k), free(q_order);
}

static void test_matrix_peaks(void **state) {
    static const enum dtype of_matrix[] = { DT_F16, DT_BF16, DT_Q8_0, DT_Q4_0 };
    const struct tile_matrix *m = kernels_pick(NULL)->matrix;
    struct rand r = { 5 };
    (void)state;
    if (!m) skip();
    for (size_t t = 0; t < sizeof of_matrix / sizeof *of_matrix; t++)
        for (size_t d = 0; d < sizeof dims / sizeof *dims; d++)
            if (tile_supports(of_matrix[t], dims[d])) matrix_peaks(m, of_matrix[t], dims[d], &r);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_peaks),
                                        cmocka_unit_test(test_matrix_peaks) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
