/* Mode delta: when it is active, which pages the selecting layers choose, who reads them, and what
 * it costs. The layers of a step are run one by one over a cache of random keys and values; what a
 * layer would read, its spans say. */
#include "tests/common/delta_world.h"

/* ---- When it is active, and what it reads ---- */

/* With K pages or fewer, or not more than R K, everything is full attention's to the bit; with one
 * token more, full layers still are, and the counter says what the formula says. */
static void test_threshold(void **state) {
    static const struct { int budget, recent; double ratio; } modes[] = {
        { 20, 4, 1 }, { 20, 1, 2.5 }, { 2, 1, 1 }, { 74, 8, 1 } };
    char text[128];
    (void)state;
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
        /* Active above `edge` pages. */
        const int k = modes[m].budget, edge = (int)(k * modes[m].ratio);
        snprintf(text, sizeof text, "delta,%s,budget=%d,recent=%d,ratio=%g", FULL, k,
                 modes[m].recent, modes[m].ratio);
        struct attn *delta = mode_new(text), *all = mode_new("full");
        for (int n = edge * KV_PAGE - 17; n <= edge * KV_PAGE + 18 && n <= N; n++) {
            const uint64_t before = keys_of(delta);
            const int pages = (n + KV_PAGE - 1) / KV_PAGE,
                      listed = KV_PAGE * (k - 1) + n - KV_PAGE * (pages - 1);
            uint64_t keys = 0;
            step(delta, n - 1, out);
            step(all, n - 1, want);
            for (int l = 0; l < LAYERS; l++) {
                const int sparse = pages > edge && !full[l];
                const int same = !memcmp(out + l * HEADS * VD, want + l * HEADS * VD,
                                         HEADS * VD * sizeof *out);
                assert_int_equal(same, !sparse);
                keys += (uint64_t)HEADS * (sparse ? listed : n);
            }
            assert_int_equal(keys_of(delta) - before, keys);
        }
        attn_close(delta);
        attn_close(all);
    }
}

/* Every type of key and value; all layers full, or a ratio never reached, is mode full. */
static void test_same_as_full(void **state) {
    static const char *const same[] = { "delta,full=0,1,2,3,4,5,6,7,budget=2,recent=1",
                                        "delta,ratio=1e9", "delta,budget=75" };
    (void)state;
    struct attn *all = mode_new("full");
    step(all, N - 1, want);
    for (int i = 0; i < 3; i++) {
        struct attn *delta = mode_new(same[i]);
        step(delta, N - 1, out);
        assert_memory_equal(out, want, sizeof out);
        attn_close(delta);
    }
    attn_close(all);
}

/* ---- The list ---- */

static void test_list(void **state) {
    (void)state;
    for (int sink = 0; sink < 3; sink++) {
        char params[128], list[PAGES] = { 0 }, older[PAGES], mark[PAGES];
        snprintf(params, sizeof params, ",%s,budget=12,recent=3,sink=%d", FULL, sink);
        struct bare b = bare_open(params);
        for (int n = 500; n <= 530; n++) {
            const int pages = (n + KV_PAGE - 1) / KV_PAGE;
            for (int l = 0; l < LAYERS; l++) {
                /* Before its layer has run, a token has no list: an older one must not be read. */
                bare_layer(b, l, n - 1, 1, 1, out);
                if (l < 2) assert_int_equal(pages_of(b, 3, 0, n - 1, mark), pages);
                if (selects[l]) {
                    memcpy(older, list, sizeof list);
                    assert_int_equal(pages_of(b, l + 1, 0, n - 1, list), 12);
                    for (int u = 0; u < sink; u++) assert_true(list[u]);
                    for (int u = pages - 3; u < pages; u++) assert_true(list[u]);
                    if (l > 2) assert_true(memcmp(older, list, sizeof list) != 0);
                }
                if (!full[l])
                    for (int g = 0; g < GROUPS; g++) {
                        assert_int_equal(pages_of(b, l, g, n - 1, mark), 12);
                        assert_memory_equal(mark, list, sizeof list);
                    }
                else assert_int_equal(pages_of(b, l, 0, n - 1, mark), pages);
            }
        }
        bare_close(b);
    }
}

/* A list of position p is gone when a prompt goes through position p again:
 * its last layer may run for one token only. */
