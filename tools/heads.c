/* heads.c - finds the heads that fetch facts from far back: by what they look at while the model copies an answer out of a
 * needle, and by what breaks when one KV head sees no more than a window. Writes the scores --attn duo reads. See
 * docs/heads.md. */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "attention/heads.h"
#include "base/cpu.h"
#include "base/threads.h"
#include "tools/common/engine.h"
#include "tools/common/heads_picture.h"
#include "tools/common/heads_probe.h"
#include "tools/common/heads_table.h"
#include "tools/common/needle_lists.h"
#include "tools/common/needle_style.h"

static volatile sig_atomic_t stop;
static void on_interrupt(int sig) { (void)sig; stop = 1; signal(SIGINT, SIG_DFL); }

enum score { SCORE_BOTH, SCORE_COPY, SCORE_ABLATION };
static const char *const score_names[] = { "both", "copy", "ablation" };
enum { N_DISTRACTORS = 4 };
static const double RETRIEVAL = 0.1;                       /* Wu et al.: a head above it is a retrieval head */

struct options {
    struct engine_args args;
    const char *lengths_text, *depths_text, *style_text, *score_text, *tsv, *json, *png;
    struct lengths lengths;
    struct depths depths;
    int samples, seed, sink, recent, top;
    bool no_ablation, quiet, help;
    enum style style;
    enum score score;
};

static const char usage[] =
    "usage: bin/heads MODEL -o HEADS.tsv [--lengths 1k,2k,4k] [--samples N] [--json FILE] [--png FILE] [flags]\n"
    "Hides facts, asks for them, and finds the heads that fetch the answers: scores for --attn duo,heads=HEADS.tsv.\n";

/* ---- the command line ------------------------------------------------------------------------------------------ */

static int parse(struct options *o, int argc, char **argv, struct err *err) {
    const struct flag table[] = {
        { "", FLAG_HEADING, 0, 0, "What is asked:", 0, 0 },
        { "--lengths", FLAG_STR, &o->lengths_text, "LIST", "context lengths in tokens (1k,2k,4k)", 0, 0 },
        { "--depths", FLAG_STR, &o->depths_text, "LIST", "where the fact lies, percent (10:90:20)", 0, 0 },
        { "--samples", FLAG_INT, &o->samples, "N", "different facts and texts for each length and depth (2)", 1, 1 << 16 },
        { "-s --seed", FLAG_INT, &o->seed, "S", "the first seed (1)", 0, 1 << 29 },
        { "--style", FLAG_STR, &o->style_text, "NAME", "story, ruler or copy (default: what suits the model)", 0, 0 },
        { "", FLAG_HEADING, 0, 0, "How heads are told apart:", 0, 0 },
        { "--score", FLAG_STR, &o->score_text, "NAME", "what is written: both, copy or ablation (both)", 0, 0 },
        { "--no-ablation", FLAG_ON, &o->no_ablation, NULL, "the copy test alone: one pass for all heads", 0, 0 },
        { "--sink", FLAG_INT, &o->sink, "N", "ablation: first tokens a narrowed head sees (64)", 0, 1 << 24 },
        { "--recent", FLAG_INT, &o->recent, "N", "ablation: tokens it sees before each query's own (256)", 0, 1 << 24 },
        { "", FLAG_HEADING, 0, 0, "Results:", 0, 0 },
        { "-o --output", FLAG_STR, &o->tsv, "FILE", "a line per layer, a score per KV head: for --attn duo,heads=FILE", 0, 0 },
        { "--json", FLAG_STR, &o->json, "FILE", "copy scores of all query heads in every run", 0, 0 },
        { "--png", FLAG_STR, &o->png, "FILE", "a picture of all heads", 0, 0 },
        { "--top", FLAG_INT, &o->top, "N", "KV heads in the table (16)", 1, 1 << 20 },
        { "-q --quiet", FLAG_ON, &o->quiet, NULL, "nothing on stderr but errors", 0, 0 },
        ENGINE_FLAGS_NO_ATTN(o->args),
        { "-h --help", FLAG_ON, &o->help, NULL, "print this", 0, 0 },
        { 0 },
    };
    const char *file = NULL;
    int n = 0;
    if (flags_parse(table, argc, argv, &file, 1, &n, err)) return -1;
    if (o->help) {
        fputs(usage, stdout);
        flags_help(table, stdout);
        return 0;
    }
    if (n && o->args.model) return fail(err, "two models given: '%s' and '%s'", o->args.model, file);
    if (n) o->args.model = file;
    if (lengths_parse(o->lengths_text, &o->lengths, err) || depths_parse(o->depths_text, &o->depths, err)) return -1;
    if (o->style_text && !style_find(o->style_text, &o->style))
        return fail(err, "--style: got '%s', wanted %s", o->style_text, style_list());
    int s = 0;
    while (s < 3 && strcmp(o->score_text, score_names[s])) s++;
    if (s == 3) return fail(err, "--score: got '%s', wanted both, copy or ablation", o->score_text);
    o->score = (enum score)s;
    if (o->no_ablation && o->score == SCORE_ABLATION) return fail(err, "--no-ablation leaves --score ablation nothing to write");
    if (o->no_ablation) o->score = SCORE_COPY;
    return 0;
}

