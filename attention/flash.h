/* flash.h - the one kernel that attends: tiled, online softmax,
 * all query heads of a group in one pass over the keys.
 *
 * The keys of one query are walked in ascending order, in tiles of TILE tokens cut at
 * absolute positions. Tiles belong to segments, also cut at absolute positions; each
 * segment gives a partial result (max, sum, out) and the partials are merged in ascending
 * order. Neither the number of threads, nor the queries attended in the same call, nor the
 * batch size of the prefill changes a bit of any row. */
#ifndef ATTENTION_FLASH_H
#define ATTENTION_FLASH_H
#include "attention/mode.h"

struct flash;

/* Scratch for shape->max_batch tokens and the threads OpenMP has now. */
int flash_open(struct flash **out, const struct attn_shape *shape, const struct kernels *,
               const struct attn_mode *, struct err *);
void flash_close(struct flash *);                                  /* NULL is fine */
void flash_run(struct flash *, struct attn_mode *, float *out, const float *q,
               const struct kvcache *, int layer, int pos, int n);
/* See attn_narrow. */
void flash_narrow(struct flash *, const unsigned char *narrow, int sink, int recent);
size_t flash_bytes(const struct flash *);
void flash_counters(const struct flash *, uint64_t *keys_read, uint64_t *rows);

#endif
