/* hip_score.h - what keys of the cache are worth to a block of queries:
 * the highest score any sampled query gives.
 *
 * The queries belong to one owner of a mask: heads head..head+n_heads-1 of one
 * group, or all heads of several groups. A single key of a page is spread over
 * the whole page (kernels/tile.h), so keys are unpacked and put side by side into
 * tiles first; whole pages are scored where they are. */
#ifndef ATTENTION_HIP_SCORE_H
#define ATTENTION_HIP_SCORE_H
#include "attention/mode.h"
#include "kernels/peak.h"
#include "kernels/tile_matrix.h"

struct hip_owner { int kv_head, n_kv_heads, head, n_heads; };  /* head counts within the group */

struct hip_scorer {
    struct attn_shape shape;
    const struct tile_kernels *tile;  /* set these four before the first load */
    const struct peak_kernels *peak;
    const struct tile_matrix *matrix; /* or NULL: there is none */
    const struct kvcache *kv;
    int layer;
    struct hip_owner owner;
    int n_rows, n_samples;
    float *q;                         /* [n_kv_heads][n_samples][n_heads][k_dim] */
    float *q_peak;                    /* [n_kv_heads][ceil(n_rows / PEAK_ROWS)][k_dim][PEAK_ROWS] */
    void *q_matrix, *k_matrix;        /* each KV head's rows, MATRIX_ROWS a block; a tile of keys */
    int blocks_matrix;                /* of q_matrix; 0: the rows are few, or there is no unit */
    int *last;                        /* [n_samples] the last key a sample may judge, ascending */
    float *s;                         /* [n_rows][TILE] */
    float *keys, *page;               /* [TILE_PAGES][k_dim][KV_PAGE], and one of its pages */
    uint64_t scored;                  /* keys so far, each once for every KV head it is read of */
};

/* Carves scratch for owners of <= n_heads query heads and n_tokens queries; returns its bytes. */
size_t hip_scorer_carve(struct hip_scorer *, void *memory, const struct attn_shape *, int n_heads,
                        int n_tokens);

/* Takes the queries of n tokens from position pos on, q [n][shape.n_heads][k_dim]: of
 * every `stride` of them the last, or with `pool` their mean; a rest shorter than that
 * counts only with pool, or if there is nothing else. A sample judges keys that are
 * `window` or more positions before its (last) query. */
void hip_load(struct hip_scorer *, int layer, struct hip_owner, const float *q, int pos, int n,
              int stride, int pool, int window);

/* score[i] = the highest score of key[i]; -INFINITY if no sample may judge it. */
void hip_score(struct hip_scorer *, const int *key, int n, float *score);

/* Whether every sample may judge this key. */
static inline int hip_all_judge(const struct hip_scorer *s, int key) { return key <= s->last[0]; }
/* score[i] = the highest score of the KV_PAGE keys of page[i], which every sample may judge.
 * Much faster than by key. */
void hip_score_pages(struct hip_scorer *, const int *page, int n, float *score);

#endif
