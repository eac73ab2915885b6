/* The whole forward pass against a double-precision reference,
 * on random models of many shapes and every weight type. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "model/session.h"
#include "tests/common/check.h"
#include "tests/common/reference.h"
#include "tests/common/temp.h"
#include "tests/common/tiny.h"

enum { N = 70 };                                /* odd against pages, tiles and batches */
static int32_t ids[N];

struct loaded { struct gguf *file; struct model *model; };

static struct loaded load(const char *path, const char *kernels, bool repack) {
    struct loaded l = { 0 };
    struct err err = { .msg = "" };
    const struct kernels *k = kernels_pick(kernels);
    if (gguf_open(&l.file, path, NULL, &err) ||
        model_open(&l.model, l.file, &(struct model_options){ .kernels = k }, &err) ||
        (repack && model_repack(l.model, &err)))
        fail_msg("%s", err.msg);
    return l;
}

static void unload(struct loaded *l) {
    model_close(l->model);
    gguf_close(l->file);
}

/* Logits of all N tokens, fed in chunks of `batch`, malloc'd. */
static float *run(const struct model *m, int batch, enum dtype kv) {
    struct session *s = NULL;
    struct err err = { .msg = "" };
    const struct session_options o = { .n_ctx = N, .batch = batch, .type_k = kv, .type_v = kv };
    float *out = malloc((size_t)N * m->c.n_vocab * sizeof *out);
    if (session_open(&s, m, &o, &err)) fail_msg("%s", err.msg);
    for (int i = 0; i < N; i += batch) {
        const int now = N - i < batch ? N - i : batch;
        if (session_eval_rows(s, ids + i, now, &err)) fail_msg("%s", err.msg);
        session_rows(s, 0, now, out + (size_t)i * m->c.n_vocab);
    }
    assert_int_equal(session_pos(s), N);
    assert_memory_equal(session_logits(s), out + (size_t)(N - 1) * m->c.n_vocab,
                        (size_t)m->c.n_vocab * sizeof *out);
    session_close(s);
    return out;
}

static const struct tiny base = { .type = DT_F32, .n_layers = 2, .n_embd = 256, .n_ff = 256,
                                  .n_heads = 8, .n_kv_heads = 2, .n_vocab = 203, .seed = 11 };

/* Calls check() on the model's closeness to the reference
 * for every kernel set of this CPU, repacked and not. */
static void each_set(const struct tiny *t, const char *what, enum dtype kv,
                     void (*check)(const char *, struct closeness)) {
    const char *path = temp_path("model.gguf"), *sets = kernels_names();
    char set[16], label[128];
    double *want = NULL;
    tiny_write(path, t);
    while (sscanf(sets, " %15s", set) == 1) {
        sets += strspn(sets, " ") + strlen(set);
        for (int repack = 0; repack < 2; repack++) {
            struct loaded l = load(path, set, repack);
            int v = t->n_vocab;
            if (!want) want = reference_logits(l.file, ids, N, &v);
            float *got = run(l.model, 32, kv);
            snprintf(label, sizeof label, "%s, %s, KV %s, %s%s", what, dtype_name(t->type),
                     dtype_name(kv), set, repack ? ", repacked" : "");
            check(label, compare_logits(want, got, N, v));
            free(got);
            unload(&l);
        }
    }
    free(want);
}

static void is_exact(const char *what, struct closeness c) {
    if (!(c.mean_kl <= 1e-5 && c.max_delta <= 1e-3 * c.std && c.std > 0.3))
        fail_msg("%s: KL %g, max delta %g, std %g", what, c.mean_kl, c.max_delta, c.std);
}

static void exact(const char *what, struct tiny t) {
    const enum dtype types[] = { DT_F32, DT_F16, DT_BF16 };
    for (size_t i = 0; i < 3; i++) {
        t.type = types[i];
        each_set(&t, what, DT_F32, is_exact);
    }
}

static void test_shapes(void **state) {
    (void)state;
    struct tiny t = base;
    exact("gqa", t);
    t = base, t.n_kv_heads = 8;
    exact("mha", t);
    t = base, t.n_kv_heads = 1;
    exact("mqa", t);
    t = base, t.tied = true, t.head_dim = 48, t.rope_factors = true;   /* q width 384 != n_embd */
    exact("wide heads, tied, factors", t);
    t = base, t.head_dim = 64, t.v_dim = 32, t.n_rot = 24;
    exact("value length, partial rotation", t);
    t = base, t.scaling = "linear", t.factor = 4;
    exact("linear scaling", t);
    t = base, t.scaling = "yarn", t.factor = 8;
    exact("yarn", t);
    t = base, t.biases = true;
    exact("biases", t);
    t = base, t.arch = "qwen2", t.biases = true, t.head_dim = 48, t.n_rot = 40;
    exact("qwen2", t);
}

