/* mode_stream.c - every head streams: it sees the first tokens and a window of recent ones, and the cache stops
 * growing. Positions stay absolute; a query further on than the model was trained for is not helped by this mode. */
#include "attention/band.h"
#include <stdlib.h>

struct stream { struct attn_mode base; struct band band; int max_batch; };

static const struct attn_key keys[] = {
    { "sink", "4", "first tokens that stay visible" },
    { "recent", "1020", "tokens visible before each query's own" },
    { NULL, NULL, NULL },
};

static int stream_open(struct attn_mode **out, const struct attn_args *args, const struct attn_shape *shape,
                       struct err *err) {
    struct stream *s = malloc(sizeof *s);
    if (!s) return fail(err, "attention mode stream: no memory");
    *s = (struct stream){ .base = { .ops = &mode_stream, .max_spans = 2 }, .max_batch = shape->max_batch };
    if (args_int(args, "sink", 0, 1 << 24, &s->band.sink, err) ||
        args_int(args, "recent", 0, 1 << 24, &s->band.recent, err)) {
        free(s);
        return -1;
    }
    *out = &s->base;
    return 0;
}

static void stream_close(struct attn_mode *m) { free(m); }

static int stream_select(struct attn_mode *m, const struct attn_block *b, struct attn_span *span) {
    return band_select(&((struct stream *)m)->band, b, span);
}

static struct kv_store stream_store(const struct attn_mode *m, int layer, int kv_head) {
    const struct stream *s = (const struct stream *)m;
    (void)layer;
    (void)kv_head;
    return band_store(&s->band, s->max_batch);
}

const struct attn_ops mode_stream = {
    .name = "stream", .about = "the first tokens and a window of recent ones (lossy beyond it, memory stays constant)",
    .source = "arXiv 2309.17453", .keys = keys,
    .open = stream_open, .close = stream_close, .select = stream_select, .store = stream_store,
};
