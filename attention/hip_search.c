#include "attention/hip_search.h"
#include <assert.h>
#include <math.h>
#include <string.h>

enum { BATCH = 256 };                           /* chunks of a stage that descend together */

static void *carve(char *memory, size_t *used, size_t count, size_t size) {
    void *p = memory ? memory + *used : NULL;
    *used += (count * size + 63) / 64 * 64;
    return p;
}

size_t hip_scratch_carve(struct hip_scratch *s, void *memory, int width, int keep) {
    const size_t beam = 2 * (size_t)width, stage = (size_t)keep + BATCH;
    size_t used = 0;
    s->beam = carve(memory, &used, width, sizeof *s->beam);
    s->next = carve(memory, &used, beam > BATCH ? beam : BATCH, sizeof *s->next);
    s->key = carve(memory, &used, 2 * BATCH, sizeof *s->key);
    s->left = carve(memory, &used, stage, sizeof *s->left);
    s->score = carve(memory, &used, beam > 2 * BATCH ? beam : 2 * BATCH, sizeof *s->score);
    s->best = carve(memory, &used, stage, sizeof *s->best);
    s->rank = carve(memory, &used, beam > stage ? beam : stage, sizeof *s->rank);
    return used;
}

/* A number that sorts ascending by (score descending, index ascending). */
static uint64_t rank_of(float score, int index) {
    uint32_t bits;
    if (isnan(score)) score = -INFINITY;
    score += 0.0f;                              /* -0 and 0 are the same score */
    memcpy(&bits, &score, sizeof bits);
    bits = bits >> 31 ? ~bits : bits | 1u << 31;
    return (uint64_t)~bits << 32 | (uint32_t)index;
}

static void swap(uint64_t *a, uint64_t *b) {
    uint64_t t = *a;
    *a = *b;
    *b = t;
}

/* The k-th smallest (k >= 1) of n different numbers, which get partly sorted. */
static uint64_t kth(uint64_t *x, int n, int k) {
    int lo = 0, hi = n - 1;
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2;
        if (x[mid] < x[lo]) swap(&x[mid], &x[lo]);
        if (x[hi] < x[lo]) swap(&x[hi], &x[lo]);
        if (x[hi] < x[mid]) swap(&x[hi], &x[mid]);
        const uint64_t pivot = x[mid];
        int i = lo, j = hi;
        while (i <= j) {
            while (x[i] < pivot) i++;
            while (x[j] > pivot) j--;
            if (i <= j) swap(&x[i++], &x[j--]);
        }
        if (k - 1 <= j) hi = j;
        else if (k - 1 >= i) lo = i;
        else break;
    }
    return x[k - 1];
}

/* The rank that the keep best of n scores have or better. */
static uint64_t worst_kept(uint64_t *rank, const float *score, int n, int keep) {
    for (int i = 0; i < n; i++) rank[i] = rank_of(score[i], i);
    return kth(rank, n, keep);
}

int hip_beam(int *out, int n, int width, hip_score_branches *score, void *ctx,
             struct hip_scratch *s) {
    if (n <= width) {
        for (int i = 0; i < n; i++) out[i] = i;
        return n;
    }
    int longest = 0;
    for (int i = 0; i < width; i++) {
        int from = (int)((int64_t)i * n / width), to = (int)((int64_t)(i + 1) * n / width);
        s->beam[i] = (struct hip_branch){ from, to - from };
        if (to - from > longest) longest = to - from;
    }
    while (longest > 1) {
        int count = 0, kept = 0;
        for (int i = 0; i < width; i++) {
            struct hip_branch b = s->beam[i];
            int half = b.count / 2;
            if (half) s->next[count++] = (struct hip_branch){ b.start, half };
            s->next[count++] = (struct hip_branch){ b.start + half, b.count - half };
        }
        score(ctx, s->next, count, s->score);
        const uint64_t worst = worst_kept(s->rank, s->score, count, width);
        longest = 0;
        /* next is in order of position, and so is what is kept of it */
        for (int i = 0; i < count; i++) {
            if (rank_of(s->score[i], i) > worst) continue;
            s->beam[kept++] = s->next[i];
            if (s->next[i].count > longest) longest = s->next[i].count;
        }
        assert(kept == width);
    }
    for (int i = 0; i < width; i++) out[i] = s->beam[i].start;
    return width;
}

/* Best score on the way down in each of n chunks. */
static void descend(float *best, const int *left, int n, int size, hip_score_keys *score, void *ctx,
                    struct hip_scratch *s) {
    struct hip_branch *at = s->next;
    for (int i = 0; i < n; i++) {
        best[i] = -INFINITY;
        at[i] = (struct hip_branch){ left[i], size };
    }
    for (int length = size; length > 1; length /= 2) {
        for (int i = 0; i < n; i++) {           /* the centres of both halves */
            s->key[2 * i] = at[i].start + length / 4;
            s->key[2 * i + 1] = at[i].start + length / 2 + length / 4;
        }
        score(ctx, s->key, 2 * n, s->score);
        for (int i = 0; i < n; i++) {
            const float a = s->score[2 * i], b = s->score[2 * i + 1];
            const int right = !(a > b);
            at[i].start += right ? length / 2 : 0;
            if ((right ? b : a) > best[i]) best[i] = right ? b : a;
        }
    }
}

int hip_stage(int *out, const int *parent, int n_parents, int split, int size, int keep,
              hip_score_keys *score, void *ctx, struct hip_scratch *s) {
    const int n = n_parents * split;
    const int all = n <= keep;
    int kept = 0;
    for (int from = 0; from < n; from += BATCH) {
        const int count = n - from < BATCH ? n - from : BATCH;
        for (int i = 0; i < count; i++)
            s->left[kept + i] = parent[(from + i) / split] + (from + i) % split * size;
        if (!all) descend(s->best + kept, s->left + kept, count, size, score, ctx, s);
        kept += count;
        if (kept <= keep) continue;
        const uint64_t worst = worst_kept(s->rank, s->best, kept, keep);
        int to = 0;
        for (int i = 0; i < kept; i++) {
            if (rank_of(s->best[i], i) > worst) continue;
            s->best[to] = s->best[i];
            s->left[to++] = s->left[i];
        }
        kept = to;
    }
    memcpy(out, s->left, (size_t)kept * sizeof *out);
    return kept;
}
