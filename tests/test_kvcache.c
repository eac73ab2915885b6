/* The cache: what is appended is read back as the type keeps it,
 * growth moves nothing, the size formula is exact. */
#include "kvcache/kvcache.h"               /* before CMocka, which makes a macro of the word fail */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS = 3, HEADS = 2, KD = 64, VD = 32 };

static const enum dtype types[] = { DT_F32, DT_F16, DT_BF16, DT_Q8_0, DT_Q4_0 };
enum { N_TYPES = sizeof types / sizeof *types };

static struct kvcache *open_cache(enum dtype k, enum dtype v) {
    const struct kv_shape s = { .n_layers = LAYERS, .n_kv_heads = HEADS, .k_dim = KD,
                                .v_dim = VD, .type_k = k, .type_v = v };
    struct kvcache *c;
    struct err err;
    assert_int_equal(kv_open(&c, &s, &err), 0);
    return c;
}

/* Numbers that say where they belong: layer, position, head, dimension and a salt all matter. */
static float number(int salt, int layer, int pos, int head, int i) {
    uint32_t x = (uint32_t)(((salt * 7 + layer) * 100003 + pos) * 64 + head) * 2654435761u +
                 (uint32_t)i * 40503u;
    x ^= x >> 15;
    x *= 2246822519u;
    x ^= x >> 13;
    return (float)(x & 0xffff) / 32768 - 1;
}

static void fill(struct kvcache *c, int salt, int pos, int n) {
    float *k = malloc((size_t)n * HEADS * KD * sizeof *k),
          *v = malloc((size_t)n * HEADS * VD * sizeof *v);
    for (int l = 0; l < LAYERS; l++) {
        for (int t = 0; t < n; t++)
            for (int g = 0; g < HEADS; g++) {
                for (int i = 0; i < KD; i++)
                    k[((size_t)t * HEADS + g) * KD + i] = number(salt, l, pos + t, g, i);
                for (int i = 0; i < VD; i++)
                    v[((size_t)t * HEADS + g) * VD + i] = -number(salt, l, pos + t, g, i);
            }
        kv_append(c, l, pos, n, k, v);
    }
    free(k);
    free(v);
}

/* A row as the block format keeps it, through the definition of the format. */
static void through(enum dtype type, const float *x, float *y, int n) {
    char stored[KD * sizeof(float)];
    if (type == DT_F32) memcpy(y, x, (size_t)n * sizeof *x);
    else if (type == DT_F16) for (int i = 0; i < n; i++) y[i] = f16_to_f32(f32_to_f16(x[i]));
    else if (type == DT_BF16) for (int i = 0; i < n; i++) y[i] = bf16_to_f32(f32_to_bf16(x[i]));
    else {
        quant_row(type, x, stored, (size_t)n);
        dequant_row(type, stored, y, (size_t)n);
    }
}

static void check(const struct kvcache *c, int salt, int pos, int n) {
    for (int l = 0; l < LAYERS; l++)
        for (int g = 0; g < HEADS; g++)
            for (int p = pos; p < pos + n; p++) {
                float x[KD], want_k[KD], want_v[VD], k[KD], v[VD];
                for (int i = 0; i < KD; i++) x[i] = number(salt, l, p, g, i);
                through(kv_shape(c)->type_k, x, want_k, KD);
                for (int i = 0; i < VD; i++) x[i] = -x[i];
                through(kv_shape(c)->type_v, x, want_v, VD);
                kv_read(c, l, g, p, k, v);
                assert_memory_equal(k, want_k, sizeof k);
                assert_memory_equal(v, want_v, sizeof v);
            }
}

/* Every pair of types, in uneven steps that start and end inside pages and cross blocks. */
static void test_round_trip(void **state) {
    (void)state;
    static const int steps[] = { 1, 5, 16, 100, 3, 200, 17, 300 };
    for (int a = 0; a < N_TYPES; a++)
        for (int b = 0; b < N_TYPES; b++) {
            struct kvcache *c = open_cache(types[a], types[b]);
            int n = 0;
            for (size_t i = 0; i < sizeof steps / sizeof *steps; n += steps[i++]) {
                assert_int_equal(kv_reserve(c, n + steps[i], NULL), 0);
                fill(c, 0, n, steps[i]);
            }
            check(c, 0, 0, n);
            kv_close(c);
        }
}

