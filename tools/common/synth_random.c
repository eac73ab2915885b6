#include "tools/common/synth_random.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/rand.h"
#include "tools/common/synth_type.h"
#include "tools/common/synth_vocab.h"

/* Rows are put together from runs of blocks of a quantised pool, each run from a random place in
 * it: as random as fresh numbers for any measurement, at the speed of copying. */
enum { POOL_VALUES = 1 << 19, RUN_VALUES = 256, WRITE_BYTES = 1 << 22 };

struct pool { enum dtype type; float sigma; uint8_t *data; };

struct maker {
    const struct synth_shape *s;
    const struct recipe *recipe;
    struct recipe_model model;     /* what the recipe wants to know */
    struct gguf_writer *w;
    struct rand rand;
    float *normal;                 /* [POOL_VALUES], standard deviation 1 */
    struct pool pool[32];
    int n_pools;
    uint8_t *out;                  /* [WRITE_BYTES] */
};

/* ---- the list of tensors: walked once to declare them and once to fill them ---- */

enum fill { FILL_WEIGHT, FILL_NORM, FILL_BIAS, FILL_ROPE };

typedef int each_tensor(struct maker *, const char *name, enum fill, double gain, uint64_t cols,
                        uint64_t rows, struct err *);

static int walk_layer(struct maker *m, int layer, each_tensor *f, struct err *err) {
    const struct synth_shape *s = m->s;
    uint64_t d = (uint64_t)s->n_embd, ff = (uint64_t)s->n_ff;
    uint64_t q = (uint64_t)s->n_heads * (uint64_t)s->head_dim,
             kv = (uint64_t)s->n_kv_heads * (uint64_t)s->head_dim;
    double add = 1 / sqrt(2.0 * s->n_layers);      /* the residual stream grows to about 1 in all */
    bool biases = !strcmp(s->arch, "qwen2");
    const struct {
        const char *part; enum fill fill; double gain; uint64_t cols, rows; bool absent;
    } list[] = {
        { "attn_norm.weight", FILL_NORM, 1, d, 1, false },
        { "attn_q.weight", FILL_WEIGHT, 1.5, d, q, false },
        { "attn_q.bias", FILL_BIAS, 0.5, q, 1, !biases },
        { "attn_k.weight", FILL_WEIGHT, 1.5, d, kv, false },
        { "attn_k.bias", FILL_BIAS, 0.5, kv, 1, !biases },
        { "attn_v.weight", FILL_WEIGHT, 1, d, kv, false },
        { "attn_v.bias", FILL_BIAS, 0.1, kv, 1, !biases },
        { "attn_output.weight", FILL_WEIGHT, 2 * add, q, d, false },
        { "ffn_norm.weight", FILL_NORM, 1, d, 1, false },
        { "ffn_gate.weight", FILL_WEIGHT, 1, d, ff, false },
        { "ffn_up.weight", FILL_WEIGHT, 1, d, ff, false },
        { "ffn_down.weight", FILL_WEIGHT, 2 * add, ff, d, false },
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        char name[65];
        snprintf(name, sizeof name, "blk.%d.%s", layer, list[i].part);
        if (!list[i].absent &&
            f(m, name, list[i].fill, list[i].gain, list[i].cols, list[i].rows, err))
            return -1;
    }
    return 0;
}

static int walk(struct maker *m, each_tensor *f, struct err *err) {
    const struct synth_shape *s = m->s;
    uint64_t d = (uint64_t)s->n_embd, n = (uint64_t)s->n_vocab;
    if (f(m, "token_embd.weight", FILL_WEIGHT, 2, d, n, err)) return -1;
    if (s->llama3_factor &&
        f(m, "rope_freqs.weight", FILL_ROPE, 0, (uint64_t)s->head_dim / 2, 1, err))
        return -1;
    for (int l = 0; l < s->n_layers; l++)
        if (walk_layer(m, l, f, err)) return -1;
    if (f(m, "output_norm.weight", FILL_NORM, 1, d, 1, err)) return -1;
    return s->tied ? 0 : f(m, "output.weight", FILL_WEIGHT, 2, d, n, err);
}

static enum dtype type_of(const struct maker *m, const char *name, uint64_t cols, uint64_t rows) {
    return synth_type(m->recipe, &m->model, name, cols, rows);
}

static int declare(struct maker *m, const char *name, enum fill fill, double gain, uint64_t cols,
                   uint64_t rows, struct err *err) {
    (void)fill, (void)gain, (void)err;                 /* the writer remembers what goes wrong */
    gguf_declare(m->w, name, type_of(m, name, cols, rows), rows > 1 ? 2 : 1,
                 (uint64_t[]){ cols, rows });
    return 0;
}

/* ---- filling ---- */

static const struct pool *pool_of(struct maker *m, enum dtype type, float sigma, struct err *err) {
    for (int i = 0; i < m->n_pools; i++)
        if (m->pool[i].type == type && m->pool[i].sigma == sigma) return &m->pool[i];
    float *scaled = malloc(POOL_VALUES * sizeof *scaled);
    struct pool *p = &m->pool[m->n_pools % 32];            /* full: the oldest makes room */
    free(p->data);
    *p = (struct pool){ type, sigma, malloc(dtype_row_bytes(type, POOL_VALUES)) };
    m->n_pools += m->n_pools < 32;
    if (!scaled || !p->data) {
        free(scaled);
        p->sigma = -1;
        fail(err, "no memory for a pool of random weights");
        return NULL;
    }
    for (int i = 0; i < POOL_VALUES; i++) scaled[i] = m->normal[i] * sigma;
    quant_row(type, scaled, p->data, POOL_VALUES);
    free(scaled);
    return p;
}

