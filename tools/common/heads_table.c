#include "tools/common/heads_table.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Room for `room` runs of n values each. */
static int grow(float **x, size_t room, size_t n) {
    float *more = realloc(*x, room * n * sizeof *more);
    if (more) *x = more;
    return more ? 0 : -1;
}

int heads_table_add(struct heads_table *t, struct heads_run *run, struct err *err) {
    const size_t q = (size_t)t->n_layers * (size_t)t->n_heads,
                 kv = (size_t)t->n_layers * (size_t)t->n_kv_heads, n = (size_t)t->n_runs;
    if (t->n_runs == t->room) {
        const size_t room = t->room ? 2 * (size_t)t->room : 16;
        if (grow(&t->copy, room, q) || grow(&t->harm, room, kv) || grow(&t->local, room, kv))
            return fail(err, "no memory for %zu runs", room);
        t->room = (int)room;
    }
    run->copy = memset(t->copy + n * q, 0, q * sizeof *t->copy);
    run->harm = memset(t->harm + n * kv, 0, kv * sizeof *t->harm);
    run->local = memset(t->local + n * kv, 0, kv * sizeof *t->local);
    t->n_runs++;
    return 0;
}

void heads_table_free(struct heads_table *t) {
    free(t->copy);
    free(t->harm);
    free(t->local);
    t->copy = t->harm = t->local = NULL;
    t->n_runs = t->room = 0;
}

/* The mean over the runs of query head i of n. */
static float mean_copy(const struct heads_table *t, int n, int i) {
    double sum = 0;
    for (int r = 0; r < t->n_runs; r++) sum += t->copy[(size_t)r * n + i];
    return t->n_runs ? (float)(sum / t->n_runs) : 0;
}

void heads_table_copy(const struct heads_table *t, float *out) {
    const int group = t->n_heads / t->n_kv_heads, n = t->n_layers * t->n_heads;
    for (int i = 0; i < n / group; i++) out[i] = 0;
    /* Groups lie together, in the order of the KV heads. */
    for (int i = 0; i < n; i++)
        out[i / group] = fmaxf(out[i / group], mean_copy(t, n, i));
}

void heads_table_query_copy(const struct heads_table *t, float *out) {
    const int n = t->n_layers * t->n_heads;
    for (int i = 0; i < n; i++) out[i] = mean_copy(t, n, i);
}

void heads_table_mean(const struct heads_table *t, const float *of, float *out) {
    const int n = t->n_layers * t->n_kv_heads;
    for (int i = 0; i < n; i++) {
        double sum = 0;
        for (int r = 0; r < t->n_runs; r++) sum += of[(size_t)r * n + i];
        out[i] = t->n_runs ? (float)(sum / t->n_runs) : 0;
    }
}

static float above_noise(float x) { return x < HEADS_NOTHING ? 0 : x; }

/* The place of x[i] among x[0..n-1], 0..1. */
static double place(const float *x, int n, int i) {
    const float own = above_noise(x[i]);
    int below = 0, same = -1;
    for (int j = 0; j < n; j++) {
        const float other = above_noise(x[j]);
        below += other < own, same += other == own;
    }
    return n > 1 ? (below + same / 2.0) / (n - 1) : 0;
}

void heads_rank(float *rank, const float *x, int n) {
    for (int i = 0; i < n; i++) rank[i] = (float)place(x, n, i);
}

/* The mean place over every step-th run from `first` on. */
static double mean_place(const struct heads_table *t, const float *of, int first, int step, int i) {
    const int n = t->n_layers * t->n_kv_heads;
    double sum = 0;
    int runs = 0;
    for (int r = first; r < t->n_runs; r += step, runs++) sum += place(of + (size_t)r * n, n, i);
    return runs ? sum / runs : 0;
}

void heads_table_rank(const struct heads_table *t, const float *of, float *out) {
    for (int i = 0; i < t->n_layers * t->n_kv_heads; i++)
        out[i] = (float)mean_place(t, of, 0, 1, i);
}

double heads_table_split_half(const struct heads_table *t, const float *of) {
    const int n = t->n_layers * t->n_kv_heads;
    float *even = malloc((size_t)n * 2 * sizeof *even), *odd = even + n;
    if (!even || t->n_runs < 2) {
        free(even);
        return NAN;
    }
    for (int i = 0; i < n; i++)
        even[i] = (float)mean_place(t, of, 0, 2, i), odd[i] = (float)mean_place(t, of, 1, 2, i);
    const double agree = heads_agree(even, odd, n);
    free(even);
    return agree;
}

double heads_agree(const float *a, const float *b, int n) {
    double ab = 0, aa = 0, bb = 0;
    for (int i = 0; i < n; i++) {
        /* 0.5: the mean of all places, tied or not */
        const double x = place(a, n, i) - 0.5, y = place(b, n, i) - 0.5;
        ab += x * y, aa += x * x, bb += y * y;
    }
    return aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : NAN;
}

/* Whether x[i] is among the k highest. */
static int is_top(const float *x, int n, int k, int i) {
    int before = 0;
    for (int j = 0; j < n; j++) before += x[j] > x[i] || (x[j] == x[i] && j < i);
    return before < k;
}

int heads_shared(const float *a, const float *b, int n, int k) {
    int shared = 0;
    for (int i = 0; i < n; i++) shared += is_top(a, n, k, i) && is_top(b, n, k, i);
    return shared;
}

/* ---- files ---- */

static int finish(FILE *f, const char *path, struct err *err) {
    const int bad = ferror(f);
    return fclose(f) || bad ? fail(err, "%s: %s", path, strerror(errno)) : 0;
}

int heads_write_tsv(const char *path, const float *value, int n_layers, int n_kv_heads,
                    struct err *err) {
    FILE *f = fopen(path, "w");
    if (!f) return fail(err, "%s: %s", path, strerror(errno));
    for (int i = 0; i < n_layers * n_kv_heads; i++)
        fprintf(f, "%.18e%c", fmax(0, fmin(1, value[i])), (i + 1) % n_kv_heads ? '\t' : '\n');
    return finish(f, path, err);
}

int heads_write_plan(const char *path, const float *copy, int n_layers, int n_heads, double least,
                     int near, struct err *err) {
    FILE *f = fopen(path, "w");
    if (!f) return fail(err, "%s: %s", path, strerror(errno));
    for (int what = 0; what < 2; what++) {
        fputs(what ? ",\n \"betas\": [" : "{\"alphas\": [", f);
        for (int i = 0; i < n_layers * n_heads; i++) {
            const int far = copy[i] > least;
            fprintf(f, "%s%d%s", i % n_heads ? ", " : i ? ", [" : "[",
                    what ? far : far ? 0 : near, (i + 1) % n_heads ? "" : "]");
        }
        fputc(']', f);
    }
    fputs("}\n", f);
    return finish(f, path, err);
}

int heads_write_json(const char *path, const struct heads_table *t, struct err *err) {
    const size_t n = (size_t)t->n_layers * (size_t)t->n_heads;
    FILE *f = fopen(path, "w");
    if (!f) return fail(err, "%s: %s", path, strerror(errno));
    for (size_t i = 0; i < n; i++) {
        fprintf(f, "%s\"%zu-%zu\": [", i ? ", " : "{", i / t->n_heads, i % t->n_heads);
        for (int r = 0; r < t->n_runs; r++)
            fprintf(f, "%s%.9g", r ? ", " : "", t->copy[(size_t)r * n + i]);
        fputc(']', f);
    }
    fputc('}', f);
    return finish(f, path, err);
}
