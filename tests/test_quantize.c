/* bin/quantize, run as users run it: on small models, on what is wrong,
 * and its output read back. */
#include <libgen.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/file.h"
#include "model/gguf_write.h"
#include "tests/common/check.h"
#include "tests/common/temp.h"
#include "tests/common/tiny.h"
#include "tools/common/recipe.h"

#define COUNT(a) ((int)(sizeof (a) / sizeof *(a)))

static char tool[PATH_MAX], in[512], out[512], said[4096], printed[256];

static void keep(char to[512], const char *name) { snprintf(to, 512, "%s", temp_path(name)); }

static void slurp(const char *path, char *to, size_t size) {
    char *text = NULL;
    size_t n;
    struct err err;
    assert_int_equal(file_read(path, &text, &n, &err), 0);
    snprintf(to, size, "%s", text);
    free(text);
}

/* Runs the tool; returns its exit status, fills said (stderr) and printed (stdout). */
static int run(const char *args) {
    char cmd[6000], e[512], o[512];
    keep(e, "stderr"), keep(o, "stdout");
    snprintf(cmd, sizeof cmd, "'%s' %s >'%s' 2>'%s'", tool, args, o, e);
    int status = system(cmd);
    slurp(e, said, sizeof said);
    slurp(o, printed, sizeof printed);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int quantize(const char *type, const char *flags) {
    char args[2000];
    snprintf(args, sizeof args, "'%s' '%s' %s %s", in, out, type, flags);
    return run(args);
}

static int lines(const char *s) {
    int n = 0;
    for (; *s; s++) n += *s == '\n';
    return n;
}

static struct gguf *open_model(const char *path) {
    struct gguf *g = NULL;
    struct err err;
    if (gguf_open(&g, path, NULL, &err)) fail_msg("%s", err.msg);
    return g;
}

static int type_in(const struct gguf *g, const char *name) {
    const struct gguf_tensor *t = gguf_tensor(g, name);
    assert_non_null(t);
    return t->type;
}

/* Relative error of a tensor against the one it came from. */
static double error_of(const struct gguf_tensor *a, const struct gguf_tensor *b) {
    size_t n = (size_t)(a->ne[0] * a->ne[1]);
    float *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y);
    dequant_row((enum dtype)a->type, a->data, x, n);
    dequant_row((enum dtype)b->type, b->data, y, n);
    double err = 0, all = 0;
    for (size_t i = 0; i < n; i++)
        err += pow((double)x[i] - (double)y[i], 2), all += pow((double)x[i], 2);
    free(x), free(y);
    return sqrt(err / all);
}

/* More bits, less error: what Gaussian weights may lose. */
static double allowed(int type) {
    switch (type) {
    case DT_F32: return 0;
    case DT_F16: return 1e-3;
    case DT_BF16: return 4e-3;
    case DT_Q8_0: return 0.007;
    case DT_Q6_K: return 0.018;
    case DT_Q5_0: case DT_Q5_1: case DT_Q5_K: return 0.043;
    case DT_Q3_K: return 0.16;
    case DT_Q2_K: return 0.29;
    default: return 0.09;
    }
}

static bool same_string(struct gguf_str a, struct gguf_str b) {
    return a.n == b.n && !memcmp(a.p, b.p, a.n);
}

static bool same_value(const struct gguf_kv *a, const struct gguf_kv *b) {
    if (!b || a->type != b->type || a->item != b->item || a->count != b->count) return false;
    bool strings = a->type == GGUF_STRING || (a->type == GGUF_ARRAY && a->item == GGUF_STRING);
    const uint8_t *at = NULL, *bt = NULL;
    for (uint64_t i = 0; i < a->count; i++) {
        int64_t x = 0, y = 0;
        double f = 0, h = 0;
        if (strings && !same_string(gguf_next_string(a, &at), gguf_next_string(b, &bt)))
            return false;
        if (strings || a->type != GGUF_ARRAY) continue;
        if (gguf_array_int(a, i, &x) != gguf_array_int(b, i, &y) || x != y) return false;
        if (gguf_array_float(a, i, &f) != gguf_array_float(b, i, &h) || f != h) return false;
    }
    static const size_t bytes[] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };    /* by gguf_type */
    return !memcmp(a->value, b->value, bytes[a->type]);
}

