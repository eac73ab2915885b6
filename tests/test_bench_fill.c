/* A cache filled without the model: session_fill; the synthetic keys and values of bin/bench. */
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include "model/session.h"
#include "tests/common/check.h"
#include "tests/common/temp.h"
#include "tests/common/tiny.h"
#include "tools/common/bench_fill.h"
#include "tools/common/bench_run.h"

/* Dims that do not divide by the lanes. */
enum { N = 600, LAYERS = 2, HEADS = 2, DIM = 40, ROW = HEADS * DIM };

static struct gguf *file;
static struct model *model;
static struct err err;

static int setup(void **state) {
    (void)state;
    const struct tiny t = { .type = DT_F32, .n_layers = LAYERS, .n_embd = 160,
                            .n_ff = 64, .n_heads = 4, .n_kv_heads = HEADS,
                            .n_vocab = 64, .head_dim = DIM, .seed = 5 };
    const char *path = temp_path("fill.gguf");
    tiny_write(path, &t);
    return gguf_open(&file, path, NULL, &err) ||
           model_open(&model, file, &(struct model_options){ 0 }, &err);
}

static int teardown(void **state) {
    (void)state;
    model_close(model);
    gguf_close(file);
    return 0;
}

static struct session *open_session(int n_ctx, int batch) {
    struct session *s = NULL;
    const struct session_options o = { .n_ctx = n_ctx, .batch = batch, .type_k = DT_F32,
                                       .type_v = DT_F32 };
    if (session_open(&s, model, &o, &err)) fail_msg("%s", err.msg);
    return s;
}

static struct bench_fill *open_fill(int batch, uint64_t seed) {
    struct bench_fill *f = NULL;
    if (bench_fill_open(&f, model, batch, seed, &err)) fail_msg("%s", err.msg);
    return f;
}

/* Logits of token 7 after n filled tokens, taken in two calls. */
static void filled_logits(float *logits, int n, int batch, int threads, uint64_t seed) {
    struct session *s = open_session(N + 1, batch);
    struct bench_fill *f = open_fill(batch, seed);
    const int before = omp_get_max_threads(), first = n / 3;
    const int32_t id = 7;
    omp_set_num_threads(threads);
    assert_int_equal(session_fill(s, first, bench_fill, f, &err), 0);
    assert_int_equal(session_fill(s, n - first, bench_fill, f, &err), 0);
    assert_int_equal(session_pos(s), n);
    assert_int_equal(session_eval(s, &id, 1, &err), 0);
    memcpy(logits, session_logits(s), (size_t)model->c.n_vocab * sizeof *logits);
    omp_set_num_threads(before);
    bench_fill_close(f);
    session_close(s);
}

static void test_same_for_chunks_and_threads(void **state) {
    (void)state;
    float a[64], b[64];
    filled_logits(a, N, 512, 2, 1);
    filled_logits(b, N, 33, 1, 1);
    assert_memory_equal(a, b, sizeof a);
    filled_logits(b, N, 512, 2, 2);
    assert_memory_not_equal(a, b, sizeof a);           /* the seed matters, so the cache was read */
}

struct calls { int n, layer[64], pos[64], size[64]; };

static void record(void *ctx, int layer, int pos, int n, float *k, float *v) {
    struct calls *c = ctx;
    c->layer[c->n] = layer, c->pos[c->n] = pos, c->size[c->n] = n, c->n++;
    memset(k, 0, (size_t)n * ROW * sizeof *k);
    memset(v, 0, (size_t)n * ROW * sizeof *v);
}

static void test_session_fill(void **state) {
    (void)state;
    struct calls c = { 0 };
    struct session *s = open_session(100, 32);
    assert_int_equal(session_fill(s, 40, record, &c, &err), 0);
    const int layer[] = { 0, 1, 0, 1 }, pos[] = { 0, 0, 32, 32 }, size[] = { 32, 32, 8, 8 };
    assert_int_equal(c.n, 4);
    assert_memory_equal(c.layer, layer, sizeof layer);
    assert_memory_equal(c.pos, pos, sizeof pos);
    assert_memory_equal(c.size, size, sizeof size);
    assert_int_equal(session_fill(s, 61, record, &c, &err), -1);
    assert_non_null(strstr(err.msg, "context full"));
    assert_int_equal(session_pos(s), 40);
    assert_int_equal(session_fill(s, 60, record, &c, &err), 0);
    assert_int_equal(session_pos(s), 100);
    session_close(s);
}

/* Rotation keeps the length of a key, so variance survives it; and a rotation by equal
 * angles keeps products of keys at equal positions, so the resemblance of neighbours is
 * judged on pairs that turn slowly. */
static void test_statistics(void **state) {
    (void)state;
    enum { MANY = 8192, SLOW = DIM - 2 };
    struct bench_fill *f = open_fill(MANY, 3);
    float *k = malloc((size_t)MANY * ROW * sizeof *k), *v = malloc((size_t)MANY * ROW * sizeof *v);
    double k2 = 0, v2 = 0, v1 = 0, near = 0, far = 0, slow2 = 0;
    bench_fill(f, 1, 0, MANY, k, v);
    for (int i = 0; i < MANY * ROW; i++)
        k2 += (double)k[i] * k[i], v2 += (double)v[i] * v[i], v1 += v[i];
    for (int t = 0; t + 1000 < MANY; t++)
        for (int h = 0; h < HEADS; h++) {
            const float *x = k + (size_t)t * ROW + h * DIM + SLOW;
            for (int i = 0; i < 2; i++) {
                slow2 += (double)x[i] * x[i];
                near += (double)x[i] * x[i + ROW];
                far += (double)x[i] * x[i + 1000 * ROW];
            }
        }
    const double all = (double)MANY * ROW;
    assert_true(fabs(k2 / all - 1.5) < 0.05);
    assert_true(fabs(v2 / all - 1) < 0.01);
    assert_true(fabs(v1 / all) < 0.01);
    const double drift = exp(-1.0 / BENCH_FILL_LENGTH) / 1.5;
    /* The drift is about 0.65; 32k samples with 500 independent lengths. */
    assert_true(fabs(near / slow2 - drift) < 0.05);
    assert_true(fabs(far / slow2) < 0.2);
    float *again = malloc((size_t)MANY * ROW * sizeof *again);
    bench_fill_restart(f);
    bench_fill(f, 1, 0, MANY, again, v);
    assert_memory_equal(again, k, (size_t)MANY * ROW * sizeof *k);
    free(again);
    free(k);
    free(v);
    bench_fill_close(f);
}

static void test_repetitions(void **state) {
    (void)state;
    const double odd[] = { 5, 1, 9 }, even[] = { 4, 8, 1, 2 }, one[] = { 3 };
    assert_true(bench_median(odd, 3) == 5 && bench_median(even, 4) == 3 &&
                bench_median(one, 1) == 3);
    assert_true(odd[0] == 5);
    assert_true(bench_mean(odd, 3) == 5 && bench_stddev(odd, 3) == 4 && bench_stddev(one, 1) == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_for_chunks_and_threads), cmocka_unit_test(test_session_fill),
        cmocka_unit_test(test_statistics), cmocka_unit_test(test_repetitions),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
