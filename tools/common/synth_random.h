/* synth_random.h - a model of a real shape with random weights, for speed measurements without a
 * download.
 *
 * Activations and logits have the sizes they have in trained models (logits: standard deviation
 * about 2), so nothing overflows and no code path is faster than in earnest. Written tensor by
 * tensor: memory stays small. */
#ifndef TOOLS_COMMON_SYNTH_RANDOM_H
#define TOOLS_COMMON_SYNTH_RANDOM_H
#include "base/err.h"
#include "tools/common/recipe.h"
#include "tools/common/synth_shape.h"

int synth_random(const char *path, const struct synth_shape *, const struct recipe *, uint64_t seed,
                 struct err *);

#endif
