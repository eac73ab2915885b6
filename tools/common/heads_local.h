/* heads_local.h - a guess at harm from one pass: how much of what a KV head adds to the residual
 * stream it owes to keys beyond the first tokens and a window, |Wo (o - o')|^2 / |x|^2 over the
 * answer. x is the residual stream its layer reads, o what its query heads gather from all keys, o'
 * from the near ones. Unlike ablation it stays within the layer: it does not know what later layers
 * make of the difference. */
#ifndef TOOLS_COMMON_HEADS_LOCAL_H
#define TOOLS_COMMON_HEADS_LOCAL_H
#include "tools/common/heads_probe.h"

/* local [n_layers][n_kv_heads] of the sample the probe has read into the session; sink
 * and recent: what counts as near. */
int heads_local(struct heads_probe *, const struct model *, const struct session *,
                const struct heads_sample *, int sink, int recent, float *local, struct err *);

#endif
