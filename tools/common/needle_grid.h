/* needle_grid.h - rows as grids: one for each model, test, attention mode and cache type, with mean
 * scores by length and depth. Printed as a table, drawn as heat maps. */
#ifndef TOOLS_COMMON_NEEDLE_GRID_H
#define TOOLS_COMMON_NEEDLE_GRID_H
#include <stdio.h>
#include "base/err.h"
#include "tools/common/needle_rows.h"

struct grid_column {                   /* means over all rows of one length; < 0: no row knows */
    int cells;
    double score, kv_bytes, keys_read, prefill_tps, decode_tps;
};

struct grid {
    const struct row *first;           /* stands for what all rows of the grid have in common */
    int n_lengths, n_depths;
    int *length;                       /* [n_lengths] ascending */
    double *depth;                     /* [n_depths] ascending */
    double *score;                     /* [n_depths][n_lengths]; NAN: no row */
    struct grid_column *column;        /* [n_lengths] */
};

struct grids { struct grid *grid; int n; };

/* In order of first appearance. The rows must outlive the grids. */
int grids_make(struct grids *, const struct rows *, struct err *);
void grids_free(struct grids *);
/* A Markdown table: a line for each grid and length; then the parameters of the modes, which carry
 * a number where one mode comes with several sets of them. */
void grids_print(const struct grids *, FILE *);
/* The parameters alone. */
void grids_print_parameters(const struct grids *, FILE *);
/* What a table calls the mode of grid i ("hip", and "hip-2" for the second set of its
 * parameters), and the types of a row's cache: "F16", or "Q8_0/F16" for keys and
 * values that differ. Both return buf. */
const char *grid_mode_label(const struct grids *, int i, char buf[128]);
const char *grid_cache_label(const struct row *, char buf[64]);
/* How many letters of a row's version tell its test apart from those of the other grids: the first
 * word ("hop" of "hop-d4-n32"), or all. */
int grid_test_label(const struct grids *, const char *version);
/* path holds all grids side by side; when there are several, NAME.MODE-TYPE.png beside NAME.png
 * holds each alone, or NAME.TEST.MODE-TYPE.png when there are several tests. */
int grids_draw(const struct grids *, const char *path, struct err *);

#endif
