/* band.h - the keys of a streaming head: the first `sink` tokens and, before each query, the last `recent`. */
#ifndef ATTENTION_BAND_H
#define ATTENTION_BAND_H
#include "attention/mode.h"

struct band { int sink, recent; };

/* The query at p sees keys j <= p with j < sink or j >= p - recent: itself, recent tokens before it, and the sinks. At
 * most 2 spans. Returns their number. */
static inline int band_select(const struct band *b, const struct attn_block *q, struct attn_span *span) {
    const int end = q->pos + q->n, from = q->pos > b->recent ? q->pos - b->recent : 0;
    int n = 0;
    if (b->sink) span[n++] = (struct attn_span){ .begin = 0, .end = b->sink < end ? b->sink : end };
    span[n++] = (struct attn_span){ .begin = from, .end = end, .window = b->recent + 1 };
    return n;
}

static inline struct kv_store band_store(const struct band *b, int max_batch) {
    return (struct kv_store){ .ring = 1, .sink = b->sink, .recent = b->recent, .slack = max_batch };
}

#endif
