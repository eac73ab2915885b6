/* Mode delta: which pages the selecting layers choose, who reads them, and what it costs. The layers of a step are run
 * one by one over a cache of random keys and values; what a layer would read, its spans say. */
#include "tests/common/attend.h"           /* before CMocka, which makes a macro of the word fail */
#include "attention/flash.h"
#include "tests/common/check.h"
#include "tests/common/tiny.h"
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS = 8, HEADS = 8, GROUPS = 2, KD = 32, VD = 32, N = 1200, PAGES = (N + KV_PAGE - 1) / KV_PAGE };
#define FULL "full=0,1,2,5"                /* so 2 and 5 select, 3 4 and 6 7 read their lists */
static const int full[LAYERS] = { 1, 1, 1, 0, 0, 1, 0, 0 }, selects[LAYERS] = { 0, 0, 1, 0, 0, 1, 0, 0 };

/* N random tokens in every layer, of another seed each. */
struct world { struct problem p[LAYERS]; struct kvcache *kv; };

static struct world w;

static void world_open(enum dtype type_k, enum dtype type_v) {
    const struct kv_shape shape = { .n_layers = LAYERS, .n_kv_heads = GROUPS, .k_dim = KD, .v_dim = VD, .type_k = type_k,
                                    .type_v = type_v };
    struct err err;
    if (kv_open(&w.kv, &shape, &err) || kv_reserve(w.kv, N, &err)) fail_msg("%s", err.msg);
    for (int l = 0; l < LAYERS; l++) {
        uint64_t seed = 100 + (uint64_t)l;
        struct problem *p = &w.p[l];
        *p = problem_new(N, HEADS, GROUPS, KD, VD, type_k, type_v);
        p->shape.n_layers = LAYERS;
        p->shape.scale *= 3;                               /* some keys stand out */
        for (size_t i = 0; i < (size_t)N * HEADS * KD; i++) p->q[i] = (float)noise_normal(&seed);
        for (size_t i = 0; i < (size_t)N * GROUPS * KD; i++) p->k[i] = (float)noise_normal(&seed);
        kv_append(w.kv, l, 0, N, p->k, p->v);
    }
}

static void world_close(void) {
    for (int l = 0; l < LAYERS; l++) problem_free(&w.p[l]);
    kv_close(w.kv);
}

static const float *query(int layer, int pos) { return w.p[layer].q + (size_t)pos * HEADS * KD; }

static struct attn *mode_new(const char *text) {
    struct attn *a = NULL;
    struct err err;
    if (attn_open(&a, text, &w.p[0].shape, kernels_pick(NULL), &err)) fail_msg("%s", err.msg);
    return a;
}

/* One step through all layers: out [LAYERS][HEADS][VD]. */
static void step(struct attn *a, int pos, float *out) {
    for (int l = 0; l < LAYERS; l++) attn_run(a, out + (size_t)l * HEADS * VD, query(l, pos), w.kv, l, pos, 1);
}

static uint64_t keys_of(struct attn *a) {
    uint64_t keys, rows;
    attn_counters(a, &keys, &rows);
    return keys;
}

/* The same with the mode in the open, to ask it for spans. */
struct bare { struct attn_mode *mode; struct flash *flash; };

static struct bare bare_open(const char *params) {
    struct attn_args args;
    struct bare b;
    struct err err;
    if (args_parse(&args, "delta", mode_delta.keys, params, &err) || mode_delta.open(&b.mode, &args, &w.p[0].shape, &err) ||
        flash_open(&b.flash, &w.p[0].shape, kernels_pick(NULL), b.mode, &err))
        fail_msg("%s", err.msg);
    return b;
}

static void bare_close(struct bare b) {
    flash_close(b.flash);
    mode_delta.close(b.mode);
}

static void bare_layer(struct bare b, int layer, int pos, int n, int decode, float *out) {
    mode_delta.begin(b.mode, &(struct attn_call){ .layer = layer, .pos = pos, .n = n, .q = query(layer, pos), .kv = w.kv,
                                                  .tile = kernels_pick(NULL)->tile, .decode = decode });
    flash_run(b.flash, b.mode, out, query(layer, pos), w.kv, layer, pos, n);
}

