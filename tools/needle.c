/* needle.c - hides facts at every depth of contexts of every length, asks for them, and shows where
 * they were found.
 *
 * Each cell (attention mode, cache types, length, task, seed, depth) gives one JSON row; a table
 * and heat maps show them all. Cells that the output file holds already are not run again. Cells of
 * one length and seed share the text in front of the needle: it stays in the session, and only what
 * differs is evaluated. See docs/needle.md. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "attention/attention.h"
#include "base/cpu.h"
#include "base/file.h"
#include "base/threads.h"
#include "tools/common/engine.h"
#include "tools/common/needle_grid.h"
#include "tools/common/needle_haystack.h"
#include "tools/common/needle_lists.h"
#include "tools/common/needle_pivot.h"
#include "tools/common/needle_timeline.h"
#include "tools/common/task.h"

static volatile sig_atomic_t stop;
static void on_interrupt(int sig) { (void)sig; stop = 1; signal(SIGINT, SIG_DFL); }

struct needle {
    struct engine_args args;
    struct flag_list modes, answers;
    const char *lengths_text, *depths_text, *shard_text, *out, *png, *task_text, *kv_text,
               *table_text;
    const char *haystack, *custom, *question;
    struct lengths lengths;
    struct depths depths;
    struct shard shard;
    int n_predict, trials, seed, n_distractors;
    bool no_png, plot_only, no_reuse, quiet, help;
    struct task_list tasks;            /* none with --needle */
    struct cache_types kv;
    enum { TABLE_FULL, TABLE_LENGTHS, TABLE_TASKS, TABLE_PIVOT } table;
    const char *model;                 /* what rows call the model */
    char *hay_text;                    /* of --haystack */
    size_t n_hay_text;
    char *png_path;                    /* --png, or -o with .png for its ending; NULL: no picture */
};

enum { TASK_DECIDES = -1 };
static const char cache_default[] = "f16";    /* by its address: -ctk and -ctv were not given */

static const char usage[] =
    "usage: bin/needle MODEL [--attn MODE]... [--task LIST] [--lengths LIST] [--depths LIST] "
    "[-o ROWS.jsonl] [flags]\n"
    "       bin/needle --plot-only ROWS.jsonl... [--table NAME] [--png FILE]\n"
    "Hides facts at each depth of a context of each length, asks for them, scores the answer 0..1. "
    "Prints a table, writes\n"
    "one JSON row a cell to -o and a heat map beside it. The same command again goes on where it "
    "stopped.\n"
    "Without --task, a model gets the one of story, ruler and copy that suits it.\n";

/* ---- the command line ------------------------------------------------------------------------ */

static int check_lists(struct needle *o, struct err *err) {
    if (lengths_parse(o->lengths_text, &o->lengths, err) ||
        depths_parse(o->depths_text, &o->depths, err) || shard_parse(o->shard_text, &o->shard, err))
        return -1;
    for (int i = 0; i < o->modes.n; i++)
        if (o->modes.item[i] && attn_check(o->modes.item[i], err)) return -1;
    if (o->lengths.at[0] <= o->n_predict)
        return fail(err, "--lengths: got %d, wanted more than the %d tokens of the answer (-n)",
                    o->lengths.at[0], o->n_predict);
    return 0;
}

static int check_test(struct needle *o, struct err *err) {
    if (o->task_text && tasks_parse(o->task_text, &o->tasks, err)) return -1;
    if (!o->custom != !o->question || !o->custom != !o->answers.n)
        return fail(err, "--needle, --question and --answer go together");
    if (o->custom && o->task_text) return fail(err, "--task and --needle: give one of them");
    if (o->custom && o->n_distractors > 0)
        return fail(err, "--distractors: none are known for a --needle of your own");
    if (o->custom) o->n_distractors = 0;
    for (int i = 0; i < o->answers.n; i++)
        if (!*o->answers.item[i])
            return fail(err, "--answer: got nothing, wanted a text to look for");
    return 0;
}

