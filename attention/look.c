#include "attention/look.h"
#include <string.h>

/* Bits lo..hi-1 of a tile. */
static uint64_t bits(int lo, int hi) {
    if (lo < 0) lo = 0;
    if (hi > TILE) hi = TILE;
    if (lo >= hi) return 0;
    return (~(uint64_t)0 >> (TILE - (hi - lo))) << lo;
}

static uint64_t span_bits(const struct attn_span *s, int query, int tile) {
    if (s->until && query >= s->until) return 0;
    int lo = s->begin, hi = s->end < query + 1 ? s->end : query + 1;
    if (s->window && lo < query + 1 - s->window) lo = query + 1 - s->window;
    return bits(lo - tile, hi - tile);
}

uint64_t look(uint64_t *seen, const struct rows *x, const struct attn_span *span, int n_spans, int tile, int *first,
              int *last) {
    uint64_t any = 0;
    *first = *last = 0;
    for (int t = 0; t < x->n; t++) {
        uint64_t row = 0, of_some = 0, *own = seen + (size_t)t * x->group;
        for (int i = 0; i < n_spans && span[i].begin < tile + TILE; i++)
            if (!span[i].heads) row |= span_bits(&span[i], x->pos + t, tile);
            else of_some = 1;
        for (int h = 0; h < x->group; h++) own[h] = row;
        for (int i = 0; of_some && i < n_spans && span[i].begin < tile + TILE; i++)
            for (int h = 0; h < x->group; h++)
                if (span[i].heads >> h & 1) own[h] |= span_bits(&span[i], x->pos + t, tile);
        for (int h = 0; h < x->group; h++) {
            if (!own[h]) continue;
            if (!any) *first = t * x->group + h;
            *last = t * x->group + h + 1;
            any |= own[h];
        }
    }
    return any;
}

int look_capped(uint64_t *capped, const struct rows *x, const struct attn_span *span, int n_spans, int tile) {
    int cap = 0;
    for (int i = 0; i < n_spans && span[i].begin < tile + TILE; i++) {
        if (!span[i].cap || x->pos + x->n - 1 <= span[i].cap || span[i].end <= tile) continue;
        if (!cap) memset(capped, 0, (size_t)x->n * x->group * sizeof *capped);
        cap = span[i].cap;
        for (int r = 0; r < x->n * x->group; r++) {
            const int at = x->pos + r / x->group, h = r % x->group;
            if (at > cap && (!span[i].heads || span[i].heads >> h & 1)) capped[r] |= span_bits(&span[i], at, tile);
        }
    }
    return cap;
}

int look_ahead(const struct attn_span *span, int n_spans, int position) {
    while (n_spans && span->end <= position) span++, n_spans--;
    return !n_spans ? -1 : (span->begin > position ? span->begin : position) / KV_PAGE;
}
