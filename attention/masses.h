/* masses.h - the probability each page of keys gets from a token: a by-product of attending.
 *
 * Probabilities of different heads may be compared only when the softmax is complete, and the
 * kernel's exponentials are taken against references that rise as it walks the keys. So every
 * tile's exponentials are kept beside the reference they were taken against, and one multiplication
 * each makes probabilities of them in the end. No key is read twice. */
#ifndef ATTENTION_MASSES_H
#define ATTENTION_MASSES_H
#include <stddef.h>
#include "base/err.h"
#include "kernels/tile.h"

struct masses {
    const struct tile_kernels *tile;
    int n_groups, group;           /* KV heads, and the query heads on each */
    size_t tiles;                  /* room in each group */
    int n_tokens;                  /* of the call at hand */
    float *e;                      /* [n_groups][tiles][group][TILE] exponentials, base 2 */
    float *reference;              /* [n_groups][tiles][group] of e; -INFINITY: tile not seen */
    float *factor;                 /* [n_groups][tiles][group] what makes probabilities of e */
    float *top, *sum;              /* [n_groups * group] of all keys: 2^(score - top) / sum */
    float *peak, *mean;            /* [pages] see struct attn_masses */
    void *memory;
    size_t bytes;                  /* untouched parts of it cost address space only */
};

int masses_open(struct masses **out, const struct tile_kernels *, int n_groups, int group,
                int max_tokens, struct err *);
void masses_close(struct masses *);                                /* NULL is fine */

/* For one call of one token that may see positions 0..n_tokens-1. The kernel fills in e and
 * reference of every tile it visits, then top and sum; masses_finish fills in peak and mean, with
 * the same bits for any number of threads. */
void masses_begin(struct masses *, int n_tokens);
void masses_finish(struct masses *, int threads);

/* Of the tile that begins at this position: the group's first row. */
static inline float *masses_reference(const struct masses *m, int kv_head, int position) {
    return m->reference + ((size_t)kv_head * m->tiles + (size_t)position / TILE) * m->group;
}
static inline float *masses_tile(const struct masses *m, int kv_head, int position) {
    return m->e + ((size_t)kv_head * m->tiles + (size_t)position / TILE) * m->group * TILE;
}

#endif
