/* The two searches of mode hip on scores made for the purpose: against plain versions of
 * themselves, against what theory promises for smooth scores, and by what they cost. */
#include "attention/hip_search.h"
#include "tests/common/check.h"
#include "tests/common/tiny.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { REP_EXACT = 'x', REP_CENTRE = 'c', REP_FIRST = 'f', REP_LAST = 'l' };

/* Scores of positions 0..n-1, searched in blocks. */
struct field {
    const float *score;
    int n, block, rep;
    long read;                                 /* positions looked at */
};

static float block_best(struct field *f, int block) {
    float best = -INFINITY;
    for (int j = block * f->block; j < (block + 1) * f->block && j < f->n; j++, f->read++)
        if (f->score[j] > best) best = f->score[j];
    return best;
}

static void judge_branches(void *ctx, const struct hip_branch *b, int n, float *score) {
    struct field *f = ctx;
    for (int i = 0; i < n; i++) {
        int at = b[i].start + (f->rep == REP_CENTRE ? b[i].count / 2
                               : f->rep == REP_LAST ? b[i].count - 1 : 0);
        score[i] = block_best(f, at);
        for (int j = 1; f->rep == REP_EXACT && j < b[i].count; j++)
            score[i] = fmaxf(score[i], block_best(f, b[i].start + j));
    }
}

static void judge_keys(void *ctx, const int *key, int n, float *score) {
    struct field *f = ctx;
    for (int i = 0; i < n; i++)
        score[i] = f->score ? f->score[key[i]] : (float)(key[i] * 2654435761u >> 8);
    f->read += n;
}

static struct hip_scratch scratch_new(int width, int keep) {
    struct hip_scratch s;
    void *memory = aligned_alloc(64, hip_scratch_carve(&s, NULL, width, keep));
    assert_non_null(memory);
    hip_scratch_carve(&s, memory, width, keep);
    return s;
}

/* The beam is the first piece of the memory. */
static void scratch_free(struct hip_scratch *s) { free(s->beam); }

static int n_blocks(const struct field *f) { return (f->n + f->block - 1) / f->block; }

static int beam(int *out, struct field *f, int width, struct hip_scratch *s) {
    return hip_beam(out, n_blocks(f), width, judge_branches, f, s);
}

static int contains(const int *list, int n, int x) {
    for (int i = 0; i < n; i++)
        if (list[i] == x) return 1;
    return 0;
}

/* ---- Plain versions ---- */

struct ranked { float score; int start, count; };

static int by_score(const void *a, const void *b) {
    const struct ranked *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score) - (x->score > y->score)
                                : x->start - y->start;
}
static int by_start(const void *a, const void *b) {
    return ((const struct ranked *)a)->start - ((const struct ranked *)b)->start;
}

static int plain_beam(int *out, struct field *f, int width) {
    const int n = n_blocks(f);
    int longest = 0, count = width;
    if (n <= width) {
        for (int i = 0; i < n; i++) out[i] = i;
        return n;
    }
    struct ranked *at = malloc(2 * (size_t)width * sizeof *at),
                  *next = malloc(2 * (size_t)width * sizeof *next);
    for (int i = 0; i < width; i++) {
        at[i].start = i * n / width;
        at[i].count = (i + 1) * n / width - at[i].start;
        if (at[i].count > longest) longest = at[i].count;
    }
    while (longest > 1) {
        count = 0;
        for (int i = 0; i < width; i++) {
            const int half = at[i].count / 2;
            if (half) next[count++] = (struct ranked){ 0, at[i].start, half };
            next[count++] = (struct ranked){ 0, at[i].start + half, at[i].count - half };
        }
        for (int i = 0; i < count; i++) {
            struct hip_branch b = { next[i].start, next[i].count };
            judge_branches(f, &b, 1, &next[i].score);
            if (isnan(next[i].score)) next[i].score = -INFINITY;
        }
        qsort(next, (size_t)count, sizeof *next, by_score);
        qsort(next, (size_t)width, sizeof *next, by_start);
        memcpy(at, next, (size_t)width * sizeof *at);
        longest = 0;
        for (int i = 0; i < width; i++) if (at[i].count > longest) longest = at[i].count;
    }
    for (int i = 0; i < width; i++) out[i] = at[i].start;
    free(at);
    free(next);
    return width;
}

