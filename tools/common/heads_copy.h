/* heads_copy.h - the copy test (the retrieval score of Wu et al., arXiv 2404.15574): of the
 * answer's tokens, those for which a query head looked hardest at that very token in the needle.
 * One pass shows it for all heads. */
#ifndef TOOLS_COMMON_HEADS_COPY_H
#define TOOLS_COMMON_HEADS_COPY_H
#include "tools/common/heads_probe.h"

/* copy [n_layers][n_heads], 0..1, of the sample the probe has read. */
int heads_copy(struct heads_probe *, const struct model *, const struct heads_sample *,
               float *copy, struct err *);

#endif
