/* heads_probe.h - what a model's heads do while it answers one needle question, found in two ways:
 *
 *   copy   of the answer's tokens, those for which a query head looked hardest at that very token in the needle
 *          (the retrieval score of Wu et al., arXiv 2404.15574)
 *   harm   how far the last hidden states move when one KV head sees only the first tokens and a window while the
 *          question is read and the answer written: |H - H'|^2 / |H|^2, the mean over the answer (the measure that
 *          DuoAttention, arXiv 2410.10819, learns its gates by; here without gradients, head by head)
 *
 * The answer is put in the model's mouth (teacher forcing), so that one pass shows all of it. */
#ifndef TOOLS_COMMON_HEADS_PROBE_H
#define TOOLS_COMMON_HEADS_PROBE_H
#include <signal.h>
#include "model/session.h"
#include "tools/common/heads_sample.h"

struct heads_probe;

struct heads_probe_options {
    int sink, recent;                  /* what a narrowed head sees */
    volatile sig_atomic_t *stop;       /* may be NULL */
    void (*progress)(void *ctx, int done, int total);      /* after every KV head; may be NULL */
    void *ctx;
};

/* The session's mode must be one that keeps everything, such as full; it is borrowed, and evaluates what it is given. */
int heads_probe_open(struct heads_probe **out, const struct model *, struct session *, const struct heads_probe_options *,
                     struct err *);
void heads_probe_close(struct heads_probe *);              /* NULL is fine */

struct heads_tail {
    int right;                         /* tokens of the answer the model ranks first itself */
    double moved;                      /* |H - H'|^2 / |H|^2 from the run nothing was narrowed in, the mean over the answer */
    double log_prob;                   /* natural, the mean over the answer's tokens */
};

/* Reads the sample (what it shares with the one before is not evaluated again) and counts copies: copy
 * [n_layers][n_heads], 0..1. */
int heads_probe_read(struct heads_probe *, const struct heads_sample *, float *copy, struct heads_tail *, struct err *);
/* Reads question and answer of the same sample again, with the KV heads in narrow[n_layers][n_kv_heads] narrowed. */
int heads_probe_narrowed(struct heads_probe *, const unsigned char *narrow, struct heads_tail *, struct err *);
/* Narrows one KV head after the other: harm[n_layers][n_kv_heads]. */
int heads_probe_ablate(struct heads_probe *, float *harm, struct err *);

#endif
