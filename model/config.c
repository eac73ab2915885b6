#include "model/config.h"
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "model/gguf.h"

/* Every architecture this engine runs. */
static const struct arch archs[] = {
    { "llama", false },
    { "qwen2", true },
};

static const struct arch *arch_find(const char *name) {
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        if (!strcmp(archs[i].name, name)) return &archs[i];
    return NULL;
}

static int arch_refuse(const struct gguf *g, const char *name, struct err *err) {
    char known[256] = "";
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s",
                 i ? ", " : "", archs[i].name);
    return fail(err, "%s: architecture '%.64s' is not known; this engine runs: %s", gguf_path(g),
                name, known);
}

/* Reads "ARCH.key"; a missing key takes the fallback, or is an error when the fallback
 * lies outside min..max. */
struct reader { const struct gguf *g; const char *arch; struct err *err; };

static const char *full_key(const struct reader *r, const char *key, char buf[160]) {
    snprintf(buf, 160, "%s.%s", r->arch, key);
    return buf;
}

static int need_int(const struct reader *r, const char *key, int min, int max, int fallback,
                    int *out) {
    char name[160];
    int64_t v = fallback;
    full_key(r, key, name);
    const struct gguf_kv *kv = gguf_find(r->g, name);
    if (kv && kv->type == GGUF_ARRAY) {         /* per layer: this engine wants one value for all */
        int64_t first, other;
        if (!kv->count || gguf_array_int(kv, 0, &first))
            return fail(r->err, "%s: %s is an array that holds no integers, wanted an integer",
                        gguf_path(r->g), name);
        for (uint64_t i = 1; i < kv->count; i++)
            if (gguf_array_int(kv, i, &other) || other != first)
                return fail(r->err, "%s: %s differs between layers (%lld, then %lld), "
                            "wanted the same in all", gguf_path(r->g), name,
                            (long long)first, (long long)other);
        v = first;
        if (v < min || v > max)
            return fail(r->err, "%s: %s is %lld, wanted %d to %d", gguf_path(r->g), name,
                        (long long)v, min, max);
    } else if (gguf_get_int(r->g, name, min, max, &v, r->err) < 0) return -1;
    if (!kv && (fallback < min || fallback > max))
        return fail(r->err, "%s: key %s is missing", gguf_path(r->g), name);
    *out = (int)v;
    return 0;
}

/* A float key: absent leaves *out; present must lie in min..max. */
static int opt_float(const struct reader *r, const char *key, double min, double max, double *out) {
    char name[160];
    double v;
    int got = gguf_get_float(r->g, full_key(r, key, name), &v, r->err);
    if (got <= 0) return got;
    if (!(v >= min && v <= max))
        return fail(r->err, "%s: %s is %g, wanted %g to %g", gguf_path(r->g), name, v, min, max);
    *out = v;
    return 1;
}

static int scaling_by_name(const char *name, enum rope_scaling *out) {
    static const char *const names[] = { [ROPE_NONE] = "none", [ROPE_LINEAR] = "linear",
                                         [ROPE_YARN] = "yarn" };
    for (int i = 0; i <= ROPE_YARN; i++)
        if (!strcmp(name, names[i])) { *out = (enum rope_scaling)i; return 0; }
    return -1;
}

