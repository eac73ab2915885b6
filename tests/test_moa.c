/* Mode moa: the lengths of spans, what the rings keep, and attention against masks in double. */
#include "tests/common/attend.h"
#include "model/session.h"
#include "tests/common/check.h"
#include "tests/common/temp.h"
#include "tests/common/tiny.h"
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *write_plan(const char *text) {
    static char path[256];
    snprintf(path, sizeof path, "%s", temp_path("plan.json"));
    temp_write(path, text, strlen(text));
    return path;
}

static struct attn *mode_new(const char *text, const struct attn_shape *s) {
    struct attn *a = NULL;
    struct err err = { .msg = "" };
    if (attn_open(&a, text, s, kernels_pick(NULL), &err)) fail_msg("%s: %s", text, err.msg);
    return a;
}

/* Spans worked out by hand: truncated, at most the length, at least 128, up to a multiple of 64. */
static void test_spans(void **state) {
    static const struct { int length; double alpha, beta; int span; } table[] = {
        { 2048, 0, 0.5, 1024 },     { 4096, 1024, 0.125, 1536 }, { 8192, 2048, 0.25, 4096 },
        { 4096, 8192, 0, 4096 },    { 2048, -1024, 0.5, 128 },   { 512, -1024, 0.5, 128 },
        { 512, -1024, 0.625, 128 }, { 4096, -1024, 0.5, 1024 },  { 1000, 0, 1, 1024 },
        { 100, 0, 1, 128 },         { 1000, 0, 0.125, 128 },     { 1001, 0, 0.25, 256 },
        { 1025, 0, 0.5, 512 },      { 1026, 0, 0.5, 576 },       { 1, 0, 0, 128 },
        { 130, 0, 1, 192 },         { 16384, 8192, 0.875, 16384 },
    };
    const struct attn_shape s = { .n_layers = 2, .n_heads = 3, .n_kv_heads = 3, .k_dim = 8,
                                  .v_dim = 8, .max_batch = 5, .scale = 1 };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        char text[128];
        snprintf(text, sizeof text, "moa,alpha=%g,beta=%g,length=%d", table[i].alpha, table[i].beta,
                 table[i].length);
        struct attn *a = mode_new(text, &s);
        for (int head = 0; head < 6; head++) {
            const struct kv_store *st = &attn_stores(a)[head];
            if (st->sink + st->recent + 1 != table[i].span)
                fail_msg("%s: %d and %d, wanted %d", text, st->sink, st->recent + 1, table[i].span);
            assert_int_equal(st->sink, 64);
            assert_int_equal(st->ring, 1);
            assert_int_equal(st->slack, 5);
        }
        attn_close(a);
    }
}

/* A plan for 2 layers of 6 query heads on 2 KV heads; problems use layer 0. Spans at a length of
 * 500: 128 for 100 and -1024 + 500, 192, 256, 320 for 256 + 62, 512 for all above the length. */
static const char plan[] = "{\"alphas\": [[100, 192, 256, 0, -1024, 4096], [0, 0, 0, 0, 0, 0]],\n"
                           " \"betas\": [[0, 0, 0.125, 0.5, 1, 0], [0.5, 0.5, 0.5, 1, 1, 1]]}\n";
static const int spans[6] = { 128, 192, 320, 256, 128, 512 };

static int mask(int query_head, int p, int j) { return j < 64 || j > p - (spans[query_head] - 64); }

static const char *plan_mode(void) {
    static char text[320];
    snprintf(text, sizeof text, "moa,plan=%s,length=500", write_plan(plan));
    return text;
}

/* Each query head applies its own span, before and after the length that was planned; the prompt,
 * in chunks of any size, and token by token give the same bits, with any number of threads. */