static void test_stale(void **state) {
    (void)state;
    char mark[PAGES];
    float *many = malloc((size_t)40 * HEADS * VD * sizeof *many);
    struct bare b = bare_open("," FULL ",budget=12,recent=3");
    for (int l = 0; l < LAYERS; l++) bare_layer(b, l, 799, 1, 1, out);
    assert_int_equal(pages_of(b, 7, 0, 799, mark), 12);
    for (int l = 0; l < LAYERS - 1; l++) bare_layer(b, l, 760, 40, 0, many);
    bare_layer(b, 7, 799, 1, 0, out);
    assert_int_equal(pages_of(b, 7, 0, 799, mark), 50);
    bare_close(b);
    /* And a piece of one token that belongs to a prompt chooses nothing. */
    struct attn *delta = mode_new("delta," FULL ",budget=12,recent=3");
    attn_phase(delta, ATTN_PREFILL);
    step(delta, 799, out);
    assert_int_equal(keys_of(delta), LAYERS * HEADS * 800);
    struct figures f = { .tokens = 1 };
    attn_report(delta, note, &f);
    assert_true(f.tokens == 0);
    attn_phase(delta, ATTN_DECODE);
    step(delta, 799, out);
    assert_int_equal(keys_of(delta), HEADS * (LAYERS * 800 + 4 * 800 + 4 * 12 * 16));
    attn_close(delta);
    free(many);
}

/* Against double precision, and growing with the budget: a page once chosen stays, and what the
 * list holds of the probabilities of the next layers grows, up to all. */
static void test_choice(void **state) {
    static const int at[] = { 703, 704, 1111, N - 1 };
    static double peak[PAGES], mean[PAGES];
    (void)state;
    for (size_t a = 0; a < sizeof at / sizeof *at; a++) {
        const int pos = at[a], pages = pos / KV_PAGE + 1;
        char list[PAGES], smaller[PAGES] = { 0 };
        for (int sel = 2; sel <= 5; sel += 3) {
            double held_before = 0, next_peak[PAGES], next_mean[PAGES];
            page_scores(sel, pos, peak, mean);
            page_scores(sel + 1, pos, next_peak, next_mean);
            memset(smaller, 0, sizeof smaller);
            for (int k = 6; k < pages; k++) {
                if (k > 12 && k < pages - 3 && k % 7) continue;
                char params[64];
                snprintf(params, sizeof params, ",%s,budget=%d,recent=5", FULL, k);
                struct bare b = bare_open(params);
                for (int l = 0; l <= sel; l++) bare_layer(b, l, pos, 1, 1, out);
                assert_int_equal(pages_of(b, sel + 1, 0, pos, list), k);
                double worst_in = INFINITY, best_out = 0, held = 0;
                for (int u = 0; u < pages; u++) {
                    assert_true(!smaller[u] || list[u]);
                    if (list[u]) held += next_mean[u];
                    if (u >= pages - 5) assert_true(list[u]);
                    else if (list[u]) worst_in = fmin(worst_in, peak[u]);
                    else best_out = fmax(best_out, peak[u]);
                }
                assert_true(worst_in >= best_out * (1 - 1e-5));
                assert_true(held >= held_before && held <= 1 + 1e-9);
                held_before = held;
                memcpy(smaller, list, sizeof list);
                bare_close(b);
            }
        }
    }
}

/* Pages of equal mass: the earlier ones. Masses are handed to the mode directly. */
static void test_ties(void **state) {
    (void)state;
    char list[PAGES];
    float mass[PAGES];
    struct bare b = bare_open("," FULL ",budget=10,recent=2,sink=1");
    for (int u = 0; u < PAGES; u++) mass[u] = u % 10 == 9 ? 0.25f : 0.125f;
    mass[60] = 0;
    mode_delta.begin(b.mode, &(struct attn_call){ .layer = 0, .pos = 66 * KV_PAGE,
                                                  .n = 1, .decode = 1 });
    mode_delta.take_masses(b.mode, &(struct attn_masses){ 2, 66 * KV_PAGE, 67, mass, mass });
    assert_int_equal(pages_of(b, 3, 1, 66 * KV_PAGE, list), 10);
    static const int expected[] = { 0, 1, 9, 19, 29, 39, 49, 59, 65, 66 };
    for (int i = 0; i < 10; i++) assert_true(list[expected[i]]);
    for (int u = 0; u < PAGES; u++) mass[u] = NAN;         /* broken keys: still a list */
    mode_delta.take_masses(b.mode, &(struct attn_masses){ 2, 66 * KV_PAGE, 67, mass, mass });
    assert_int_equal(pages_of(b, 3, 1, 66 * KV_PAGE, list), 10);
    bare_close(b);
}

/* One head of the selecting layer puts half its weight on one page, the others spread theirs over
 * a few pages: the mean over heads would lose that page. In the first page, the last one before
 * the recent ones, and in between. */
