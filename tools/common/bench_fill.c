#include "tools/common/bench_fill.h"
#include <math.h>
#include <stdlib.h>
#include "kernels/vec.h"

/* Dimensions generated together: a cache line of floats, a task of its own. */
enum { LANES = 16 };

struct bench_fill {
    const struct model *m;
    uint64_t seed;
    int k_lanes, v_lanes;              /* lane groups of one head's key and value */
    /* A generator a dimension: [n_layers][n_kv_heads][lane groups][LANES], xorshift32, never 0. */
    uint32_t *k_state, *v_state;
    float *drift;                      /* like k_state */
    double *freq, magnitude;
    float *cs;                         /* [max_batch][n_rot], of the chunk at cs_pos */
    int cs_pos, cs_n;
};

static uint32_t seed_of(uint64_t z) {  /* splitmix64, never 0 */
    z += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)(z >> 32) | 1;
}

static inline uint32_t next(uint32_t x) {
    x ^= x << 13;
    x ^= x >> 17;
    return x ^ x << 5;
}

/* Sums of independent bytes stand in for the normal distribution. */
#define BYTE_VARIANCE 5461.25f         /* (256^2 - 1) / 12 */
static inline float two_bytes(uint32_t x) {
    return (float)((int32_t)(x & 255) + (int32_t)(x >> 8 & 255) - 255);
}

int bench_fill_open(struct bench_fill **out, const struct model *m, int max_batch, uint64_t seed,
                    struct err *err) {
    const struct model_config *c = &m->c;
    struct bench_fill *f = calloc(1, sizeof *f);
    if (!f) return fail(err, "no memory to fill a cache");
    f->m = m, f->seed = seed;
    f->k_lanes = (c->k_dim + LANES - 1) / LANES;
    f->v_lanes = (c->v_dim + LANES - 1) / LANES;
    const size_t heads = (size_t)c->n_layers * c->n_kv_heads;
    const size_t nk = heads * f->k_lanes * LANES, nv = heads * f->v_lanes * LANES;
    f->k_state = malloc(nk * sizeof *f->k_state);
    f->v_state = malloc(nv * sizeof *f->v_state);
    f->drift = malloc(nk * sizeof *f->drift);
    f->freq = malloc(((size_t)c->rope.n_rot / 2 + 1) * sizeof *f->freq);
    f->cs = malloc(((size_t)max_batch * c->rope.n_rot + 1) * sizeof *f->cs);
    if (!f->k_state || !f->v_state || !f->drift || !f->freq || !f->cs) {
        bench_fill_close(f);
        return fail(err, "no memory to fill a cache");
    }
    rope_freqs(&c->rope, f->freq, &f->magnitude);
    bench_fill_restart(f);
    *out = f;
    return 0;
}

void bench_fill_restart(struct bench_fill *f) {
    const size_t heads = (size_t)f->m->c.n_layers * f->m->c.n_kv_heads;
    const size_t nk = heads * f->k_lanes * LANES, nv = heads * f->v_lanes * LANES;
    for (size_t i = 0; i < nk; i++) {
        f->k_state[i] = seed_of(f->seed * 2 + i * 0x2545f4914f6cdd1du);
        f->drift[i] = sqrtf(1 / (2 * BYTE_VARIANCE)) * two_bytes(f->k_state[i] >> 8);
    }
    for (size_t i = 0; i < nv; i++)
        f->v_state[i] = seed_of(f->seed * 2 + 1 + i * 0x2545f4914f6cdd1du);
}

void bench_fill_close(struct bench_fill *f) {
    if (!f) return;
    free(f->k_state);
    free(f->v_state);
    free(f->drift);
    free(f->freq);
    free(f->cs);
    free(f);
}

static void make_keys(float *k, size_t stride, int n, int dims, uint32_t *state, float *drift) {
    const float a = expf(-1.0f / BENCH_FILL_LENGTH);
    const float step = sqrtf((1 - a * a) / (2 * BYTE_VARIANCE)),
                noise = sqrtf(0.5f / (2 * BYTE_VARIANCE));
    for (int t = 0; t < n; t++, k += stride) {
        float x[LANES];
        for (int i = 0; i < LANES; i++) {
            state[i] = next(state[i]);
            drift[i] = a * drift[i] + step * two_bytes(state[i]);
            x[i] = drift[i] + noise * two_bytes(state[i] >> 16);
        }
        if (dims == LANES) for (int i = 0; i < LANES; i++) k[i] = x[i];
        else for (int i = 0; i < dims; i++) k[i] = x[i];
    }
}

static void make_values(float *v, size_t stride, int n, int dims, uint32_t *state) {
    const float scale = sqrtf(1 / (4 * BYTE_VARIANCE));
    for (int t = 0; t < n; t++, v += stride) {
        float x[LANES];
        for (int i = 0; i < LANES; i++) {
            state[i] = next(state[i]);
            x[i] = scale * (two_bytes(state[i]) + two_bytes(state[i] >> 16));
        }
        if (dims == LANES) for (int i = 0; i < LANES; i++) v[i] = x[i];
        else for (int i = 0; i < dims; i++) v[i] = x[i];
    }
}

static void turn_keys(const struct bench_fill *f, float *k, int n) {
    const struct model_config *c = &f->m->c;
    const struct vec_kernels *vec = f->m->kernels->vec;
    void (*turn)(float *, const float *, int) = c->arch->rope_split ? vec->rope_split : vec->rope;
    #pragma omp parallel for schedule(static)
    for (int t = 0; t < n; t++)
        for (int h = 0; h < c->n_kv_heads; h++)
            turn(k + ((size_t)t * c->n_kv_heads + h) * c->k_dim, f->cs + (size_t)t * c->rope.n_rot,
                 c->rope.n_rot / 2);
}

void bench_fill(void *ctx, int layer, int pos, int n, float *k, float *v) {
    struct bench_fill *f = ctx;
    const struct model_config *c = &f->m->c;
    if (f->cs_pos != pos || f->cs_n != n) {
        #pragma omp parallel for schedule(static)
        for (int t = 0; t < n; t++)
            rope_angles(f->freq, f->magnitude, c->rope.n_rot / 2, pos + t,
                        f->cs + (size_t)t * c->rope.n_rot);
        f->cs_pos = pos, f->cs_n = n;
    }
    #pragma omp parallel for collapse(2) schedule(static)
    for (int h = 0; h < c->n_kv_heads; h++)
        for (int g = 0; g < f->k_lanes + f->v_lanes; g++) {
            const bool key = g < f->k_lanes;
            const int lanes = key ? f->k_lanes : f->v_lanes, dim = key ? c->k_dim : c->v_dim;
            const int first = (key ? g : g - f->k_lanes) * LANES,
                      dims = dim - first < LANES ? dim - first : LANES;
            const size_t state = ((size_t)layer * c->n_kv_heads + h) * lanes * LANES +
                                 (size_t)first;
            const size_t stride = (size_t)c->n_kv_heads * dim, at = (size_t)h * dim + (size_t)first;
            if (key) make_keys(k + at, stride, n, dims, f->k_state + state, f->drift + state);
            else make_values(v + at, stride, n, dims, f->v_state + state);
        }
    turn_keys(f, k, n);
}