static void test_against_mask(void **state) {
    static const int chunks[] = { 1, 7, 64, 333 };
    static const struct { int k_dim, v_dim; enum dtype k, v; const char *kernels; } cases[] = {
        { 32, 32, DT_F32, DT_F32, NULL }, { 32, 64, DT_Q8_0, DT_Q4_0, NULL },
        { 16, 8, DT_BF16, DT_F16, "scalar" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct kernels *k = kernels_pick(cases[i].kernels);
        struct problem p = problem_new(900, 6, 2, cases[i].k_dim, cases[i].v_dim,
                                       cases[i].k, cases[i].v);
        const size_t n = (size_t)p.n * 6 * p.shape.v_dim;
        double tolerance, *want = problem_naive(&p, mask, &tolerance);
        float *whole = problem_run(&p, plan_mode(), k, p.n);
        const double error = largest_error(whole, want, n);
        if (error > tolerance) fail_msg("case %zu: off by %g, allowed %g", i, error, tolerance);
        for (int c = 0; c < 4; c++) {
            omp_set_num_threads(1 + c % 3);
            float *got = problem_run(&p, plan_mode(), k, chunks[c]);
            assert_memory_equal(got, whole, n * sizeof *got);
            free(got);
        }
        omp_set_num_threads(1);
        free(whole);
        free(want);
        problem_free(&p);
    }
}

/* Keys read are min(p + 1, span) for each query head; a KV head keeps its longest span, no more. */
static void test_cost(void **state) {
    uint64_t keys, rows, want = 0;
    (void)state;
    struct problem p = problem_new(1200, 6, 2, 32, 32, DT_F16, DT_F16);
    struct pair x = pair_open(&p, plan_mode(), kernels_pick(NULL), 40);
    float *out = malloc((size_t)p.n * 6 * 32 * sizeof *out);
    for (int pos = 0; pos < p.n; pos += 40) pair_feed(x, &p, pos, 40, out);
    for (int h = 0; h < 6; h++)
        for (int t = 0; t < p.n; t++) want += (uint64_t)(t + 1 < spans[h] ? t + 1 : spans[h]);
    attn_counters(x.attn, &keys, &rows);
    assert_int_equal(keys, want);
    assert_int_equal(rows, p.n * 6);
    const struct kv_store *s = attn_stores(x.attn);
    const int most[4] = { 320, 512, 256, 512 };        /* 250 and 500 in layer 1 */
    for (int i = 0; i < 4; i++) assert_int_equal(s[i].sink + s[i].recent + 1, most[i]);
    free(out);
    pair_close(x);
    problem_free(&p);
}

/* At every step the ring holds, bit for bit,
 * the first 64 tokens and the last span - 64, and does not grow. */
static void test_ring(void **state) {
    enum { SPAN = 192, N = 1000 };
    size_t settled = 0;
    (void)state;
    struct problem p = problem_new(N, 2, 1, 32, 32, DT_Q8_0, DT_Q4_0);
    struct pair ring = pair_open(&p, "moa,alpha=192,beta=0,length=500", kernels_pick(NULL), 1);
    struct pair full = pair_open(&p, "full", kernels_pick(NULL), 1);
    float *out = malloc(N * 2 * 32 * sizeof *out);
    for (int pos = 0; pos < N; pos++) {
        pair_feed(ring, &p, pos, 1, out);
        pair_feed(full, &p, pos, 1, out);
        if (pos == 600) settled = kv_bytes(ring.kv);
        for (int j = 0; j <= pos; j++) {
            float k[2][32], v[2][32];
            if (j >= 64 && j <= pos - (SPAN - 64)) continue;
            kv_read(ring.kv, 0, 0, j, k[0], v[0]);
            kv_read(full.kv, 0, 0, j, k[1], v[1]);
            assert_memory_equal(k[0], k[1], sizeof k[0]);
            assert_memory_equal(v[0], v[1], sizeof v[0]);
        }
    }
    assert_int_equal(kv_bytes(ring.kv), settled);
    /* 4 pages of sinks and 128 tokens that may straddle 9 pages: one block for each layer */
    assert_int_equal(settled,
                     2 * KV_BLOCK_PAGES * (tile_k_bytes(DT_Q8_0, 32) + tile_v_bytes(DT_Q4_0, 32)));
    free(out);
    pair_close(ring);
    pair_close(full);
    problem_free(&p);
}

/* Other modes, to the bit: everything is full attention, the uniform twin a window with sinks. */
static void test_twins(void **state) {
    static const char *const same[][2] = {
        { "moa,alpha=0,beta=1", "full" }, { "moa,alpha=9999,beta=0", "full" },
        { "moa,beta=1,length=777", "full" },
        { "moa", "stream,sink=64,recent=383" },                /* 388 of 777: 448 */
        { "moa,alpha=0,beta=0.5,length=300", "stream,sink=64,recent=127" },
    };
    (void)state;
    struct problem p = problem_new(777, 4, 2, 16, 16, DT_F32, DT_F16);
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        float *got = problem_run(&p, same[i][0], kernels_pick(NULL), 50);
        float *want = problem_run(&p, same[i][1], kernels_pick(NULL), 50);
        if (memcmp(got, want, (size_t)p.n * 64 * sizeof *got))
            fail_msg("%s is not %s", same[i][0], same[i][1]);
        free(got);
        free(want);
    }
    float *short_span = problem_run(&p, "moa,alpha=640,beta=0", kernels_pick(NULL), 50);
    float *full = problem_run(&p, "full", kernels_pick(NULL), 50);
    for (int t = 0; t < p.n; t++)                              /* no token longer than the span */
        assert_int_equal(!memcmp(full + t * 64, short_span + t * 64, 64 * sizeof *full), t < 640);
    free(short_span);
    free(full);
    problem_free(&p);
}