static int read_rope(struct model_config *c, const struct reader *r,
                     const struct rope_override *o) {
    struct rope_config *p = &c->rope;
    char key[160], text[32];
    *p = (struct rope_config){ .base = 10000, .scaling = ROPE_NONE, .factor = 1, .ext_factor = -1,
                               .attn_factor = 1, .beta_fast = 32, .beta_slow = 1 };
    if (need_int(r, "rope.dimension_count", 2, c->k_dim, c->k_dim, &p->n_rot)) return -1;
    if (p->n_rot % 2)
        return fail(r->err, "%s: %s.rope.dimension_count is %d, wanted an even number",
                    gguf_path(r->g), r->arch, p->n_rot);
    if (opt_float(r, "rope.freq_base", 1e-3, 1e12, &p->base) < 0) return -1;
    int got = gguf_get_string(r->g, full_key(r, "rope.scaling.type", key), text, sizeof text,
                              r->err);
    if (got < 0) return -1;
    if (got && scaling_by_name(text, &p->scaling))
        return fail(r->err, "%s: %s is '%s', wanted none, linear or yarn", gguf_path(r->g),
                    key, text);
    double factor = 0;                              /* files write 0 for "no scaling" */
    if (opt_float(r, "rope.scale_linear", 0, 1e6, &factor) < 0) return -1;
    if (opt_float(r, "rope.scaling.factor", 0, 1e6, &factor) < 0) return -1;
    if (factor > 0) {
        p->factor = factor;
        if (!got) p->scaling = ROPE_LINEAR;         /* old files give the factor alone */
    }
    if (need_int(r, "rope.scaling.original_context_length", 1, 1 << 30, c->n_ctx_train,
                 &p->orig_ctx))
        return -1;
    if (opt_float(r, "rope.scaling.attn_factor", 0, 1e6, &p->attn_factor) < 0) return -1;

    if (o && o->scaling && scaling_by_name(o->scaling, &p->scaling)) {
        if (r->err) r->err->usage = 1;
        return fail(r->err, "--rope-scaling: got '%s', wanted none, linear or yarn", o->scaling);
    }
    if (o && o->factor > 0) {
        p->factor = o->factor;
        if (p->scaling == ROPE_NONE && !o->scaling) p->scaling = ROPE_LINEAR;
    }
    if (o && o->freq_base > 0) p->base = o->freq_base;
    if (o && o->orig_ctx > 0) p->orig_ctx = o->orig_ctx;
    if (o && o->ext_factor >= 0) p->ext_factor = o->ext_factor;
    if (o && o->attn_factor >= 0) p->attn_factor *= o->attn_factor;
    if (o && o->beta_fast >= 0) p->beta_fast = o->beta_fast;
    if (o && o->beta_slow >= 0) p->beta_slow = o->beta_slow;
    if (p->scaling == ROPE_NONE) p->factor = 1;
    if (p->ext_factor < 0) p->ext_factor = p->scaling == ROPE_YARN ? 1 : 0;

    const struct gguf_tensor *t = gguf_tensor(r->g, "rope_freqs.weight");
    if (t) {
        if (t->type != DT_F32 || t->n_dims != 1 || t->ne[0] != (uint64_t)p->n_rot / 2)
            return fail(r->err, "%s: rope_freqs.weight is %s [%llu], wanted F32 [%d]",
                        gguf_path(r->g), dtype_name(t->type), (unsigned long long)t->ne[0],
                        p->n_rot / 2);
        p->factors = t->data;
        for (int i = 0; i < p->n_rot / 2; i++)
            if (!(p->factors[i] > 0))
                return fail(r->err, "%s: rope_freqs.weight[%d] is %g, wanted more than 0",
                            gguf_path(r->g), i, (double)p->factors[i]);
    }
    return 0;
}

/* needle.s2.*: the file was trained with sharded attention, and this is its pattern. */
static int read_s2(struct model_config *c, const struct gguf *g, struct err *err) {
    const struct reader r = { g, "needle.s2", err };
    int block, local, stride, offset, homo, by_kv, first, every;
    if (!gguf_find(g, "needle.s2.block_size")) return 0;
    if (need_int(&r, "block_size", 16, 1 << 16, 0, &block) ||
        need_int(&r, "local_blocks", 1, 1 << 20, 0, &local) ||
        need_int(&r, "vert_stride", 1, 64, 0, &stride) ||
        need_int(&r, "head_offset", 0, 1 << 20, 1, &offset) ||
        need_int(&r, "homo_head", 0, 1, 0, &homo) ||
        need_int(&r, "phase_by_kv_head", 0, 1, 0, &by_kv) ||
        need_int(&r, "dense_first", 0, 4096, 0, &first) ||
        need_int(&r, "dense_every_n", 0, 4096, 2, &every))
        return -1;
    snprintf(c->attn, sizeof c->attn,
             "s2,block=%d,local=%d,stride=%d,offset=%d,homo=%d,phase=%s,sink=0,"
             "dense_first=%d,dense_every=%d",
             block, local, stride, offset, homo, by_kv ? "kv" : "query", first, every);
    return 0;
}

