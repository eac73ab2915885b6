#include "attention/walk.h"
#include "attention/look.h"

int walk_pages(int *page, const struct attn_span *span, int n_spans, int end) {
    int n = 0;
    for (int p = 0; (p = look_ahead(span, n_spans, p * KV_PAGE)) >= 0 && p * KV_PAGE < end; p++) {
        page[n++] = p;
        while (n_spans && span->end <= (p + 1) * KV_PAGE) span++, n_spans--;
    }
    return n;
}

int walk_segment(const struct walk *w, int segment, int *first) {
    if (w->page) {
        if (segment * SEGMENT_PAGES >= w->n_pages) return -1;
        for (const int at = w->page[segment * SEGMENT_PAGES] * KV_PAGE; w->span[*first].end <= at;
             ++*first) {}
        return segment;
    }
    while (*first < w->n_spans && w->span[*first].end <= segment * SEGMENT) ++*first;
    if (*first == w->n_spans) return -1;
    const int at = w->span[*first].begin / SEGMENT, next = at > segment ? at : segment;
    return next * SEGMENT < w->end ? next : -1;
}