/* Heads that change places, together with their lines of the plan,
 * take their outputs along and change nothing else. */
static void test_heads_change_places(void **state) {
    static const int from[6] = { 5, 3, 4, 1, 0, 2 };           /* groups, and heads within them */
    static const double alpha[6] = { 100, 192, 256, 0, -1024, 4096 },
                        beta[6] = { 0, 0, 0.125, 0.5, 1, 0 };
    char text[512] = "{\"alphas\": [", line[320];
    (void)state;
    for (int m = 0; m < 2; m++) {
        for (int l = 0; l < 2; l++)
            for (int h = 0; h < 6; h++)
                snprintf(text + strlen(text), sizeof text - strlen(text), "%s%g%s",
                         h ? ", " : l ? ", [" : "[", m ? beta[from[h]] : alpha[from[h]],
                         h == 5 ? "]" : "");
        strcat(text, m ? "]}" : "], \"betas\": [");
    }
    struct problem p = problem_new(600, 6, 2, 16, 16, DT_F32, DT_F32),
                   r = problem_new(600, 6, 2, 16, 16, DT_F32, DT_F32);
    float *want = problem_run(&p, plan_mode(), kernels_pick(NULL), 60);
    for (int t = 0; t < p.n; t++) {
        for (int h = 0; h < 6; h++)
            memcpy(r.q + (t * 6 + h) * 16, p.q + (t * 6 + from[h]) * 16, 16 * sizeof(float));
        for (int g = 0; g < 2; g++) {
            memcpy(r.k + (t * 2 + g) * 16, p.k + (t * 2 + 1 - g) * 16, 16 * sizeof(float));
            memcpy(r.v + (t * 2 + g) * 16, p.v + (t * 2 + 1 - g) * 16, 16 * sizeof(float));
        }
    }
    snprintf(line, sizeof line, "moa,plan=%s,length=500", write_plan(text));
    float *got = problem_run(&r, line, kernels_pick(NULL), 60);
    for (int t = 0; t < p.n; t++)
        for (int h = 0; h < 6; h++)
            assert_memory_equal(got + (t * 6 + h) * 16, want + (t * 6 + from[h]) * 16,
                                16 * sizeof(float));
    free(want);
    free(got);
    problem_free(&p);
    problem_free(&r);
}

static void refused(const char *text, const struct attn_shape *s, const char *one,
                    const char *other) {
    struct attn *a;
    struct err err = { .msg = "" };
    if (!attn_open(&a, text, s, kernels_pick(NULL), &err)) fail_msg("taken: %s", text);
    if (!strstr(err.msg, one) || !strstr(err.msg, other))
        fail_msg("%s: says \"%s\", not %s and %s", text, err.msg, one, other);
}