int config_read(struct model_config *out, const struct gguf *g, const struct rope_override *o,
                struct err *err) {
    struct model_config c = { 0 };
    char text[256], key[160];
    int got = gguf_get_string(g, "general.architecture", text, sizeof text, err);
    if (got < 0) return -1;
    if (!got) return fail(err, "%s: key general.architecture is missing", gguf_path(g));
    if (!(c.arch = arch_find(text))) return arch_refuse(g, text, err);
    struct reader r = { g, c.arch->name, err };

    const struct gguf_kv *name = gguf_find(g, "general.name");
    if (name && name->type == GGUF_STRING &&
        gguf_get_string(g, "general.name", c.name, sizeof c.name, NULL) < 0)
        c.name[0] = 0;                              /* too long to show: not worth a refusal */
    const int big = 1 << 24;
    if (need_int(&r, "block_count", 1, 4096, 0, &c.n_layers) ||
        need_int(&r, "embedding_length", 1, big, 0, &c.n_embd) ||
        need_int(&r, "feed_forward_length", 1, big, 0, &c.n_ff) ||
        need_int(&r, "attention.head_count", 1, 65536, 0, &c.n_heads) ||
        need_int(&r, "attention.head_count_kv", 1, 65536, c.n_heads, &c.n_kv_heads) ||
        need_int(&r, "context_length", 1, 1 << 30, 0, &c.n_ctx_train))
        return -1;
    if (c.n_heads % c.n_kv_heads)
        return fail(err, "%s: %d query heads do not share %d key-value heads evenly", gguf_path(g),
                    c.n_heads, c.n_kv_heads);
    int experts = 0;
    if (need_int(&r, "expert_count", 0, big, 0, &experts)) return -1;
    if (experts)
        return fail(err, "%s: %s has %d experts (a mixture-of-experts model); "
                    "this engine runs dense models", gguf_path(g), c.arch->name, experts);
    int per_head = c.n_embd % c.n_heads ? 0 : c.n_embd / c.n_heads;     /* 0: keys must say it */
    if (need_int(&r, "attention.key_length", 1, 4096, per_head, &c.k_dim) ||
        need_int(&r, "attention.value_length", 1, 4096, per_head, &c.v_dim))
        return -1;
    double eps = 0, scale = 1 / sqrt((double)c.k_dim);
    got = opt_float(&r, "attention.layer_norm_rms_epsilon", 0, 1, &eps);
    if (got < 0 || opt_float(&r, "attention.scale", 1e-9, 1e9, &scale) < 0) return -1;
    if (!got)
        return fail(err, "%s: key %s is missing", gguf_path(g),
                    full_key(&r, "attention.layer_norm_rms_epsilon", key));
    c.rms_eps = (float)eps;
    c.attn_scale = (float)scale;
    if (read_rope(&c, &r, o) || read_s2(&c, g, err)) return -1;

    const struct gguf_tensor *embd = gguf_tensor(g, "token_embd.weight");
    if (!embd)
        return fail(err, "%s: tensor token_embd.weight is missing (a vocabulary-only file?)",
                    gguf_path(g));
    if (embd->n_dims != 2 || embd->ne[1] > (uint64_t)big)
        return fail(err, "%s: token_embd.weight has %d dimensions of %llu x %llu, "
                    "wanted 2 of %d x vocabulary", gguf_path(g), embd->n_dims,
                    (unsigned long long)embd->ne[0], (unsigned long long)embd->ne[1], c.n_embd);
    c.n_vocab = (int)embd->ne[1];
    *out = c;
    return 0;
}
