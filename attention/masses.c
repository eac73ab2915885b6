#include "attention/masses.h"
#include <math.h>
#include <stdlib.h>

enum { TILES_PER_TASK = 8 };

static size_t tiles_of(int n_tokens) { return ((size_t)n_tokens + TILE - 1) / TILE; }

int masses_open(struct masses **out, int n_heads, int max_tokens, struct err *err) {
    struct masses *m = calloc(1, sizeof *m);
    if (!m) return fail(err, "attention: no memory");
    const size_t tiles = tiles_of(max_tokens), pages = tiles * TILE_PAGES, heads = (size_t)n_heads;
    struct { float **p; size_t n; } parts[] = {
        { &m->e, tiles * heads * TILE }, { &m->reference, tiles * heads }, { &m->factor, tiles * heads },
        { &m->top, heads }, { &m->sum, heads }, { &m->peak, pages }, { &m->mean, pages },
    };
    size_t at[sizeof parts / sizeof *parts];
    m->n_heads = n_heads;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        at[i] = m->bytes;
        m->bytes += (parts[i].n * sizeof(float) + 63) / 64 * 64;
    }
    if (!(m->memory = aligned_alloc(64, m->bytes))) {      /* not cleared: most of a long context is not used yet */
        fail(err, "attention: no memory for the probabilities of %d tokens (%zu bytes)", max_tokens, m->bytes);
        masses_close(m);
        return -1;
    }
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) *parts[i].p = (float *)((char *)m->memory + at[i]);
    *out = m;
    return 0;
}

void masses_close(struct masses *m) {
    if (!m) return;
    free(m->memory);
    free(m);
}

void masses_begin(struct masses *m, int n_tokens) {
    m->n_tokens = n_tokens;
    for (size_t i = 0, n = tiles_of(n_tokens) * m->n_heads; i < n; i++) m->reference[i] = -INFINITY;
}

/* One tile: its heads' factors, then for each page the heads side by side. prior: the tile before was done by the same
 * task; references seldom change from tile to tile. */
static void tile_masses(struct masses *m, int tile, int prior) {
    const int heads = m->n_heads;
    const float *ref = m->reference + (size_t)tile * heads;
    float *factor = m->factor + (size_t)tile * heads;
    for (int h = 0; h < heads; h++)
        factor[h] = ref[h] == -INFINITY ? 0
                    : prior && ref[h] == ref[h - heads] ? factor[h - heads]
                    : exp2f(ref[h] - m->top[h]) / m->sum[h];
    for (int p = 0; p < TILE_PAGES; p++) {
        float high[KV_PAGE] = { 0 }, all[KV_PAGE] = { 0 }, peak = 0, mean = 0;
        for (int h = 0; h < heads; h++) {
            if (ref[h] == -INFINITY) continue;             /* its exponentials are an older call's */
            const float *e = m->e + ((size_t)tile * heads + h) * TILE + p * KV_PAGE, f = factor[h];
            for (int i = 0; i < KV_PAGE; i++) {
                const float x = e[i] * f;
                high[i] = x > high[i] ? x : high[i];
                all[i] += x;
            }
        }
        for (int i = 0; i < KV_PAGE; i++) peak += high[i], mean += all[i];
        m->peak[(size_t)tile * TILE_PAGES + p] = peak;
        m->mean[(size_t)tile * TILE_PAGES + p] = mean / (float)heads;
    }
}

void masses_finish(struct masses *m, int threads) {
    const int tiles = (int)tiles_of(m->n_tokens);
    #pragma omp parallel for schedule(static) num_threads(threads)
    for (int from = 0; from < tiles; from += TILES_PER_TASK)
        for (int t = from; t < tiles && t < from + TILES_PER_TASK; t++) tile_masses(m, t, t > from);
}
