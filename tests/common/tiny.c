#include "tests/common/tiny.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/rand.h"
#include "model/gguf_write.h"

static void die(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

uint64_t noise(uint64_t *s) {
    struct rand r = { *s };
    const uint64_t x = rand_u64(&r);
    *s = r.s;
    return x;
}

double noise_normal(uint64_t *s) {
    const double u = ((double)(noise(s) >> 11) + 0.5) * 0x1p-53,
                 v = (double)(noise(s) >> 11) * 0x1p-53;
    return sqrt(-2 * log(u)) * cos(2 * M_PI * v);
}

struct out {
    struct gguf_writer *w;
    const struct tiny *t;
    uint64_t rng;
    struct {
        char name[64];
        enum dtype type;
        uint64_t ne[2];
        int dims;
        double std, mean;
    } item[256];
    int n;
};

static void declare(struct out *o, int layer, const char *name, enum dtype type, int dims,
                    uint64_t ne0, uint64_t ne1, double mean, double std) {
    if (o->n == 256) die(name, "too many tensors");
    if (layer < 0) snprintf(o->item[o->n].name, 64, "%s", name);
    else snprintf(o->item[o->n].name, 64, "blk.%d.%s", layer, name);
    o->item[o->n].type = type, o->item[o->n].dims = dims,
    o->item[o->n].mean = mean, o->item[o->n].std = std;
    o->item[o->n].ne[0] = ne0, o->item[o->n].ne[1] = ne1;
    gguf_declare(o->w, o->item[o->n].name, type, dims, o->item[o->n].ne);
    o->n++;
}

static void write_data(struct out *o, struct err *err) {
    for (int i = 0; i < o->n; i++) {
        const size_t cols = o->item[i].ne[0], rows = o->item[i].dims == 2 ? o->item[i].ne[1] : 1;
        const size_t bytes = dtype_row_bytes(o->item[i].type, cols);
        float *x = malloc(cols * sizeof *x);
        void *q = malloc(bytes);
        for (size_t r = 0; r < rows; r++) {
            for (size_t c = 0; c < cols; c++)
                x[c] = (float)(o->item[i].mean + o->item[i].std * noise_normal(&o->rng));
            if (!strcmp(o->item[i].name, "rope_freqs.weight"))
                for (size_t c = 0; c < cols; c++) x[c] = c % 3 == 2 ? 1e30f : 1 + (float)c / 4;
            if (o->item[i].type == DT_F32) memcpy(q, x, bytes);
            else quant_row(o->item[i].type, x, q, cols);
            if (gguf_write_data(o->w, q, bytes, err)) die(o->item[i].name, err->msg);
        }
        free(x);
        free(q);
    }
}

static const char *key_of(const char *arch, const char *key) {
    static char buf[96];
    snprintf(buf, sizeof buf, "%s.%s", arch, key);
    return buf;
}

void tiny_write(const char *path, const struct tiny *t) {
    struct err err;
    struct out *o = calloc(1, sizeof *o);
    o->t = t, o->rng = t->seed;
    const int hd = t->head_dim ? t->head_dim : t->n_embd / t->n_heads,
              vd = t->v_dim ? t->v_dim : hd;
    const int q = t->n_heads * hd, k = t->n_kv_heads * hd, v = t->n_kv_heads * vd,
              a = t->n_heads * vd, d = t->n_embd;
    if (gguf_write_open(&o->w, path, &err)) die(path, err.msg);
    const char *arch = t->arch ? t->arch : "llama";
    gguf_put_string(o->w, "general.architecture", arch);
    gguf_put_string(o->w, "general.name", "tiny");
    const struct { const char *key; int value; } ints[] = {
        { "block_count", t->n_layers }, { "embedding_length", d },
        { "feed_forward_length", t->n_ff }, { "attention.head_count", t->n_heads },
        { "attention.head_count_kv", t->n_kv_heads }, { "context_length", 4096 } };
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++)
        gguf_put_int(o->w, key_of(arch, ints[i].key), GGUF_U32, ints[i].value);
    if (t->head_dim) gguf_put_int(o->w, key_of(arch, "attention.key_length"), GGUF_U32, hd);
    if (t->head_dim) gguf_put_int(o->w, key_of(arch, "attention.value_length"), GGUF_U32, vd);
    if (t->n_rot) gguf_put_int(o->w, key_of(arch, "rope.dimension_count"), GGUF_U32, t->n_rot);
    gguf_put_float(o->w, key_of(arch, "attention.layer_norm_rms_epsilon"), 1e-5);
    gguf_put_float(o->w, key_of(arch, "rope.freq_base"), 10000);
    if (t->scaling) {
        gguf_put_string(o->w, key_of(arch, "rope.scaling.type"), t->scaling);
        gguf_put_float(o->w, key_of(arch, "rope.scaling.factor"), (double)t->factor);
        gguf_put_int(o->w, key_of(arch, "rope.scaling.original_context_length"), GGUF_U32, 1024);
    }
    declare(o, -1, "token_embd.weight", t->type, 2, (uint64_t)d, (uint64_t)t->n_vocab, 0,
            t->tied ? 1.5 / sqrt(d) : 1);
    declare(o, -1, "output_norm.weight", DT_F32, 1, (uint64_t)d, 1, 1, 0.1);
    if (!t->tied)
        declare(o, -1, "output.weight", t->type, 2, (uint64_t)d, (uint64_t)t->n_vocab, 0,
                1.5 / sqrt(d));
    if (t->rope_factors)
        declare(o, -1, "rope_freqs.weight", DT_F32, 1, (uint64_t)(t->n_rot ? t->n_rot : hd) / 2,
                1, 1, 0);
    for (int l = 0; l < t->n_layers; l++) {
        declare(o, l, "attn_norm.weight", DT_F32, 1, (uint64_t)d, 1, 1, 0.1);
        declare(o, l, "ffn_norm.weight", DT_F32, 1, (uint64_t)d, 1, 1, 0.1);
        declare(o, l, "attn_q.weight", t->type, 2, (uint64_t)d, (uint64_t)q, 0, 1.5 / sqrt(d));
        declare(o, l, "attn_k.weight", t->type, 2, (uint64_t)d, (uint64_t)k, 0, 1.5 / sqrt(d));
        declare(o, l, "attn_v.weight", t->type, 2, (uint64_t)d, (uint64_t)v, 0, 1 / sqrt(d));
        declare(o, l, "attn_output.weight", t->type, 2, (uint64_t)a, (uint64_t)d, 0, 1 / sqrt(a));
        declare(o, l, "ffn_gate.weight", t->type, 2, (uint64_t)d, (uint64_t)t->n_ff, 0,
                1 / sqrt(d));
        declare(o, l, "ffn_up.weight", t->type, 2, (uint64_t)d, (uint64_t)t->n_ff, 0, 1 / sqrt(d));
        declare(o, l, "ffn_down.weight", t->type, 2, (uint64_t)t->n_ff, (uint64_t)d, 0,
                1 / sqrt(t->n_ff));
        if (!t->biases) continue;
        declare(o, l, "attn_q.bias", DT_F32, 1, (uint64_t)q, 1, 0, 0.3);
        declare(o, l, "attn_k.bias", DT_F32, 1, (uint64_t)k, 1, 0, 0.3);
        declare(o, l, "attn_v.bias", DT_F32, 1, (uint64_t)v, 1, 0, 0.3);
        declare(o, l, "attn_output.bias", DT_F32, 1, (uint64_t)d, 1, 0, 0.3);
        declare(o, l, "ffn_gate.bias", DT_F32, 1, (uint64_t)t->n_ff, 1, 0, 0.3);
        declare(o, l, "ffn_up.bias", DT_F32, 1, (uint64_t)t->n_ff, 1, 0, 0.3);
        declare(o, l, "ffn_down.bias", DT_F32, 1, (uint64_t)d, 1, 0, 0.3);
    }
    if (gguf_write_begin(o->w, &err)) die(path, err.msg);
    write_data(o, &err);
    if (gguf_write_close(o->w, &err)) die(path, err.msg);
    free(o);
}