static int plain_stage(int *out, const int *parent, int n_parents, int split, int size, int keep,
                       struct field *f) {
    const int n = n_parents * split;
    struct ranked *r = malloc((size_t)n * sizeof *r);
    for (int i = 0; i < n; i++) {
        int lo = parent[i / split] + i % split * size, hi = lo + size;
        r[i] = (struct ranked){ -INFINITY, lo, size };
        while (hi - lo > 1) {
            int m = (lo + hi) / 2, key[2] = { (lo + m) / 2, (m + hi) / 2 };
            float s[2];
            judge_keys(f, key, 2, s);
            if (s[0] > s[1]) hi = m; else lo = m;
            r[i].score = fmaxf(r[i].score, s[s[0] > s[1] ? 0 : 1]);
        }
    }
    qsort(r, (size_t)n, sizeof *r, by_score);
    const int kept = n < keep ? n : keep;
    qsort(r, (size_t)kept, sizeof *r, by_start);
    for (int i = 0; i < kept; i++) out[i] = r[i].start;
    free(r);
    return kept;
}

/* ---- Tests ---- */

/* Every size around the width, few values (many ties),
 * some NaN: the same blocks as the plain version, ascending. */
static void test_beam_is_the_plain_one(void **state) {
    (void)state;
    uint64_t seed = 1;
    float score[2000];
    int got[64], want[64];
    struct hip_scratch s = scratch_new(64, 0);
    for (int round = 0; round < 3000; round++) {
        struct field f = { score, 1 + (int)(noise(&seed) % 2000), 1 + (int)(noise(&seed) % 5),
                           "cfl"[noise(&seed) % 3], 0 };
        const int width = 1 + (int)(noise(&seed) % 64), values = 1 + (int)(noise(&seed) % 50);
        for (int i = 0; i < f.n; i++)
            score[i] = noise(&seed) % 40 ? (float)(noise(&seed) % (uint64_t)values) - 20 : NAN;
        const int n = beam(got, &f, width, &s), m = plain_beam(want, &f, width);
        assert_int_equal(n, n_blocks(&f) < width ? n_blocks(&f) : width);
        assert_int_equal(n, m);
        for (int i = 0; i < n; i++) {
            assert_int_equal(got[i], want[i]);
            assert_true(got[i] < n_blocks(&f) && (!i || got[i] > got[i - 1]));
        }
    }
    scratch_free(&s);
}

/* With the best of a whole branch as its score, the tree loses nothing: exactly the best blocks. */
static void test_dense_twin(void **state) {
    (void)state;
    uint64_t seed = 2;
    enum { N = 3001, WIDTH = 24, BLOCK = 2 };
    float score[N];
    int got[WIDTH];
    struct hip_scratch s = scratch_new(WIDTH, 0);
    for (int round = 0; round < 20; round++) {
        struct field f = { score, N, BLOCK, REP_EXACT, 0 };
        for (int i = 0; i < N; i++) score[i] = (float)noise_normal(&seed);
        assert_int_equal(beam(got, &f, WIDTH, &s), WIDTH);
        float worst = INFINITY;
        int better = 0;
        for (int i = 0; i < WIDTH; i++) worst = fminf(worst, block_best(&f, got[i]));
        for (int i = 0; i < n_blocks(&f); i++) better += block_best(&f, i) > worst;
        assert_int_equal(better, WIDTH - 1);
    }
    scratch_free(&s);
}

/* Scores that fall off on both sides of c: the search must find c, wherever it is. */
static void test_tent(void **state) {
    (void)state;
    static const int widths[] = { 2, 3, 17, 256 };
    enum { N = 16384 };
    float *score = malloc(N * sizeof *score);
    int got[256];
    struct hip_scratch s = scratch_new(256, 0);
    for (int w = 0; w < 4; w++)
        for (int c = 3; c < N; c += w == 3 ? 331 : 107) {
            struct field f = { score, N, 2, REP_CENTRE, 0 };
            for (int i = 0; i < N; i++) score[i] = -fabsf((float)(i - c));
            int n = beam(got, &f, widths[w], &s);
            if (!contains(got, n, c / 2)) fail_msg("width %d misses the top at %d", widths[w], c);
        }
    scratch_free(&s);
    free(score);
}

