/* heads.c - finds the heads that fetch facts from far back, by what they look at while the model
 * copies an answer out of a needle and by what breaks when one KV head sees no more than a window,
 * and writes the scores --attn duo reads; or, with --delta, the layers that should choose what the
 * others read, as --attn delta takes them. See docs/heads.md. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include "base/cpu.h"
#include "base/file.h"
#include "base/threads.h"
#include "tools/common/heads_calibrate.h"
#include "tools/common/heads_delta.h"
#include "tools/common/heads_scores.h"

static volatile sig_atomic_t stop;
static void on_interrupt(int sig) { (void)sig; stop = 1; signal(SIGINT, SIG_DFL); }

static const char *const score_names[] = { "both", "copy", "ablation", "local" };
enum { N_SCORES = 4 };

struct args {
    struct engine_args engine;
    struct heads_options o;
    const char *lengths, *depths, *style, *score;
    bool delta, help;
};

static const char usage[] =
    "usage: bin/heads MODEL -o HEADS.tsv [--lengths 1k,2k,4k] [--samples N] [--json FILE] "
    "[--png FILE] [flags]\n"
    "       bin/heads MODEL --delta [-o SETTING] [--png FILE] [--budget N] [--full N | --keep X] "
    "[--text FILE] [flags]\n"
    "Hides facts, asks for them, and finds the heads that fetch the answers: scores for "
    "--attn duo,heads=HEADS.tsv; or the\n"
    "layers whose choice of pages serves the others: for --attn \"$(cat SETTING)\".\n";

/* What only one of the two ways uses. */
static int check_way(struct args *a, struct err *err) {
    struct heads_options *o = &a->o;
    if (!a->delta) {
        if (o->text || o->no_questions)
            return fail(err, "--text and --no-questions go with --delta");
        if (o->no_ablation && o->score == SCORE_ABLATION)
            return fail(err, "--no-ablation leaves --score ablation nothing to write");
        if (o->no_ablation && o->score == SCORE_BOTH) o->score = SCORE_COPY;
        return 0;
    }
    if (o->json || o->moa) return fail(err, "--json and --moa go without --delta");
    if (o->no_questions && !o->text)
        return fail(err, "--no-questions leaves nothing to read: wanted --text FILE");
    if (o->share.recent + o->share.sink >= o->share.budget)
        return fail(err, "--recent-pages %d and --sink-pages %d leave nothing to choose of "
                    "--budget %d", o->share.recent, o->share.sink, o->share.budget);
    const int least = HEADS_DELTA_FULLER * o->share.budget * KV_PAGE;
    for (int i = 0; i < o->lengths.n; i++)
        if (o->lengths.at[i] <= least)
            return fail(err, "--lengths: %d tokens leave lists of %d pages too little choice, "
                        "wanted more than %d", o->lengths.at[i], o->share.budget, least);
    /* What a layer is worth is what it finds beyond the pages that every list holds. */
    o->sink = KV_PAGE, o->recent = KV_PAGE * o->share.recent;
    return 0;
}

