/* type_mix.h - which storage type each tensor of a model gets when the whole is called "Q4_K_M" or "Q8_0".
 *
 * The rules are those of the files people download: norms, biases and rope_freqs stay F32, the output matrix gets 6 bits
 * when the rest has fewer, some mixes give attn_v and ffn_down more bits in some layers, and a row that does not divide
 * into blocks of 256 takes the nearest type with blocks of 32. */
#ifndef TOOLS_COMMON_TYPE_MIX_H
#define TOOLS_COMMON_TYPE_MIX_H
#include <stdbool.h>
#include <stdint.h>
#include "kernels/dtype.h"

struct type_mix {
    const char *name;
    enum dtype base;
    int file_type;                 /* general.file_type */
    enum { MIX_PLAIN, MIX_S, MIX_M } more;
};

const struct type_mix *type_mix_find(const char *name);    /* case-blind; NULL: unknown */
const char *type_mix_names(void);                          /* "F32, F16, ...", for messages */

/* The type of a weight called name ("blk.3.attn_v.weight", "output.weight") with rows of cols values. tied: the model
 * has no output.weight, so that token_embd.weight takes its place. */
enum dtype type_mix_pick(const struct type_mix *, const char *name, int n_dims, uint64_t cols, int n_layers, bool tied);

#endif
