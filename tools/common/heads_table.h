/* heads_table.h - what many samples say about heads, what the ways to look at them agree on,
 * and the files that come of it. */
#ifndef TOOLS_COMMON_HEADS_TABLE_H
#define TOOLS_COMMON_HEADS_TABLE_H
#include "base/err.h"

struct heads_table {
    int n_layers, n_heads, n_kv_heads;
    int n_runs, room;
    float *copy;                       /* [n_runs][n_layers][n_heads] */
    float *harm, *local;               /* [n_runs][n_layers][n_kv_heads] */
};

struct heads_run { float *copy, *harm, *local; };          /* one run's part of each */

/* Adds room for a run and gives its tables, zeroed. */
int heads_table_add(struct heads_table *, struct heads_run *, struct err *err);
void heads_table_free(struct heads_table *);

/* Over all runs, [n_layers][n_kv_heads]: the mean copy score of each group's best query head. */
void heads_table_copy(const struct heads_table *, float *out);
/* The mean copy score of every query head: out[n_layers * n_heads]. */
void heads_table_query_copy(const struct heads_table *, float *out);
/* The mean of the table's harm or local; and the mean over the runs of its rank within the run. */
void heads_table_mean(const struct heads_table *, const float *of, float *out);
void heads_table_rank(const struct heads_table *, const float *of, float *out);
/* Spearman's correlation between what the even runs say and what the odd ones
 * do; NAN with fewer than two runs. */
double heads_table_split_half(const struct heads_table *, const float *of);

/* rank[i]: the place of x[i] among n, 0 the lowest, 1 the highest, equal values sharing the mean of
 * their places. What lies below HEADS_NOTHING counts as zero: rounding, not harm. */
#define HEADS_NOTHING 1e-10f
void heads_rank(float *rank, const float *x, int n);
/* Spearman's correlation -1..1; NAN when one side has a single value. */
double heads_agree(const float *a, const float *b, int n);
/* How many of the k highest of a are among the k highest of b; among
 * equal values the first come first. */
int heads_shared(const float *a, const float *b, int n, int k);

/* One line per layer, one value 0..1 per KV head: what --attn duo,heads=FILE
 * reads (DuoAttention's format). */
int heads_write_tsv(const char *path, const float *value, int n_layers, int n_kv_heads,
                    struct err *);
/* "LAYER-HEAD": [copy score of each run] for every query head (Wu et al.'s format). */
int heads_write_json(const char *path, const struct heads_table *, struct err *);
/* A plan for --attn moa: a query head whose copy score copy[n_layers * n_heads] is above `least`
 * spans the whole text, the others `near` tokens. */
int heads_write_plan(const char *path, const float *copy, int n_layers, int n_heads, double least,
                     int near, struct err *);

#endif
