#include <math.h>
#include <string.h>
#include "model/sampler.h"
#include "tests/common/check.h"

enum { V = 1000 };
static float logits[V];

static struct sampler *make(struct sampler_options o) {
    struct sampler *s = NULL;
    struct err err;
    assert_int_equal(sampler_open(&s, V, &o, &err), 0);
    return s;
}

static void ramp(void) {                /* a permuted ramp: token i * 7 % V has logit -i / 100 */
    for (int i = 0; i < V; i++) logits[i * 7 % V] = -(float)i / 100;
}

static void test_greedy(void **state) {
    (void)state;
    ramp();
    struct sampler *s =
        make((struct sampler_options){ .temp = 0, .top_p = 1, .repeat_penalty = 1 });
    assert_int_equal(sampler_next(s, logits), 0);
    logits[500] = logits[3] = 9;                /* the lowest id among equals */
    assert_int_equal(sampler_next(s, logits), 3);
    logits[2] = NAN;
    assert_int_equal(sampler_next(s, logits), 3);
    for (int i = 0; i < V; i++) logits[i] = NAN;
    assert_int_equal(sampler_next(s, logits), -1);
    sampler_close(s);
}

/* Frequencies over many draws against the exact distribution of the tokens that may come. */
static void check_distribution(struct sampler_options o, int allowed) {
    enum { DRAWS = 40000 };
    struct sampler *s = make(o);
    int count[V] = { 0 };
    double want[V], sum = 0;
    for (int i = 0; i < DRAWS; i++) count[sampler_next(s, logits)]++;
    for (int i = 0; i < allowed; i++) sum += want[i] = exp(-(double)i / 100 / o.temp);
    for (int i = 0; i < V; i++) {
        const double p = i < allowed ? want[i] / sum : 0, sd = sqrt(DRAWS * p * (1 - p));
        const int got = count[i * 7 % V];
        if (fabs(got - DRAWS * p) > 5 * sd + (p > 0))
            fail_msg("rank %d: %d draws, wanted %.1f +/- %.1f", i, got, DRAWS * p, sd);
    }
    sampler_close(s);
}

static void test_distribution(void **state) {
    (void)state;
    ramp();
    check_distribution((struct sampler_options){ .temp = 1, .top_p = 1,
                                                 .repeat_penalty = 1, .seed = 1 }, V);
    check_distribution((struct sampler_options){ .temp = 0.5, .top_k = 40, .top_p = 1,
                                                 .repeat_penalty = 1, .seed = 2 }, 40);
    check_distribution((struct sampler_options){ .temp = 0.5, .top_k = 900, .top_p = 1,
                                                 .repeat_penalty = 1, .seed = 2 }, 900);
    /* min_p 0.5: ranks i with exp(-i/100) >= 0.5, so i <= 69 */
    check_distribution((struct sampler_options){ .temp = 0.3, .top_p = 1, .min_p = 0.5,
                                                 .repeat_penalty = 1, .seed = 3 }, 70);
    /* top_p 0.5 of a ramp cut at 200: the smallest prefix with half of the mass */
    double sum = 0, run = 0;
    int n = 0;
    for (int i = 0; i < 200; i++) sum += exp(-i / 100.0);
    while (run < 0.5 * sum) run += exp(-n++ / 100.0);
    check_distribution((struct sampler_options){ .temp = 0.9, .top_k = 200, .top_p = 0.5,
                                                 .repeat_penalty = 1, .seed = 4 }, n);
}

static void test_seed(void **state) {
    (void)state;
    ramp();
    struct sampler_options o = { .temp = 1, .top_p = 1, .repeat_penalty = 1, .seed = 42 };
    struct sampler *a = make(o), *b = make(o);
    o.seed = 43;
    struct sampler *c = make(o);
    int differ = 0;
    for (int i = 0; i < 200; i++) {
        const int x = sampler_next(a, logits);
        assert_int_equal(x, sampler_next(b, logits));
        differ += x != sampler_next(c, logits);
    }
    assert_true(differ > 150);
    sampler_close(a), sampler_close(b), sampler_close(c);
}

static void test_penalty(void **state) {
    (void)state;
    ramp();
    logits[0] = 1, logits[7] = 0.9f;
    struct sampler *s = make((struct sampler_options){ .temp = 0, .top_p = 1, .repeat_penalty = 1.5,
                                                       .repeat_last_n = 2 });
    assert_int_equal(sampler_next(s, logits), 0);
    sampler_accept(s, 0);
    assert_int_equal(sampler_next(s, logits), 7);       /* 1 / 1.5 < 0.9 */
    sampler_accept(s, 5);
    sampler_accept(s, 5);                               /* 0 left the window of two */
    assert_int_equal(sampler_next(s, logits), 0);
    sampler_close(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy), cmocka_unit_test(test_distribution),
        cmocka_unit_test(test_seed), cmocka_unit_test(test_penalty)
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