static void test_growth(void **state) {
    (void)state;
    struct kvcache *c = open_cache(DT_F16, DT_Q8_0);
    const size_t page = 16 * KD * 2 + (16 * VD + 16 * VD / 32 * 2 + 63) / 64 * 64;
    assert_int_equal(kv_bytes(c), 0);
    assert_int_equal(kv_reserve(c, 0, NULL), 0);
    assert_int_equal(kv_bytes(c), 0);
    assert_int_equal(kv_reserve(c, 1, NULL), 0);
    assert_int_equal(kv_bytes(c), LAYERS * HEADS * KV_BLOCK_PAGES * page);
    assert_int_equal(kv_reserve(c, KV_BLOCK, NULL), 0);    /* the same block */
    fill(c, 0, 0, KV_BLOCK);
    struct kv_page before = kv_page(c, 1, 1, 3);
    for (int n = KV_BLOCK; n <= 20 * KV_BLOCK; n += 77) {
        assert_int_equal(kv_reserve(c, n, NULL), 0);
        assert_int_equal(kv_bytes(c), (size_t)((n + KV_BLOCK - 1) / KV_BLOCK) * LAYERS * HEADS *
                                          KV_BLOCK_PAGES * page);
        assert_int_equal(kv_bytes(c), kv_bytes_at(kv_shape(c), n));
    }
    struct kv_page after = kv_page(c, 1, 1, 3);
    assert_ptr_equal(before.k, after.k);
    assert_ptr_equal(before.v, after.v);
    check(c, 0, 0, KV_BLOCK);
    kv_close(c);
}

static void test_truncate(void **state) {
    (void)state;
    struct kvcache *c = open_cache(DT_Q8_0, DT_F32);
    assert_int_equal(kv_reserve(c, 600, NULL), 0);
    fill(c, 1, 0, 600);
    assert_int_equal(kv_truncate(c, 301), 301);
    size_t bytes = kv_bytes(c);
    assert_int_equal(kv_reserve(c, 500, NULL), 0);
    assert_int_equal(kv_bytes(c), bytes);                  /* memory is used again */
    fill(c, 2, 301, 199);
    check(c, 1, 0, 301);
    check(c, 2, 301, 199);
    kv_close(c);
}

/* No two pages overlap: fill them one by one with bytes of their own. */
static void test_pages_apart(void **state) {
    (void)state;
    struct kvcache *c = open_cache(DT_Q4_0, DT_Q8_0);
    const size_t k_bytes = tile_k_bytes(DT_Q4_0, KD), v_bytes = tile_v_bytes(DT_Q8_0, VD);
    assert_int_equal(kv_reserve(c, KV_BLOCK, NULL), 0);
    assert_int_equal(kv_reserve(c, 3 * KV_BLOCK, NULL), 0);
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < LAYERS * HEADS * 3 * KV_BLOCK_PAGES; i++) {
            struct kv_page p = kv_page(c, i % LAYERS, i / LAYERS % HEADS, i / LAYERS / HEADS);
            assert_int_equal((uintptr_t)p.k % 64, 0);
            assert_int_equal((uintptr_t)p.v % 64, 0);
            if (!pass) {
                memset((void *)p.k, i & 255, k_bytes);
                memset((void *)p.v, ~i & 255, v_bytes);
                memcpy((void *)p.k, &i, sizeof i);
                memcpy((void *)p.v, &i, sizeof i);
                continue;
            }
            assert_memory_equal(p.k, &i, sizeof i);
            assert_memory_equal(p.v, &i, sizeof i);
            for (size_t b = sizeof i; b < k_bytes; b++)
                assert_int_equal(((const uint8_t *)p.k)[b], i & 255);
            for (size_t b = sizeof i; b < v_bytes; b++)
                assert_int_equal(((const uint8_t *)p.v)[b], ~i & 255);
        }
    kv_close(c);
}

static void test_refusals(void **state) {
    (void)state;
    struct kv_shape s = { .n_layers = 1, .n_kv_heads = 1, .k_dim = 80, .v_dim = 64,
                          .type_k = DT_Q8_0, .type_v = DT_Q8_0 };
    struct kvcache *c;
    struct err err;
    assert_int_equal(kv_open(&c, &s, &err), -1);
    assert_non_null(strstr(err.msg, "80"));
    s.type_k = DT_F16;
    assert_int_equal(kv_open(&c, &s, &err), 0);
    kv_close(c);
    s.type_v = DT_Q6_K;
    assert_int_equal(kv_open(&c, &s, &err), -1);
    assert_non_null(strstr(err.msg, "Q6_K"));
    s = (struct kv_shape){ .n_layers = 4096, .n_kv_heads = 1024, .k_dim = 1024,
                           .v_dim = 1024, .type_k = DT_F32, .type_v = DT_F32 };
    assert_int_equal(kv_open(&c, &s, &err), 0);
    assert_int_equal(kv_reserve(c, 1 << 30, &err), -1);    /* the cache stays as it was */
    assert_int_equal(kv_bytes(c), 0);
    kv_close(c);
    kv_close(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_growth),
        cmocka_unit_test(test_truncate), cmocka_unit_test(test_pages_apart),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