static void test_needle(void **state) {
    enum { POS = 1023, K = 12, L = 3, FAVOURED = 10 };
    static double peak[PAGES], mean[PAGES];
    static const int place[] = { 0, 64 - L - 1, 30 };
    struct problem *p = &w.p[2];
    float *k = calloc((size_t)N * GROUPS * KD, sizeof *k), *q = calloc(HEADS * KD, sizeof *q);
    (void)state;
    for (int i = 0; i < 3; i++) {
        /* Dimension 0 is what head 0 looks for, dimension 1 the others. */
        const float unit = logf(POS + 1.0f), other = logf(300);
        memset(k, 0, (size_t)N * GROUPS * KD * sizeof *k);
        for (int h = 0; h < HEADS; h++) q[h * KD + (h > 0)] = 1 / p->shape.scale;
        k[((size_t)place[i] * KV_PAGE + 5) * GROUPS * KD] = unit;
        for (int f = 0; f < FAVOURED; f++)
            for (int t = 0; t < KV_PAGE; t++)
                for (int g = 0; g < GROUPS; g++)
                    k[((size_t)((5 + 4 * f) * KV_PAGE + t) * GROUPS + g) * KD + 1] = other;
        kv_append(w.kv, 2, 0, N, k, p->v);
        float *own = malloc(HEADS * KD * sizeof *own);
        memcpy(own, query(2, POS), HEADS * KD * sizeof *own);
        memcpy(p->q + (size_t)POS * HEADS * KD, q, HEADS * KD * sizeof *q);

        page_scores(2, POS, peak, mean);
        int above = 0;
        for (int u = 0; u < 64 - L; u++) above += mean[u] > mean[place[i]];
        assert_true(above >= K - L);                       /* a mean over heads drops it */
        char list[PAGES];
        struct bare b = bare_open("," FULL ",budget=12,recent=3");
        for (int l = 0; l <= 2; l++) bare_layer(b, l, POS, 1, 1, out);
        assert_int_equal(pages_of(b, 3, 0, POS, list), K);
        assert_true(list[place[i]]);
        bare_close(b);
        memcpy(p->q + (size_t)POS * HEADS * KD, own, HEADS * KD * sizeof *own);
        kv_append(w.kv, 2, 0, N, p->k, p->v);
        free(own);
    }
    free(q);
    free(k);
}

/* ---- The parameters ---- */

static void refused(const char *text, const char *a, const char *b) {
    struct attn *attn = NULL;
    struct err err = { .msg = "" };
    assert_int_equal(attn_open(&attn, text, &w.p[0].shape, kernels_pick(NULL), &err), -1);
    if (!strstr(err.msg, a) || !strstr(err.msg, b)) fail_msg("%s: %s", text, err.msg);
}

static void test_parameters(void **state) {
    struct err err = { .msg = "" };
    (void)state;
    refused("delta,budget=8,recent=8", "recent=8", "budget=8");
    refused("delta,budget=8,recent=5,sink=3", "sink=3", "budget=8");
    refused("delta,full=1,2", "full=1,2", "layer 0");
    refused("delta,full=0,8", "layer 8", "has 8");
    refused("delta,full=0,1,99999999999999999999", "names layer", "has 8");
    refused("delta,full=first", "first", "auto");
    refused("delta,full=0-2", "0-2", "auto");
    refused("delta,recent=0", "recent=0", "1..");
    refused("delta,ratio=0.5", "ratio=0.5", "1..");
    refused("delta,full=0,1,width=3", "width", "budget");
    assert_int_equal(attn_check("delta,budget=8,recent=8", &err), -1);
    assert_int_equal(attn_check("delta,full=0,1,2,budget=64", &err), 0);
    assert_int_equal(attn_check_phases("delta", "full", &err), -1);
    assert_int_equal(attn_check_phases("full", "delta", &err), 0);
    struct attn_shape unknown = w.p[0].shape;
    struct attn *attn = NULL;
    unknown.max_tokens = 0;
    assert_int_equal(attn_open(&attn, "delta", &unknown, kernels_pick(NULL), &err), -1);
    attn = mode_new("delta,full=0,1,2,5,budget=64");
    assert_string_equal(attn_params(attn), "full=0,1,2,5,budget=64,recent=8,sink=0,ratio=1");
    attn_close(attn);
    /* auto: 0 1 2, half way, four fifths; 8 layers: 0 1 2 4 6, so 3 5 7 are sparse. */
    attn = mode_new("delta,budget=12,recent=3");
    step(attn, 799, out);
    assert_int_equal(keys_of(attn), HEADS * (5 * 800 + 3 * 12 * 16));
    attn_close(attn);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threshold), cmocka_unit_test(test_same_as_full),
        cmocka_unit_test(test_list), cmocka_unit_test(test_stale),
        cmocka_unit_test(test_choice), cmocka_unit_test(test_ties),
        cmocka_unit_test(test_needle), cmocka_unit_test(test_parameters),
    };
    return cmocka_run_group_tests(tests, open_world, close_world);
}