/* ---- runs -------------------------------------------------------------------------------------------------------- */

struct search {
    struct options *o;
    struct engine e;
    struct heads_table table;
    int asked;                         /* runs; those the model could not answer are not in the table */
};

/* One text with one fact in it. */
struct trial {
    struct haystack *hay;
    struct fact fact[N_DISTRACTORS + 1];
    const char *other[N_DISTRACTORS];
    struct planting want;
};

static int trial_open(struct trial *t, const struct search *h, int length, int seed, struct err *err) {
    *t = (struct trial){ 0 };
    style_facts(h->o->style, (uint64_t)seed, t->fact, N_DISTRACTORS + 1);
    for (int i = 0; i < N_DISTRACTORS; i++) t->other[i] = t->fact[i + 1].statement;
    t->want = (struct planting){ .n_tokens = length, .needle = t->fact[0].statement, .question = t->fact[0].question,
                                 .distractors = t->other, .n_distractors = N_DISTRACTORS };
    return haystack_open(&t->hay, h->e.tok, NULL, 0, (uint64_t)seed, err);
}

/* The needle must lie where a narrowed head does not see it. */
static bool out_of_sight(const struct options *o, const struct heads_sample *s) {
    return s->needle >= o->sink && s->needle + s->n_needle <= s->tail - o->recent;
}

static void show_progress(void *ctx, int done, int total) {
    (void)ctx;
    fprintf(stderr, "\r%d of %d heads narrowed ", done, total);
    if (done == total) fputs("\r\033[K", stderr);
}

/* What is done with each sample that the model can answer. */
typedef int sample_fn(struct search *, struct heads_probe *, const struct heads_sample *, const float *copy, void *ctx, struct err *);

/* Reads every depth of one text. */
static int run_trial(struct search *h, struct heads_probe *p, int length, int seed, float *copy, sample_fn *fn, void *ctx,
                     struct err *err) {
    struct trial t;
    int rc = trial_open(&t, h, length, seed, err);
    for (int i = 0; i < h->o->depths.n && !rc; i++) {
        struct heads_sample s = { 0 };
        struct heads_tail tail;
        const double start = clock_ms();
        t.want.depth = h->o->depths.at[i];
        if ((rc = heads_sample_make(&s, t.hay, h->e.tok, &t.want, t.fact[0].answer, err))) break;
        const bool sight = !out_of_sight(h->o, &s);
        if (!sight) rc = heads_probe_read(p, &s, copy, &tail, err);
        const bool knows = !sight && !rc && 2 * tail.right > s.n_answer;
        h->asked += !sight;
        if (knows) rc = fn(h, p, &s, copy, ctx, err);
        if (!h->o->quiet && !rc) {
            fprintf(stderr, "%d tokens, depth %g%%, seed %d: ", length, t.want.depth, seed);
            if (sight) fprintf(stderr, "left out, the needle lies within the first %d or last %d tokens\n", h->o->sink, h->o->recent);
            else fprintf(stderr, "%d of %d tokens of the answer right%s (%.1f s)\n", tail.right, s.n_answer,
                         knows ? "" : ", not counted", (clock_ms() - start) / 1e3);
        }
        heads_sample_free(&s);
    }
    haystack_close(t.hay);
    return rc;
}

