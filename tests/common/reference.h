/* reference.h - the llama forward pass in double precision, written straight from its
 * definition: every sum in order, the whole score row stored, no cache, no batching. What
 * the engine's logits are tested against. */
#ifndef TESTS_COMMON_REFERENCE_H
#define TESTS_COMMON_REFERENCE_H
#include <stdint.h>
#include "model/gguf.h"

/* logits [n][n_vocab], malloc'd: of every token of ids. Reads the file's metadata itself.
 * Exits when the file is broken. */
double *reference_logits(const struct gguf *, const int32_t *ids, int n, int *n_vocab);

/* max |a - b|; std of a's logits; share of equal argmax. */
struct closeness { double mean_kl, max_delta, std, argmax; };
struct closeness compare_logits(const double *a, const float *b, int n, int n_vocab);

#endif
