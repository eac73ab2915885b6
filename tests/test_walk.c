/* Pages that lie far apart, put side by side: which they are, and that attention
 * over them is what it is over the same keys left in their places. */
#include "tests/common/attend.h"           /* before CMocka, which makes a macro of the word fail */
#include "attention/flash.h"
#include "attention/walk.h"
#include "base/rand.h"
#include "tests/common/check.h"
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS = 1100, BLOCK = 48, SPANS = 160 };

/* Ascending in begin and in end; some overlap, some touch, some reach over many pages. */
static int random_spans(struct attn_span *span, struct rand *r, int end) {
    int n = 0, begin = 0, stop = 0;
    while (n < SPANS - 2 && stop < end) {
        begin += (int)rand_below(r, rand_below(r, 4) ? 12 : 150);
        int to = begin + 1 + (int)rand_below(r, rand_below(r, 6) ? 20 : 120);
        stop = to > stop ? to : stop;
        span[n++] = (struct attn_span){ .begin = begin, .end = stop };
    }
    return n;
}

static void test_pages(void **state) {
    (void)state;
    struct rand r = { 3 };
    struct attn_span span[SPANS];
    for (int turn = 0; turn < 500; turn++) {
        const int end = 1 + (int)rand_below(&r, 2000), n = random_spans(span, &r, end + 100);
        int page[200], want[200], count = 0;
        for (int p = 0; p * KV_PAGE < end; p++) {
            int reached = 0;
            for (int i = 0; i < n; i++)
                reached |= span[i].begin < (p + 1) * KV_PAGE && span[i].end > p * KV_PAGE;
            if (reached) want[count++] = p;
        }
        assert_int_equal(walk_pages(page, span, n, end), count);
        assert_memory_equal(page, want, (size_t)count * sizeof *page);
        const struct walk walk = { .span = span, .n_spans = n, .end = end, .page = page,
                                   .n_pages = count };
        int segment = 0, first = 0, seen = 0;
        for (; (segment = walk_segment(&walk, segment, &first)) >= 0; segment++, seen++) {
            assert_int_equal(segment, seen);
            assert_true(span[first].end > page[segment * SEGMENT_PAGES] * KV_PAGE);
            assert_true(!first || span[first - 1].end <= page[segment * SEGMENT_PAGES] * KV_PAGE);
        }
        assert_int_equal(seen, (count + SEGMENT_PAGES - 1) / SEGMENT_PAGES);
    }
}

/* A mode that reads some of the past: blocks of any length,
 * the odd one by some heads only, and a window. */
struct spy { struct attn_mode base; int everything; };

static int spy_select(struct attn_mode *m, const struct attn_block *b, struct attn_span *span) {
    struct rand r = { (uint64_t)(b->pos / BLOCK) + 7 };
    const int end = b->pos + b->n,
              near = b->pos / BLOCK * BLOCK > 100 ? b->pos / BLOCK * BLOCK - 100 : 0;
    if (((struct spy *)m)->everything) {
        *span = (struct attn_span){ .begin = 0, .end = end };
        return 1;
    }
    int n = 0;
    for (int at = (int)rand_below(&r, 90); at < near && n < SPANS - 1;
         at += 17 + (int)rand_below(&r, 60)) {
        const int stop = at + 1 + (int)rand_below(&r, 16);
        span[n++] = (struct attn_span){ .begin = at, .end = stop < near ? stop : near,
                                        .heads = rand_below(&r, 3) ? 0 : 2 };
    }
    span[n++] = (struct attn_span){ .begin = near, .end = end, .window = 60 };
    return n;
}

static const struct attn_ops spy_ops = { .name = "spy", .select = spy_select };

static int spy_sees(int head, int p, int j) {
    static struct attn_span span[SPANS];
    static int of = -1, n;
    if (p / BLOCK != of) {
        of = p / BLOCK;
        n = spy_select(&(struct spy){ .everything = 0 }.base,
                       &(struct attn_block){ .pos = of * BLOCK, .n = BLOCK }, span);
    }
    for (int i = 0; i < n; i++)
        if (j >= span[i].begin && j < span[i].end && (!span[i].window || j > p - span[i].window) &&
            (!span[i].heads || span[i].heads >> head % 4 & 1)) return 1;
    return 0;
}

