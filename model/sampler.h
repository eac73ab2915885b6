/* sampler.h - from logits to the next token: repeat penalty, top-k, top-p, min-p, temperature, in
 * llama.cpp's order. The same seed gives the same tokens on every machine for the same logits. */
#ifndef MODEL_SAMPLER_H
#define MODEL_SAMPLER_H
#include <stdint.h>
#include "base/err.h"

struct sampler_options {
    double temp;               /* <= 0: greedy */
    int top_k;                 /* <= 0: all */
    double top_p, min_p;       /* 1 and 0: off */
    double repeat_penalty;     /* 1: off */
    int repeat_last_n;         /* tokens it looks back; 0: off, -1: everything */
    uint64_t seed;
};
#define SAMPLER_DEFAULTS { 0.8, 40, 0.95, 0.05, 1.0, 64, 0 }

struct sampler;

int sampler_open(struct sampler **out, int n_vocab, const struct sampler_options *, struct err *);
void sampler_close(struct sampler *);                          /* NULL is fine */
/* Tells the repeat penalty about a token of the prompt or the answer. */
void sampler_accept(struct sampler *, int32_t id);
/* The next token. -1 when no logit is a number. */
int32_t sampler_next(struct sampler *, const float *logits);
/* The highest logit; the lowest id among equals; -1 when none is a number. */
int32_t sampler_argmax(const float *logits, int n_vocab);

#endif