/* Which types the cache has: those of --kv, or the one pair of -ctk and -ctv. */
static int check_cache(struct needle *o, struct err *err) {
    const bool one = o->args.type_k != cache_default || o->args.type_v != cache_default;
    if (one && o->kv_text) return fail(err, "--kv and -ctk, -ctv: give one of them");
    if (o->kv_text) return cache_types_parse(o->kv_text, &o->kv, err);
    o->kv.n = 1;
    return engine_cache_type("-ctk", o->args.type_k, &o->kv.k[0], err) ||
           engine_cache_type("-ctv", o->args.type_v, &o->kv.v[0], err) ? -1 : 0;
}

static int check_table(struct needle *o, struct err *err) {
    static const char *const tables[] = { "full", "lengths", "tasks", "pivot" };
    for (int i = 0; o->table_text && i < 4; i++)
        if (!strcmp(o->table_text, tables[i])) { o->table = i; return 0; }
    return o->table_text ? fail(err, "--table: got '%s', wanted full, lengths, tasks or pivot",
                                o->table_text) : 0;
}

static int parse(struct needle *o, int argc, char **argv, const char **file, int max_files,
                 int *n_files, struct err *err) {
    const struct flag table[] = {
        { "", FLAG_HEADING, 0, 0, "The sweep:", 0, 0 },
        { "--lengths", FLAG_STR, &o->lengths_text, "LIST",
          "context lengths in tokens, prompt and answer (1k,4k,16k)", 0, 0 },
        { "--depths", FLAG_STR, &o->depths_text, "LIST",
          "percent: 0,50,100 or from:to:step (0:100:10)", 0, 0 },
        { "--attn", FLAG_LIST, &o->modes, "MODE[,key=value...]",
          "how to attend (as the file says, else full); may repeat; help lists all", 0, 0 },
        { "--trials", FLAG_INT, &o->trials, "N",
          "different needles and texts per cell, seeds S to S+N-1 (1)", 1, 1 << 20 },
        { "-s --seed", FLAG_INT, &o->seed, "S", "the first seed (1)", 0, 1 << 29 },
        { "--shard", FLAG_STR, &o->shard_text, "I/N",
          "run only part I of N of the cells (1/1)", 0, 0 },
        { "--no-reuse", FLAG_ON, &o->no_reuse, NULL,
          "evaluate every prompt from its first token", 0, 0 },
        { "", FLAG_HEADING, 0, 0, "What is hidden:", 0, 0 },
        { "--task --style", FLAG_STR, &o->task_text, "LIST",
          "some of story, ruler, copy, single, multikey, multivalue, hop, chain, count, words",
          0, 0 },
        { "--distractors", FLAG_INT, &o->n_distractors, "N",
          "other facts of the same kind (4; multikey 16)", 0, QUEST_DISTRACTORS },
        { "--haystack", FLAG_STR, &o->haystack, "FILE",
          "a text to hide it in, instead of stories", 0, 0 },
        { "--needle", FLAG_STR, &o->custom, "TEXT", "hide this sentence ...", 0, 0 },
        { "--question", FLAG_STR, &o->question, "TEXT", "... end the prompt with this ...", 0, 0 },
        { "--answer", FLAG_LIST, &o->answers, "TEXT",
          "... and look for this in the answer; may repeat", 0, 0 },
        { "-n --predict", FLAG_INT, &o->n_predict, "N", "tokens of the answer (32)", 1, 4096 },
        { "", FLAG_HEADING, 0, 0, "Results:", 0, 0 },
        { "-o --output", FLAG_STR, &o->out, "FILE",
          "JSON rows; those of a former run are not run again", 0, 0 },
        { "--png", FLAG_STR, &o->png, "FILE", "the heat map (default: beside -o)", 0, 0 },
        { "--table", FLAG_STR, &o->table_text, "NAME",
          "full, or scores alone by lengths, tasks, or both: pivot (full)", 0, 0 },
        { "--no-png", FLAG_ON, &o->no_png, NULL, "no heat map", 0, 0 },
        { "--plot-only", FLAG_ON, &o->plot_only, NULL,
          "no model: table and heat map of the given files", 0, 0 },
        { "-q --quiet", FLAG_ON, &o->quiet, NULL, "nothing on stderr but errors", 0, 0 },
        ENGINE_FLAGS_NO_ATTN(o->args),
        { "--kv", FLAG_STR, &o->kv_text, "LIST",
          "each of these in turn: f16,q8_0,q8_0/q4_0 (keys/values)", 0, 0 },
        { "-h --help", FLAG_ON, &o->help, NULL, "print this", 0, 0 },
        { 0 },
    };
    if (flags_parse(table, argc, argv, file, max_files, n_files, err)) return -1;
    if (o->help) {
        fputs(usage, stdout);
        flags_help(table, stdout);
        return 0;
    }
    if (o->no_png && o->png) return fail(err, "--png and --no-png: give one of them");
    if (o->plot_only) return *n_files ? 0 : fail(err, "--plot-only: got no file of rows");
    if (*n_files > 1) return fail(err, "unexpected argument '%s' (one MODEL)", file[1]);
    if (*n_files && o->args.model)
        return fail(err, "two models given: '%s' and '%s'", o->args.model, file[0]);
    if (*n_files) o->args.model = file[0];
    if (!o->modes.n) o->modes = (struct flag_list){ 1, { NULL } };       /* the model's own */
    return 0;
}

