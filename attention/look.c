#include "attention/look.h"
#include <stdbool.h>
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

/* Whether every query sees all positions begin..end-1, in every head. */
static bool seen_by_all(const struct rows *x, const struct attn_span *s, int begin, int end) {
    return s->begin <= begin && s->end >= end && end <= x->pos + 1 &&
           !s->window && !s->until && !s->heads;
}

uint64_t look(uint64_t *seen, const struct rows *x, const struct attn_span *span, int n_spans,
              int tile, int *first, int *last) {
    uint64_t any = 0;
    *first = *last = 0;
    if (n_spans && seen_by_all(x, span, tile, tile + TILE)) {          /* by far the most usual */
        *last = x->n * x->group;
        memset(seen, 0xff, (size_t)*last * sizeof *seen);
        return ~(uint64_t)0;
    }
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

/* Ors what each row sees of one page into its word, from bit `shift` on. */
static void look_page(uint64_t *seen, const struct rows *x, const struct attn_span *span,
                      int n_spans, int at, int shift) {
    const uint64_t page = (1u << KV_PAGE) - 1;
    for (int i = 0; i < n_spans && span[i].begin < at + KV_PAGE; i++)
        for (int t = 0; t < x->n; t++) {
            const uint64_t keys = (span_bits(&span[i], x->pos + t, at) & page) << shift;
            uint64_t *own = seen + (size_t)t * x->group;
            for (int h = 0; keys && h < x->group; h++)
                if (!span[i].heads || span[i].heads >> h & 1) own[h] |= keys;
        }
}

uint64_t look_pages(uint64_t *seen, const struct rows *x, const struct attn_span *span, int n_spans,
                    const int *page, int n, int *first, int *last) {
    const int rows = x->n * x->group;
    uint64_t by_all = 0, any = 0;
    int some = 0;
    for (int p = 0; p < n; p++) {
        const int at = page[p] * KV_PAGE;
        while (n_spans && span->end <= at) span++, n_spans--;
        if (n_spans && seen_by_all(x, span, at, at + KV_PAGE)) {
            by_all |= bits(p * KV_PAGE, (p + 1) * KV_PAGE);
            continue;
        }
        if (!some++) memset(seen, 0, (size_t)rows * sizeof *seen);
        look_page(seen, x, span, n_spans, at, p * KV_PAGE);
    }
    *first = *last = 0;
    for (int r = 0; r < rows; r++) {
        seen[r] = (some ? seen[r] : 0) | by_all;
        if (!seen[r]) continue;
        if (!any) *first = r;
        *last = r + 1;
        any |= seen[r];
    }
    return any;
}

int look_capped(uint64_t *capped, const struct rows *x, const struct attn_span *span, int n_spans,
                int tile) {
    int cap = 0;
    for (int i = 0; i < n_spans && span[i].begin < tile + TILE; i++) {
        if (!span[i].cap || x->pos + x->n - 1 <= span[i].cap || span[i].end <= tile) continue;
        if (!cap) memset(capped, 0, (size_t)x->n * x->group * sizeof *capped);
        cap = span[i].cap;
        for (int r = 0; r < x->n * x->group; r++) {
            const int at = x->pos + r / x->group, h = r % x->group;
            if (at > cap && (!span[i].heads || span[i].heads >> h & 1))
                capped[r] |= span_bits(&span[i], at, tile);
        }
    }
    return cap;
}

int look_ahead(const struct attn_span *span, int n_spans, int position) {
    while (n_spans && span->end <= position) span++, n_spans--;
    return !n_spans ? -1 : (span->begin > position ? span->begin : position) / KV_PAGE;
}
