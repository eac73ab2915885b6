/* The highest score in a page: the very number that the highest of tile.h's scores is, for each set of kernels. */
#include "kernels/kernels.h"
#include "kernels/peak.h"
#include "tests/common/check.h"
#include "base/rand.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const enum dtype types[] = { DT_F32, DT_F16, DT_BF16 };
static const int dims[] = { 1, 7, 24, 64, 80, 128, 256 };

static float highest(const struct kernels *k, const float *q, int dim, const void *page, enum dtype type) {
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

/* Every place of the page and every query gets its turn as the best one; then keys that are no numbers. */
static void peaks(const struct kernels *k) {
    struct rand r = { 1 };
    float q[256 * PEAK_ROWS], key[256];
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        for (size_t d = 0; d < sizeof dims / sizeof *dims; d++) {
            const int dim = dims[d];
            char *page = aligned_alloc(64, 2 * tile_k_bytes(DT_F32, dim)), *next = page + tile_k_bytes(types[t], dim);
            for (int turn = 0; turn < KV_PAGE * PEAK_ROWS + 2; turn++) {
                for (int i = 0; i < dim * PEAK_ROWS; i++) q[i] = rand_normal(&r);
                for (int j = 0; j < KV_PAGE; j++) {
                    for (int i = 0; i < dim; i++)
                        key[i] = rand_normal(&r) + (j == turn % KV_PAGE ? 9 * q[i * PEAK_ROWS + turn / KV_PAGE % PEAK_ROWS] : 0);
                    if (turn == KV_PAGE * PEAK_ROWS && j != 5) *key = NAN;
                    if (turn > KV_PAGE * PEAK_ROWS) *key = j == 3 ? INFINITY : NAN;
                    tile_put_k(page, types[t], dim, j, key);
                }
                const float want = highest(k, q, dim, page, types[t]);
                const float got = k->peak->page(q, dim, page, types[t], turn % 2 ? next : NULL);
                if (memcmp(&got, &want, sizeof got))
                    fail_msg("%s, %s, %d floats, turn %d: %.9g, wanted %.9g", k->name, dtype_name(types[t]), dim, turn, got, want);
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

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_peaks) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
