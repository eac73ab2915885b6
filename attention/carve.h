/* carve.h - an allocation cut into 64-byte aligned pieces; a first pass without memory sizes it. */
#ifndef ATTENTION_CARVE_H
#define ATTENTION_CARVE_H
#include "attention/partial.h"

struct carve { char *at; size_t used; };

static inline void *carve(struct carve *c, size_t count, size_t size) {
    void *p = c->at ? c->at + c->used : NULL;
    c->used += (count * size + 63) / 64 * 64;
    return p;
}

static inline struct partial carve_partial(struct carve *c, size_t rows, int v_dim) {
    struct partial p;
    p.m = carve(c, rows, sizeof(float));
    p.sum = carve(c, rows * TILE_LANES, sizeof(float));
    p.out = carve(c, rows * v_dim, sizeof(float));
    return p;
}

#endif