/* What the flags say, before any file is opened. */
static int check(struct needle *o, struct err *err) {
    if (check_table(o, err)) return -1;
    return o->plot_only ? 0
         : check_lists(o, err) || check_test(o, err) || check_cache(o, err) ? -1 : 0;
}

static bool wants_mode_help(const struct needle *o) {
    for (int i = 0; i < o->modes.n; i++)
        if (o->modes.item[i] && !strcmp(o->modes.item[i], "help")) return true;
    return false;
}

/* ---- names ----------------------------------------------------------------------------------- */

static const char *base_name(const char *path) {
    return strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
}

/* path without its ending, and with another. NULL: no memory. */
static char *with_ending(const char *path, const char *ending) {
    const char *name = base_name(path), *dot = strrchr(name, '.');
    char *out;
    const size_t n = dot && dot != name ? (size_t)(dot - path) : strlen(path);
    return asprintf(&out, "%.*s%s", (int)n, path, ending) < 0 ? NULL : out;
}

static void hash(uint32_t *h, const char *p, size_t n) {    /* FNV-1a, a mark behind each text */
    for (size_t i = 0; i <= n; i++) *h = (*h ^ (i < n ? (unsigned char)p[i] : 0x100u)) * 16777619u;
}

enum { CUSTOM = -1 };                  /* in the place of a task: --needle */

static int distractors(const struct needle *o, int task) {
    return o->n_distractors != TASK_DECIDES ? o->n_distractors : task_distractors((enum task)task);
}

/* The test in a word, so that rows of different tests never pass for each other. */
static void name_test(const struct needle *o, int task, char version[128]) {
    const char *kind = task == CUSTOM ? "custom" : task_name((enum task)task);
    const int n = snprintf(version, 128, "%s-d%d-n%d", kind, distractors(o, task), o->n_predict);
    if (!o->custom && !o->haystack) return;
    uint32_t h = 2166136261u;
    if (o->haystack) hash(&h, o->hay_text, o->n_hay_text);
    if (o->custom)
        hash(&h, o->custom, strlen(o->custom)), hash(&h, o->question, strlen(o->question));
    for (int i = 0; i < o->answers.n; i++) hash(&h, o->answers.item[i], strlen(o->answers.item[i]));
    snprintf(version + n, 128 - (size_t)n, "-%08x", (unsigned)h);
}

/* ---- cells ----------------------------------------------------------------------------------- */

struct hunt {
    const struct needle *o;
    struct engine e;
    struct rows rows;
    bool loaded;                       /* the weights are */
    int cell, run;                     /* number of the next cell; cells run */
    double eval_start;                 /* of the prefill under way, for its progress line */
};

/* One task and seed: the text, what hides in it and what is asked. */
struct trial {
    struct haystack *hay;
    int task;                          /* or CUSTOM */
    struct quest quest;
    const char *more[QUEST_PARTS], *other[QUEST_DISTRACTORS], *answer[FLAG_LIST_MAX];
    struct planting want;
    int n_answers;
};

