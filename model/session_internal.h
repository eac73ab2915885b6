/* session_internal.h - what a session is made of, for the files that implement it. */
#ifndef MODEL_SESSION_INTERNAL_H
#define MODEL_SESSION_INTERNAL_H
#include <stdbool.h>
#include "attention/attention.h"
#include "kvcache/kvcache.h"
#include "model/forward.h"
#include "model/session.h"

struct session {
    const struct model *m;
    struct session_options o;
    struct kvcache *kv;
    struct attn *attn;
    struct forward *f;
    float *logits;                                  /* [n_vocab] */
    int pos;
    int32_t *ids;                                   /* at 0..pos-1; -1: made up by session_fill */
    int max_ids;
    bool any;                                       /* logits hold something */
    uint64_t keys0, queries0, searched0;            /* counters at the last reset */
};

/* Room for n more tokens in the list of ids. */
int session_grow(struct session *, int n, struct err *);

#endif
