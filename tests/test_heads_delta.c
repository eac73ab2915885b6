/* Which layers delta should let choose: what a layer's list is worth to another, in double, and the
 * choice of layers against every set there is. */
#include "tools/common/heads_delta.h"
#include "base/rand.h"
#include "tests/common/heads_world.h"
#include "tools/common/heads_layers.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/common/check.h"

static struct err err;

/* ---- what a layer's list is worth to another, in double ---- */

enum { DELTA_FROM = 590, DELTA_STEP = 3, DELTA_N = 600 };
static const struct delta_share delta_share = { .budget = 12, .recent = 3, .sink = 1 };
struct comparing { int rows, list[8][4][12]; double lost[16], held[16], best[4], far[4]; };

static void compare_again(void *ctx, const struct attn_call *c) {
    struct comparing *t = ctx;
    const struct model_config *m = &world.model->c;
    const struct delta_share *s = &delta_share;
    static double w[1024], mean[64], peak[1024];
    static uint64_t scratch[128];
    static float mass[64];
    for (int p = DELTA_FROM, row = 0; p < c->pos + c->n; p += DELTA_STEP, row++) {
        const int pages = p / 16 + 1;
        int best[12], *own = t->list[row][c->layer];
        memset(mean, 0, sizeof mean), memset(peak, 0, sizeof peak);
        for (int h = 0; h < m->n_heads; h++) {
            world_weights(c, m, h, p, false, 0, 0, w);
            for (int j = 0; j <= p; j++)
                mean[j / 16] += w[j] / m->n_heads, peak[j] = fmax(peak[j], w[j]);
        }
        for (int u = 0; u < pages; u++) mass[u] = (float)mean[u];
        assert_int_equal(delta_choose(best, mass, pages, s, scratch), 12);
        memset(mass, 0, sizeof mass);
        for (int j = 0; j <= p; j++) mass[j / 16] += (float)peak[j];
        delta_choose(own, mass, pages, s, scratch);
        if (c->layer == 0) t->rows++;
        for (int u = 1; u < pages - s->recent; u++) t->far[c->layer] += mean[u];
        for (int k = 0; k < 12; k++)
            t->best[c->layer] += best[k] >= 1 && best[k] < pages - s->recent ? mean[best[k]] : 0;
        for (int i = 0; i <= c->layer; i++) {
            double all = 0, far = 0;
            for (int k = 0; k < 12; k++) {
                const int u = t->list[row][i][k];
                all += mean[u], far += u >= 1 && u < pages - s->recent ? mean[u] : 0;
            }
            t->lost[i * 4 + c->layer] += 1 - all, t->held[i * 4 + c->layer] += far;
        }
    }
}

static void test_lists(void **state) {
    (void)state;
    struct session *s = world_session(&world, "full");
    struct heads_delta *d = NULL;
    struct fact fact;
    static struct comparing want;
    struct heads_sample x = world_sample(&world, STYLE_STORY, 700, 20, 3, &fact);
    if (heads_delta_open(&d, world.model, &delta_share, 1024, &err)) fail_msg("%s", err.msg);
    /* At `early` tokens there are 24 pages: too little choice. */
    const int early = 2 * 12 * 16, late = DELTA_FROM - 5;
    assert_int_equal(session_eval(s, x.ids, early - 20, &err), 0);
    session_observe(s, heads_delta_observe, d);
    assert_int_equal(session_eval_rows(s, x.ids + early - 20, 20, &err), 0);
    assert_int_equal(heads_delta_sums(d, &err)->rows, 0);
    session_observe(s, NULL, NULL);
    assert_int_equal(session_eval(s, x.ids + early, late - early, &err), 0);
    heads_delta_sample(d, DELTA_FROM, DELTA_STEP);
    session_observe(s, heads_delta_observe, d);
    assert_int_equal(session_eval_rows(s, x.ids + late, DELTA_N - late, &err), 0);
    session_truncate(s, late);
    session_observe(s, compare_again, &want);
    assert_int_equal(session_eval_rows(s, x.ids + late, DELTA_N - late, &err), 0);
    const struct heads_delta_sums *got = heads_delta_sums(d, &err);
    assert_int_equal(got->rows, 4);                        /* 590 593 596 599 */
    assert_int_equal(want.rows, 4);
    for (int j = 0; j < 4; j++) {
        assert_true(fabs(got->far[j] - want.far[j]) < 1e-4 &&
                    fabs(got->best[j] - want.best[j]) < 1e-4 && got->best[j] > 0);
        for (int i = 0; i <= j; i++)
            if (fabs(got->lost[i * 4 + j] - want.lost[i * 4 + j]) > 1e-4 ||
                fabs(got->held[i * 4 + j] - want.held[i * 4 + j]) > 1e-4)
                fail_msg("layer %d with the list of %d: %g and %g, not %g and %g", j, i,
                         got->lost[i * 4 + j], got->held[i * 4 + j], want.lost[i * 4 + j],
                         want.held[i * 4 + j]);
        assert_true(got->held[j * 4 + j] <= got->best[j] + 1e-9 &&
                    got->best[j] <= got->far[j] + 1e-9);
    }
    heads_delta_close(d);
    session_close(s);
    heads_sample_free(&x);
}