static int trial_open(struct trial *t, const struct hunt *h, int task, int length, int seed,
                      struct err *err) {
    const struct needle *o = h->o;
    const struct quest *q = &t->quest;
    *t = (struct trial){ .task = task,
                         .want = { .n_tokens = length - o->n_predict, .more = t->more,
                                   .distractors = t->other } };
    if (task == CUSTOM) {
        t->want.needle = o->custom, t->want.question = o->question, t->n_answers = o->answers.n;
        for (int i = 0; i < o->answers.n; i++) t->answer[i] = o->answers.item[i];
    } else {
        quest_draw(&t->quest, (enum task)task, (uint64_t)seed, distractors(o, task));
        t->want.needle = q->statement[0], t->want.question = q->question,
        t->n_answers = q->n_answers;
        t->want.n_more = q->n_statements - 1, t->want.n_distractors = q->n_distractors;
        for (int i = 0; i < q->n_answers; i++) t->answer[i] = q->answer[i];
        for (int i = 1; i < q->n_statements; i++) t->more[i - 1] = q->statement[i];
        for (int i = 0; i < q->n_distractors; i++) t->other[i] = q->distractor[i];
    }
    return haystack_open(&t->hay, h->e.tok, o->hay_text, o->n_hay_text, (uint64_t)seed, err);
}

/* All that was hidden, as one text (malloc'd). NULL: no memory. */
static char *hidden(const struct planting *w) {
    size_t n = strlen(w->needle) + 1;
    for (int i = 0; i < w->n_more; i++) n += 1 + strlen(w->more[i]);
    char *text = malloc(n), *p = text ? stpcpy(text, w->needle) : NULL;
    for (int i = 0; text && i < w->n_more; i++) p = stpcpy(stpcpy(p, " "), w->more[i]);
    return text;
}

/* The beginning of a text on one line, for people. */
static void preview(char out[64], const char *text) {
    size_t n = 0;
    while (*text == ' ' || *text == '\n') text++;
    for (; *text && n < 40; text++) out[n++] = (unsigned char)*text < 32 ? ' ' : *text;
    if (*text) {                                               /* a character cut in two goes */
        while (n && ((unsigned char)out[n - 1] & 0xc0) == 0x80) n--;
        if (n && (unsigned char)out[n - 1] >= 0xc0) n--;
    }
    out[n] = 0;
}

static int run_cell(struct hunt *h, struct timeline *l, struct trial *t, struct row *r,
                    struct err *err) {
    struct prompt p = { 0 };
    struct timeline_cost prefill, decode;
    char *text = NULL, *needle = hidden(&t->want), stamp[64], seen[64];
    const time_t now = time(NULL);
    struct tm utc;
    int rc = -1;
    const double start = h->eval_start = clock_ms();
    t->want.depth = r->depth_percent;
    if (!needle) { fail(err, "no memory for a needle"); goto done; }
    if (haystack_plant(t->hay, &t->want, &p, err) ||
        timeline_prompt(l, p.ids, p.n, !h->o->no_reuse, &prefill, err) ||
        timeline_answer(l, h->o->n_predict, &text, &r->predicted_tokens, &decode, err))
        goto done;
    strftime(stamp, sizeof stamp, "%Y-%m-%d %H:%M:%S+0000", gmtime_r(&now, &utc));
    r->needle = needle, r->response = text, r->timestamp = stamp, r->reference = t->answer,
    r->n_references = t->n_answers;
    r->score = t->task == CUSTOM ? style_score(text, t->answer, t->n_answers)
                                 : task_score((enum task)t->task, text, t->answer, t->n_answers);
    r->prompt_tokens = p.n, r->prefill_tokens = prefill.tokens;
    r->prefill_tps = prefill.tokens / prefill.ms * 1e3,
    r->decode_tps = decode.tokens ? decode.tokens / decode.ms * 1e3 : -1;
    r->prefill_keys_read = prefill.keys_read, r->keys_read = decode.keys_read;
    r->kv_bytes = (double)session_kv_bytes(timeline_session(l));
    r->seconds = (clock_ms() - start) / 1e3;
    rc = rows_add(&h->rows, r, err);
    h->run++;
    preview(seen, text);
    if (!rc && !h->o->quiet)
        fprintf(stderr, "%s %s %d tokens, depth %g%%, seed %d: %.2f '%s' (%d of %d tokens new, "
                "%.1f s)\n", r->attn, t->task == CUSTOM ? "custom" : task_name((enum task)t->task),
                r->context_length, r->depth_percent, r->seed, r->score, seen, r->prefill_tokens,
                r->prompt_tokens, r->seconds);
done:
    free(needle);
    free(text);
    free(p.ids);
    return rc;
}

