/* sweep.h - some rows of queries against the keys of one segment, tile by tile: scores,
 * softmax, weighted values. The inner loop of all attention, and the only code that
 * multiplies queries with keys. It knows no threads. */
#ifndef ATTENTION_SWEEP_H
#define ATTENTION_SWEEP_H
#include "attention/carve.h"
#include "attention/look.h"
#include "attention/masses.h"
#include "attention/walk.h"
#include "kernels/tile_matrix.h"

struct sweep {                 /* what all threads share */
    struct attn_shape shape;
    const struct tile_kernels *tile;
    const struct tile_matrix *matrix;      /* multiplies in tile's stead, but for F32; or NULL */
    int rows;                  /* most rows of one sweep */
    int turns;                 /* spans may have a cap */
    double *freq;              /* [n_rot / 2], if so */
    struct masses *keep;       /* gets every tile's exponentials; or NULL */
};

struct sweep_scratch {         /* of one thread */
    float *q;                  /* [rows][k_dim], scaled to give scores in base 2 */
    float *s;                  /* [rows][TILE] scores, then weights; or those of all tiles of a
                                * segment for MATRIX_ROWS rows */
    void *k, *v;               /* one tile, as f32 or in the matrix unit's order */
    uint64_t *seen;            /* [SEGMENT / TILE][rows] keys of each tile that the rows see */
    float *turned, *s_capped;  /* q and s once more, for spans with a cap; NULL in modes without */
    uint64_t *capped;          /* [rows] keys of the tile each row sees as if nearer */
    void *q_matrix, *turned_matrix;        /* q and turned in the matrix unit's order; or NULL */
    uint64_t keys_read;
};

void sweep_carve(struct sweep_scratch *, struct carve *, const struct sweep *);

/* Loads the queries of the rows, for keys of that type: q is that of their first token and head,
 * n_heads * k_dim floats from token to token. */
void sweep_load(const struct sweep *, struct sweep_scratch *, const float *q, const struct rows *,
                enum dtype type_k);
/* part = the rows loaded against the keys of one segment; first_span as walk_segment found it.
 * Spans with a cap, and masses, want pages in their places. */
void sweep_segment(const struct sweep *, struct sweep_scratch *, struct partial part,
                   const struct rows *, const struct kvcache *, const struct walk *, int first_span,
                   int segment);

#endif
