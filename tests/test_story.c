/* What sparse attention loses on a real model and a long text, in numbers with a bound:
 * models/needle-proto.gguf, which looks up names and facts in stories, reads stories
 * it has not seen (they stand in for a corpus of books).
 *
 * Losses may be about twice what was measured, shares a fifth less; measured figures are in the
 * tests. */
#include "attention/mode.h"
#include "kernels/tile.h"
#include "tests/common/check.h"
#include "tests/common/tiny_file.h"
#include "tokenizer/tokenizer.h"
#include "tools/common/story.h"
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 2048, STEPS = 24, ROOM = N + STEPS + 1 };

static struct tiny_file proto;
static int32_t ids[ROOM];

static int set_up(void **state) {
    (void)state;
    omp_set_num_threads(1);
    proto = tiny_file_of("models/needle-proto.gguf");
    struct tokenizer *t;
    struct story story;
    struct err err;
    int n = 0;
    if (tok_open(&t, proto.file, NULL, &err)) fail_msg("%s", err.msg);
    story_begin(&story, 77);
    while (n < ROOM) {
        char line[STORY_SENTENCE + 1];
        int32_t *some = NULL;
        story_next(&story, line);
        strcat(line, " ");
        const int count = tok_encode(t, line, strlen(line), n ? 0 : TOK_BOS, &some, &err);
        for (int i = 0; i < count && n < ROOM; i++) ids[n++] = some[i];
        free(some);
    }
    tok_close(t);
    return 0;
}

static int tear_down(void **state) { (void)state; tiny_file_close(&proto); return 0; }

static void log_softmax(double *out, const float *x, int n) {
    double top = x[0], sum = 0;
    for (int i = 1; i < n; i++) top = fmax(top, x[i]);
    for (int i = 0; i < n; i++) sum += exp(x[i] - top);
    for (int i = 0; i < n; i++) out[i] = x[i] - top - log(sum);
}

/* Mean negative log likelihood of the second half of the text. */
static double loss(const char *attn) {
    const int n_vocab = proto.model->c.n_vocab, batch = 512;
    struct session *s = tiny_talk(&proto, attn, ROOM, batch);
    float *row = malloc((size_t)n_vocab * sizeof *row);
    double *lp = malloc((size_t)n_vocab * sizeof *lp), sum = 0;
    struct err err;
    for (int pos = 0; pos < N; pos += batch) {
        if (session_eval_rows(s, ids + pos, batch, &err)) fail_msg("%s", err.msg);
        for (int i = 0; pos >= N / 2 && i < batch; i++) {
            session_rows(s, i, 1, row);
            log_softmax(lp, row, n_vocab);
            sum -= lp[ids[pos + i + 1]];
        }
    }
    free(row);
    free(lp);
    session_close(s);
    return sum / (N / 2);
}

/* At several budgets, above full attention's 2.246: 0.163, 0.244, 0.077, 0.019.
 * The window and the sinks alone: 0.108, so that a search of few keys costs more
 * than it brings (64 queries share it); from k=256 on it has to pay. */
static void test_perplexity(void **state) {
    static const struct { int k; double most; } budget[] = {
        { 64, 0.33 }, { 128, 0.49 }, { 256, 0.15 }, { 512, 0.04 }
    };
    double lost[4];
    (void)state;
    const double full = loss("full"), window = loss("stream,sink=16,recent=64") - full;
    for (int i = 0; i < 4; i++) {
        char mode[96];
        snprintf(mode, sizeof mode, "hip,dense=0,until=0,window=64,sink=16,bk=16,k=%d",
                 budget[i].k);
        lost[i] = loss(mode) - full;
        if (!(lost[i] <= budget[i].most && lost[i] > 0))
            fail_msg("k=%d: %g nats more than %g", budget[i].k, lost[i], full);
    }
    assert_true(lost[3] < lost[2] && lost[2] < lost[1] && lost[2] < window);
    assert_true(fabs(loss("hip,dense=0,until=0,window=64,sink=16,bk=16,k=2048") - full) < 1e-9);
}

/* ---- How much of the attention the selection holds ---- */

struct look { struct attn_mode *mode; double held[64]; int seen[64], want_pos; };

static void on_call(void *ctx, const struct attn_call *c) {
    struct look *l = ctx;
    const struct model_config *m = &proto.model->c;
    const int group = m->n_heads / m->n_kv_heads;
    static struct attn_span span[4096];
    static double p[ROOM];
    if (!c->decode) return;
    l->mode->ops->begin(l->mode, c);
    for (int h = 0; h < m->n_heads; h++) {
        const struct attn_block b = { .layer = c->layer, .kv_head = h / group, .pos = c->pos,
                                      .n = 1, .kv = c->kv };
        const int n = l->mode->ops->select(l->mode, &b, span);
        double top = -INFINITY, sum = 0, held = 0;
        for (int j = 0; j <= c->pos; j++) {
            float key[512];
            kv_read(c->kv, c->layer, h / group, j, key, NULL);
            p[j] = 0;
            for (int i = 0; i < m->k_dim; i++) p[j] += (double)c->q[h * m->k_dim + i] * key[i];
            top = fmax(top, p[j] *= m->attn_scale);
        }
        for (int j = 0; j <= c->pos; j++) sum += p[j] = exp(p[j] - top);
        for (int i = 0, at = 0; i < n; i++)
            for (int j = span[i].begin > at ? span[i].begin : at;
                 j < span[i].end && j <= c->pos; j++) {
                at = j + 1;
                if (!span[i].window || j > c->pos - span[i].window) held += p[j];
            }
        l->held[c->layer] += held / sum;
        l->seen[c->layer]++;
    }
}