/* The pages a layer would read now, as marks [PAGES]; their number. */
static int pages_of(struct bare b, int layer, int kv_head, int pos, char *mark) {
    static struct attn_span span[PAGES];
    const struct attn_block block = { .layer = layer, .kv_head = kv_head, .pos = pos, .n = 1, .kv = w.kv };
    const int n = mode_delta.select(b.mode, &block, span);
    int count = 0, at = -1;
    assert_true(n >= 1 && n <= b.mode->max_spans);
    memset(mark, 0, PAGES);
    for (int i = 0; i < n; i++) {
        assert_true(span[i].begin > at && span[i].begin % KV_PAGE == 0 && !span[i].window && !span[i].until && !span[i].heads);
        for (at = span[i].begin; at < span[i].end; at += KV_PAGE) mark[at / KV_PAGE] = 1, count++;
    }
    assert_true(mark[pos / KV_PAGE]);
    return count;
}

/* Probabilities of a layer's query at pos in double: [HEADS][pos + 1], malloc'd. */
static double *probabilities(int layer, int pos) {
    double *prob = malloc((size_t)HEADS * (pos + 1) * sizeof *prob);
    float key[KD];
    for (int h = 0; h < HEADS; h++) {
        double *x = prob + (size_t)h * (pos + 1), sum = 0;
        for (int j = 0; j <= pos; j++) {
            double dot = 0;
            kv_read(w.kv, layer, h / (HEADS / GROUPS), j, key, NULL);
            for (int i = 0; i < KD; i++) dot += (double)query(layer, pos)[h * KD + i] * key[i];
            sum += x[j] = exp(w.p[0].shape.scale * dot);
        }
        for (int j = 0; j <= pos; j++) x[j] /= sum;
    }
    return prob;
}

/* Per page: sum over tokens of the largest, and of the mean, probability of any head. */
static void page_scores(int layer, int pos, double *peak, double *mean) {
    double *prob = probabilities(layer, pos);
    for (int u = 0; u < PAGES; u++) peak[u] = mean[u] = 0;
    for (int j = 0; j <= pos; j++) {
        double high = 0;
        for (int h = 0; h < HEADS; h++) {
            high = fmax(high, prob[(size_t)h * (pos + 1) + j]);
            mean[j / KV_PAGE] += prob[(size_t)h * (pos + 1) + j] / HEADS;
        }
        peak[j / KV_PAGE] += high;
    }
    free(prob);
}

static float out[LAYERS * HEADS * VD], want[LAYERS * HEADS * VD];

/* ---- When it is active, and what it reads ---- */

/* With K pages or fewer, or not more than R K, everything is full attention's to the bit; with one token more, full
 * layers still are, and the counter says what the formula says. */
