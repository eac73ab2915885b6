/* bin/synth's models: dimensions, types, determinism and sizes of random ones; for the
 * constructed retrieval model, what its header promises about every head, computed from the
 * weights in the file at 128k tokens. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "model/gguf.h"
#include "tests/common/temp.h"
#include "tools/common/synth_induction.h"
#include "base/rand.h"
#include "tools/common/synth_random.h"
#include <cmocka.h>           /* last: it has a macro called fail */

static struct gguf *open_ok(const char *path) {
    struct gguf *g = NULL;
    struct err err = { 0 };
    if (gguf_open(&g, path, NULL, &err)) fail_msg("%s", err.msg);
    return g;
}

static const struct gguf_tensor *need(const struct gguf *g, const char *name) {
    const struct gguf_tensor *t = gguf_tensor(g, name);
    if (!t) fail_msg("no tensor %s", name);
    return t;
}

static void shape_is(const struct gguf *g, const char *name, uint64_t cols, uint64_t rows,
                     enum dtype type) {
    const struct gguf_tensor *t = need(g, name);
    if (t->ne[0] != cols || t->ne[1] != rows || t->type != (int)type)
        fail_msg("%s: %s %d x %d, want %s %d x %d", name, dtype_name(t->type), (int)t->ne[0],
                 (int)t->ne[1], dtype_name((int)type), (int)cols, (int)rows);
}

static int64_t int_of(const struct gguf *g, const char *key) {
    int64_t v = -1;
    assert_int_equal(gguf_get_int(g, key, 0, INT64_MAX, &v, NULL), 1);
    return v;
}

/* All of a tensor as floats; the caller frees. */
static float *floats(const struct gguf *g, const char *name) {
    const struct gguf_tensor *t = need(g, name);
    size_t rows = (size_t)(t->ne[1] * t->ne[2]),
           bytes = dtype_row_bytes((enum dtype)t->type, (size_t)t->ne[0]);
    float *f = malloc(rows * (size_t)t->ne[0] * sizeof *f);
    assert_non_null(f);
    for (size_t r = 0; r < rows; r++)
        dequant_row((enum dtype)t->type, (const char *)t->data + r * bytes,
                    f + r * (size_t)t->ne[0], (size_t)t->ne[0]);
    return f;
}

static double deviation(const struct gguf *g, const char *name) {
    const struct gguf_tensor *t = need(g, name);
    float *f = floats(g, name);
    double sum = 0;
    size_t n = (size_t)(t->ne[0] * t->ne[1]);
    for (size_t i = 0; i < n; i++) sum += (double)f[i] * f[i];
    free(f);
    return sqrt(sum / (double)n);
}

static struct gguf *make(const char *shape, const char *type, int layers, int vocab,
                         uint64_t seed) {
    struct err err = { 0 };
    struct synth_shape s = *shape_find(shape);
    const char *path = temp_path("random.gguf");
    s.n_layers = layers;
    s.n_vocab = vocab;
    if (synth_random(path, &s, recipe_by_name(type), seed, &err)) fail_msg("%s", err.msg);
    return open_ok(path);
}

