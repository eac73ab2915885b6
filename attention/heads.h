/* heads.h - scores of how much each head retrieves from far back, from files of other projects. */
#ifndef ATTENTION_HEADS_H
#define ATTENTION_HEADS_H
#include "base/err.h"

/* Fills score[n_layers][n_kv_heads] from a file of one of two kinds:
 *   TSV   one line per layer, one number per KV head (DuoAttention's full_attention_heads.tsv)
 *   JSON  one object, "LAYER-HEAD": [numbers] for every query head (the retrieval scores of
 *         Wu et al.); a head counts its mean, a KV head the best of its query heads
 * A file whose shape is not the model's is refused. */
int heads_read(float *score, const char *path, int n_layers, int n_heads, int n_kv_heads,
               struct err *);

/* full[i] = 1 for the share `ratio` of the n heads with the highest scores, 0 for the others, and
 * returns how many those are: n - ceil((1 - ratio) (n - 1)), none for a ratio of 0. Scores are
 * first cut to 0..1; among equal ones the first come first. */
int heads_choose(unsigned char *full, const float *score, int n, double ratio);

#endif