static void test_arguments(void **state) {
    struct attn_shape s = { .n_layers = 2, .n_heads = 6, .n_kv_heads = 2, .k_dim = 8,
                            .v_dim = 8, .max_batch = 4, .max_tokens = 1000, .scale = 1 };
    static const struct { const char *text, *says; } bad[] = {
        { "", "JSON" }, { "[1]", "JSON object" },
        { "{\"betas\": [[0,0,0,0,0,0],[0,0,0,0,0,0]]}", "alphas" },
        { "{\"alphas\": [[0,0,0,0,0,0],[0,0,0,0,0,0]]}", "betas" },
        { "{\"alphas\": [[0,0,0,0,0,0]]}", "1 x 6" }, { "{\"alphas\": []}", "0 x 0" },
        { "{\"alphas\": [1, 2]}", "2 x 0" }, { "{\"alphas\": [[0,0],[0,0]]}", "2 x 2" },
        { "{\"alphas\": [[0,0,0,0,0,0],[0,0,0,0,0]]}", "5 numbers" },
        { "{\"alphas\": [[0,0,0,0,0,0],{\"a\":1}]}", "0 numbers" },
        { "{\"alphas\": [[0,0,0,0,0,0],[0,0,\"1\",0,0,0]]}", "layer 1, head 2" },
        { "{\"alphas\": [[0,0,0,0,0,0],[0,0,1e999,0,0,0]]}", "layer 1, head 2" },
    };
    char text[320];
    struct err err;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(text, sizeof text, "moa,plan=%s", write_plan(bad[i].text));
        refused(text, &s, bad[i].says, "plan.json");
    }
    s.n_layers = 3;
    refused(plan_mode(), &s, "2 x 6", "3 layers x 6 query heads");
    s.n_layers = 2;
    refused("moa,plan=/nonexistent/plan", &s, "/nonexistent/plan", "");
    refused("moa,plan=p,beta=0.25", &s, "plan=p", "beta=0.25");
    assert_int_equal(attn_check("moa,plan=p,alpha=3", &err), -1);     /* seen without a model */
    assert_int_equal(attn_check("moa,plan=p,length=3", &err), 0);
    refused("moa,beta=nan", &s, "beta=nan", "");
    refused("moa,length=-1", &s, "length=-1", "");
    refused("moa,span=3", &s, "span", "plan, alpha, beta, length");
    s.max_tokens = 0;
    refused("moa", &s, "length", "context");
    s.max_tokens = 1000;
    struct attn *a = mode_new("moa", &s), *shorter = mode_new("moa,length=200", &s);
    assert_string_equal(attn_params(a), "plan=,alpha=0,beta=0.5,length=0");
    assert_null(attn_warning(a));
    assert_non_null(attn_warning(shorter));
    attn_close(a);
    attn_close(shorter);
    s.n_heads = 130;                                       /* groups of 65: alike, or not at all */
    attn_close(mode_new("moa", &s));
    char *wide = malloc(4096);
    int used = 0;
    for (int m = 0; m < 2; m++)
        for (int i = 0; i < 260; i++)
            used += snprintf(wide + used, (size_t)(4096 - used), "%s%d%s",
                             i ? i % 130 ? "," : ",[" : m ? ",\"betas\":[[" : "{\"alphas\":[[",
                             !m && !i ? 512 : 0,
                             i == 259 ? m ? "]]}" : "]]" : i % 130 == 129 ? "]" : "");
    snprintf(text, sizeof text, "moa,plan=%s", write_plan(wide));
    refused(text, &s, "65", "64");
    free(wide);
}

/* Through a model the planned length is the session's context. */
static void test_session(void **state) {
    enum { N = 300 };
    /* The spans of plain moa: 150 of 300, up to 192. */
    static const char *const modes[] = { "full", "moa,beta=1", "stream,sink=64,recent=127", "moa" };
    const char *path = temp_path("moa.gguf");
    struct gguf *file;
    struct model *model;
    struct err err = { .msg = "" };
    float *logits[4];
    int32_t ids[N];
    uint64_t seed = 3;
    (void)state;
    tiny_write(path, &(struct tiny){ .type = DT_F32, .n_layers = 2, .n_embd = 64, .n_ff = 64,
                                     .n_heads = 4, .n_kv_heads = 2, .n_vocab = 101, .seed = 5 });
    if (gguf_open(&file, path, NULL, &err) ||
        model_open(&model, file, &(struct model_options){ .kernels = kernels_pick(NULL) }, &err))
        fail_msg("%s", err.msg);
    for (int i = 0; i < N; i++) ids[i] = (int32_t)(noise(&seed) % 101);
    for (int m = 0; m < 4; m++) {
        const struct session_options o = { .n_ctx = N, .batch = 32, .type_k = DT_F16,
                                           .type_v = DT_F16, .attn = modes[m] };
        struct session *s;
        if (session_open(&s, model, &o, &err) || session_eval(s, ids, N - 9, &err))
            fail_msg("%s", err.msg);
        for (int i = N - 9; i < N; i++)
            if (session_eval(s, ids + i, 1, &err)) fail_msg("%s", err.msg);
        logits[m] = malloc(101 * sizeof **logits);
        memcpy(logits[m], session_logits(s), 101 * sizeof **logits);
        session_close(s);
    }
    assert_memory_equal(logits[0], logits[1], 101 * sizeof **logits);
    assert_memory_equal(logits[2], logits[3], 101 * sizeof **logits);
    assert_memory_not_equal(logits[0], logits[2], 101 * sizeof **logits);
    for (int m = 0; m < 4; m++) free(logits[m]);
    model_close(model);
    gguf_close(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spans), cmocka_unit_test(test_against_mask),
        cmocka_unit_test(test_cost), cmocka_unit_test(test_ring),
        cmocka_unit_test(test_twins), cmocka_unit_test(test_heads_change_places),
        cmocka_unit_test(test_arguments), cmocka_unit_test(test_session),
    };
    omp_set_num_threads(1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