static int fill_weight(struct maker *m, enum dtype type, float sigma, uint64_t values,
                       struct err *err) {
    const struct pool *p = pool_of(m, type, sigma, err);
    if (!p) return -1;
    const struct dtype_info *d = dtype_info((int)type);
    uint64_t left = values / (uint64_t)d->block;
    size_t block = (size_t)d->bytes,
           run = (size_t)(d->block < RUN_VALUES ? RUN_VALUES / d->block : 1);
    uint32_t starts = (uint32_t)(POOL_VALUES / d->block - (int)run + 1);
    while (left) {
        size_t n = 0;
        while (left && n + run * block <= WRITE_BYTES) {
            size_t take = left < run ? (size_t)left : run;
            memcpy(m->out + n, p->data + (size_t)rand_below(&m->rand, starts) * block,
                   take * block);
            n += take * block;
            left -= take;
        }
        if (gguf_write_data(m->w, m->out, n, err)) return -1;
    }
    return 0;
}

/* How Llama 3 stretches its rotation: fast pairs as they are, slow ones by the factor, a ramp
 * between. */
static float llama3_rope_factor(const struct synth_shape *s, int pair) {
    const double low = 1, high = 4, original = 8192, two_pi = 6.283185307179586;
    double turns = original * pow(s->rope_base, -2.0 * pair / s->head_dim) / two_pi;
    if (turns > high) return 1;
    if (turns < low) return (float)s->llama3_factor;
    double smooth = (turns - low) / (high - low);
    return (float)(1 / ((1 - smooth) / s->llama3_factor + smooth));
}

static int fill(struct maker *m, const char *name, enum fill how, double gain, uint64_t cols,
                uint64_t rows, struct err *err) {
    if (how == FILL_WEIGHT)
        return fill_weight(m, type_of(m, name, cols, rows), (float)(gain / sqrt((double)cols)),
                           cols * rows, err);
    float *v = malloc((size_t)cols * sizeof *v);
    if (!v) return fail(err, "no memory for %s", name);
    for (uint64_t i = 0; i < cols; i++)
        v[i] = how == FILL_NORM ? 1 + 0.1f * rand_normal(&m->rand) :
               how == FILL_BIAS ? (float)gain * rand_normal(&m->rand) :
               llama3_rope_factor(m->s, (int)i);
    int rc = gguf_write_data(m->w, v, (size_t)cols * sizeof *v, err);
    free(v);
    return rc;
}

/* ---- metadata ---- */

static void put_int(struct maker *m, const char *key, int64_t v) {
    char full[96];
    snprintf(full, sizeof full, "%s.%s", m->s->arch, key);
    gguf_put_int(m->w, full, GGUF_U32, v);
}

static void put_float(struct maker *m, const char *key, double v) {
    char full[96];
    snprintf(full, sizeof full, "%s.%s", m->s->arch, key);
    gguf_put_float(m->w, full, v);
}

static void put_metadata(struct maker *m, uint64_t seed) {
    const struct synth_shape *s = m->s;
    char name[96];
    snprintf(name, sizeof name, "%s, random weights, seed %llu", s->name, (unsigned long long)seed);
    gguf_put_string(m->w, "general.architecture", s->arch);
    gguf_put_string(m->w, "general.name", name);
    gguf_put_int(m->w, "general.file_type", GGUF_U32, m->recipe->file_type);
    gguf_put_int(m->w, "general.quantization_version", GGUF_U32, 2);
    put_int(m, "context_length", s->n_ctx);
    put_int(m, "embedding_length", s->n_embd);
    put_int(m, "block_count", s->n_layers);
    put_int(m, "feed_forward_length", s->n_ff);
    put_int(m, "attention.head_count", s->n_heads);
    put_int(m, "attention.head_count_kv", s->n_kv_heads);
    put_int(m, "attention.key_length", s->head_dim);
    put_int(m, "attention.value_length", s->head_dim);
    put_float(m, "attention.layer_norm_rms_epsilon", s->eps);
    put_int(m, "rope.dimension_count", s->head_dim);
    put_float(m, "rope.freq_base", s->rope_base);
    put_int(m, "vocab_size", s->n_vocab);
}

int synth_random(const char *path, const struct synth_shape *s, const struct recipe *recipe,
                 uint64_t seed, struct err *err) {
    struct maker m = { .s = s, .recipe = recipe, .rand = { seed },
                       .model = { s->n_layers, s->n_heads / s->n_kv_heads, s->tied } };
    struct synth_vocab vocab = {0};
    int rc = -1;
    m.normal = malloc(POOL_VALUES * sizeof *m.normal);
    m.out = malloc(WRITE_BYTES);
    if (!m.normal || !m.out) { fail(err, "no memory for random weights"); goto done; }
    if (vocab_filled(&vocab, s->tokens, s->n_vocab, err) || gguf_write_open(&m.w, path, err))
        goto done;
    for (int i = 0; i < POOL_VALUES; i++) m.normal[i] = rand_normal(&m.rand);
    put_metadata(&m, seed);
    vocab_put(&vocab, m.w);
    walk(&m, declare, err);
    if (gguf_write_begin(m.w, err) || walk(&m, fill, err)) goto done;
    rc = gguf_write_close(m.w, err);
    m.w = NULL;
done:
    gguf_write_abort(m.w);
    vocab_release(&vocab);
    for (int i = 0; i < m.n_pools; i++) free(m.pool[i].data);
    free(m.normal);
    free(m.out);
    return rc;
}
