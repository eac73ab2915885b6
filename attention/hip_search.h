/* hip_search.h - finding the keys with high scores without looking at all of them.
 *
 * Both searches rest on one observation: for a given query, keys close to each other
 * score alike, so that one key can speak for its neighbours. They know nothing of queries
 * and caches: what a place is worth, a function says. A score that is not a number counts
 * as the lowest; ties go to the lower position. */
#ifndef ATTENTION_HIP_SEARCH_H
#define ATTENTION_HIP_SEARCH_H
#include <stddef.h>
#include <stdint.h>

struct hip_branch { int start, count; };        /* of what is searched: count >= 1 from start on */

struct hip_scratch {                            /* of one search; room says how large */
    struct hip_branch *beam, *next;
    int *key, *left;
    float *score, *best;
    uint64_t *rank;
};

/* Carves the scratch for beams of up to `width` and stages that keep up to `keep` out of memory
 * (64-byte aligned); returns the bytes it takes. memory may be NULL to ask for them. */
size_t hip_scratch_carve(struct hip_scratch *, void *memory, int width, int keep);

/* The beam search of HiP attention: a binary tree over 0..n-1,
 * of which `width` branches survive each level.
 *
 * Starts with `width` branches of equal length; halves each; keeps the `width` best halves; and
 * so on until all have length 1. A pruned branch never comes back. Writes the survivors,
 * ascending, to out[] and returns their number, min(n, width). Levels:
 * ceil(log2(ceil(n / width))). score fills in what each branch is worth. */
typedef void hip_score_branches(void *ctx, const struct hip_branch *, int n, float *score);
int hip_beam(int *out, int n, int width, hip_score_branches *score, void *ctx,
             struct hip_scratch *);

/* A stage of InfiniteHiP's chain: of all chunks of `size` tokens (a power of two), the `keep` best.
 *
 * The chunks are those of every parent: `split` of them side by side from parent[i] on. In
 * each chunk a bisection descends to the half whose centre scores higher; the best score
 * on its way is the chunk's. Writes where the kept chunks begin, ascending, to out[]
 * (which may be parent when split is 1) and returns their number. 2 log2(size) keys are
 * scored for each chunk; none if all are kept anyway. */
typedef void hip_score_keys(void *ctx, const int *key, int n, float *score);
int hip_stage(int *out, const int *parent, int n_parents, int split, int size, int keep,
              hip_score_keys *score, void *ctx, struct hip_scratch *);

#endif
