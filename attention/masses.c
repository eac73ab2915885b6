#include "attention/masses.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TILES_PER_TASK = 8 };

static size_t tiles_of(int n_tokens) { return ((size_t)n_tokens + TILE - 1) / TILE; }

int masses_open(struct masses **out, const struct tile_kernels *tile, int n_groups, int group,
                int max_tokens, struct err *err) {
    struct masses *m = calloc(1, sizeof *m);
    if (!m) return fail(err, "attention: no memory");
    const size_t tiles = tiles_of(max_tokens), pages = tiles * TILE_PAGES,
                 heads = (size_t)n_groups * group;
    struct { float **p; size_t n; } parts[] = {
        { &m->e, tiles * heads * TILE }, { &m->reference, tiles * heads },
        { &m->factor, tiles * heads }, { &m->top, heads }, { &m->sum, heads },
        { &m->peak, pages }, { &m->mean, pages },
    };
    size_t at[sizeof parts / sizeof *parts];
    m->tile = tile, m->n_groups = n_groups, m->group = group, m->tiles = tiles;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        at[i] = m->bytes;
        m->bytes += (parts[i].n * sizeof(float) + 63) / 64 * 64;
    }
    if (!(m->memory = aligned_alloc(64, m->bytes))) {      /* not cleared: most is not used yet */
        fail(err, "attention: no memory for the probabilities of %d tokens (%zu bytes)", max_tokens,
             m->bytes);
        masses_close(m);
        return -1;
    }
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        *parts[i].p = (float *)((char *)m->memory + at[i]);
    *out = m;
    return 0;
}

void masses_close(struct masses *m) {
    if (!m) return;
    free(m->memory);
    free(m);
}

void masses_begin(struct masses *m, int n_tokens) {
    const size_t n = tiles_of(n_tokens) * m->group;
    m->n_tokens = n_tokens;
    for (int g = 0; g < m->n_groups; g++) {
        float *ref = masses_reference(m, g, 0);
        for (size_t i = 0; i < n; i++) ref[i] = -INFINITY;
    }
}

/* The factors of one group for tiles from..to-1. References seldom change from tile to tile. */
static void factors(struct masses *m, int g, int from, int to) {
    const int group = m->group;
    for (int t = from; t < to; t++) {
        const size_t at = ((size_t)g * m->tiles + t) * group;
        for (int h = 0; h < group; h++) {
            const float ref = m->reference[at + h], *top = m->top + (size_t)g * group,
                        *sum = m->sum + (size_t)g * group;
            if (ref == -INFINITY) {                        /* exponentials of an older call */
                m->factor[at + h] = 0;
                memset(m->e + (at + h) * TILE, 0, TILE * sizeof *m->e);
            } else if (t > from && ref == m->reference[at + h - group])
                m->factor[at + h] = m->factor[at + h - group];
            else m->factor[at + h] = exp2f(ref - top[h]) / sum[h];
        }
    }
}

static float sum_page(const float *x) {
    float sum = 0;
    for (int i = 0; i < KV_PAGE; i++) sum += x[i];
    return sum;
}

static void pages(struct masses *m, int from, int to) {
    for (int g = 0; g < m->n_groups; g++) factors(m, g, from, to);
    for (int t = from; t < to; t++) {
        float high[TILE] = { 0 }, all[TILE] = { 0 };
        for (int g = 0; g < m->n_groups; g++) {
            const size_t at = ((size_t)g * m->tiles + t) * m->group;
            m->tile->fold(high, all, m->e + at * TILE, m->factor + at, m->group);
        }
        for (int p = 0; p < TILE_PAGES; p++) {
            m->peak[(size_t)t * TILE_PAGES + p] = sum_page(high + p * KV_PAGE);
            m->mean[(size_t)t * TILE_PAGES + p] = sum_page(all + p * KV_PAGE) /
                                                  (float)(m->n_groups * m->group);
        }
    }
}

void masses_finish(struct masses *m, int threads) {
    const int tiles = (int)tiles_of(m->n_tokens);
    #pragma omp parallel for schedule(static) num_threads(threads)
    for (int from = 0; from < tiles; from += TILES_PER_TASK)
        pages(m, from, tiles < from + TILES_PER_TASK ? tiles : from + TILES_PER_TASK);
}
