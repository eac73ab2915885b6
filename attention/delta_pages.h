/* delta_pages.h - which pages of keys a layer of DELTA chooses for the layers after it. */
#ifndef ATTENTION_DELTA_PAGES_H
#define ATTENTION_DELTA_PAGES_H
#include <stdint.h>

/* Pages of a list; of these the last, and the first, of the context. */
struct delta_share { int budget, recent, sink; };

/* Writes the pages of a context of n_pages to page[budget], ascending: the sink first ones, the
 * recent last ones, and of those between the ones with most mass (among equals the lower), budget
 * in all; returns their number, which is n_pages when that is less. recent + sink < budget.
 * mass[n_pages] >= 0; scratch is [2][n_pages]. */
int delta_choose(int *page, const float *mass, int n_pages, const struct delta_share *,
                 uint64_t *scratch);

#endif