/* The reference has the same weights, so only 8-bit activations and rounding differ. */
static void is_close(const char *what, struct closeness c) {
    if (!(c.mean_kl <= 1e-3 && c.argmax >= 0.9))
        fail_msg("%s: KL %g, argmax %g", what, c.mean_kl, c.argmax);
}

static void test_quantised(void **state) {
    (void)state;
    const enum dtype types[] = { DT_Q8_0, DT_Q4_0, DT_Q4_1, DT_Q5_0, DT_Q5_1, DT_Q2_K, DT_Q3_K,
                                 DT_Q4_K, DT_Q5_K, DT_Q6_K, DT_IQ4_NL, DT_IQ4_XS };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct tiny t = base;
        t.type = types[i];
        each_set(&t, "quantised", DT_F32, is_close);
    }
}

static double kl_limit;
static void within_limit(const char *what, struct closeness c) {
    if (!(c.mean_kl <= kl_limit)) fail_msg("%s: KL %g, wanted %g", what, c.mean_kl, kl_limit);
}

static void test_kv_types(void **state) {
    (void)state;
    const struct { enum dtype type; double kl; } kinds[] = {
        { DT_F16, 1e-5 }, { DT_BF16, 2e-4 }, { DT_Q8_0, 2e-4 }, { DT_Q4_0, 5e-2 } };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        kl_limit = kinds[i].kl;
        each_set(&base, "cache", kinds[i].type, within_limit);
    }
}

/* The same bits for any number of threads and any chunk size. */
static void test_same_bits(void **state) {
    (void)state;
    const enum dtype types[] = {
#ifndef HAVE_OPENBLAS                       /* which sums many tokens in an order of its own */
        DT_F32, DT_F16,
#endif
        DT_Q8_0, DT_Q4_0, DT_Q4_K, DT_Q6_K };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct tiny t = base;
        t.type = types[i];
        const char *path = temp_path("bits.gguf"), *sets = kernels_names();
        char set[16];
        tiny_write(path, &t);
        while (sscanf(sets, " %15s", set) == 1) {
            sets += strspn(sets, " ") + strlen(set);
            struct loaded l = load(path, set, true);
            omp_set_num_threads(1);
            float *want = run(l.model, N, DT_F16);
            const int batches[] = { N, 1, 7, 16, 33 };
            for (int b = 0; b < 5; b++) {
                omp_set_num_threads(2 + b % 2);
                float *got = run(l.model, batches[b], DT_F16);
                if (memcmp(want, got, (size_t)N * t.n_vocab * sizeof *got))
                    fail_msg("%s %s: chunks of %d with %d threads differ", dtype_name(types[i]),
                             set, batches[b], 2 + b % 2);
                free(got);
            }
            free(want);
            unload(&l);
        }
    }
    omp_set_num_threads(2);
}

static void test_truncate(void **state) {
    (void)state;
    const char *path = temp_path("cut.gguf");
    tiny_write(path, &base);
    struct loaded l = load(path, NULL, true);
    struct session *s = NULL;
    struct err err = { .msg = "" };
    const struct session_options o = { .n_ctx = N, .batch = 16, .type_k = DT_F16,
                                       .type_v = DT_F16 };
    assert_int_equal(session_open(&s, l.model, &o, &err), 0);
    assert_null(session_logits(s));
    assert_int_equal(session_eval(s, ids, N, &err), 0);
    float *want = malloc((size_t)base.n_vocab * sizeof *want);
    memcpy(want, session_logits(s), (size_t)base.n_vocab * sizeof *want);
    for (int keep = 0; keep < N; keep += 13) {   /* forget, feed other ids, forget again, redo */
        session_truncate(s, keep);
        assert_int_equal(session_eval(s, ids, N - keep < 5 ? N - keep : 5, &err), 0);
        session_truncate(s, keep);
        assert_int_equal(session_pos(s), keep);
        assert_int_equal(session_eval(s, ids + keep, N - keep, &err), 0);
        assert_memory_equal(want, session_logits(s), (size_t)base.n_vocab * sizeof *want);
    }
    assert_int_equal(session_eval(s, ids, 1, &err), -1);
    assert_non_null(strstr(err.msg, "context full"));
    session_truncate(s, 1);
    assert_int_equal(session_eval(s, (int32_t[]){ 203 }, 1, &err), -1);
    assert_non_null(strstr(err.msg, "wanted 0 to 202"));
    assert_int_equal(session_eval(s, (int32_t[]){ -1 }, 1, &err), -1);
    free(want);
    session_close(s);
    unload(&l);
}

int main(void) {
    uint64_t rng = 5;
    for (int i = 0; i < N; i++) ids[i] = (int32_t)(noise(&rng) % (uint64_t)base.n_vocab);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes), cmocka_unit_test(test_quantised),
        cmocka_unit_test(test_kv_types), cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_truncate) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
