/* band.h - a streaming head's keys: the first `sink` tokens, the last `recent` before a query. */
#ifndef ATTENTION_BAND_H
#define ATTENTION_BAND_H
#include "attention/mode.h"
#include <string.h>

struct band {
    int sink, recent;
    int chunked;       /* a call's tokens see each other in full, and the last `recent` before it */
    int call;          /* where the present call begins */
    int cap;           /* of the sinks' span; 0: none */
};

static const char band_prefill_help[] = "exact: a token's window ends at itself; "
                                        "chunked: at its chunk (-b), as its authors do";

/* The keys sink, recent and prefill. */
static inline int band_args(struct band *b, const struct attn_args *args, struct err *err) {
    const char *prefill = args_text(args, "prefill");
    b->chunked = !strcmp(prefill, "chunked");
    if (!b->chunked && strcmp(prefill, "exact"))
        return fail(err, "attention mode %s: prefill=%.64s, want exact or chunked", args->mode,
                    prefill);
    return args_int(args, "sink", 0, 1 << 24, &b->sink, err) ||
           args_int(args, "recent", 0, 1 << 24, &b->recent, err) ? -1 : 0;
}

static inline void band_begin(struct band *b, const struct attn_call *call) { b->call = call->pos; }

/* The query at p sees keys j <= p with j < sink or j >= p - recent: itself, recent tokens before
 * it, and the sinks. Chunked, it is j >= call - recent. At most 2 spans. Returns their number. */
static inline int band_select(const struct band *b, const struct attn_block *q,
                              struct attn_span *span) {
    const int end = q->pos + q->n, of = b->chunked ? b->call : q->pos,
              from = of > b->recent ? of - b->recent : 0;
    int n = 0;
    if (b->sink)
        span[n++] = (struct attn_span){ .begin = 0, .end = b->sink < end ? b->sink : end,
                                        .cap = b->cap };
    span[n++] = (struct attn_span){ .begin = from, .end = end,
                                    .window = b->chunked ? 0 : b->recent + 1 };
    return n;
}

static inline struct kv_store band_store(const struct band *b, int max_batch) {
    return (struct kv_store){ .ring = 1, .sink = b->sink, .recent = b->recent, .slack = max_batch };
}

#endif
