#include "attention/delta_pages.h"
#include <string.h>

/* The k-th largest of x[n], which it rearranges; 1 <= k <= n. */
static uint64_t kth_largest(uint64_t *x, int n, int k) {
    int lo = 0, hi = n - 1, want = k - 1;
    while (lo < hi) {
        const uint64_t pivot = x[lo + (hi - lo) / 2];
        int i = lo, j = hi;
        while (i <= j) {
            while (x[i] > pivot) i++;
            while (x[j] < pivot) j--;
            if (i > j) break;
            const uint64_t swap = x[i];
            x[i++] = x[j], x[j--] = swap;
        }
        if (want <= j) hi = j;
        else if (want >= i) lo = i;
        else break;
    }
    return x[want];
}

/* Higher for more mass, then for the lower page: no two are equal.
 * Bits of floats >= 0 are in the order of the floats. */
static uint64_t rank_of(float mass, int page) {
    uint32_t bits;
    memcpy(&bits, &mass, sizeof bits);
    return (uint64_t)bits << 32 | (uint32_t)~page;
}

int delta_choose(int *page, const float *mass, int n_pages, const struct delta_share *s,
                 uint64_t *scratch) {
    const int first = s->sink, last = n_pages - s->recent, n = last - first,
              want = s->budget - s->recent - first;
    uint64_t *rank = scratch, *sorted = scratch + n_pages, least = 0;
    int count = 0;
    if (n_pages > s->budget) {
        for (int i = 0; i < n; i++) rank[i] = rank_of(mass[first + i], first + i);
        memcpy(sorted, rank, (size_t)n * sizeof *rank);
        least = kth_largest(sorted, n, want);
    }
    for (int u = 0; u < n_pages; u++)
        if (!least || u < first || u >= last || rank[u - first] >= least) page[count++] = u;
    return count;
}
