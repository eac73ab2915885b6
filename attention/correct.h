/* correct.h - delta correction: makes up for what sparse attention
 * leaves out while prefilling (arXiv 2505.11254).
 *
 * Every g-th token, an anchor, is attended in full as well. The difference to its sparse
 * result is added to the tokens that follow it, up to the next anchor:
 * out[i] += full[a] - sparse[a], a = i / g * g. Anchors sit at multiples of g whatever the
 * batches of the prefill; the last difference of each layer is kept for the next batch.
 * Where an anchor was not part of the prefill (the token was decoded, or another timeline
 * was given up), nothing is corrected up to the next one. */
#ifndef ATTENTION_CORRECT_H
#define ATTENTION_CORRECT_H
#include "attention/flash.h"

struct correct;

int correct_open(struct correct **out, const struct attn_shape *, struct err *);
void correct_close(struct correct *);             /* NULL is fine */
/* out holds the sparse results of the call. g is 0 where nothing is to be corrected. */
void correct_run(struct correct *, struct flash *, float *out, const float *q,
                 const struct kvcache *, int layer, int pos, int n, int g);
uint64_t correct_rows(const struct correct *);    /* (head, anchor) pairs attended in full so far */
size_t correct_bytes(const struct correct *);

#endif