/* ---- the choice of layers, against every set there is ---- */

static double keep_of(unsigned set, const double *recall, const double *weight, int n) {
    double sum = 0;
    for (int j = 0, from = 0; j < n; j++) {
        if (set >> j & 1) from = j;
        sum += weight[j] * (from == j ? 1 : recall[from * n + j]);
    }
    return sum;
}

static void test_layers(void **state) {
    (void)state;
    struct rand rng = { 5 };
    for (int round = 0; round < 60; round++) {
        const int n = 1 + round % 9;
        double recall[81], weight[9], kept[9], all = 0;
        unsigned char full[81];
        for (int i = 0; i < n * n; i++) recall[i] = rand_below(&rng, 1000) / 1000.0;
        for (int i = 0; i < n; i++)
            all += weight[i] = rand_below(&rng, 4) ? rand_below(&rng, 1000) / 100.0 : 0;
        assert_int_equal(heads_layers(full, kept, recall, weight, n, &err), 0);
        for (int f = 1; f <= n; f++) {
            double best = 0;
            unsigned own = 0;
            for (int i = 0; i < n; i++) own |= (unsigned)full[(f - 1) * n + i] << i;
            for (unsigned set = 1; set < 1u << n; set += 2)
                if (__builtin_popcount(set) == f)
                    best = fmax(best, keep_of(set, recall, weight, n));
            if (!(own & 1) || __builtin_popcount(own) != f)
                fail_msg("%d layers of %d: set %x", f, n, own);
            if (fabs(keep_of(own, recall, weight, n) - best) > 1e-9 ||
                fabs(kept[f - 1] - (all > 0 ? best / all : 1)) > 1e-9)
                fail_msg("%d layers of %d: %x keeps %g, said %g, the best %g of %g", f, n, own,
                         keep_of(own, recall, weight, n), kept[f - 1], best, all);
        }
    }
    char text[64];
    const unsigned char some[] = { 1, 0, 1, 1 };
    heads_layers_setting(text, sizeof text, some, 4, &delta_share);
    assert_string_equal(text, "delta,full=0,2,3,budget=12,recent=3,sink=1");
    assert_int_equal(attn_check(text, &err), 0);
    heads_layers_setting(text, 20, some, 4, &delta_share);
    assert_string_equal(text, "delta,full=0,2,3,bu");
    uint64_t scratch[2 * 13];
    int page[12];
    float mass[13];
    for (int i = 0; i < 13; i++) mass[i] = i;
    for (int n = 1; n <= 12; n++) {                        /* no more pages than a list holds */
        assert_int_equal(delta_choose(page, mass, n, &delta_share, scratch), n);
        for (int i = 0; i < n; i++) assert_int_equal(page[i], i);
    }
    /* The least of those between goes. */
    assert_int_equal(delta_choose(page, mass, 13, &delta_share, scratch), 12);
    for (int i = 0; i < 12; i++) assert_int_equal(page[i], i ? i + 1 : 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_layers),
    };
    return cmocka_run_group_tests(tests, world_up, world_down);
}
