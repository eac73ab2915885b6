/* tiny.h - little random models for tests: any shape, any weight type, written as a GGUF. */
#ifndef TESTS_COMMON_TINY_H
#define TESTS_COMMON_TINY_H
#include <stdbool.h>
#include <stdint.h>
#include "kernels/dtype.h"

struct tiny {
    const char *arch;                  /* NULL: llama */
    enum dtype type;                   /* of the matrices; norms are F32 */
    int n_layers, n_embd, n_ff, n_heads, n_kv_heads, n_vocab;
    int head_dim;                      /* 0: n_embd / n_heads, and no key_length in the file */
    int v_dim;                         /* 0: head_dim */
    int n_rot;                         /* 0: head_dim, and no dimension_count in the file */
    bool tied, rope_factors, biases;
    const char *scaling;               /* NULL, "linear", "yarn" */
    float factor;
    uint64_t seed;
};

/* Writes the model to path; fails the test when that does not work. */
void tiny_write(const char *path, const struct tiny *);
/* Deterministic noise: uniform bits, and a normal deviate. */
uint64_t noise(uint64_t *state);
double noise_normal(uint64_t *state);

#endif