/* All texts of one length: seeds first..first+n-1. */
static int run_length(struct search *h, int length, int first, int n, sample_fn *fn, void *ctx, struct err *err) {
    struct session_options so = engine_session_options(&h->e, length);
    struct heads_probe_options po = { .sink = h->o->sink, .recent = h->o->recent, .stop = &stop };
    struct session *s = NULL;
    struct heads_probe *p = NULL;
    int rc = -1;
    so.attn = so.attn_prefill = so.attn_decode = "full", so.stop = &stop;
    if (!h->o->quiet && isatty(STDERR_FILENO)) po.progress = show_progress;
    float *copy = malloc((size_t)h->table.n_layers * (size_t)h->table.n_heads * sizeof *copy);
    if (!copy) { fail(err, "no memory"); goto done; }
    if (session_open(&s, h->e.model, &so, err) || heads_probe_open(&p, h->e.model, s, &po, err)) goto done;
    rc = 0;
    for (int i = 0; i < n && !rc; i++) rc = run_trial(h, p, length, first + i, copy, fn, ctx, err);
done:
    heads_probe_close(p);
    session_close(s);
    free(copy);
    return rc;
}

static int take_scores(struct search *h, struct heads_probe *p, const struct heads_sample *s, const float *copy, void *ctx,
                       struct err *err) {
    float *to, *harm;
    (void)s, (void)ctx;
    if (heads_table_add(&h->table, &to, &harm, err)) return -1;
    memcpy(to, copy, (size_t)h->table.n_layers * (size_t)h->table.n_heads * sizeof *to);
    return h->o->no_ablation ? 0 : heads_probe_ablate(p, harm, err);
}

/* ---- what comes of them --------------------------------------------------------------------------------------------- */

struct verdict {
    int n;                             /* KV heads of the model */
    int n_retrieval;                   /* with a copy score above RETRIEVAL */
    float *copy, *harm, *rank, *value; /* [n] */
};

static void judge(const struct search *h, struct verdict *v) {
    heads_table_copy(&h->table, v->copy);
    heads_table_harm(&h->table, v->harm);
    heads_table_harm_rank(&h->table, v->rank);
    for (int i = 0; i < v->n; i++) {
        const float of[] = { (v->copy[i] + v->rank[i]) / 2, v->copy[i], v->rank[i] };
        v->value[i] = of[h->o->score];
        v->n_retrieval += v->copy[i] > RETRIEVAL;
    }
}

static const char *percent_name(char buf[32], double ratio) { snprintf(buf, 32, "the best %g %%", 100 * ratio); return buf; }

