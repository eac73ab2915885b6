/* bench_fill.h - keys and values nobody computed, for a cache of any depth in seconds.
 *
 * Before RoPE, each dimension of a head's keys is a slow drift along the positions plus white
 * noise: drift(t) = a drift(t-1) + noise with a = exp(-1/BENCH_FILL_LENGTH), of variance 1, and
 * noise of variance 1/2. So neighbours resemble each other as real ones do, distant keys do not,
 * and the softmax of a query is neither flat nor a spike. The model's own rotation follows. Values
 * are noise of variance 1.
 *
 * The numbers depend on the seed and the position alone: not on threads, chunks or the machine. */
#ifndef TOOLS_COMMON_BENCH_FILL_H
#define TOOLS_COMMON_BENCH_FILL_H
#include <stdint.h>
#include "base/err.h"
#include "model/model.h"

enum { BENCH_FILL_LENGTH = 32 };       /* positions after which the drift remembers 1/e of itself */

struct bench_fill;

/* One per session: it continues where the last call ended. max_batch: most tokens of one call. */
int bench_fill_open(struct bench_fill **out, const struct model *, int max_batch, uint64_t seed,
                    struct err *);
void bench_fill_close(struct bench_fill *);            /* NULL is fine */
void bench_fill_restart(struct bench_fill *);          /* the next call fills position 0 again */
/* A session_fill_fn; ctx is the struct bench_fill. */
void bench_fill(void *ctx, int layer, int pos, int n, float *k, float *v);

#endif
