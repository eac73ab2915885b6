#include "tests/common/tiny_file.h"
#include <stdio.h>
#include <stdlib.h>
#include "base/rand.h"
#include "tests/common/temp.h"

static void must(int rc, const struct err *err) {
    if (!rc) return;
    fprintf(stderr, "%s\n", err->msg);
    abort();
}

struct tiny_file tiny_file_of(const char *path) {
    struct tiny_file t = { NULL, NULL };
    struct err err;
    must(gguf_open(&t.file, path, NULL, &err), &err);
    must(model_open(&t.model, t.file, &(struct model_options){ .kernels = kernels_pick(NULL) },
                    &err), &err);
    return t;
}

struct tiny_file tiny_file_open(const char *name, int n_layers, uint64_t seed) {
    const char *path = temp_path(name);
    tiny_write(path, &(struct tiny){ .type = DT_F32, .n_layers = n_layers, .n_embd = 64,
                                     .n_ff = 64, .n_heads = 4, .n_kv_heads = 2, .n_vocab = 101,
                                     .seed = seed });
    return tiny_file_of(path);
}

void tiny_file_close(struct tiny_file *t) {
    model_close(t->model);
    gguf_close(t->file);
    *t = (struct tiny_file){ NULL, NULL };
}

void tiny_ids(int32_t *ids, int n, int n_vocab, uint64_t seed) {
    struct rand r = { seed };
    for (int i = 0; i < n; i++) ids[i] = (int32_t)(rand_u64(&r) % (uint64_t)n_vocab);
}

struct session *tiny_talk(const struct tiny_file *t, const char *attn, int n_ctx, int batch) {
    struct session *s = NULL;
    struct err err;
    const struct session_options o = { .n_ctx = n_ctx, .batch = batch, .type_k = DT_F16,
                                       .type_v = DT_F16, .attn = attn };
    must(session_open(&s, t->model, &o, &err), &err);
    return s;
}

size_t tiny_logit_bytes(const struct tiny_file *t) {
    return (size_t)t->model->c.n_vocab * sizeof(float);
}
