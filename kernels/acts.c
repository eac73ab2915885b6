/* acts.c - a batch of activations and its encodings, each made when a matrix first asks for it. */
#include "kernels/acts.h"
#include <assert.h>
#include <omp.h>
#include <stdlib.h>

static const struct { int span, sub; } encodings[ACTS_ENCODINGS] = {
    { 32, 32 }, { 256, 32 }, { 256, 16 }
};

/* Which span a format's activations have: what the peers multiply that format with. */
static int encoding_of(const struct mat_format *f) {
    return f->block == 32 ? 0 : f->sub == 32 ? 1 : 2;
}

static void *take(struct acts *a, size_t bytes, int *failed) {
    bytes = (bytes + 63) / 64 * 64;
    void *p = aligned_alloc(64, bytes);
    if (!p) *failed = 1;
    a->bytes += bytes;
    return p;
}

int acts_open(struct acts **out, int max_tokens, int max_cols, struct err *err) {
    struct acts *a = calloc(1, sizeof *a);
    int failed = !a;
    if (a) {
        size_t n = (size_t)max_tokens * (size_t)max_cols;
        a->max_tokens = max_tokens;
        a->max_cols = max_cols;
        for (int i = 0; i < ACTS_ENCODINGS; i++) {
            struct qacts *e = &a->encoded[i];
            size_t factors = n / (size_t)encodings[i].sub * sizeof(float);
            e->q = take(a, n, &failed);
            e->scale = take(a, factors, &failed);
            e->start = take(a, factors, &failed);
            e->sum = take(a, factors, &failed);
        }
        a->n_threads = omp_get_max_threads();
        a->scratch_bytes = ((size_t)max_cols * MAT_SCRATCH + 4095) / 4096 * 4096;
        a->scratch = take(a, a->scratch_bytes * (size_t)a->n_threads, &failed);
    }
    if (failed) {
        acts_close(a);
        return fail(err, "activations of %d tokens x %d columns: out of memory",
                    max_tokens, max_cols);
    }
    *out = a;
    return 0;
}

void acts_set(struct acts *a, const float *x, int n_tokens, int cols) {
    assert(n_tokens <= a->max_tokens && cols <= a->max_cols);
    a->x = x;
    a->n_tokens = n_tokens;
    a->cols = cols;
    for (int i = 0; i < ACTS_ENCODINGS; i++) a->valid[i] = 0;
}

const struct qacts *acts_encoded(struct acts *a, const struct mat_kernels *k,
                                 const struct mat_format *f) {
    int i = encoding_of(f);
    struct qacts *e = &a->encoded[i];
    if (a->valid[i]) return e;
    e->n_tokens = a->n_tokens;
    e->cols = a->cols;
    e->span = encodings[i].span;
    e->sub = encodings[i].sub;
    #pragma omp parallel for if (a->n_tokens >= 8)
    for (int t = 0; t < a->n_tokens; t++)
        k->encode(e, t, a->x + (size_t)t * a->cols);
    a->valid[i] = 1;
    return e;
}

int acts_team(const struct acts *a) {
    int team = omp_get_max_threads();
    return team < a->n_threads ? team : a->n_threads;
}

size_t acts_bytes(const struct acts *a) { return a->bytes; }

void acts_close(struct acts *a) {
    if (!a) return;
    for (int i = 0; i < ACTS_ENCODINGS; i++) {
        free(a->encoded[i].q);
        free(a->encoded[i].scale);
        free(a->encoded[i].start);
        free(a->encoded[i].sum);
    }
    free(a->scratch);
    free(a->widened);
    free(a);
}
