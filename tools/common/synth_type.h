/* synth_type.h - the type of one tensor of a made-up model: as bin/quantize would choose it. */
#ifndef TOOLS_COMMON_SYNTH_TYPE_H
#define TOOLS_COMMON_SYNTH_TYPE_H
#include "tools/common/recipe.h"

static inline enum dtype synth_type(const struct recipe *r, const struct recipe_model *m,
                                    const char *name, uint64_t cols, uint64_t rows) {
    /* One row: norms, biases, rotation. */
    return rows == 1 ? DT_F32 : recipe_fallback(recipe_type(r, m, name, cols), cols);
}

#endif
