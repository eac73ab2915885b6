/* mode_s2.c - S2 (sharded) attention: each head reads the blocks near the query and,
 * far away, only the blocks of its own residue modulo a stride. The pattern is
 * static and block-granular in absolute positions, so a block that no head of a KV
 * head will read again never enters its cache for long.
 *
 *   head h at block i sees block j   iff
 *   j <= i  and  ( i - j < local  or  (j + h * step + offset) mod stride == 0 )
 *
 * Models are trained with it. For such a file the pattern is in the metadata and not tunable; for
 * any other model the mode is a rough approximation that has to be asked for (approx=1). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "attention/mode.h"

struct s2 {
    struct attn_mode base;
    int block, local, stride, offset, step;
    int by_kv;                         /* phases by KV head instead of by query head */
    int sinks;                         /* first blocks that every head sees */
    int dense_first, dense_every;      /* layers that see all: the first, every n-th (0: none) */
    int group, max_batch;
    char warning[256];
};

static const struct attn_key keys[] = {
    { "block", "64", "tokens of a block, a multiple of 16" },
    { "local", "16", "blocks every head sees, the query's own included" },
    { "stride", "8", "far away, a head sees one block in so many (at most 64)" },
    { "offset", "1", "phase of the pattern" },
    { "homo", "0", "1: all heads have the same phase" },
    { "phase", "auto", "query or kv: whether query heads or KV heads differ in phase "
                       "(auto: query; with approx kv)" },
    { "sink", "auto", "first blocks that every head sees (auto: 0; with approx 1)" },
    { "dense_first", "auto", "first layers that see everything (auto: 0; with approx 2)" },
    { "dense_every", "2", "layers whose number + 1 is a multiple see everything (0: none)" },
    { "approx", "0", "1: use it on a model that was not trained with it" },
    { NULL, NULL, NULL },
};

static void s2_close(struct attn_mode *m) { free(m); }

static int auto_int(const struct attn_args *a, const char *key, int lo, int hi, int fallback,
                    int *out, struct err *err) {
    if (strcmp(args_text(a, key), "auto")) return args_int(a, key, lo, hi, out, err);
    *out = fallback;
    return 0;
}

static int read_args(struct s2 *s, const struct attn_args *a, int *homo, int *approx,
                     struct err *err) {
    const char *phase = args_text(a, "phase");
    if (args_int(a, "approx", 0, 1, approx, err) ||
        args_int(a, "block", 16, 1 << 16, &s->block, err) ||
        args_int(a, "local", 1, 1 << 20, &s->local, err) ||
        args_int(a, "stride", 1, 64, &s->stride, err) ||
        args_int(a, "offset", 0, 1 << 20, &s->offset, err) ||
        args_int(a, "homo", 0, 1, homo, err) ||
        auto_int(a, "sink", 0, 1 << 16, *approx, &s->sinks, err) ||
        auto_int(a, "dense_first", 0, 1 << 16, *approx ? 2 : 0, &s->dense_first, err) ||
        args_int(a, "dense_every", 0, 1 << 16, &s->dense_every, err))
        return -1;
    if (s->block % KV_PAGE)
        return fail(err, "attention mode s2: block=%d, want a multiple of %d", s->block, KV_PAGE);
    if ((long long)s->block * s->local > 1 << 28)
        return fail(err, "attention mode s2: local=%d blocks of %d tokens "
                         "are more than any context", s->local, s->block);
    if (!strcmp(phase, "auto")) s->by_kv = *approx;
    else if (!strcmp(phase, "query") || !strcmp(phase, "kv")) s->by_kv = phase[0] == 'k';
    else return fail(err, "attention mode s2: phase=%.32s, want query, kv or auto", phase);
    return 0;
}

static int s2_check(const struct attn_args *args, struct err *err) {
    struct s2 s;
    int homo, approx;
    return read_args(&s, args, &homo, &approx, err);
}

/* The pattern the file was trained with must be the one that is asked for. */
static int check_trained(const struct attn_args *args, const char *trained, int approx,
                         struct err *err) {
    if (!trained || strncmp(trained, "s2", 2)) {
        if (approx) return 0;
        return fail(err, "attention mode s2: this model was not trained with it; "
                         "approx=1 uses it all the same");
    }
    struct attn_args own;
    if (args_parse(&own, "s2", keys, trained + 2, err)) return -1;
    for (int i = 0; keys[i].name; i++)
        if (strcmp(own.value[i], args->value[i]))
            return fail(err, "attention mode s2: %s=%s, but the file was trained with %s=%s",
                        keys[i].name, args->value[i], keys[i].name, own.value[i]);
    return 0;
}

