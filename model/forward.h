/* forward.h - a transformer's forward pass, block by block, and the scratch memory it works in. */
#ifndef MODEL_FORWARD_H
#define MODEL_FORWARD_H
#include <stddef.h>
#include <stdint.h>
#include "attention/attention.h"
#include "base/err.h"
#include "kvcache/kvcache.h"
#include "model/model.h"

struct forward;

int forward_open(struct forward **out, const struct model *, int max_batch, struct err *);
void forward_close(struct forward *);                  /* NULL is fine */
size_t forward_bytes(const struct forward *);

/* Runs n <= max_batch tokens at positions pos..pos+n-1 and stores their keys and values in
 * the cache (room reserved before). Only the last n_out tokens are carried through the last block:
 * they are what forward_logits may ask for. */
void forward_run(struct forward *, struct kvcache *, struct attn *, const int32_t *ids, int pos,
                 int n, int n_out);
/* logits [n][n_vocab] of tokens first..first+n-1 of the n_out of the last run. */
void forward_logits(struct forward *, int first, int n, float *logits);
/* Their hidden states after the last norm: [n][n_embd], valid until the next run. */
const float *forward_hidden(const struct forward *, int first);

#endif
