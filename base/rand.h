/* rand.h - random numbers that are the same on every machine for the same seed. */
#ifndef BASE_RAND_H
#define BASE_RAND_H
#include <math.h>
#include <stdint.h>

struct rand { uint64_t s; };

static inline uint64_t rand_u64(struct rand *r) {    /* SplitMix64 (Steele, Lea and Flood 2014) */
    uint64_t z = r->s += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* 0 to n - 1; the bias is below n / 2^32. */
static inline uint32_t rand_below(struct rand *r, uint32_t n) {
    return (uint32_t)((rand_u64(r) >> 32) * n >> 32);
}

static inline double rand_unit(struct rand *r) {     /* above 0, at most 1 */
    return (double)((rand_u64(r) >> 11) + 1) * 0x1p-53;
}

static inline float rand_normal(struct rand *r) {
    double radius = sqrt(-2 * log(rand_unit(r)));
    return (float)(radius * cos(6.283185307179586 * rand_unit(r)));
}

#endif
