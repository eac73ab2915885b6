/* Mode delta: what a layer reads of the cache and what comes out of it,
 * against full attention and double precision. */
#include "tests/common/delta_world.h"

static void poison(int layer, const char *keep, int pos) {
    float bad[GROUPS * KD];
    for (int i = 0; i < GROUPS * KD; i++) bad[i] = NAN;
    for (int j = 0; j < pos; j++)
        if (!keep[j / KV_PAGE]) kv_append(w.kv, layer, j, 1, bad, bad);
}

static void heal(int layer) { kv_append(w.kv, layer, 0, N, w.p[layer].k, w.p[layer].v); }

/* Keys that are not listed do not touch a sparse layer; they do touch a full one. */
static void test_poison(void **state) {
    (void)state;
    const int pos = 1000;
    char list[PAGES];
    struct bare b = bare_open("," FULL ",budget=12,recent=3");
    for (int l = 0; l <= 6; l++) bare_layer(b, l, pos, 1, 1, want);
    pages_of(b, 6, 0, pos, list);
    poison(6, list, pos);
    bare_layer(b, 6, pos, 1, 1, out);
    assert_memory_equal(out, want, HEADS * VD * sizeof *out);
    heal(6);
    poison(5, list, pos);
    bare_layer(b, 5, pos, 1, 1, out);
    for (int i = 0; i < HEADS * VD; i++) assert_true(isnan(out[i]));
    assert_int_equal(pages_of(b, 6, 0, pos, list), 12);    /* still a list of the right shape */
    heal(5);
    bare_close(b);
}

/* Full output = what the list holds of it + the rest, each weighted by the probability it holds. */
static void test_decomposition(void **state) {
    (void)state;
    const int pos = 1000;
    char list[PAGES];
    struct bare b = bare_open("," FULL ",budget=20,recent=3");
    struct attn *all = mode_new("full");
    step(all, pos, want);
    for (int l = 0; l < LAYERS; l++) {
        bare_layer(b, l, pos, 1, 1, out);
        if (full[l]) continue;
        pages_of(b, l, 0, pos, list);
        double *prob = probabilities(l, pos);
        for (int h = 0; h < HEADS; h++) {
            double held = 0, rest[VD] = { 0 }, largest = 0, away = 0;
            for (int j = 0; j <= pos; j++) {
                const double x = prob[(size_t)h * (pos + 1) + j];
                float v[VD], length = 0;
                kv_read(w.kv, l, h / (HEADS / GROUPS), j, NULL, v);
                for (int i = 0; i < VD; i++) length += v[i] * v[i];
                largest = fmax(largest, sqrt(length));
                if (list[j / KV_PAGE]) held += x;
                else for (int i = 0; i < VD; i++) rest[i] += x * v[i];
            }
            for (int i = 0; i < VD; i++) {
                const double dense = want[((size_t)l * HEADS + h) * VD + i],
                             sparse = out[h * VD + i];
                assert_true(fabs(dense - (held * sparse + rest[i])) < 1e-4);
                away += (dense - sparse) * (dense - sparse);
            }
            assert_true(held < 0.999 && sqrt(away) <= 2 * (1 - held) * largest + 1e-4);
        }
        free(prob);
    }
    attn_close(all);
    bare_close(b);
}

/* Pages cannot be permuted: a head's lie in blocks in the order they were reserved. But blocks may
 * lie anywhere: a cache that grew in many steps, in which heads and layers alternate, gives the
 * same bits as one that was reserved at once. */
static void test_places(void **state) {
    const struct kv_shape *shape = kv_shape(w.kv);
    struct kvcache *once = w.kv, *grown;
    struct err err;
    (void)state;
    if (kv_open(&grown, shape, &err)) fail_msg("%s", err.msg);
    for (int n = KV_PAGE; n < N + KV_PAGE; n += KV_PAGE)
        assert_int_equal(kv_reserve(grown, n, &err), 0);
    const char *first = kv_page(once, 3, 0, 0).k, *later = kv_page(once, 3, 0, 40).k;
    for (int l = 0; l < LAYERS; l++) kv_append(grown, l, 0, N, w.p[l].k, w.p[l].v);
    assert_true((const char *)kv_page(grown, 3, 0, 40).k -
                (const char *)kv_page(grown, 3, 0, 0).k != later - first);
    struct attn *a = mode_new("delta," FULL ",budget=20,recent=3"),
                *b = mode_new("delta," FULL ",budget=20,recent=3");
    for (int pos = 900; pos < 904; pos++) {
        step(a, pos, want);
        w.kv = grown;
        step(b, pos, out);
        w.kv = once;
        assert_memory_equal(out, want, sizeof out);
    }
    assert_int_equal(keys_of(a), keys_of(b));
    attn_close(a);
    attn_close(b);
    kv_close(grown);
}