static void test_threshold(void **state) {
    static const struct { int budget, recent; double ratio; } modes[] = { { 20, 4, 1 }, { 20, 1, 2.5 }, { 2, 1, 1 }, { 74, 8, 1 } };
    char text[128];
    (void)state;
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
        const int k = modes[m].budget, edge = (int)(k * modes[m].ratio);   /* active above so many pages */
        snprintf(text, sizeof text, "delta,%s,budget=%d,recent=%d,ratio=%g", FULL, k, modes[m].recent, modes[m].ratio);
        struct attn *delta = mode_new(text), *all = mode_new("full");
        for (int n = edge * KV_PAGE - 17; n <= edge * KV_PAGE + 18 && n <= N; n++) {
            const uint64_t before = keys_of(delta);
            const int pages = (n + KV_PAGE - 1) / KV_PAGE, listed = KV_PAGE * (k - 1) + n - KV_PAGE * (pages - 1);
            uint64_t keys = 0;
            step(delta, n - 1, out);
            step(all, n - 1, want);
            for (int l = 0; l < LAYERS; l++) {
                const int sparse = pages > edge && !full[l];
                const int same = !memcmp(out + l * HEADS * VD, want + l * HEADS * VD, HEADS * VD * sizeof *out);
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
    static const char *const same[] = { "delta,full=0,1,2,3,4,5,6,7,budget=2,recent=1", "delta,ratio=1e9", "delta,budget=75" };
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

struct figures { double tokens, lists, recall, far, least; int n; };

static void note(void *ctx, const char *name, double value) {
    struct figures *f = ctx;
    double *const at[] = { &f->tokens, &f->lists, &f->recall, &f->far, &f->least };
    static const char *const names[] = { "sparse_tokens", "lists", "recall", "recall_far", "recall_min" };
    for (int i = 0; i < 5; i++)
        if (!strcmp(name, names[i])) *at[i] = value, f->n++;
}

/* A list of position p is gone when a prompt goes through position p again: its last layer may run for one token only. */
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

/* Against double precision, and growing with the budget: a page once chosen stays, and what the list holds of the
 * probabilities of the next layers grows, up to all. */
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
    mode_delta.begin(b.mode, &(struct attn_call){ .layer = 0, .pos = 66 * KV_PAGE, .n = 1, .decode = 1 });
    mode_delta.take_masses(b.mode, &(struct attn_masses){ 2, 66 * KV_PAGE, 67, mass, mass });
    assert_int_equal(pages_of(b, 3, 1, 66 * KV_PAGE, list), 10);
    static const int expected[] = { 0, 1, 9, 19, 29, 39, 49, 59, 65, 66 };
    for (int i = 0; i < 10; i++) assert_true(list[expected[i]]);
    for (int u = 0; u < PAGES; u++) mass[u] = NAN;         /* broken keys: still a list */
    mode_delta.take_masses(b.mode, &(struct attn_masses){ 2, 66 * KV_PAGE, 67, mass, mass });
    assert_int_equal(pages_of(b, 3, 1, 66 * KV_PAGE, list), 10);
    bare_close(b);
}

/* One head of the selecting layer puts half its weight on one page, the others spread theirs over a few pages: the mean
 * over heads would lose that page. In the first page, the last one before the recent ones, and in between. */
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
                for (int g = 0; g < GROUPS; g++) k[((size_t)((5 + 4 * f) * KV_PAGE + t) * GROUPS + g) * KD + 1] = other;
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

/* ---- What is read, and what comes out ---- */

static void poison(int layer, const char *keep, int pos) {
    float bad[GROUPS * KD];
    for (int i = 0; i < GROUPS * KD; i++) bad[i] = NAN;
    for (int j = 0; j < pos; j++)
        if (!keep[j / KV_PAGE]) kv_append(w.kv, layer, j, 1, bad, bad);
}

static void heal(int layer) { kv_append(w.kv, layer, 0, N, w.p[layer].k, w.p[layer].v); }

/* Keys that are not listed do not touch a sparse layer; they do touch a full one. */
static void test_poison(void **state) {
    (void)state;
    const int pos = 1000;
    char list[PAGES];
    struct bare b = bare_open("," FULL ",budget=12,recent=3");
    for (int l = 0; l <= 6; l++) bare_layer(b, l, pos, 1, 1, want);
    pages_of(b, 6, 0, pos, list);
    poison(6, list, pos);
    bare_layer(b, 6, pos, 1, 1, out);
    assert_memory_equal(out, want, HEADS * VD * sizeof *out);
    heal(6);
    poison(5, list, pos);
    bare_layer(b, 5, pos, 1, 1, out);
    for (int i = 0; i < HEADS * VD; i++) assert_true(isnan(out[i]));
    assert_int_equal(pages_of(b, 6, 0, pos, list), 12);    /* still a list of the right shape */
    heal(5);
    bare_close(b);
}

/* Full output = what the list holds of it + the rest, each weighted with the probability it holds. */
static void test_decomposition(void **state) {
    (void)state;
    const int pos = 1000;
    char list[PAGES];
    struct bare b = bare_open("," FULL ",budget=20,recent=3");
    struct attn *all = mode_new("full");
    step(all, pos, want);
    for (int l = 0; l < LAYERS; l++) {
        bare_layer(b, l, pos, 1, 1, out);
        if (full[l]) continue;
        pages_of(b, l, 0, pos, list);
        double *prob = probabilities(l, pos);
        for (int h = 0; h < HEADS; h++) {
            double held = 0, rest[VD] = { 0 }, largest = 0, away = 0;
            for (int j = 0; j <= pos; j++) {
                const double x = prob[(size_t)h * (pos + 1) + j];
                float v[VD], length = 0;
                kv_read(w.kv, l, h / (HEADS / GROUPS), j, NULL, v);
                for (int i = 0; i < VD; i++) length += v[i] * v[i];
                largest = fmax(largest, sqrt(length));
                if (list[j / KV_PAGE]) held += x;
                else for (int i = 0; i < VD; i++) rest[i] += x * v[i];
            }
            for (int i = 0; i < VD; i++) {
                const double dense = want[((size_t)l * HEADS + h) * VD + i], sparse = out[h * VD + i];
                assert_true(fabs(dense - (held * sparse + rest[i])) < 1e-4);
                away += (dense - sparse) * (dense - sparse);
            }
            assert_true(held < 0.999 && sqrt(away) <= 2 * (1 - held) * largest + 1e-4);
        }
        free(prob);
    }
    attn_close(all);
    bare_close(b);
}

static void test_threads(void **state) {
    static const int threads[] = { 1, 2, 3, 8 };
    (void)state;
    for (int i = 0; i < 4; i++) {
        omp_set_num_threads(threads[i]);
        struct attn *a = mode_new("delta," FULL ",budget=20,recent=3");
        for (int pos = 900; pos < 904; pos++) step(a, pos, i ? out : want);
        if (i) assert_memory_equal(out, want, sizeof out);
        attn_close(a);
    }
    omp_set_num_threads(1);
}

/* The gauge: what the list of layer 2 holds of the probabilities of layer 5, averaged over heads and steps. */
static void test_recall(void **state) {
    (void)state;
    static double peak[PAGES], mean[PAGES];
    struct bare b = bare_open("," FULL ",budget=20,recent=3");
    double sum = 0, sum_far = 0, least = 1;
    for (int pos = 900; pos < 910; pos++) {
        char list[PAGES];
        double held = 0, held_far = 0, far = 0;
        for (int l = 0; l < 5; l++) bare_layer(b, l, pos, 1, 1, out);
        pages_of(b, 4, 0, pos, list);
        page_scores(5, pos, peak, mean);
        for (int u = 0; u <= pos / KV_PAGE; u++) {
            const int is_far = u > 0 && u <= pos / KV_PAGE - 3;
            if (is_far) far += mean[u];
            if (list[u]) held += mean[u], held_far += is_far ? mean[u] : 0;
        }
        sum += held / 10, sum_far += held_far / far / 10, least = fmin(least, held);
        for (int l = 5; l < LAYERS; l++) bare_layer(b, l, pos, 1, 1, out);
    }
    struct figures f = { 0 };
    mode_delta.report(b.mode, note, &f);
    assert_int_equal(f.n, 5);
    assert_true(f.tokens == 10 && f.lists == 20);
    assert_true(fabs(f.recall - sum) < 1e-5 && fabs(f.far - sum_far) < 1e-5 && fabs(f.least - least) < 1e-5);
    assert_true(f.recall < 0.9 && f.least < f.recall);
    bare_close(b);
    f = (struct figures){ 0 };
    struct attn *all = mode_new("full");
    attn_report(all, note, &f);
    assert_int_equal(f.n, 0);
    attn_close(all);
}

/* Every pair of types, many shapes: the sparse layers against full attention over the listed keys in double. */
static void test_types(void **state) {
    static const enum dtype types[] = { DT_F32, DT_F16, DT_BF16, DT_Q8_0, DT_Q4_0 };
    (void)state;
    world_close();
    for (int t = 0; t < 5; t++) {
        world_open(types[t], types[4 - t]);
        const int pos = 700;
        char list[PAGES];
        struct bare b = bare_open("," FULL ",budget=20,recent=3");
        for (int l = 0; l <= 3; l++) bare_layer(b, l, pos, 1, 1, out);
        pages_of(b, 3, 0, pos, list);
        double *prob = probabilities(3, pos);
        for (int h = 0; h < HEADS; h++) {
            double o[VD] = { 0 }, held = 0;
            for (int j = 0; j <= pos; j++) {
                float v[VD];
                if (!list[j / KV_PAGE]) continue;
                kv_read(w.kv, 3, h / (HEADS / GROUPS), j, NULL, v);
                held += prob[(size_t)h * (pos + 1) + j];
                for (int i = 0; i < VD; i++) o[i] += prob[(size_t)h * (pos + 1) + j] * v[i];
            }
            for (int i = 0; i < VD; i++) assert_true(fabs(o[i] / held - out[h * VD + i]) < 1e-4);
        }
        free(prob);
        bare_close(b);
        world_close();
    }
    world_open(DT_F16, DT_F16);
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

static int open_world(void **state) { (void)state; omp_set_num_threads(1); world_open(DT_F16, DT_F16); return 0; }
static int close_world(void **state) { (void)state; world_close(); return 0; }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threshold), cmocka_unit_test(test_same_as_full), cmocka_unit_test(test_list),
        cmocka_unit_test(test_stale), cmocka_unit_test(test_choice), cmocka_unit_test(test_ties),
        cmocka_unit_test(test_needle), cmocka_unit_test(test_poison), cmocka_unit_test(test_decomposition),
        cmocka_unit_test(test_threads), cmocka_unit_test(test_recall), cmocka_unit_test(test_types),
        cmocka_unit_test(test_parameters),
    };
    return cmocka_run_group_tests(tests, open_world, close_world);
}
