/* synth_shape.h - the true dimensions of models people run. */
#ifndef TOOLS_COMMON_SYNTH_SHAPE_H
#define TOOLS_COMMON_SYNTH_SHAPE_H
#include <stdbool.h>

enum synth_tokens { TOKENS_SPM, TOKENS_LLAMA3, TOKENS_QWEN2, TOKENS_SMOLLM };

struct synth_shape {
    const char *name, *arch;
    enum synth_tokens tokens;
    int n_vocab, n_layers, n_embd, n_ff, n_heads, n_kv_heads, head_dim;
    int n_ctx;
    double rope_base;
    int llama3_factor;             /* of rope_freqs.weight; 0: no such tensor */
    double eps;
    bool tied;                     /* no output.weight: the embedding serves twice */
};

const struct synth_shape *shape_find(const char *name);    /* NULL: unknown */
const char *shape_names(void);

#endif