static void true_dimensions(void **state) {
    (void)state;
    struct gguf *g = make("llama-3.2-1b", "Q4_0", 1, 2048, 1);
    shape_is(g, "token_embd.weight", 2048, 2048, DT_Q6_K);  /* tied: it is the output matrix, too */
    assert_null(gguf_tensor(g, "output.weight"));
    shape_is(g, "blk.0.attn_q.weight", 2048, 2048, DT_Q4_0);
    shape_is(g, "blk.0.attn_k.weight", 2048, 512, DT_Q4_0);
    shape_is(g, "blk.0.attn_v.weight", 2048, 512, DT_Q4_0);
    shape_is(g, "blk.0.attn_output.weight", 2048, 2048, DT_Q4_0);
    shape_is(g, "blk.0.ffn_down.weight", 8192, 2048, DT_Q4_0);
    shape_is(g, "blk.0.attn_norm.weight", 2048, 1, DT_F32);
    assert_int_equal(int_of(g, "llama.attention.head_count_kv"), 8);
    assert_int_equal(int_of(g, "llama.attention.key_length"), 64);
    assert_int_equal(int_of(g, "llama.context_length"), 131072);
    assert_int_equal(gguf_find(g, "tokenizer.ggml.tokens")->count, 2048);
    /* Llama 3.2's rotation: pair 0 as it is, the last ones 32 times slower,
     * 1 to 32 between, never falling */
    shape_is(g, "rope_freqs.weight", 32, 1, DT_F32);
    float *r = floats(g, "rope_freqs.weight");
    assert_true(r[0] == 1 && r[31] == 32);
    for (int i = 1; i < 32; i++) assert_true(r[i] >= r[i - 1]);
    assert_true(fabs(r[15] - 1.652) < 0.005);   /* 2.778 turns in 8192: 1 / (0.407 / 32 + 0.593) */
    free(r);
    gguf_close(g);
    g = make("qwen2.5-1.5b", "F16", 1, 1024, 1);
    shape_is(g, "blk.0.attn_k.bias", 256, 1, DT_F32);
    shape_is(g, "blk.0.ffn_up.weight", 1536, 8960, DT_F16);
    assert_int_equal(int_of(g, "qwen2.attention.head_count_kv"), 2);
    gguf_close(g);
    g = make("llama-2-7b", "Q4_K_M", 1, 1024, 1);
    shape_is(g, "output.weight", 4096, 1024, DT_Q6_K);
    shape_is(g, "token_embd.weight", 4096, 1024, DT_Q4_K);
    gguf_close(g);
}

static void sane_weights_of_every_type(void **state) {
    (void)state;
    static const char *const types[] = { "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0",
                                         "Q5_1", "Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K",
                                         "IQ4_NL", "IQ4_XS" };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct gguf *g = make("smollm2-135m", types[i], 1, 1024, 7);
        assert_int_equal(int_of(g, "general.file_type"), recipe_by_name(types[i])->file_type);
        double want = 1.5 / sqrt(576), got = deviation(g, "blk.0.attn_q.weight");
        if (!(fabs(got / want - 1) < 0.1))
            fail_msg("%s: deviation %g, want about %g", types[i], got, want);
        gguf_close(g);
    }
}

static void seeds(void **state) {
    (void)state;
    struct gguf *g[3];
    for (int i = 0; i < 3; i++)                                    /* each stays mapped */
        g[i] = make("smollm2-135m", "Q8_0", 2, 1024, i == 2 ? 8 : 7);
    for (int i = 0; i < gguf_n_tensors(g[0]); i++) {
        const struct gguf_tensor *a = gguf_tensor_at(g[0], i);
        assert_memory_equal(a->data, gguf_tensor_at(g[1], i)->data, a->bytes);
        assert_true(!memcmp(a->data, gguf_tensor_at(g[2], i)->data, a->bytes) ==
                    !strcmp(a->name, "rope_freqs.weight"));
    }
    const struct gguf_tensor *a = need(g[0], "blk.0.ffn_up.weight"),
                             *b = need(g[0], "blk.1.ffn_up.weight");
    assert_true(memcmp(a->data, b->data, a->bytes));               /* layers differ */
    for (int i = 0; i < 3; i++) gguf_close(g[i]);
}

/* ---- the retrieval model ---- */

enum { D = 512, H = 4, G = 2, HEAD = 128, CONTEXT = 131072, N_TOKENS = 80 };

static double turn[HEAD / 2];                  /* radians a pair turns per position */

static void read_turns(const struct gguf *g) {
    float *f = floats(g, "rope_freqs.weight");
    for (int p = 0; p < HEAD / 2; p++) turn[p] = pow(10000, -2.0 * p / HEAD) / f[p];
    free(f);
}

/* out[rows] = m[rows][D] x / rms(x) */
static void project(const float *m, int rows, const double *x, double *out) {
    double sum = 0;
    int used[D], n = 0;                        /* the stream is mostly zeros */
    for (int i = 0; i < D; i++) {
        sum += x[i] * x[i];
        if (x[i] != 0) used[n++] = i;
    }
    double rms = sqrt(sum / D + 1e-6);
    for (int r = 0; r < rows; r++) {
        out[r] = 0;
        for (int i = 0; i < n; i++) out[r] += m[(size_t)r * D + (size_t)used[i]] * x[used[i]];
        out[r] /= rms;
    }
}

