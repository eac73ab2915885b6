/* Damaged files through the whole load path: reader, configuration, weights, tokenizer, a session
 * and a few tokens. Every one ends in a one-line error or runs; `make MODE=debug` watches the
 * memory meanwhile. */
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "model/gguf.h"
#include "model/model.h"
#include "model/session.h"
#include "tests/common/temp.h"
#include "tokenizer/tokenizer.h"
#include "base/rand.h"
#include "tools/common/synth_random.h"
#include <cmocka.h>           /* last: it has a macro called fail */

/* The file under test lives in memory; `whole` is its undamaged copy. */
static struct { int fd; char path[64]; uint8_t *whole; size_t n, head; int ran, refused; } f;

static void load_sample(const char *shape, enum synth_tokens tokens) {
    struct err err = { 0 };
    struct synth_shape s = *shape_find(shape);
    const char *path = temp_path("whole.gguf");
    s.tokens = tokens;
    s.n_vocab = 1024, s.n_layers = 2, s.n_embd = 64, s.n_ff = 96,
        s.n_heads = 4, s.n_kv_heads = 2, s.head_dim = 32;
    if (synth_random(path, &s, recipe_by_name("Q8_0"), 5, &err)) fail_msg("%s", err.msg);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    f.n = (size_t)ftell(file);
    rewind(file);
    free(f.whole);
    assert_non_null(f.whole = malloc(f.n));
    assert_int_equal(fread(f.whole, 1, f.n, file), f.n);
    fclose(file);
    struct gguf *g;
    assert_int_equal(gguf_open(&g, path, NULL, &err), 0);
    f.head = f.n - (size_t)gguf_tensor_bytes(g);               /* about: padding counts as header */
    gguf_close(g);
    f.ran = f.refused = 0;
}

static int set_up(void **state) {
    (void)state;
    omp_set_num_threads(1);
    f.fd = memfd_create("damaged", MFD_CLOEXEC);
    snprintf(f.path, sizeof f.path, "/proc/self/fd/%d", f.fd);
    return f.fd < 0;
}

static int tear_down(void **state) {
    (void)state;
    free(f.whole);
    return close(f.fd);
}

static int run(struct gguf **g, struct model **m, struct tokenizer **t, struct session **s,
               struct err *err) {
    static const char text[] = "Hello <s>, w\xc3\xb6rld 12";
    const struct session_options so = { .n_ctx = 64, .batch = 8, .type_k = DT_F16,
                                        .type_v = DT_F16 };
    int32_t *ids = NULL;
    if (gguf_open(g, f.path, NULL, err) || model_open(m, *g, NULL, err) ||
        tok_open(t, *g, NULL, err))
        return -1;
    int n = tok_encode(*t, text, sizeof text - 1, TOK_BOS | TOK_SPECIAL, &ids, err);
    if (n < 0) return -1;
    int rc = session_open(s, *m, &so, err) || session_eval(*s, ids, n < 12 ? n : 12, err) ? -1 : 0;
    if (!rc && n) assert_non_null(session_logits(*s));
    char *out = malloc(tok_max_piece(*t) + 16);
    assert_non_null(out);
    struct tok_stream stream = {0};
    for (int i = 0; i < n; i++) {
        assert_in_range(ids[i], 0, tok_n(*t) - 1);
        tok_decode(*t, &stream, ids[i], true, out);
    }
    free(out);
    free(ids);
    return rc;
}

/* Loads what the file holds now, as far as it goes. */
static void try_file(const char *what) {
    struct gguf *g = NULL;
    struct model *m = NULL;
    struct tokenizer *t = NULL;
    struct session *s = NULL;
    struct err err = { 0 };
    if (run(&g, &m, &t, &s, &err)) {
        f.refused++;
        if (!err.msg[0]) fail_msg("%s: refused without a word", what);
        for (const char *p = err.msg; *p; p++)
            if ((unsigned char)*p < ' ')
                fail_msg("%s: control character %d in \"%s\"", what, *p, err.msg);
    } else f.ran++;
    session_close(s);
    tok_close(t);
    model_close(m);
    gguf_close(g);
}

static void write_bytes(const uint8_t *p, size_t n, size_t at) {
    assert_int_equal(pwrite(f.fd, p, n, (off_t)at), n);
}

static void restore(size_t at, size_t n) {
    if (at > f.n) at = f.n;
    if (n > f.n - at) n = f.n - at;
    write_bytes(f.whole + at, n, at);
}

/* Puts extreme values over the bytes at `at`, one after the other. */
static void extremes(size_t at, size_t width, const char *what) {
    static const uint64_t values[] = { 0, 1, 2, 3, 5, 33, 127, 1000, 65535, INT32_MAX,
                                       UINT32_MAX, INT64_MAX, UINT64_MAX, 0x7f800000,
                                       0x7fc00000, 0xff800000, (uint64_t)1 << 60 };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        uint8_t le[8];
        for (int b = 0; b < 8; b++) le[b] = (uint8_t)(values[i] >> 8 * b);
        if (at + width > f.n) return;
        write_bytes(le, width, at);
        try_file(what);
        restore(at, width);
    }
}