static int s2_open(struct attn_mode **out, const struct attn_args *args,
                   const struct attn_shape *shape, struct err *err) {
    struct s2 *s = calloc(1, sizeof *s);
    int homo, approx;
    if (!s) return fail(err, "attention mode s2: no memory");
    if (read_args(s, args, &homo, &approx, err) ||
        check_trained(args, shape->trained, approx, err)) {
        free(s);
        return -1;
    }
    const int heads = s->by_kv ? shape->n_kv_heads : shape->n_heads;
    s->step = homo ? 0 : s->stride > heads ? s->stride / heads : 1;
    s->group = shape->n_heads / shape->n_kv_heads;
    s->max_batch = shape->max_batch;
    const int blocks = (shape->max_tokens ? shape->max_tokens : 1 << 20) / s->block + 2;
    s->base = (struct attn_mode){ .ops = &mode_s2, .max_spans = blocks, .block = s->block };
    if (approx) {
        snprintf(s->warning, sizeof s->warning,
                 "this model was not trained with sharded attention: past %d tokens its output "
                 "differs from the full model and may miss facts; bin/perplexity --kld full and "
                 "bin/needle measure it", s->local * s->block);
        s->base.warning = s->warning;
    } else if (heads < s->stride) {
        snprintf(s->warning, sizeof s->warning,
                 "%d heads do not cover a stride of %d: "
                 "far blocks of %d phases are seen by no head",
                 heads, s->stride, s->stride - heads);
        s->base.warning = s->warning;
    }
    *out = &s->base;
    return 0;
}

static int is_dense(const struct s2 *s, int layer) {
    return layer < s->dense_first || (s->dense_every && (layer + 1) % s->dense_every == 0);
}

/* Block numbers modulo stride that query head r of a group sees far away: one of them. */
static int residue(const struct s2 *s, int kv_head, int r) {
    const int head = s->by_kv ? kv_head : kv_head * s->group + r;
    const int x = (int)(((long long)head * s->step + s->offset) % s->stride);
    return x ? s->stride - x : 0;
}

/* Which heads of the group see far blocks of this residue, as a span's mask; *all: every one. */
static uint64_t far_heads(const struct s2 *s, int kv_head, int of, int *all) {
    uint64_t mask = 0;
    int n = 0;
    for (int r = 0; r < s->group; r++)
        if (residue(s, kv_head, r) == of) mask |= r < 64 ? (uint64_t)1 << r : 0, n++;
    *all = n == s->group;
    return mask;
}

static int s2_select(struct attn_mode *m, const struct attn_block *b, struct attn_span *span) {
    const struct s2 *s = (const struct s2 *)m;
    const int i = b->pos / s->block, near = i - s->local + 1, end = b->pos + b->n;
    if (is_dense(s, b->layer) || near <= s->sinks) {
        *span = (struct attn_span){ .begin = 0, .end = end };
        return 1;
    }
    uint64_t heads[64];
    int all[64], n = 0;
    for (int x = 0; x < s->stride; x++) heads[x] = far_heads(s, b->kv_head, x, &all[x]);
    if (s->sinks) span[n++] = (struct attn_span){ .begin = 0, .end = s->sinks * s->block };
    for (int j = s->sinks; j < near; j++)
        if (heads[j % s->stride])
            span[n++] = (struct attn_span){
                .begin = j * s->block, .end = (j + 1) * s->block,
                .heads = all[j % s->stride] ? 0 : heads[j % s->stride] };
    span[n++] = (struct attn_span){ .begin = near * s->block, .end = end };
    return n;
}

static struct kv_store s2_store(const struct attn_mode *m, int layer, int kv_head) {
    const struct s2 *s = (const struct s2 *)m;
    uint64_t keep = 0;
    if (is_dense(s, layer)) return (struct kv_store){ 0 };
    for (int r = 0; r < s->group; r++) keep |= (uint64_t)1 << residue(s, kv_head, r);
    if (__builtin_popcountll(keep) == s->stride)           /* somebody reads every block */
        return (struct kv_store){ 0 };
    return (struct kv_store){ .ring = 1, .sink = s->sinks * s->block,
                              .recent = s->local * s->block - 1, .slack = s->max_batch,
                              .block = s->block, .stride = s->stride, .keep = keep };
}

const struct attn_ops mode_s2 = {
    .name = "s2",
    .about = "near blocks and, far away, one block in so many, another for each head "
             "(S2, sharded attention)",
    .source = "arXiv 2407.17678", .keys = keys, .check = s2_check,
    .open = s2_open, .close = s2_close, .select = s2_select, .store = s2_store,
};
