/* heads_scores.h - bin/heads finds the heads that fetch: asks, scores every head in several ways,
 * prints what they say and agree on, proves it on a fact not seen before, and writes the files. */
#ifndef TOOLS_COMMON_HEADS_SCORES_H
#define TOOLS_COMMON_HEADS_SCORES_H
#include "tools/common/heads_ask.h"

int heads_scores(struct heads_ask *, struct err *);

#endif
