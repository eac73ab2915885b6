/* look.h - what spans mean for the rows of a sweep and one tile of keys:
 * bit j of a row's word is the tile's key j. */
#ifndef ATTENTION_LOOK_H
#define ATTENTION_LOOK_H
#include "attention/mode.h"

/* The rows of one sweep: n tokens from position pos, the `group` query
 * heads of one KV head each. Row t * group + h. */
struct rows { int layer, kv_head, pos, n, group; };

/* Which keys of the tile at this position each row sees, and all of them together; *first..*last-1
 * are the rows that see any. The spans end behind the tile's beginning. */
uint64_t look(uint64_t *seen, const struct rows *, const struct attn_span *, int n_spans, int tile,
              int *first, int *last);
/* The same for n pages that lie anywhere, ascending, put side by side;
 * the spans end behind the first one's beginning. */
uint64_t look_pages(uint64_t *seen, const struct rows *, const struct attn_span *, int n_spans,
                    const int *page, int n, int *first, int *last);
/* Which of a tile's keys each row sees through a span with a cap, and from beyond it;
 * 0: no row does, else the cap. */
int look_capped(uint64_t *capped, const struct rows *, const struct attn_span *, int n_spans,
                int tile);
/* The first page at or after position, where a tile begins, that spans reach; -1: there is none. */
int look_ahead(const struct attn_span *, int n_spans, int position);

#endif