static size_t find(const char *name, size_t from) {
    uint8_t *p = memmem(f.whole + from, f.n - from, name, strlen(name));
    return p ? (size_t)(p - f.whole) + strlen(name) : 0;
}

static void whole_file(void) {
    assert_int_equal(ftruncate(f.fd, (off_t)f.n), 0);
    restore(0, f.n);
    try_file("the file as it was");
    assert_int_equal(f.ran, 1);
}

/* Every key's type, length and value; every tensor's dimensions, type and offset. */
static void every_field(const char *shape, enum synth_tokens tokens) {
    struct err err;
    struct gguf *g;
    load_sample(shape, tokens);
    whole_file();
    assert_int_equal(gguf_open(&g, f.path, NULL, &err), 0);
    char name[128];
    static char keys[64][128], tensors[64][128];
    int n_keys = gguf_n_kv(g), n_tensors = gguf_n_tensors(g);
    assert_true(n_keys <= 64 && n_tensors <= 64);
    for (int i = 0; i < n_keys; i++) {
        const struct gguf_kv *kv = gguf_kv_at(g, i);
        snprintf(keys[i], sizeof keys[i], "%.*s", (int)kv->key.n, kv->key.p);
    }
    for (int i = 0; i < n_tensors; i++)
        snprintf(tensors[i], sizeof tensors[i], "%s", gguf_tensor_at(g, i)->name);
    gguf_close(g);
    for (int i = 0; i < n_keys; i++) {
        size_t at = find(keys[i], 0);
        assert_true(at > 0);
        extremes(at, 4, keys[i]);                              /* type */
        extremes(at + 4, 4, keys[i]);                          /* number, length or type of items */
        extremes(at + 4, 8, keys[i]);
        extremes(at + 8, 8, keys[i]);                          /* the number of items */
        extremes(at + 16, 8, keys[i]);                         /* the first item */
        snprintf(name, sizeof name, "%s is gone", keys[i]);
        write_bytes((const uint8_t *)"?", 1, at - 1);
        try_file(name);
        restore(at - 1, 1);
    }
    for (int i = 0; i < n_tensors; i++) {
        size_t at = find(tensors[i], 0);
        int dims = f.whole[at];
        assert_true(at > 0 && dims >= 1 && dims <= 2);
        extremes(at, 4, tensors[i]);
        for (int d = 0; d <= dims; d++)
            extremes(at + 4 + 8 * (size_t)d, d < dims ? 8 : 4, tensors[i]);
        extremes(at + 8 + 8 * (size_t)dims, 8, tensors[i]);
        write_bytes((const uint8_t *)"?", 1, at - 1);
        try_file(tensors[i]);
        restore(at - 1, 1);
    }
    if (f.refused < 500 || f.ran < 100) fail_msg("%d ran, %d were refused", f.ran, f.refused);
}

static void fields_sentencepiece(void **state) {
    (void)state;
    every_field("llama-3.1-8b", TOKENS_SPM);
}
static void fields_bpe(void **state) { (void)state; every_field("llama-3.1-8b", TOKENS_LLAMA3); }

static void flips(const char *shape, enum synth_tokens tokens, uint64_t seed) {
    struct rand r = { seed };
    load_sample(shape, tokens);
    whole_file();
    for (int round = 0; round < 1200; round++) {
        size_t at[4];
        int n = 1 + (int)rand_below(&r, 4);
        for (int i = 0; i < n; i++) {
            /* Some in the weights as well. */
            at[i] = rand_below(&r, (uint32_t)(i % 4 == 3 ? f.n : f.head));
            uint8_t byte = f.whole[at[i]] ^ (uint8_t)(1 << rand_below(&r, 8));
            write_bytes(&byte, 1, at[i]);
        }
        try_file("flipped bits");
        for (int i = 0; i < n; i++) restore(at[i], 1);
    }
    if (f.refused < 100 || f.ran < 100) fail_msg("%d ran, %d were refused", f.ran, f.refused);
}

static void flips_sentencepiece(void **state) { (void)state; flips("llama-3.1-8b", TOKENS_SPM, 1); }
static void flips_bpe(void **state) { (void)state; flips("llama-3.1-8b", TOKENS_LLAMA3, 2); }

static void truncated(void **state) {
    (void)state;
    struct rand r = { 3 };
    load_sample("llama-3.1-8b", TOKENS_LLAMA3);
    whole_file();
    for (int round = 0; round < 300; round++) {
        size_t n = 1 + rand_below(&r, (uint32_t)(round % 2 ? f.head : f.n - 32));
        assert_int_equal(ftruncate(f.fd, (off_t)n), 0);
        try_file("a truncated file");
        assert_int_equal(ftruncate(f.fd, (off_t)f.n), 0);
        restore(n, f.n - n);
    }
    assert_int_equal(f.ran, 1);                                /* only the whole one */
    assert_int_equal(f.refused, 300);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_sentencepiece), cmocka_unit_test(fields_bpe),
        cmocka_unit_test(flips_sentencepiece), cmocka_unit_test(flips_bpe),
        cmocka_unit_test(truncated),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
