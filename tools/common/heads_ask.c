#include "tools/common/heads_ask.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/cpu.h"

enum { N_DISTRACTORS = 4, STRETCH_END = 64 };

/* A session of its own for each length, and the probe in it. */
struct reading {
    struct session *s;
    struct heads_probe *p;
};

static void show_progress(void *ctx, int done, int total) {
    (void)ctx;
    fprintf(stderr, "\rnarrowed %d of %d ", done, total);
    if (done == total) fputs("\r\033[K", stderr);
}

static void reading_close(struct reading *r) {
    heads_probe_close(r->p);
    session_close(r->s);
}

static int reading_open(struct reading *r, const struct heads_ask *a, int length, struct err *err) {
    struct session_options so = engine_session_options(a->e, length);
    struct heads_probe_options po = { .sink = a->o->sink, .recent = a->o->recent, .stop = a->stop };
    so.attn = so.attn_prefill = so.attn_decode = "full", so.stop = a->stop;
    if (!a->o->quiet && isatty(STDERR_FILENO)) po.progress = show_progress;
    *r = (struct reading){ NULL, NULL };
    if (!session_open(&r->s, a->e->model, &so, err) &&
        !heads_probe_open(&r->p, a->e->model, r->s, &po, err))
        return 0;
    reading_close(r);
    return -1;
}

/* One text with one fact in it. */
struct trial {
    struct haystack *hay;
    struct fact fact[N_DISTRACTORS + 1];
    const char *other[N_DISTRACTORS];
    struct planting want;
};

static int trial_open(struct trial *t, const struct heads_ask *a, int length, int seed,
                      struct err *err) {
    *t = (struct trial){ 0 };
    style_facts(a->o->style, (uint64_t)seed, t->fact, N_DISTRACTORS + 1);
    for (int i = 0; i < N_DISTRACTORS; i++) t->other[i] = t->fact[i + 1].statement;
    t->want = (struct planting){ .n_tokens = length, .needle = t->fact[0].statement,
                                 .question = t->fact[0].question, .distractors = t->other,
                                 .n_distractors = N_DISTRACTORS };
    return haystack_open(&t->hay, a->e->tok, NULL, 0, (uint64_t)seed, err);
}

/* The needle must lie where a narrowed head does not see it. */
static bool out_of_sight(const struct heads_options *o, const struct heads_sample *s) {
    return s->needle >= o->sink && s->needle + s->n_needle <= s->tail - o->recent;
}

static int ask_once(struct heads_ask *a, struct reading *r, struct trial *t, int seed,
                    heads_ask_fn *fn, void *ctx, struct err *err) {
    struct heads_sample s = { 0 };
    struct heads_tail tail = { 0 };
    const double start = clock_ms();
    if (heads_sample_make(&s, t->hay, a->e->tok, &t->want, t->fact[0].answer, err)) return -1;
    const bool sight = !out_of_sight(a->o, &s);
    int rc = sight ? 0 : heads_probe_read(r->p, &s, &tail, err);
    const bool knows = !sight && !rc && 2 * tail.right > s.n_answer;
    a->asked += !sight;
    if (knows) rc = fn(ctx, r->p, r->s, &s, err);
    if (!a->o->quiet && !rc) {
        fprintf(stderr, "%d tokens, depth %g%%, seed %d: ", t->want.n_tokens, t->want.depth, seed);
        if (sight)
            fprintf(stderr, "left out, the needle lies within the first %d or last %d tokens\n",
                    a->o->sink, a->o->recent);
        else
            fprintf(stderr, "%d of %d tokens of the answer right%s (%.1f s)\n", tail.right,
                    s.n_answer, knows ? "" : ", not counted", (clock_ms() - start) / 1e3);
    }
    heads_sample_free(&s);
    return rc;
}

int heads_ask(struct heads_ask *a, int length, int first, int n, heads_ask_fn *fn, void *ctx,
              struct err *err) {
    struct reading r;
    int rc = reading_open(&r, a, length, err);
    if (rc) return rc;
    for (int i = 0; i < n && !rc; i++) {
        struct trial t;
        rc = trial_open(&t, a, length, first + i, err);
        for (int d = 0; d < a->o->depths.n && !rc; d++) {
            t.want.depth = a->o->depths.at[d];
            rc = ask_once(a, &r, &t, first + i, fn, ctx, err);
        }
        haystack_close(t.hay);
    }
    reading_close(&r);
    return rc;
}

int heads_ask_text(struct heads_ask *a, const int32_t *ids, int n_ids, int length, int n,
                   heads_ask_fn *fn, void *ctx, struct err *err) {
    struct reading r;
    int rc = reading_open(&r, a, length, err), done = 0;
    if (rc) return rc;
    for (; done < n && (done + 1) * (size_t)length <= (size_t)n_ids && !rc; done++) {
        const double start = clock_ms();
        struct heads_sample s;
        struct heads_tail tail;
        rc = heads_sample_text(&s, ids + (size_t)done * length, length, STRETCH_END, err);
        if (!rc) s.ids[0] = ids[0];                        /* BOS, if texts begin with it */
        if (!rc) rc = heads_probe_read(r.p, &s, &tail, err) || fn(ctx, r.p, r.s, &s, err) ? -1 : 0;
        if (!rc && !a->o->quiet)
            fprintf(stderr, "%d tokens of the text, its last %d: log-probability %.3f (%.1f s)\n",
                    length, s.n_answer, tail.log_prob, (clock_ms() - start) / 1e3);
        heads_sample_free(&s);
    }
    reading_close(&r);
    if (!rc && !done && !a->o->quiet)
        fprintf(stderr, "the text has %d tokens, less than %d: left out\n", n_ids, length);
    return rc;
}
