/* needle_pivot.h - grids as one small table: a line for each model, mode and cache type, a column
 * for each test, length, or both; mean scores. */
#ifndef TOOLS_COMMON_NEEDLE_PIVOT_H
#define TOOLS_COMMON_NEEDLE_PIVOT_H
#include <stdbool.h>
#include "tools/common/needle_grid.h"

/* A Markdown table, then the parameters of the modes. Where tests or lengths are no columns, scores
 * are means over all rows, each of the same weight. A test is called by its first word where that
 * tells it apart. 0, or -1: no memory. */
int grids_pivot(const struct grids *, bool by_test, bool by_length, FILE *, struct err *);

#endif