/* Offsets of a plateau of the given width that a search misses, of how many. */
static double plateau_misses(int plateau, int staged) {
    enum { N = 16384, WIDTH = 32, BLOCK = 2, CHUNK = 256 };
    static float score[N];
    uint64_t seed = 5;
    int got[WIDTH], misses = 0, tries = 0;
    const int root = 0;
    struct hip_scratch s = scratch_new(WIDTH, WIDTH);
    for (int at = 0; at + plateau <= N; at += 37, tries++) {
        struct field f = { score, N, BLOCK, REP_CENTRE, 0 };
        int hit = 0;
        for (int i = 0; i < N; i++)
            score[i] = i >= at && i < at + plateau ? 10 : (float)noise_normal(&seed);
        const int n = staged ? hip_stage(got, &root, 1, N / CHUNK, CHUNK, WIDTH, judge_keys, &f, &s)
                             : beam(got, &f, WIDTH, &s);
        const int size = staged ? CHUNK : BLOCK;
        for (int i = 0; i < n; i++) {
            const int from = got[i] * (staged ? 1 : BLOCK);
            hit |= from < at + plateau && from + size > at;
        }
        misses += !hit;
    }
    scratch_free(&s);
    return (double)misses / tries;
}

/* Wide plateaus are never missed, narrow ones sometimes: half the chance at a quarter the width. */
static void test_plateau(void **state) {
    (void)state;
    const int sure = 8192 / (2 * 32) * 2 + 2 * 2;    /* in keys: half a first branch, two blocks */
    assert_true(plateau_misses(sure, 0) == 0);
    const double half = plateau_misses(sure / 2, 0), quarter = plateau_misses(sure / 4, 0);
    if (!(half > 0 && half < 0.4 && quarter > 0.3 && quarter < 0.7))
        fail_msg("misses %g and %g", half, quarter);
    assert_true(plateau_misses(256 / 2 + 2, 1) == 0);
    const double narrow = plateau_misses(256 / 4, 1);
    if (!(narrow > 0.01 && narrow < 0.3)) fail_msg("misses %g", narrow);
}

/* Any number of chunks, more than are held at a time too: the plain version's. */
static void test_stage_is_the_plain_one(void **state) {
    (void)state;
    uint64_t seed = 3;
    enum { N = 20000 };
    static float score[N];
    int got[300], want[300], parent[40];
    struct hip_scratch s = scratch_new(1, 300);
    for (int round = 0; round < 400; round++) {
        const int size = 2 << noise(&seed) % 5,
                  split = 1 + (int)(noise(&seed) % (N / 40 / (unsigned)size)),
                  keep = 1 + (int)(noise(&seed) % 300);
        const int n = 1 + (int)(noise(&seed) % 40);
        for (int i = 0; i < n; i++) parent[i] = i * (N / 40);
        for (int i = 0; i < N; i++) score[i] = (float)(noise(&seed) % 1000);
        struct field f = { score, N, 1, 0, 0 };
        const int a = hip_stage(got, parent, n, split, size, keep, judge_keys, &f, &s);
        const int b = plain_stage(want, parent, n, split, size, keep, &f);
        assert_int_equal(a, b);
        assert_memory_equal(got, want, (size_t)a * sizeof *got);
    }
    scratch_free(&s);
}

static int levels(int n, int width) {
    int l = 0;
    for (int longest = (n + width - 1) / width; longest > 1; longest = (longest + 1) / 2) l++;
    return l;
}

/* 2k keys a level and as many levels as doublings: it grows by 2k when the context doubles. */
static void test_cost_of_beam(void **state) {
    (void)state;
    static const struct { int context, keys; } expect[] = {
        { 8192, 4054 }, { 32768, 6134 }, { 131072, 8188 }, { 1 << 20, 11264 } };
    enum { K = 512, BLOCK = 2, WINDOW = 256, SINK = 16 };
    uint64_t seed = 7;
    float *score = malloc(sizeof *score << 20);
    int got[K / BLOCK];
    struct hip_scratch s = scratch_new(K / BLOCK, 0);
    for (int i = 0; i < 1 << 20; i++) score[i] = (float)noise_normal(&seed);
    for (int e = 0; e < 4; e++) {
        struct field f = { score, expect[e].context - WINDOW - SINK, BLOCK, REP_CENTRE, 0 };
        beam(got, &f, K / BLOCK, &s);
        const int most = 2 * K * levels(n_blocks(&f), K / BLOCK);
        if (f.read > most || labs(f.read - expect[e].keys) > expect[e].keys / 100)
            fail_msg("%d tokens: %ld keys read, at most %d, expected %d", expect[e].context, f.read,
                     most, expect[e].keys);
    }
    scratch_free(&s);
    free(score);
}