static int parse(struct args *a, int argc, char **argv, struct err *err) {
    struct heads_options *o = &a->o;
    const struct flag table[] = {
        { "", FLAG_HEADING, 0, 0, "What is asked:", 0, 0 },
        { "--lengths", FLAG_STR, &a->lengths, "LIST",
          "context lengths in tokens (1k,2k,4k; with --delta 4k)", 0, 0 },
        { "--depths", FLAG_STR, &a->depths, "LIST",
          "where the fact lies, percent (10:90:20)", 0, 0 },
        { "--samples", FLAG_INT, &o->samples, "N",
          "different facts and texts for each length and depth (2)", 1, 1 << 16 },
        { "-s --seed", FLAG_INT, &o->seed, "S", "the first seed (1)", 0, 1 << 29 },
        { "--style", FLAG_STR, &a->style, "NAME",
          "story, ruler or copy (default: what suits the model)", 0, 0 },
        { "", FLAG_HEADING, 0, 0, "How heads are told apart:", 0, 0 },
        { "--score", FLAG_STR, &a->score, "NAME",
          "what is written: both (copy and ablation), copy, ablation or local (both)", 0, 0 },
        { "--no-ablation", FLAG_ON, &o->no_ablation, NULL,
          "the copy test and the local harm alone: two passes for all heads", 0, 0 },
        { "--sink", FLAG_INT, &o->sink, "N", "first tokens a narrowed head sees (64)", 0, 1 << 24 },
        { "--recent", FLAG_INT, &o->recent, "N",
          "tokens it sees before each query's own (256)", 0, 1 << 24 },
        { "", FLAG_HEADING, 0, 0, "Layers for --attn delta instead:", 0, 0 },
        { "--delta", FLAG_ON, &a->delta, NULL,
          "find the layers that should choose pages for the others", 0, 0 },
        { "--budget", FLAG_INT, &o->share.budget, "N",
          "pages of 16 tokens in a list (64)", 2, 1 << 20 },
        { "--recent-pages", FLAG_INT, &o->share.recent, "N",
          "of these, the last pages (8)", 1, 1 << 24 },
        { "--sink-pages", FLAG_INT, &o->share.sink, "N",
          "of these, the first pages (0)", 0, 1 << 24 },
        { "--keep", FLAG_FLOAT, &o->keep, "X",
          "as few full layers as keep this share of what layers find far away (0.9)", 0, 1 },
        { "--full", FLAG_INT, &o->n_full, "N", "this many full layers", 1, 1 << 16 },
        { "--text", FLAG_STR, &o->text, "FILE", "read stretches of this text too", 0, 0 },
        { "--no-questions", FLAG_ON, &o->no_questions, NULL, "the text alone", 0, 0 },
        { "", FLAG_HEADING, 0, 0, "Results:", 0, 0 },
        { "-o --output", FLAG_STR, &o->out, "FILE",
          "a line per layer, a score per KV head: for --attn duo,heads=FILE; "
          "with --delta the setting", 0, 0 },
        { "--json", FLAG_STR, &o->json, "FILE",
          "copy scores of all query heads in every run", 0, 0 },
        { "--moa", FLAG_STR, &o->moa, "FILE",
          "a plan for --attn moa,plan=FILE: retrieval heads span everything, "
          "the others --sink + --recent", 0, 0 },
        { "--png", FLAG_STR, &o->png, "FILE", "a picture of all heads, or layers", 0, 0 },
        { "--top", FLAG_INT, &o->top, "N", "KV heads in the table (16)", 1, 1 << 20 },
        { "-q --quiet", FLAG_ON, &o->quiet, NULL, "nothing on stderr but errors", 0, 0 },
        ENGINE_FLAGS_NO_ATTN(a->engine),
        { "-h --help", FLAG_ON, &a->help, NULL, "print this", 0, 0 },
        { 0 },
    };
    const char *file = NULL;
    int n = 0, s = 0;
    if (flags_parse(table, argc, argv, &file, 1, &n, err)) return -1;
    if (a->help) {
        fputs(usage, stdout);
        flags_help(table, stdout);
        return 0;
    }
    if (n && a->engine.model)
        return fail(err, "two models given: '%s' and '%s'", a->engine.model, file);
    if (n) a->engine.model = file;
    if (!a->lengths) a->lengths = a->delta ? "4k" : "1k,2k,4k";
    if (lengths_parse(a->lengths, &o->lengths, err) || depths_parse(a->depths, &o->depths, err))
        return -1;
    if (a->style && !style_find(a->style, &o->style))
        return fail(err, "--style: got '%s', wanted %s", a->style, style_list());
    while (s < N_SCORES && strcmp(a->score, score_names[s])) s++;
    if (s == N_SCORES)
        return fail(err, "--score: got '%s', wanted both, copy, ablation or local", a->score);
    o->score = (enum heads_score)s;
    return check_way(a, err);
}

/* Results that nobody could write are not worth the work. */
static int check_files(const struct heads_options *o, struct err *err) {
    const char *const path[] = { o->out, o->json, o->moa, o->png };
    for (int i = 0; i < 4; i++)
        if (path[i] && file_writable(path[i], err)) return -1;
    return 0;
}

int main(int argc, char **argv) {
    threads_wait_gently(argv);
    struct args a = { .engine = ENGINE_ARGS, .depths = "10:90:20", .score = "both",
                      .o = { .samples = 2, .seed = 1, .sink = 64, .recent = 256, .top = 16,
                             .share = { .budget = 64, .recent = 8 }, .keep = 0.9 } };
    struct engine e = { 0 };
    struct heads_ask ask = { .o = &a.o, .e = &e, .stop = &stop };
    struct err err = { .msg = "" };
    int rc = 2;
    if (parse(&a, argc, argv, &err)) goto done;
    if (a.help) return 0;
    if (engine_check(&e, &a.engine, &err)) goto done;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, on_interrupt);
    rc = check_files(&a.o, &err) || engine_open(&e, &err) || engine_load(&e, &err) ? -1 : 0;
    if (!rc && !a.style) a.o.style = style_of_model(e.file);
    if (!rc) rc = a.delta ? heads_calibrate(&ask, &err) : heads_scores(&ask, &err);
    if (rc) rc = stop ? 130 : 1 + err.usage;
done:
    if (rc) fprintf(stderr, "heads: %s\n", err.msg);
    engine_close(&e);
    return rc;
}