static void captured(const char *params, double *held) {
    const struct model_config *m = &proto.model->c;
    const struct attn_shape shape = { .n_layers = m->n_layers, .n_heads = m->n_heads,
                                      .n_kv_heads = m->n_kv_heads, .k_dim = m->k_dim,
                                      .v_dim = m->v_dim, .max_batch = 1, .max_tokens = ROOM,
                                      .scale = m->attn_scale };
    struct look l = { 0 };
    struct attn_args args;
    struct err err;
    if (args_parse(&args, "hip", mode_hip.keys, params, &err) ||
        mode_hip.open(&l.mode, &args, &shape, &err))
        fail_msg("%s", err.msg);
    struct session *s = tiny_talk(&proto, "full", ROOM, 512);
    session_observe(s, on_call, &l);
    if (session_eval(s, ids, N, &err)) fail_msg("%s", err.msg);
    for (int i = 0; i < STEPS; i++)
        if (session_eval(s, ids + N + i, 1, &err)) fail_msg("%s", err.msg);
    for (int i = 0; i < m->n_layers; i++) held[i] = l.held[i] / l.seen[i];
    mode_hip.close(l.mode);
    session_close(s);
}

/* Measured, layer by layer: k=128 1.00 0.50 0.58 0.80, k=256 1.00 0.67 0.66 0.83,
 * k=512 1.00 0.89 0.80 0.90, k=1024 (half of the keys) 1.00 0.99 0.95 0.97. */
static void test_captured(void **state) {
    static const struct { int k; double least; } budget[] = {
        { 128, 0.40 }, { 256, 0.58 }, { 512, 0.72 }, { 1024, 0.90 }
    };
    double before[64] = { 0 };
    (void)state;
    for (int i = 0; i < 4; i++) {
        char params[96];
        double held[64];
        snprintf(params, sizeof params, ",dense=0,until=0,window=64,sink=16,bq=64,k=%d",
                 budget[i].k);
        captured(params, held);
        for (int l = 0; l < proto.model->c.n_layers; l++) {
            if (!(held[l] >= budget[i].least && held[l] <= 1 + 1e-9 && held[l] >= before[l]))
                fail_msg("k=%d: layer %d holds %g, with fewer keys %g",
                         budget[i].k, l, held[l], before[l]);
            before[l] = held[l];
        }
    }
}

/* ---- Closed loop: an answer made under delta, judged by full attention ---- */

/* Measured: KL 0.00015, 0.00023, and 0.00126 where layer 1, which does
 * not look far, chooses; 24, 24, 23 of 24 the same. */
static void test_delta_answer(void **state) {
    static const char *const modes[] = { "delta,full=0,1,2,budget=64,recent=8",
                                         "delta,full=0,1,2,budget=16,recent=4",
                                         "delta,full=0,1,budget=16,recent=4" };
    const int n_vocab = proto.model->c.n_vocab;
    static const double most[] = { 0.0004, 0.0006, 0.003 };
    double least = 0;
    double *a = malloc((size_t)n_vocab * sizeof *a), *b = malloc((size_t)n_vocab * sizeof *b);
    (void)state;
    for (int m = 0; m < 3; m++) {
        struct session *full = tiny_talk(&proto, "full", ROOM, 512),
                       *s = tiny_talk(&proto, modes[m], ROOM, 512);
        struct err err;
        double kl = 0;
        int same = 0;
        if (session_eval(full, ids, N, &err) || session_eval(s, ids, N, &err))
            fail_msg("%s", err.msg);
        for (int i = 0; i < STEPS; i++) {
            int32_t best = 0, also = 0;
            const float *x = session_logits(s), *y = session_logits(full);
            for (int v = 1; v < n_vocab; v++) {
                if (x[v] > x[best]) best = v;
                if (y[v] > y[also]) also = v;
            }
            if (session_eval(full, &best, 1, &err) || session_eval(s, &best, 1, &err))
                fail_msg("%s", err.msg);
            log_softmax(a, session_logits(full), n_vocab);
            log_softmax(b, session_logits(s), n_vocab);
            for (int v = 0; v < n_vocab; v++) kl += exp(a[v]) * (a[v] - b[v]) / STEPS;
            same += best == also;
        }
        if (!(kl > least && kl <= most[m] && same >= STEPS - 3))
            fail_msg("%s: KL %g, %d of %d the same", modes[m], kl, same, STEPS);
        if (m != 1) least = kl;
        session_close(full);
        session_close(s);
    }
    free(a);
    free(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_perplexity), cmocka_unit_test(test_captured),
        cmocka_unit_test(test_delta_answer),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
