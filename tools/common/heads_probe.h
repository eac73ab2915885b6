/* heads_probe.h - reads needle questions into a session, watches the heads meanwhile, and finds out
 * what breaks when some of them see less.
 *
 * A narrowed KV head sees only the first tokens and a window. Harm is how far the last hidden
 * states move when heads are narrowed while the question is read and the answer written:
 * |H - H'|^2 / |H|^2, the mean over the answer (the measure that DuoAttention, arXiv 2410.10819,
 * learns its gates by; here without gradients, head by head).
 *
 * The answer is put in the model's mouth (teacher forcing), so that one pass shows all of it. */
#ifndef TOOLS_COMMON_HEADS_PROBE_H
#define TOOLS_COMMON_HEADS_PROBE_H
#include <signal.h>
#include "attention/attention.h"
#include "model/session.h"
#include "tools/common/heads_sample.h"

struct heads_probe;

struct heads_probe_options {
    int sink, recent;                  /* what a narrowed head sees */
    volatile sig_atomic_t *stop;       /* may be NULL */
    void (*progress)(void *ctx, int done, int total);      /* after every unit narrowed; or NULL */
    void *ctx;
};

/* The session's mode must be one that keeps everything, such as full; it is borrowed,
 * and evaluates what it is given. */
int heads_probe_open(struct heads_probe **out, const struct model *, struct session *,
                     const struct heads_probe_options *, struct err *);
void heads_probe_close(struct heads_probe *);              /* NULL is fine */

struct heads_tail {
    int right;                         /* tokens of the answer the model ranks first itself */
    /* |H - H'|^2 / |H|^2 from the run nothing was narrowed in, the mean over the answer */
    double moved;
    double log_prob;                   /* natural, the mean over the answer's tokens */
};

/* Reads the sample, with nothing narrowed (what it shares with the one
 * before is not evaluated again). */
int heads_probe_read(struct heads_probe *, const struct heads_sample *, struct heads_tail *,
                     struct err *);
/* Reads question and answer of the same sample again, for an observer. */
int heads_probe_watch(struct heads_probe *, attn_observer *, void *ctx, struct err *);
/* Again, with the KV heads in narrow[n_layers][n_kv_heads] narrowed. */
int heads_probe_narrowed(struct heads_probe *, const unsigned char *narrow, struct heads_tail *,
                         struct err *);
/* Narrows `unit` KV heads after others, 1 or all of a layer: harm[n_layers * n_kv_heads / unit]. */
int heads_probe_ablate(struct heads_probe *, int unit, float *harm, struct err *);
/* logits[n_vocab] that foretell token i of the answer, of the last reading. */
void heads_probe_logits(struct heads_probe *, int i, float *logits);

#endif