static void print_heads(const struct search *h, const struct verdict *v) {
    const struct heads_table *t = &h->table;
    const int most = h->o->top < v->n ? h->o->top : v->n;
    printf("%d layers, %d query heads on %d KV heads; %d of %d questions answered\n\n", t->n_layers, t->n_heads, t->n_kv_heads,
           t->n_runs, h->asked);
    printf("| rank | layer | KV head | copy score | harm | harm rank | written |\n|---|---|---|---|---|---|---|\n");
    for (int place = 0; place < most; place++)
        for (int i = 0; i < v->n; i++) {
            int before = 0;
            for (int j = 0; j < v->n; j++) before += v->value[j] > v->value[i] || (v->value[j] == v->value[i] && j < i);
            if (before != place) continue;
            printf("| %d | %d | %d | %.3f | ", place + 1, i / t->n_kv_heads, i % t->n_kv_heads, v->copy[i]);
            if (h->o->no_ablation) printf("- | - | ");
            else printf("%.2e | %.3f | ", v->harm[i], v->rank[i]);
            printf("%.3f |\n", v->value[i]);
        }
    printf("\nretrieval heads (copy score above %g): %d of %d KV heads:", RETRIEVAL, v->n_retrieval, v->n);
    for (int i = 0; i < v->n; i++)
        if (v->copy[i] > RETRIEVAL) printf(" %d-%d", i / t->n_kv_heads, i % t->n_kv_heads);
    putchar('\n');
    if (h->o->no_ablation) return;
    printf("copy test and ablation: rank correlation %.3f", heads_agree(v->copy, v->rank, v->n));
    if (v->n_retrieval) printf(", %d of the first %d the same", heads_shared(v->copy, v->rank, v->n, v->n_retrieval), v->n_retrieval);
    printf("\nablation, one half of the runs and the other: rank correlation %.3f\n", heads_table_split_half(t));
}

/* ---- the proof: facts not seen before, with many heads narrowed at once ---------------------------------------------- */

enum { PROOFS = 6 };

struct proof {
    const char *name;
    unsigned char *narrow;             /* [n]; NULL: this one is not run */
    double right, moved, log_prob;     /* sums */
    int runs, tokens;
};

static int take_proofs(struct search *h, struct heads_probe *p, const struct heads_sample *s, const float *copy, void *ctx,
                       struct err *err) {
    struct proof *proof = ctx;
    (void)h, (void)copy;
    for (int i = 0; i < PROOFS; i++) {
        struct heads_tail t;
        if (!proof[i].narrow) continue;
        if (heads_probe_narrowed(p, proof[i].narrow, &t, err)) return -1;
        proof[i].right += t.right, proof[i].moved += t.moved, proof[i].log_prob += t.log_prob;
        proof[i].runs++, proof[i].tokens += s->n_answer;
    }
    return 0;
}

static int prove(struct search *h, const struct verdict *v, struct err *err) {
    static const double ratios[] = { 1, 0.75, 0.5, 0.25 };
    struct proof proof[PROOFS] = { { .name = "all" } };
    char name[PROOFS][32];
    const int length = h->o->lengths.at[h->o->lengths.n - 1];
    unsigned char *narrow = calloc((size_t)v->n, PROOFS);
    if (!narrow) return fail(err, "no memory");
    for (int i = 0; i < PROOFS; i++) {
        unsigned char *full = narrow + (size_t)i * v->n;
        if (i >= 4 && (!v->n_retrieval || v->n_retrieval == v->n)) continue;
        if (i < 4) heads_choose(full, v->value, v->n, ratios[i]);
        else
            for (int j = 0; j < v->n; j++) full[j] = (v->copy[j] > RETRIEVAL) == (i == 4);
        for (int j = 0; j < v->n; j++) full[j] = !full[j];
        proof[i].narrow = full;
        proof[i].name = i == 0 ? "all" : i < 4 ? percent_name(name[i], ratios[i]) : i == 4 ? "the retrieval heads" : "all but the retrieval heads";
    }
    const int asked = h->asked;
    const int rc = run_length(h, length, h->o->seed + h->o->samples, 1, take_proofs, proof, err);
    h->asked = asked;
    if (!rc && proof[0].runs) {
        printf("\nA fact not seen before, in %d tokens; the other heads see %d + %d tokens while it is asked for:\n\n"
               "| KV heads that see everything | tokens right | log-probability | moved |\n|---|---|---|---|\n",
               length, h->o->sink, h->o->recent);
        for (int i = 0; i < PROOFS; i++)
            if (proof[i].narrow)
                printf("| %s | %.0f of %d | %.3f | %.2e |\n", proof[i].name, proof[i].right, proof[i].tokens,
                       proof[i].log_prob / proof[i].runs, proof[i].moved / proof[i].runs);
    }
    free(narrow);
    return rc;
}

/* ---- files ------------------------------------------------------------------------------------------------------------ */

