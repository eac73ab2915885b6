/* mode_duo.c - some KV heads retrieve and see everything, the others stream: first
 * tokens and a window, in a ring that does not grow. Which heads are which, a file of
 * scores says; keys keep their absolute positions, so a streaming head is full attention
 * with a mask, in the prompt as in the answer. */
#include "attention/band.h"
#include "attention/heads.h"
#include <stdlib.h>

struct duo {
    struct attn_mode base;
    struct band band;
    int n_kv_heads, max_batch;
    unsigned char *full;                   /* [n_layers][n_kv_heads] */
};

static const struct attn_key keys[] = {
    { "heads", "", "FILE of head scores: DuoAttention's TSV, or JSON \"LAYER-HEAD\": [scores]; "
                   "by itself NAME.heads.tsv beside NAME.gguf" },
    { "ratio", "0.5", "share of KV heads that see everything" },
    { "sink", "64", "first tokens the other heads see" },
    { "recent", "256", "tokens the other heads see before each query's own" },
    { "prefill", "exact", band_prefill_help },
    { NULL, NULL, NULL },
};

static void duo_close(struct attn_mode *m) {
    struct duo *d = (struct duo *)m;
    free(d->full);
    free(d);
}

static int duo_open(struct attn_mode **out, const struct attn_args *args,
                    const struct attn_shape *shape, struct err *err) {
    const int n = shape->n_layers * shape->n_kv_heads;
    const char *path = args_text(args, "heads");
    double ratio;
    int rc = -1;
    struct duo *d = calloc(1, sizeof *d);
    float *score = calloc((size_t)n, sizeof *score);
    if (!d || !score || !(d->full = calloc((size_t)n, 1))) {
        fail(err, "attention mode duo: no memory");
        goto done;
    }
    d->base = (struct attn_mode){ .ops = &mode_duo, .max_spans = 2 };
    d->n_kv_heads = shape->n_kv_heads;
    d->max_batch = shape->max_batch;
    if (!*path) {
        fail(err, "attention mode duo wants heads=FILE, scores of this model's heads, as bin/heads "
                  "writes (NAME.heads.tsv beside NAME.gguf is found by itself)");
        goto done;
    }
    if (args_real(args, "ratio", 0, 1, &ratio, err) || band_args(&d->band, args, err) ||
        heads_read(score, path, shape->n_layers, shape->n_heads, shape->n_kv_heads, err))
        goto done;
    heads_choose(d->full, score, n, ratio);
    *out = &d->base;
    d = NULL;
    rc = 0;
done:
    free(score);
    if (d) duo_close(&d->base);
    return rc;
}

static int is_full(const struct duo *d, int layer, int kv_head) {
    return d->full[(size_t)layer * d->n_kv_heads + kv_head];
}

static void duo_begin(struct attn_mode *m, const struct attn_call *call) {
    band_begin(&((struct duo *)m)->band, call);
}

static int duo_select(struct attn_mode *m, const struct attn_block *b, struct attn_span *span) {
    const struct duo *d = (const struct duo *)m;
    if (!is_full(d, b->layer, b->kv_head)) return band_select(&d->band, b, span);
    *span = (struct attn_span){ .begin = 0, .end = b->pos + b->n };
    return 1;
}

static struct kv_store duo_store(const struct attn_mode *m, int layer, int kv_head) {
    const struct duo *d = (const struct duo *)m;
    return is_full(d, layer, kv_head) ? (struct kv_store){ 0 } : band_store(&d->band, d->max_batch);
}

const struct attn_ops mode_duo = {
    .name = "duo",
    .about = "retrieval heads see everything, the others the first tokens and a window "
             "(DuoAttention)",
    .source = "arXiv 2410.10819", .keys = keys, .open = duo_open, .close = duo_close,
    .begin = duo_begin, .select = duo_select, .store = duo_store,
};