static void show_progress(void *ctx, int done, int total) {
    const struct hunt *h = ctx;
    const double ms = clock_ms() - h->eval_start, rate = ms > 0 ? done / ms * 1e3 : 0;
    fprintf(stderr, "\rprefill %d/%d %d%% %.0f t/s eta %.0f s ", done, total,
            (int)(100.0 * done / total), rate, rate > 0 ? (total - done) / rate : 0);
    if (done == total) fputs("\r\033[K", stderr);
}

/* All depths of one length, task and seed, upwards: each keeps what lies in front of the needle
 * before it. */
static int run_trial(struct hunt *h, struct timeline *l, int task, const struct row *like,
                     struct err *err) {
    const struct depths *d = &h->o->depths;
    struct trial t = { 0 };
    int rc = 0;
    for (int i = 0; i < d->n && !rc; i++) {
        struct row r = *like;
        r.depth_percent = d->at[i];
        if (!shard_has(&h->o->shard, h->cell++) || rows_find(&h->rows, &r)) continue;
        rc = !t.hay && trial_open(&t, h, task, like->context_length, like->seed, err) ? -1 : 0;
        if (!rc && !h->loaded && !(rc = engine_load(&h->e, err))) h->loaded = true;
        if (!rc) rc = run_cell(h, l, &t, &r, err);
    }
    haystack_close(t.hay);
    return rc;
}

static int run_length(struct hunt *h, const char *mode, int length, struct err *err) {
    const struct needle *o = h->o;
    struct session_options so = engine_session_options(&h->e, length);
    struct timeline *l = NULL;
    char need[32], room[32];
    int rc = 0;
    so.attn = mode, so.stop = &stop;
    if (!o->quiet && isatty(STDERR_FILENO)) so.progress = show_progress, so.progress_ctx = h;
    if (timeline_open(&l, &h->e, &so, err)) return -1;
    const struct session *s = timeline_session(l);
    const double kv = (double)session_kv_bytes_at(s, length), free_now = (double)mem_available();
    if (!o->quiet && free_now > 0 && kv > free_now)
        fprintf(stderr, "warning: %d tokens may need %s of KV cache, %s of memory are available\n",
                length, human_bytes(need, kv), human_bytes(room, free_now));
    char attn[64], params[512];        /* copies: a timeline may have to open its session again */
    snprintf(attn, sizeof attn, "%s", session_attn_name(s));
    snprintf(params, sizeof params, "%s", session_attn_params(s));
    char version[128];
    struct row like = { .model = o->model, .version = version, .attn = attn, .attn_params = params,
                        .type_k = dtype_name(h->e.type_k), .type_v = dtype_name(h->e.type_v),
                        .context_length = length };
    for (int t = 0; t < (o->custom ? 1 : o->tasks.n) && !rc; t++) {
        const int task = o->custom ? CUSTOM : (int)o->tasks.at[t];
        name_test(o, task, version);
        for (int i = 0; i < o->trials && !rc; i++) {
            like.seed = o->seed + i;
            rc = run_trial(h, l, task, &like, err);
        }
    }
    timeline_close(l);
    return rc;
}

/* ---- the sweep ------------------------------------------------------------------------------- */

static int sweep(struct hunt *h, struct err *err) {
    const struct needle *o = h->o;
    if (!o->quiet && o->lengths.at[o->lengths.n - 1] > h->e.model->c.n_ctx_train)
        fprintf(stderr, "warning: %d tokens are beyond the %d the model was trained for\n",
                o->lengths.at[o->lengths.n - 1], h->e.model->c.n_ctx_train);
    for (int m = 0; m < o->modes.n; m++)
        for (int c = 0; c < o->kv.n; c++) {
            h->e.type_k = o->kv.k[c], h->e.type_v = o->kv.v[c];
            for (int l = 0; l < o->lengths.n; l++)
                if (run_length(h, o->modes.item[m], o->lengths.at[l], err)) return -1;
        }
    if (!o->quiet && o->out)
        fprintf(stderr, "%d cells run, %d rows in %s\n", h->run, h->rows.n, o->out);
    return 0;
}