static void test_threads(void **state) {
    static const int threads[] = { 1, 2, 3, 8 };
    (void)state;
    for (int i = 0; i < 4; i++) {
        omp_set_num_threads(threads[i]);
        struct attn *a = mode_new("delta," FULL ",budget=20,recent=3");
        for (int pos = 900; pos < 904; pos++) step(a, pos, i ? out : want);
        if (i) assert_memory_equal(out, want, sizeof out);
        attn_close(a);
    }
    omp_set_num_threads(1);
}

/* The gauge: what the list of layer 2 holds of the probabilities
 * of layer 5, averaged over heads and steps. */
static void test_recall(void **state) {
    (void)state;
    static double peak[PAGES], mean[PAGES];
    struct bare b = bare_open("," FULL ",budget=20,recent=3");
    double sum = 0, sum_far = 0, least = 1;
    for (int pos = 900; pos < 910; pos++) {
        char list[PAGES];
        double held = 0, held_far = 0, far = 0;
        for (int l = 0; l < 5; l++) bare_layer(b, l, pos, 1, 1, out);
        pages_of(b, 4, 0, pos, list);
        page_scores(5, pos, peak, mean);
        for (int u = 0; u <= pos / KV_PAGE; u++) {
            const int is_far = u > 0 && u <= pos / KV_PAGE - 3;
            if (is_far) far += mean[u];
            if (list[u]) held += mean[u], held_far += is_far ? mean[u] : 0;
        }
        sum += held / 10, sum_far += held_far / far / 10, least = fmin(least, held);
        for (int l = 5; l < LAYERS; l++) bare_layer(b, l, pos, 1, 1, out);
    }
    struct figures f = { 0 };
    mode_delta.report(b.mode, note, &f);
    assert_int_equal(f.n, 5);
    assert_true(f.tokens == 10 && f.lists == 20);
    assert_true(fabs(f.recall - sum) < 1e-5 && fabs(f.far - sum_far) < 1e-5 &&
                fabs(f.least - least) < 1e-5);
    assert_true(f.recall < 0.9 && f.least < f.recall);
    bare_close(b);
    f = (struct figures){ 0 };
    struct attn *all = mode_new("full");
    attn_report(all, note, &f);
    assert_int_equal(f.n, 0);
    attn_close(all);
}

/* Every pair of types, many shapes: the sparse layers
 * against full attention over the listed keys in double. */
static void test_types(void **state) {
    static const enum dtype types[] = { DT_F32, DT_F16, DT_BF16, DT_Q8_0, DT_Q4_0 };
    (void)state;
    world_close();
    for (int t = 0; t < 5; t++) {
        world_open(types[t], types[4 - t]);
        const int pos = 700;
        char list[PAGES];
        struct bare b = bare_open("," FULL ",budget=20,recent=3");
        for (int l = 0; l <= 3; l++) bare_layer(b, l, pos, 1, 1, out);
        pages_of(b, 3, 0, pos, list);
        double *prob = probabilities(3, pos);
        for (int h = 0; h < HEADS; h++) {
            double o[VD] = { 0 }, held = 0;
            for (int j = 0; j <= pos; j++) {
                float v[VD];
                if (!list[j / KV_PAGE]) continue;
                kv_read(w.kv, 3, h / (HEADS / GROUPS), j, NULL, v);
                held += prob[(size_t)h * (pos + 1) + j];
                for (int i = 0; i < VD; i++) o[i] += prob[(size_t)h * (pos + 1) + j] * v[i];
            }
            /* A matrix unit rounds what meets quants to 16 bits: of the largest, not of each. */
            const int to_16_bits = kernels_pick(NULL)->matrix &&
                                   (types[t] == DT_Q8_0 || types[4 - t] == DT_Q8_0);
            const double allowed = to_16_bits ? 4e-4 : 1e-4;
            for (int i = 0; i < VD; i++) assert_true(fabs(o[i] / held - out[h * VD + i]) < allowed);
        }
        free(prob);
        bare_close(b);
        world_close();
    }
    world_open(DT_F16, DT_F16);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_poison),
        cmocka_unit_test(test_decomposition),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_recall),
        cmocka_unit_test(test_types),
    };
    return cmocka_run_group_tests(tests, open_world, close_world);
}