/* The problem in chunks; the last `alone` tokens one by one. */
static float *attend(const struct problem *p, const struct kernels *k, int scattered,
                     int everything, int chunk, int alone) {
    const struct kv_shape shape = { .n_layers = 1, .n_kv_heads = p->shape.n_kv_heads,
                                    .k_dim = p->shape.k_dim, .v_dim = p->shape.v_dim,
                                    .type_k = p->type_k, .type_v = p->type_v };
    struct spy spy = { { .ops = &spy_ops, .max_spans = SPANS, .block = BLOCK,
                         .scattered = scattered, .max_pages = TOKENS / KV_PAGE + 1 }, everything };
    const size_t in = (size_t)p->shape.n_heads * p->shape.k_dim,
                 width = (size_t)p->shape.n_heads * p->shape.v_dim;
    struct kvcache *kv = NULL;
    struct flash *f = NULL;
    struct err err;
    float *out = malloc((size_t)p->n * width * sizeof *out);
    if (kv_open(&kv, &shape, &err) || kv_reserve(kv, p->n, &err) ||
        flash_open(&f, &p->shape, k, &spy.base, &err))
        fail_msg("%s", err.msg);
    kv_append(kv, 0, 0, p->n, p->k, p->v);
    for (int pos = 0, n; pos < p->n; pos += n) {
        const int left = p->n - alone - pos;
        n = left <= 0 ? 1 : left < chunk ? left : chunk;
        flash_run(f, &spy.base, out + (size_t)pos * width, p->q + (size_t)pos * in, kv, 0, pos, n);
    }
    uint64_t keys, rows;
    flash_counters(f, &keys, &rows);
    if (!everything) {
        static uint64_t want;              /* the same for all */
        for (int h = 0, known = want != 0; !known && h < p->shape.n_heads; h++)
            for (int t = 0; t < p->n; t++)
                for (int j = 0; j <= t; j++) want += (uint64_t)spy_sees(h, t, j);
        assert_int_equal(keys, want);
    }
    flash_close(f);
    kv_close(kv);
    return out;
}

static void test_side_by_side(void **state) {
    char names[64];
    (void)state;
    static const enum dtype types[] = { DT_F32, DT_F16, DT_BF16, DT_Q8_0, DT_Q4_0 };
    snprintf(names, sizeof names, "%s", kernels_names());
    for (int t = 0; t < 5; t++) {
        struct problem p = problem_new(TOKENS, 8, 2, 32, 64, types[t], types[t]);
        const size_t width = (size_t)p.shape.n_heads * p.shape.v_dim, all = width * TOKENS;
        double tolerance, *want = problem_naive(&p, spy_sees, &tolerance);
        char list[64];
        snprintf(list, sizeof list, "%s", names);
        for (char *name = strtok(list, " "); name; name = strtok(NULL, " ")) {
            const struct kernels *k = kernels_pick(name);
            omp_set_num_threads(1);
            float *one = attend(&p, k, 1, 0, 10 * BLOCK, 9);
            const double off = largest_error(one, want, all), most = tolerance;
            if (!(off <= most))
                fail_msg("%s, %s: %g off, %g allowed", k->name, dtype_name(types[t]), off, most);
            float *full = attend(&p, k, 0, 1, TOKENS, 0), *same = attend(&p, k, 1, 1, TOKENS, 0);
            assert_memory_equal(same, full, all * sizeof *full);
            omp_set_num_threads(3);
            float *more = attend(&p, k, 1, 0, 2 * BLOCK, 9);
            assert_memory_equal(more, one, all * sizeof *one);
            free(one), free(full), free(same), free(more);
        }
        free(want);
        problem_free(&p);
    }
    omp_set_num_threads(1);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_pages),
                                        cmocka_unit_test(test_side_by_side) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