/* Table and picture of the rows. */
static int show(const struct needle *o, const struct rows *rows, struct err *err) {
    struct grids g;
    if (grids_make(&g, rows, err)) return -1;
    if (o->table == TABLE_FULL) grids_print(&g, stdout);
    int rc = o->table == TABLE_FULL ? 0
           : grids_pivot(&g, o->table != TABLE_LENGTHS, o->table != TABLE_TASKS, stdout, err);
    if (!rc && fflush(stdout)) rc = fail(err, "stdout: %s", strerror(errno));
    if (!rc && o->png_path && g.n) {
        rc = grids_draw(&g, o->png_path, err);
        if (!rc && !o->quiet)
            fprintf(stderr, "drawn: %s%s\n", o->png_path,
                    g.n > 1 ? ", and each grid alone beside it" : "");
    }
    grids_free(&g);
    return rc;
}

static int hunt(struct needle *o, struct engine *e, struct err *err) {
    struct hunt h = { .o = o, .e = *e, .rows = ROWS_NONE };
    char *name = NULL;
    int rc = -1;
    if (o->haystack && file_read(o->haystack, &o->hay_text, &o->n_hay_text, err)) goto done;
    if (engine_open(&h.e, err)) goto done;
    if (!(name = with_ending(base_name(o->args.model), ""))) {
        fail(err, "no memory for a name");
        goto done;
    }
    o->model = name;
    if (!o->tasks.n && !o->custom)
        o->tasks = (struct task_list){ 1, { (enum task)style_of_model(h.e.file) } };
    if (o->out && rows_open(&h.rows, o->out, err)) goto done;
    if (h.rows.cut && !o->quiet)
        fprintf(stderr, "%s: a last line that was cut short is taken out\n", o->out);
    rc = sweep(&h, err) || show(o, &h.rows, err) ? -1 : 0;
done:
    rows_close(&h.rows);
    engine_close(&h.e);
    free(name);
    free(o->hay_text);
    return rc;
}

static int plot(const struct needle *o, const char **file, int n, struct err *err) {
    struct rows rows = ROWS_NONE;
    int rc = 0;
    for (int i = 0; i < n && !rc; i++) rc = rows_load(&rows, file[i], err);
    if (!rc && rows.cut && !o->quiet)
        fprintf(stderr, "a last line that was cut short is left out\n");
    if (!rc && !rows.n) rc = fail(err, "no rows in %s%s", file[0], n > 1 ? " and the others" : "");
    if (!rc) rc = show(o, &rows, err);
    rows_close(&rows);
    return rc;
}

int main(int argc, char **argv) {
    threads_wait_gently(argv);
    struct needle o = { .args = ENGINE_ARGS, .lengths_text = "1k,4k,16k", .depths_text = "0:100:10",
                        .shard_text = "1/1", .n_predict = 32, .trials = 1, .seed = 1,
                        .n_distractors = TASK_DECIDES };
    struct err err = { .msg = "" };
    struct engine e = { 0 };
    o.args.type_k = o.args.type_v = cache_default;
    const char **file = calloc((size_t)argc, sizeof *file);
    int n = 0, rc = 2;
    if (!file) { fail(&err, "no memory"); goto done; }
    if (parse(&o, argc, argv, file, argc, &n, &err)) goto done;
    if (o.help) { rc = 0; goto done; }
    if (wants_mode_help(&o)) {
        static char text[16384];
        attn_help(text, sizeof text);
        fputs(text, stdout);
        rc = 0;
        goto done;
    }
    if (check(&o, &err) || (!o.plot_only && engine_check(&e, &o.args, &err))) goto done;
    rc = 1;
    if (!o.no_png && (o.png || o.out) &&
        !(o.png_path = o.png ? strdup(o.png) : with_ending(o.out, ".png"))) {
        fail(&err, "no memory for a name");
        goto done;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, on_interrupt);
    rc = (o.plot_only ? plot(&o, file, n, &err) : hunt(&o, &e, &err)) ? 1 + err.usage : 0;
    if (rc && stop) rc = 130;
done:
    if (rc) fprintf(stderr, "needle: %s\n", err.msg);
    free(o.png_path);
    free(file);
    return rc;
}