/* 2 log2(size) keys for every chunk of a stage that has to choose. */
static void test_cost_of_chain(void **state) {
    (void)state;
    static const struct { int context, first; long keys; } expect[] = {
        { 8192, 28, 8064 }, { 32768, 124, 18048 }, { 131072, 508, 24512 }, { 1 << 20, 4092, 81856 },
    };
    int a[128], b[256], c[256];
    struct hip_scratch s = scratch_new(1, 256);
    for (int e = 0; e < 4; e++) {
        struct field f = { NULL, 0, 1, 0, 0 };
        const int sink = 256, n1 = (expect[e].context - 1 - (1024 - 256) - sink) / 256 + 1;
        const int m1 = hip_stage(a, &sink, 1, n1, 256, 128, judge_keys, &f, &s);
        const int m2 = hip_stage(b, a, m1, 8, 32, 256, judge_keys, &f, &s);
        const int m3 = hip_stage(c, b, m2, 4, 8, 256, judge_keys, &f, &s);
        const long saved = (n1 <= 128 ? 16 * n1 : 0) + (8 * m1 <= 256 ? 10 * 8 * m1 : 0);
        assert_int_equal(n1, expect[e].first);
        assert_int_equal(m3, 256);
        assert_int_equal(f.read, expect[e].keys - saved);
    }
    scratch_free(&s);
}

/* Softmax mass of the selected blocks over that of the best ones, scores being an AR(1) process. */
static double recall(int length, int rep, int k) {
    enum { N = 32768, BLOCK = 2, DRAWS = 6 };
    static float score[N];
    uint64_t seed = 11;
    int *got = malloc((size_t)k / BLOCK * sizeof *got);
    struct ranked *best = malloc(N / BLOCK * sizeof *best);
    struct hip_scratch s = scratch_new(k / BLOCK, 0);
    double sum = 0;
    for (int draw = 0; draw < DRAWS; draw++) {
        struct field f = { score, N, BLOCK, rep, 0 };
        const double stay = length ? exp(-1.0 / length) : 0, fresh = sqrt(1 - stay * stay);
        double x = noise_normal(&seed), found = 0, possible = 0;
        for (int i = 0; i < N; i++) {
            score[i] = 2.5f * (float)x;
            x = stay * x + fresh * noise_normal(&seed);
        }
        for (int b = 0; b < N / BLOCK; b++)
            best[b] = (struct ranked){ expf(score[2 * b]) + expf(score[2 * b + 1]), b, 1 };
        const int n = beam(got, &f, k / BLOCK, &s);
        for (int i = 0; i < n; i++) found += best[got[i]].score;
        qsort(best, N / BLOCK, sizeof *best, by_score);
        for (int i = 0; i < n; i++) possible += best[i].score;
        sum += found / possible;
    }
    scratch_free(&s);
    free(best);
    free(got);
    return sum / DRAWS;
}

/* The smoother the scores and the larger k, the more of them is found;
 * a branch is best judged by its centre. */
static void test_recall(void **state) {
    (void)state;
    const double rough = recall(8, REP_CENTRE, 512), centre = recall(32, REP_CENTRE, 512),
                 smooth = recall(128, REP_CENTRE, 512);
    const double first = recall(32, REP_FIRST, 512), few = recall(32, REP_CENTRE, 128),
                 blind = recall(0, REP_CENTRE, 512);
    print_message("recall: correlated over 0 keys %.2f, 8 %.2f, 32 %.2f "
                  "(k=128 %.2f, judged by the first %.2f), 128 %.2f\n",
                  blind, rough, centre, few, first, smooth);
    assert_true(blind < 0.25 && rough > 0.5 && rough < 0.75 && centre > 0.9 && smooth > 0.97);
    assert_true(centre > first && few < centre);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_beam_is_the_plain_one), cmocka_unit_test(test_dense_twin),
        cmocka_unit_test(test_tent), cmocka_unit_test(test_plateau),
        cmocka_unit_test(test_stage_is_the_plain_one), cmocka_unit_test(test_cost_of_beam),
        cmocka_unit_test(test_cost_of_chain), cmocka_unit_test(test_recall),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