/* Both as they are before the rotation: what the pairs that turn and those that do not add to the
 * score of a query `back` positions after a key. */
static double turned(const double *q, const double *k, double back) {
    double sum = 0;
    for (int p = 0; p < HEAD / 2; p++) {
        if (turn[p] < 1e-20) continue;
        double c = cos(turn[p] * back), s = sin(turn[p] * back);
        sum += (q[2 * p] * c - q[2 * p + 1] * s) * k[2 * p] +
               (q[2 * p] * s + q[2 * p + 1] * c) * k[2 * p + 1];
    }
    return sum / sqrt(HEAD);
}

static double unturned(const double *q, const double *k) {
    double sum = 0;
    for (int p = 0; p < HEAD / 2; p++)
        if (turn[p] < 1e-20) sum += q[2 * p] * k[2 * p] + q[2 * p + 1] * k[2 * p + 1];
    return sum / sqrt(HEAD);
}

/* The layer's projections and the stream in front of it,
 * at a token whose predecessors are known. */
struct layer { float *q, *k, *v, *o; };

static struct layer load_layer(const struct gguf *g, int l) {
    struct layer y;
    float **to[] = { &y.q, &y.k, &y.v, &y.o };
    static const char *const part[] = { "attn_q", "attn_k", "attn_v", "attn_output" };
    for (int i = 0; i < 4; i++) {
        char name[65];
        snprintf(name, sizeof name, "blk.%d.%s.weight", l, part[i]);
        *to[i] = floats(g, name);
    }
    return y;
}

static void free_layer(struct layer *y) { free(y->q); free(y->k); free(y->v); free(y->o); }

static void embed(const float *e, int token, double *x) {
    for (int i = 0; i < D; i++) x[i] = e[(size_t)token * D + (size_t)i];
}

/* Adds what layer 0's head h writes when it sees `token`. */
static void add_seen(const struct layer *y, const float *e, int h, int token, double *x) {
    double seen[D], v[G * HEAD];
    embed(e, token, seen);
    project(y->v, G * HEAD, seen, v);
    for (int i = 0; i < D; i++)
        for (int j = 0; j < HEAD; j++)
            x[i] += y->o[(size_t)i * H * HEAD + (size_t)(h * HEAD + j)] * v[h / (H / G) * HEAD + j];
}

/* Stream after layer 0 of token t[0] with t[1] to t[4] before it. */
static void after_first(const struct layer *y, const float *e, const int t[5], double *x) {
    embed(e, t[0], x);
    for (int h = 0; h < H; h++) add_seen(y, e, h, t[h + 1], x);
}

/* All weight of the head on one token `back` ago, whatever the length. */
static void check_local(const double *q, const double *k, int back, const char *what) {
    double peak = turned(q, k, back), elsewhere = 0;
    assert_true(fabs(unturned(q, k)) < 1e-3);
    for (int d = 0; d < CONTEXT; d++)
        if (d != back) elsewhere += exp(turned(q, k, d) - peak);
    if (!(elsewhere < 1e-8))
        fail_msg("%s: weight %g elsewhere than %d back", what, elsewhere, back);
}

