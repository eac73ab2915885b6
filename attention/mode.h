/* mode.h - what an attention mode implements.
 *
 * A mode is a selection policy: asked about the queries of one KV head in a block of
 * consecutive tokens, it answers with the key spans they read. flash.c does the
 * rest. A new mode is one file with a `const struct attn_ops` and one line in the
 * list in attention.c; mode_full.c is the smallest. */
#ifndef ATTENTION_MODE_H
#define ATTENTION_MODE_H
#include "attention/args.h"
#include "attention/attention.h"

/* Keys at positions begin..end-1. A query at position p reads those with position <= p, and
 * further limits may hold; a zero leaves a limit out. The lists a mode returns are
 * ascending in begin and in end; spans may overlap: a query reads a key once, if any span
 * shows it. Every query must be shown its own position. */
struct attn_span {
    int begin, end;
    int window;        /* only keys with position > p - window: 1 is the query's own token alone */
    int until;         /* only queries with p < until */
    int cap;           /* a query at p > cap meets these keys as if it were at cap (its rotary angle
                        * is turned back). All spans of a mode that set it set the same, and the
                        * mode sets turns; no key is shown with a cap and without to one query
                        * beyond it */
    uint64_t heads;    /* only query heads whose bit is set, counted in the group (of up to 64) */
};

/* The question: the group of query heads on kv_head, for the tokens at positions pos..pos+n-1. */
struct attn_block {
    int layer, kv_head, pos, n;
    const float *q;        /* query head h of the group, token t: q[t * q_stride + h * k_dim] */
    size_t q_stride;
    const struct kvcache *kv;
};

/* One attn_run, announced before any select: q [n][n_heads][k_dim]. */
struct attn_call {
    int layer, pos, n;
    const float *q;
    const struct kvcache *kv;
    const struct tile_kernels *tile;
    int decode;            /* one token of the answer, not a piece of the prompt */
    unsigned prefills;     /* calls but for decoding: when it changes, what decoding left is old */
    const struct peak_kernels *peak;
    const struct tile_matrix *matrix;      /* or NULL */
};

/* What a call of one token reveals besides its output: the probability in each page of KV_PAGE
 * positions, over all query heads of the layer. Sums run over the tokens of a page. */
struct attn_masses {
    int layer, pos, n_pages;
    const float *peak;     /* [n_pages] sum of the token's highest probability in any query head */
    const float *mean;     /* [n_pages] sum of its mean probability over the heads; all pages: 1 */
};

/* First member of a mode's own state; open fills it in. */
struct attn_mode {
    const struct attn_ops *ops;
    int max_spans;         /* most spans one select returns */
    int block;             /* tokens of one selection, cut at multiples of block; 0: any */
    int turns;             /* its spans may have a cap: wants attn_shape.rope_freq */
    int scattered;         /* begin may set it for a call whose spans lie far apart, and must clear
                            * it for others: the pages they reach are put side by side (walk.h).
                            * Such spans have no cap, and the call no masses */
    int max_pages;         /* most pages the spans of a scattered selection reach; 0: it never is */
    const char *warning;   /* what its user should know, one line; or NULL */
    int want_masses;       /* begin may set it for a call of one token, and must clear it for
                            * others: see take_masses */
};

struct attn_ops {
    const char *name, *about, *source;     /* as in --attn NAME; one line; the paper */
    /* Why it cannot serve one phase alone (--attn-prefill ...); NULL: it can. */
    const char *no_prefill, *no_decode;
    const struct attn_key *keys;           /* closed by a NULL name; NULL: takes no parameters */
    /* args holds a value for every key. 0; or -1 with err filled. */
    int (*open)(struct attn_mode **out, const struct attn_args *args, const struct attn_shape *,
                struct err *);
    void (*close)(struct attn_mode *);
    /* Writes up to max_spans spans and returns their number (>= 1). Different blocks and KV heads
     * are asked about at the same time from several threads. */
    int (*select)(struct attn_mode *, const struct attn_block *, struct attn_span *);
    /* The rest is optional. */
    /* What the cache must keep for a head: all that select may ever return. NULL: everything. */
    struct kv_store (*store)(const struct attn_mode *, int layer, int kv_head);
    /* What is wrong with args, whatever the model. */
    int (*check)(const struct attn_args *, struct err *);
    /* Called once for each attn_run, by one thread: for work that is not a block's own,
     * on as many threads as it likes. */
    void (*begin)(struct attn_mode *, const struct attn_call *);
    /* > 0: of this call, every token at a multiple of it is attended in full as well, and what that
     * changes is added to the tokens up to the next one (correct.h). */
    int (*anchors)(const struct attn_mode *, int layer, int pos, int n);
    /* Gets the masses of a call that begin wanted them for, after it, from one thread. */
    void (*take_masses)(struct attn_mode *, const struct attn_masses *);
    /* Figures of its own, since open. */
    void (*report)(const struct attn_mode *, attn_figure *, void *ctx);
    uint64_t (*searched)(const struct attn_mode *);        /* keys scored to select, so far */
    size_t (*bytes)(const struct attn_mode *);             /* memory of its own worth mentioning */
};

extern const struct attn_ops mode_full, mode_stream, mode_duo, mode_hip, mode_s2, mode_delta,
                             mode_moa;

#endif