static void write_tiny(const char *path, enum dtype type, int embd, int ff, bool is_tied) {
    struct tiny t = { .type = type, .n_layers = 3, .n_embd = embd, .n_ff = ff, .n_heads = 4,
                      .n_kv_heads = 1, .n_vocab = 320, .tied = is_tied, .seed = 11 };
    tiny_write(path, &t);
}

/* Every recipe: each tensor has the type it should, its values, and the metadata came along. */
static void test_every_recipe(void **state) {
    (void)state;
    static const char *const names[] = { "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S",
                                         "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0",
                                         "IQ4_NL", "IQ4_XS", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K" };
    write_tiny(in, DT_F32, 256, 512, false);
    struct gguf *a = open_model(in);
    struct recipe_model m;
    struct err err;
    assert_int_equal(recipe_model(&m, a, &err), 0);
    assert_int_equal(m.n_layers, 3);
    assert_int_equal(m.n_gqa, 4);
    assert_false(m.tied);
    for (int i = 0; i < COUNT(names); i++) {
        const struct recipe *r = recipe_by_name(names[i]);
        if (quantize(names[i], "-t 2")) fail_msg("%s: %s", names[i], said);
        assert_string_equal(printed, "");
        struct gguf *b = open_model(out);
        int64_t v;
        assert_int_equal(gguf_get_int(b, "general.file_type", 0, 99, &v, &err), 1);
        assert_int_equal(v, r->file_type);
        assert_int_equal(gguf_get_int(b, "general.quantization_version", 0, 99, &v, &err), 1);
        assert_int_equal(v, 2);
        for (int k = 0; k < gguf_n_kv(a); k++) {
            const struct gguf_kv *kv = gguf_kv_at(a, k);
            char key[128];
            snprintf(key, sizeof key, "%.*s", (int)kv->key.n, kv->key.p);
            if (strcmp(key, "general.file_type") && strcmp(key, "general.quantization_version") &&
                !same_value(kv, gguf_find(b, key)))
                fail_msg("%s: key %s was not copied", names[i], key);
        }
        assert_int_equal(gguf_n_tensors(a), gguf_n_tensors(b));
        for (int k = 0; k < gguf_n_tensors(a); k++) {
            const struct gguf_tensor *x = gguf_tensor_at(a, k), *y = gguf_tensor_at(b, k);
            int want = recipe_wants(x) ? (int)recipe_type(r, &m, x->name, x->ne[0]) : x->type;
            assert_string_equal(x->name, y->name);
            assert_memory_equal(x->ne, y->ne, sizeof x->ne);
            if (y->type != want)
                fail_msg("%s: %s is %s, wanted %s", names[i], x->name, dtype_name(y->type),
                         dtype_name(want));
            if (error_of(x, y) > allowed(y->type))
                fail_msg("%s: %s as %s: error %g", names[i], x->name, dtype_name(y->type),
                         error_of(x, y));
        }
        gguf_close(b);
    }
    gguf_close(a);
}

static void test_odd_columns(void **state) {
    (void)state;
    write_tiny(in, DT_F16, 288, 416, true);
    assert_int_equal(quantize("Q4_K_M", ""), 0);
    assert_non_null(strstr(said, "no multiple of the block"));
    struct gguf *g = open_model(out);
    assert_int_equal(type_in(g, "token_embd.weight"), DT_Q8_0);
    assert_int_equal(type_in(g, "blk.0.attn_q.weight"), DT_Q5_0);
    assert_int_equal(type_in(g, "blk.2.ffn_down.weight"), DT_Q8_0);
    assert_int_equal(type_in(g, "blk.0.attn_norm.weight"), DT_F32);
    gguf_close(g);
}

static void test_overrides(void **state) {
    (void)state;
    write_tiny(in, DT_BF16, 256, 512, false);
    assert_int_equal(quantize("q4_k", "--pure"), 0);
    struct gguf *g = open_model(out);
    assert_int_equal(type_in(g, "output.weight"), DT_Q4_K);
    assert_int_equal(type_in(g, "blk.2.ffn_down.weight"), DT_Q4_K);
    gguf_close(g);
    assert_int_equal(quantize("Q4_0", "--output-tensor-type q8_0 --token-embedding-type BF16 -v"),
                     0);
    assert_non_null(strstr(said, "blk.2.ffn_down.weight"));
    g = open_model(out);
    assert_int_equal(type_in(g, "output.weight"), DT_Q8_0);
    assert_int_equal(type_in(g, "token_embd.weight"), DT_BF16);
    assert_int_equal(type_in(g, "blk.2.ffn_down.weight"), DT_Q4_0);
    gguf_close(g);
}

/* The bytes must not depend on the number of threads, nor the
 * values on being made in several goes. */
static void test_threads(void **state) {
    (void)state;
    char *a = NULL, *b = NULL;
    size_t n, m;
    struct err err;
    struct tiny t = { .type = DT_F16, .n_layers = 1, .n_embd = 512, .n_ff = 768, .n_heads = 4,
                      .n_kv_heads = 2, .n_vocab = 3000, .seed = 12 };
    tiny_write(in, &t);
    assert_int_equal(quantize("Q5_K_M", "-t 1"), 0);
    assert_int_equal(file_read(out, &a, &n, &err), 0);
    assert_int_equal(quantize("Q5_K_M", "-t 3"), 0);
    assert_int_equal(file_read(out, &b, &m, &err), 0);
    assert_int_equal(n, m);
    assert_memory_equal(a, b, n);
    free(a), free(b);
    struct gguf *from = open_model(in), *to = open_model(out);
    assert_true(error_of(gguf_tensor(from, "output.weight"), gguf_tensor(to, "output.weight")) <
                allowed(DT_Q6_K));
    gguf_close(from), gguf_close(to);
}

static void test_requantize(void **state) {
    (void)state;
    write_tiny(in, DT_Q8_0, 256, 512, false);
    unlink(out);
    assert_int_equal(quantize("Q4_0", ""), 1);
    assert_non_null(strstr(said, "--allow-requantize"));
    assert_int_equal(access(out, F_OK), -1);
    assert_int_equal(quantize("Q4_0", "--allow-requantize"), 0);
    struct gguf *g = open_model(out);
    assert_int_equal(type_in(g, "blk.0.attn_q.weight"), DT_Q4_0);
    gguf_close(g);
    assert_int_equal(quantize("Q8_0", ""), 0);      /* nothing to change: no permission needed */
}

/* The input under any of its names is not for writing. */
static void test_same_file(void **state) {
    (void)state;
    char *before = NULL, *after = NULL, args[1200], alias[512];
    size_t n, m;
    struct err err;
    write_tiny(in, DT_F16, 256, 256, false);
    assert_int_equal(file_read(in, &before, &n, &err), 0);
    for (int kind = 0; kind < 3; kind++) {
        keep(alias, "alias.gguf");
        unlink(alias);
        if (kind == 0) snprintf(alias, sizeof alias, "%s", in);
        else assert_int_equal(kind == 1 ? symlink(in, alias) : link(in, alias), 0);
        snprintf(args, sizeof args, "'%s' '%s' Q8_0", in, alias);
        assert_int_equal(run(args), 1);
        assert_int_equal(lines(said), 1);
        assert_non_null(strstr(said, "input itself"));
    }
    assert_int_equal(file_read(in, &after, &m, &err), 0);
    assert_int_equal(n, m);
    assert_memory_equal(before, after, n);
    free(before), free(after);
}

/* Weights no quantised type can carry. */
static void test_bad_weights(void **state) {
    (void)state;
    static const struct { float value; const char *type; int status; } c[] = {
        { NAN, "Q4_0", 1 }, { INFINITY, "Q6_K", 1 }, { -INFINITY, "F16", 1 }, { 1e6f, "F16", 1 },
        { 1e6f, "BF16", 0 }, { 1e6f, "Q4_K", 1 }, { 65504, "Q4_K", 0 }, { 1e-30f, "Q4_K", 0 },
    };
    for (int i = 0; i < COUNT(c); i++) {
        float x[2 * 256] = { 0.5f };
        uint64_t ne[2] = { 256, 2 };
        struct gguf_writer *w = NULL;
        struct err err;
        x[300] = c[i].value;
        assert_int_equal(gguf_write_open(&w, in, &err), 0);
        gguf_put_string(w, "general.architecture", "llama");
        gguf_declare(w, "blk.0.attn_q.weight", DT_F32, 2, ne);
        assert_int_equal(gguf_write_begin(w, &err), 0);
        assert_int_equal(gguf_write_data(w, x, sizeof x, &err), 0);
        assert_int_equal(gguf_write_close(w, &err), 0);
        unlink(out);
        if (quantize(c[i].type, "") != c[i].status)
            fail_msg("%g to %s: %s", (double)c[i].value, c[i].type, said);
        assert_int_equal(access(out, F_OK), c[i].status ? -1 : 0);
        if (c[i].status) assert_non_null(strstr(said, "'blk.0.attn_q.weight', row 1"));
    }
}

/* A model in two files becomes one, and says nothing of a split;
 * neither part may be overwritten. */
static void test_split(void **state) {
    (void)state;
    static const char *const tensors[2] = { "blk.0.attn_q.weight", "output.weight" };
    char first[512], second[512];
    keep(first, "two-00001-of-00002.gguf"), keep(second, "two-00002-of-00002.gguf");
    float x[256];
    uint64_t seed = 2, ne[2] = { 256, 1 };
    for (int i = 0; i < 256; i++) x[i] = (float)noise_normal(&seed);
    for (int part = 0; part < 2; part++) {
        struct gguf_writer *w = NULL;
        struct err err;
        assert_int_equal(gguf_write_open(&w, part ? second : first, &err), 0);
        if (!part) gguf_put_string(w, "general.architecture", "llama");
        gguf_put_int(w, "split.no", GGUF_U16, part);
        gguf_put_int(w, "split.count", GGUF_U16, 2);
        gguf_put_int(w, "split.tensors.count", GGUF_I32, 2);
        gguf_declare(w, tensors[part], DT_F32, 2, ne);
        assert_int_equal(gguf_write_begin(w, &err), 0);
        assert_int_equal(gguf_write_data(w, x, sizeof x, &err), 0);
        assert_int_equal(gguf_write_close(w, &err), 0);
    }
    char args[1200];
    snprintf(args, sizeof args, "'%s' '%s' Q8_0", first, second);
    assert_int_equal(run(args), 1);
    assert_non_null(strstr(said, "input itself"));
    snprintf(args, sizeof args, "'%s' '%s' Q8_0", first, out);
    if (run(args)) fail_msg("%s", said);
    struct gguf *g = open_model(out);
    assert_int_equal(gguf_n_tensors(g), 2);
    for (int i = 0; i < 2; i++) assert_int_equal(type_in(g, tensors[i]), DT_Q8_0);
    assert_null(gguf_find(g, "split.count"));
    assert_null(gguf_find(g, "split.no"));
    assert_non_null(gguf_find(g, "general.architecture"));
    gguf_close(g);
}

static void test_wrong_use(void **state) {
    (void)state;
    static const struct { const char *args; int status; const char *says; } c[] = {
        { "", 2, "wanted IN.gguf OUT.gguf TYPE" }, { "a b", 2, "got 2 of 3" },
        { "a b Q4_K_M c", 2, "c" }, { "a b Q9", 2, "'Q9'" },
        { "a b Q4_0 --frobnicate", 2, "frobnicate" }, { "a b Q4_0 -t 0", 2, "-t" },
        { "a b Q4_0 --output-tensor-type Q4_K_M", 2, "'Q4_K_M'" },
        { "a b Q4_0 --token-embedding-type", 2, "token" },
        { "/nonexistent/a b Q4_0", 1, "/nonexistent/a" }, { "/dev/null b Q4_0", 1, "/dev/null" },
    };
    for (int i = 0; i < COUNT(c); i++) {
        int status = run(c[i].args);
        if (status != c[i].status || !strstr(said, c[i].says) || lines(said) != 1 || *printed)
            fail_msg("%s: status %d, said %s", c[i].args, status, said);
    }
    char args[1200];
    write_tiny(in, DT_F16, 256, 256, false);
    snprintf(args, sizeof args, "'%s' /nonexistent/b Q4_0", in);
    assert_int_equal(run(args), 1);
    assert_non_null(strstr(said, "/nonexistent/b"));
    snprintf(args, sizeof args, "'%s' /tmp Q4_0", in);
    assert_int_equal(run(args), 1);
    assert_int_equal(run("--help"), 0);
    assert_string_equal(said, "");
    assert_non_null(strstr(printed, "usage: bin/quantize"));
}

int main(void) {
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0) return 1;
    self[n] = 0;
    /* build/MODE/tests/.. */
    snprintf(tool, sizeof tool, "%.4000s/tools/quantize", dirname(dirname(self)));
    keep(in, "in.gguf"), keep(out, "out.gguf");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_recipe), cmocka_unit_test(test_odd_columns),
        cmocka_unit_test(test_overrides), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_requantize), cmocka_unit_test(test_same_file),
        cmocka_unit_test(test_bad_weights), cmocka_unit_test(test_split),
        cmocka_unit_test(test_wrong_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