static void induction(const char *type, int lookups, uint64_t seed) {
    struct err err = { 0 };
    struct induction_options o = { .n_ctx = CONTEXT, .n_lookups = lookups, .seed = seed };
    const char *path = temp_path("induction.gguf");
    if (synth_induction(path, &o, recipe_by_name(type), &err)) fail_msg("%s", err.msg);
    struct gguf *g = open_ok(path);
    const struct gguf_kv *heads = gguf_find(g, "needle.induction.retrieval_heads");
    assert_non_null(heads);
    assert_int_equal(heads->count, 2 * (uint64_t)lookups);
    assert_int_equal(int_of(g, "llama.block_count"), lookups + 1);
    read_turns(g);
    float *e = floats(g, "token_embd.weight");
    int n_vocab = (int)need(g, "token_embd.weight")->ne[1];
    struct layer first = load_layer(g, 0);
    struct rand r = { seed + 99 };
    double q[H * HEAD], k[G * HEAD], x[D];
    char what[64];

    embed(e, (int)rand_below(&r, (uint32_t)n_vocab), x);
    project(first.q, H * HEAD, x, q);
    embed(e, (int)rand_below(&r, (uint32_t)n_vocab), x);
    project(first.k, G * HEAD, x, k);
    for (int h = 0; h < H; h++) {
        snprintf(what, sizeof what, "%s, layer 0, head %d", type, h);
        check_local(q + h * HEAD, k + h / 2 * HEAD, h + 1, what);
    }

    /* a text of few different tokens, so that single ones and pairs
     * match often, and one needle of four */
    int token[N_TOKENS], needle[5];
    for (int i = 0; i < N_TOKENS; i++) token[i] = (int)rand_below(&r, (uint32_t)n_vocab);
    for (int i = 0; i < 5; i++) needle[i] = token[i];
    /* what each token adds to a key from each place */
    double (*key)[5][HEAD] = malloc(N_TOKENS * sizeof *key);
    assert_non_null(key);
    for (int l = 1; l <= lookups; l++) {
        int64_t v[2];
        assert_int_equal(gguf_array_int(heads, 2 * (uint64_t)(l - 1), &v[0]), 0);
        assert_int_equal(gguf_array_int(heads, 2 * (uint64_t)(l - 1) + 1, &v[1]), 0);
        assert_true(v[0] == l && v[1] == 0);
        struct layer y = load_layer(g, l);
        double base[D], kb[G * HEAD];
        after_first(&first, e, needle, x);
        project(y.q, H * HEAD, x, q);
        project(y.k, G * HEAD, x, k);
        for (int h = 2; h < 4; h++) {
            snprintf(what, sizeof what, "%s, layer %d, head %d", type, l, h);
            check_local(q + h * HEAD, k + HEAD, h - 1, what);
        }
        /* keys are sums over places, since every stream has the same length:
         * take them apart around one example */
        memcpy(base, x, sizeof base);
        memcpy(kb, k, sizeof kb);
        for (int i = 0; i < N_TOKENS; i++)
            for (int place = 0; place < 5; place++) {
                int t[5] = { needle[0], needle[1], needle[2], needle[3], needle[4] };
                t[place] = token[i];
                after_first(&first, e, t, x);
                project(y.k, G * HEAD, x, k);
                for (int j = 0; j < HEAD; j++) key[i][place][j] = k[j] - kb[j];
            }
        /* Zipf-like text of 128k; the query's four tokens, 3 2 1 0,
         * stand once in it, followed by the answer */
        double sum = 0, hit = 0, at_hit = 0;
        int t[5] = { 5, 6, 7, 8, 9 };                              /* now, and one to four back */
        for (int pos = 0; pos < CONTEXT; pos++) {
            memmove(t + 1, t, 4 * sizeof *t);
            double u = rand_unit(&r), sum_k[HEAD];
            t[0] = (int)(u * u * u * N_TOKENS) % N_TOKENS;
            if (pos >= 50000 && pos < 50004) t[0] = 3 - (pos - 50000);
            bool found = t[1] == 0 && t[2] == 1 && t[3] == 2 && t[4] == 3;      /* by chance, too */
            for (int j = 0; j < HEAD; j++) {
                sum_k[j] = kb[j];
                for (int place = 0; place < 5; place++) sum_k[j] += key[t[place]][place][j];
            }
            double s = exp(unturned(q, sum_k) + turned(q, sum_k, CONTEXT - pos) - 80);
            sum += s;
            if (found) { hit += s; at_hit = log(s) + 80; }
        }
        if (!(hit / sum > 0.99))
            fail_msg("%s, layer %d: %g of the weight on the answer", type, l, hit / sum);
        if (!(fabs(at_hit - 80) < 9))
            fail_msg("%s, layer %d: the match scores %g, want about 80", type, l, at_hit);
        free_layer(&y);
    }
    free(key);
    free_layer(&first);
    free(e);
    gguf_close(g);
}

static void heads_at_128k(void **state) {
    (void)state;
    induction("F16", 2, 1);
    induction("Q8_0", 2, 2);
}

static void four_lookups(void **state) {
    (void)state;
    induction("Q8_0", 4, 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(true_dimensions), cmocka_unit_test(sane_weights_of_every_type),
        cmocka_unit_test(seeds), cmocka_unit_test(heads_at_128k), cmocka_unit_test(four_lookups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
