/* heads_delta.h - how well the pages one layer would choose serve another: what
 * DELTA's selecting layers are chosen by.
 *
 * While a model reads a text under full attention, every layer of the tokens that are sampled
 * chooses the pages it would list (attention/delta_pages.h), from the probabilities the attention
 * kernel itself reveals. Then, for every pair of layers i <= j of a token, the share of j's
 * probability that lies outside i's list is what j would lose if it read that list. Probabilities
 * are the mean over the query heads. */
#ifndef TOOLS_COMMON_HEADS_DELTA_H
#define TOOLS_COMMON_HEADS_DELTA_H
#include "attention/delta_pages.h"
#include "attention/mode.h"
#include "model/model.h"

/* Sums over `rows` tokens; from and to are layers, i <= j. */
struct heads_delta_sums {
    int n_layers, rows;
    double *lost;      /* [from][to] probability of `to` outside the list of `from` */
    double *held;      /* [from][to] far probability of `to` in it */
    double *best;      /* [to] far probability in the best list of as many pages */
    double *far;       /* [to] far probability: neither in the first page nor in the recent ones */
};

struct heads_delta;

/* For contexts of up to max_tokens. */
int heads_delta_open(struct heads_delta **out, const struct model *, const struct delta_share *,
                     int max_tokens, struct err *);
void heads_delta_close(struct heads_delta *);          /* NULL is fine */
/* Which tokens are sampled from now on: those at from, from + step, ... as far as the context has
 * more than HEADS_DELTA_FULLER times as many pages as a list, so that there is a choice. */
enum { HEADS_DELTA_FULLER = 2 };
void heads_delta_sample(struct heads_delta *, int from, int step);
/* An attn_observer; ctx is the struct heads_delta. It must see all layers of
 * every call, and may lack memory: */
void heads_delta_observe(void *ctx, const struct attn_call *);
/* What was seen so far, valid until the next call; NULL with *err when memory lacked. */
const struct heads_delta_sums *heads_delta_sums(const struct heads_delta *, struct err *);

#endif
