/* mode_stream.c - every head streams: it sees the first tokens and a window of recent ones,
 * and the cache stops growing.
 *
 * Positions are absolute, unless rope=cache: then keys count as rotated by their index in a
 * cache that holds nothing but what is visible, so that no distance ever exceeds
 * sink + recent, and a model can go on beyond the length it was trained for. Among recent
 * keys that changes no distance. Only the sinks move up to the window: a query beyond
 * sink + recent meets them as if it were at that position. */
#include "attention/band.h"
#include <stdlib.h>

struct stream { struct attn_mode base; struct band band; int max_batch; };

static const struct attn_key keys[] = {
    { "sink", "4", "first tokens that stay visible" },
    { "recent", "1020", "tokens visible before each query's own" },
    { "prefill", "exact", band_prefill_help },
    { "rope", "absolute",
      "absolute positions, or cache: the index among what is visible, for texts without end" },
    { NULL, NULL, NULL },
};

static int stream_check(const struct attn_args *args, struct err *err) {
    const char *rope = args_text(args, "rope");
    struct band b;
    if (strcmp(rope, "absolute") && strcmp(rope, "cache"))
        return fail(err, "attention mode stream: rope=%.64s, want absolute or cache", rope);
    if (band_args(&b, args, err)) return -1;
    if (b.chunked && !strcmp(rope, "cache"))
        return fail(err, "attention mode stream: rope=cache and prefill=chunked "
                         "do not go together");
    return 0;
}

static int stream_open(struct attn_mode **out, const struct attn_args *args,
                       const struct attn_shape *shape, struct err *err) {
    struct stream *s = calloc(1, sizeof *s);
    if (!s) return fail(err, "attention mode stream: no memory");
    *s = (struct stream){ .base = { .ops = &mode_stream, .max_spans = 2 },
                          .max_batch = shape->max_batch };
    if (stream_check(args, err) || band_args(&s->band, args, err)) goto fail;
    if (!strcmp(args_text(args, "rope"), "cache")) {
        if (!shape->rope_freq) {
            fail(err, "attention mode stream: rope=cache wants a model with rotary positions");
            goto fail;
        }
        s->base.turns = 1;
        s->band.cap = s->band.sink + s->band.recent;
    }
    *out = &s->base;
    return 0;
fail:
    free(s);
    return -1;
}

static void stream_close(struct attn_mode *m) { free(m); }

static void stream_begin(struct attn_mode *m, const struct attn_call *call) {
    band_begin(&((struct stream *)m)->band, call);
}

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
    .name = "stream",
    .about = "the first tokens and a window of recent ones "
             "(lossy beyond it, memory stays constant)",
    .source = "arXiv 2309.17453", .keys = keys, .check = stream_check, .open = stream_open,
    .close = stream_close, .begin = stream_begin, .select = stream_select, .store = stream_store,
};
