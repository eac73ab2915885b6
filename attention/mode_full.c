/* mode_full.c - every query reads every key before it: exact attention, the measure of the rest. */
#include "attention/mode.h"
#include <stdlib.h>

static int full_open(struct attn_mode **out, const struct attn_args *args,
                     const struct attn_shape *shape, struct err *err) {
    (void)args;
    (void)shape;
    struct attn_mode *m = malloc(sizeof *m);
    if (!m) return fail(err, "attention mode full: no memory");
    *m = (struct attn_mode){ .ops = &mode_full, .max_spans = 1 };
    *out = m;
    return 0;
}

static void full_close(struct attn_mode *m) { free(m); }

static int full_select(struct attn_mode *m, const struct attn_block *b, struct attn_span *span) {
    (void)m;
    *span = (struct attn_span){ .begin = 0, .end = b->pos + b->n };
    return 1;
}

const struct attn_ops mode_full = {
    .name = "full", .about = "every query reads every key before it (exact)",
    .source = "arXiv 1706.03762", .open = full_open, .close = full_close, .select = full_select,
};