static int draw(const struct search *h, const struct verdict *v, struct err *err) {
    const struct heads_table *t = &h->table;
    const int n = t->n_layers * t->n_heads;
    const char *slash = strrchr(h->o->args.model, '/');
    float *copy = calloc((size_t)n, sizeof *copy);
    if (!copy) return fail(err, "no memory for a picture");
    for (int r = 0; r < t->n_runs; r++)
        for (int i = 0; i < n; i++) copy[i] += t->copy[(size_t)r * n + i] / (float)t->n_runs;
    const struct heads_panel panel[] = {
        { "copy score of the query heads", "query head", t->n_heads, copy },
        { "rank of the harm of narrowing", "KV head", t->n_kv_heads, v->rank },
        { "the score written", "KV head", t->n_kv_heads, v->value },
    };
    const struct heads_panel shown[] = { panel[0], panel[h->o->no_ablation ? 2 : 1], panel[2] };
    const int rc = heads_draw(h->o->png, slash ? slash + 1 : h->o->args.model, t->n_layers, shown, h->o->no_ablation ? 2 : 3, err);
    free(copy);
    return rc;
}

static int deliver(struct search *h, struct err *err) {
    const struct heads_table *t = &h->table;
    struct verdict v = { .n = t->n_layers * t->n_kv_heads };
    int rc = -1;
    v.copy = calloc((size_t)v.n * 4, sizeof *v.copy);
    if (!v.copy) return fail(err, "no memory");
    v.harm = v.copy + v.n, v.rank = v.harm + v.n, v.value = v.rank + v.n;
    judge(h, &v);
    print_heads(h, &v);
    if ((!h->o->no_ablation && prove(h, &v, err)) || (h->o->tsv && heads_write_tsv(h->o->tsv, v.value, t->n_layers, t->n_kv_heads, err)) ||
        (h->o->json && heads_write_json(h->o->json, t, err)) || (h->o->png && draw(h, &v, err)))
        goto done;
    rc = fflush(stdout) ? fail(err, "stdout: %s", strerror(errno)) : 0;
done:
    free(v.copy);
    return rc;
}

static int search(struct search *h, struct err *err) {
    const struct model_config *c;
    if (engine_open(&h->e, err) || engine_load(&h->e, err)) return -1;
    if (!h->o->style_text) h->o->style = style_of_model(h->e.file);
    c = &h->e.model->c;
    h->table.n_layers = c->n_layers, h->table.n_heads = c->n_heads, h->table.n_kv_heads = c->n_kv_heads;
    for (int i = 0; i < h->o->lengths.n; i++)
        if (run_length(h, h->o->lengths.at[i], h->o->seed, h->o->samples, take_scores, NULL, err)) return -1;
    if (!h->asked)
        return fail(err, "at no length and depth does the needle lie beyond the first %d tokens and the last %d (--lengths, --depths, "
                         "--sink, --recent)", h->o->sink, h->o->recent);
    if (!h->table.n_runs)
        return fail(err, "the model answers none of the %d questions: nothing can be said about its heads (--style, --lengths)", h->asked);
    return deliver(h, err);
}

int main(int argc, char **argv) {
    threads_wait_gently(argv);
    struct options o = { .args = ENGINE_ARGS, .lengths_text = "1k,2k,4k", .depths_text = "10:90:20", .score_text = "both",
                         .samples = 2, .seed = 1, .sink = 64, .recent = 256, .top = 16 };
    struct search h = { .o = &o };
    struct err err = { .msg = "" };
    int rc = 2;
    if (parse(&o, argc, argv, &err)) goto done;
    if (o.help) return 0;
    if (engine_check(&h.e, &o.args, &err)) goto done;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, on_interrupt);
    rc = search(&h, &err) ? 1 + err.usage : 0;
    if (rc && stop) rc = 130;
done:
    if (rc) fprintf(stderr, "heads: %s\n", err.msg);
    heads_table_free(&h.table);
    engine_close(&h.e);
    return rc;
}
