/* walk.h - in what order a selection's keys are taken: segments of SEGMENT keys, tiles of TILE.
 *
 * As a rule both are cut at absolute positions, so that what a row computes depends on
 * its own keys alone. A selection of pages far apart would fill a quarter of every tile:
 * its pages are put side by side first. Then a row's bits depend on the whole list,
 * which must not change with threads or with the rows beside it; selections that reach
 * every page are cut in the same places either way. */
#ifndef ATTENTION_WALK_H
#define ATTENTION_WALK_H
#include "attention/mode.h"
#include "kernels/tile.h"

enum { SEGMENT = 512, SEGMENT_PAGES = SEGMENT / KV_PAGE };  /* keys of one partial result */

struct walk {
    const struct attn_span *span;
    int n_spans;
    int end;               /* no query is at this position or later */
    const int *page;       /* those the spans reach, ascending, side by side; NULL: all in place */
    int n_pages;
};

/* Lists the pages that the spans reach before `end`; returns their number. */
int walk_pages(int *page, const struct attn_span *, int n_spans, int end);

/* The next segment, at or after the given one, that has keys; *first is the first span that ends
 * behind its beginning. -1: there is none. */
int walk_segment(const struct walk *, int segment, int *first);

#endif
