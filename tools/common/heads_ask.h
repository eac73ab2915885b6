/* heads_ask.h - what bin/heads was told to do, and the asking: facts hidden in long
 * texts, one question after another. */
#ifndef TOOLS_COMMON_HEADS_ASK_H
#define TOOLS_COMMON_HEADS_ASK_H
#include <signal.h>
#include <stdbool.h>
#include "attention/delta_pages.h"
#include "tools/common/engine.h"
#include "tools/common/heads_probe.h"
#include "tools/common/needle_lists.h"
#include "tools/common/needle_style.h"

enum heads_score { SCORE_BOTH, SCORE_COPY, SCORE_ABLATION, SCORE_LOCAL };

struct heads_options {
    struct lengths lengths;
    struct depths depths;
    int samples, seed;                 /* facts and texts per length and depth; the first seed */
    enum style style;
    const char *out, *json, *moa, *png;    /* files, or NULL */
    int sink, recent;                  /* tokens a narrowed head sees */
    int top;                           /* KV heads in the table */
    enum heads_score score;
    bool no_ablation, quiet;
    /* For DELTA's layers: */
    struct delta_share share;
    int n_full;                        /* layers that read all; 0: as many as `keep` takes */
    double keep;
    const char *text;                  /* a file to read as well */
    bool no_questions;
};

struct heads_ask {
    const struct heads_options *o;
    const struct engine *e;
    volatile sig_atomic_t *stop;
    int asked;                     /* questions so far whose needle a narrowed head does not see */
};

/* What is done with a sample the probe has read; the session is the probe's. */
typedef int heads_ask_fn(void *ctx, struct heads_probe *, struct session *,
                         const struct heads_sample *, struct err *);

/* Hides the facts of seeds first..first+n-1 in texts of `length` tokens, at every depth, and calls
 * fn for those the model finds, which is when it ranks more than half of the answer's tokens first;
 * says so on stderr, question by question. */
int heads_ask(struct heads_ask *, int length, int first, int n, heads_ask_fn *, void *ctx,
              struct err *);
/* Calls fn for stretches of `length` tokens of a text, up to n of them, whose
 * last tokens stand for the answer. */
int heads_ask_text(struct heads_ask *, const int32_t *ids, int n_ids, int length, int n,
                   heads_ask_fn *, void *ctx, struct err *);

#endif
