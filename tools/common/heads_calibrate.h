/* heads_calibrate.h - bin/heads --delta: which layers of a model should choose for the others in
 * --attn delta. Measures what lists are worth (heads_delta.h) and what a layer is, chooses
 * (heads_layers.h), prints and draws it, and runs the setting on facts not seen before. */
#ifndef TOOLS_COMMON_HEADS_CALIBRATE_H
#define TOOLS_COMMON_HEADS_CALIBRATE_H
#include "tools/common/heads_ask.h"

int heads_calibrate(struct heads_ask *, struct err *);

#endif
