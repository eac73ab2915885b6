/* bench.c - how fast a model runs here: prefill and decode at several depths, for several attention
 * modes side by side; or, with --limits, how fast the machine itself is. docs/benchmarks.md says
 * what the columns mean. */
#include <stdlib.h>
#include <string.h>
#include "attention/attention.h"
#include "base/cpu.h"
#include "base/threads.h"
#include "tools/common/bench_print.h"
#include "tools/common/limits.h"

struct bench_args {
    struct engine_args engine;
    const char *prompt, *gen, *depth, *fill, *format;
    bool sweep, limits, no_warmup, help;
    struct bench_options o;
    struct bench_out out;
};

static const char usage[] =
    "usage: bin/bench MODEL [-p 512] [-n 64] [-d 0,8k,32k] [--attn MODE ...] "
    "[-o md|csv|json|jsonl]\n"
    "       bin/bench --limits [-t N] [-o md|csv|json|jsonl]\n"
    "Speed of prefill and decode; results go to stdout. LIST is N,N,... where an N may be "
    "FIRST:LAST:STEP.\n\n";

static int ascending(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

/* "0,8k,16k:64k:16k" -> its numbers. */
static int parse_list(struct bench_list *l, const char *flag, const char *text, struct err *err) {
    char buf[1024];
    l->n = 0;
    if (strlen(text) >= sizeof buf)
        return fail(err, "%s: a list of %zu characters, wanted less than %zu", flag, strlen(text),
                    sizeof buf);
    strcpy(buf, text);
    for (char *item = buf, *end; item; item = end) {
        if ((end = strchr(item, ','))) *end++ = 0;
        char *part[3] = { item, NULL, NULL };
        int n = 1, v[3];
        for (char *p = item; n < 3 && (p = strchr(p, ':')); n++) *p++ = 0, part[n] = p;
        for (int i = 0; i < n; i++)
            if (flags_int(part[i], flag, i == 2, 1 << 30, &v[i], err)) return -1;
        if (n == 2)
            return fail(err, "%s: got '%s:%s', wanted FIRST:LAST:STEP", flag, part[0], part[1]);
        const int64_t last = n == 3 ? v[1] : v[0], step = n == 3 ? v[2] : 1;
        for (int64_t x = v[0]; x <= last; x += step) {
            if (l->n == BENCH_LIST_MAX)
                return fail(err, "%s: more than %d numbers", flag, BENCH_LIST_MAX);
            l->item[l->n++] = (int)x;
        }
    }
    return 0;
}

/* Depths are visited in one pass, from the shallow to the deep, each once. */
static void sort_depths(struct bench_list *l) {
    int n = 0;
    qsort(l->item, (size_t)l->n, sizeof *l->item, ascending);
    for (int i = 0; i < l->n; i++)
        if (!n || l->item[i] != l->item[n - 1]) l->item[n++] = l->item[i];
    l->n = n;
}

static int check_model_run(struct bench_args *a, struct err *err) {
    struct bench_options *o = &a->o;
    int most = 0;
    if (parse_list(&o->prompt, "-p", a->prompt, err) || parse_list(&o->gen, "-n", a->gen, err) ||
        parse_list(&o->depth, "-d", a->depth, err))
        return -1;
    sort_depths(&o->depth);
    if (!o->prompt.n || !o->gen.n || !o->depth.n)
        return fail(err, "-p, -n and -d: got an empty range");
    for (int i = 0; i < o->prompt.n; i++) if (o->prompt.item[i] > most) most = o->prompt.item[i];
    for (int i = 0; i < o->gen.n; i++) if (o->gen.item[i] > most) most = o->gen.item[i];
    if (!most) return fail(err, "-p 0 and -n 0 leave nothing to measure");
    if (o->depth.item[o->depth.n - 1] > (1 << 30) - most)
        return fail(err, "-d: depth and test exceed %d tokens", 1 << 30);
    if (a->sweep && (o->prompt.n != 1 || o->gen.n != 1 || !o->prompt.item[0] || !o->gen.item[0]))
        return fail(err, "--sweep: wanted one -p and one -n, both above 0");
    if (strcmp(a->fill, "synthetic") && strcmp(a->fill, "model"))
        return fail(err, "--fill: got '%s', wanted synthetic or model", a->fill);
    o->fill_model = !strcmp(a->fill, "model");
    o->warmup = !a->no_warmup;
    a->out.sweep = a->sweep;
    if (!o->attn.n) o->attn.item[o->attn.n++] = NULL;        /* the model's own */
    for (int i = 0; i < o->attn.n; i++)
        if (o->attn.item[i] && attn_check(o->attn.item[i], err)) return -1;
    return 0;
}

static int parse(struct bench_args *a, int argc, char **argv, struct err *err) {
    const struct flag table[] = {
        { "-p --n-prompt", FLAG_STR, &a->prompt, "LIST",
          "tokens of a prefill (default 512; 0: none)", 0, 0 },
        { "-n --n-gen", FLAG_STR, &a->gen, "LIST",
          "tokens of a decode (default 64; 0: none)", 0, 0 },
        { "-d --n-depth", FLAG_STR, &a->depth, "LIST",
          "tokens in the cache before a test (default 0)", 0, 0 },
        { "-r --repetitions", FLAG_INT, &a->o.reps, "N",
          "of each test, in turns between the modes (default 5)", 1, BENCH_REPS_MAX },
        { "--attn", FLAG_LIST, &a->o.attn, "MODE[,key=value...]",
          "a mode to measure (default as the file says, else full); may repeat", 0, 0 },
        { "--fill", FLAG_STR, &a->fill, "HOW",
          "synthetic (default) or model: where the cache comes from", 0, 0 },
        { "--no-warmup", FLAG_ON, &a->no_warmup, NULL,
          "leave out the short run before the first test", 0, 0 },
        { "-o --output", FLAG_STR, &a->format, "FORMAT", "md (default), csv, json or jsonl", 0, 0 },
        { "--sweep", FLAG_ON, &a->sweep, NULL,
          "one row per depth: PP TG N_KV T_PP S_PP T_TG S_TG", 0, 0 },
        { "--limits", FLAG_ON, &a->limits, NULL,
          "measure the machine instead: memory and arithmetic", 0, 0 },
        ENGINE_FLAGS_NO_ATTN(a->engine),
        { "-h --help", FLAG_ON, &a->help, NULL, "print this", 0, 0 },
        { 0 },
    };
    const char *model;
    int n;
    if (flags_parse(table, argc, argv, &model, 1, &n, err)) return -1;
    if (a->help) {
        fputs(usage, stdout);
        flags_help(table, stdout);
        return 0;
    }
    if (n) a->engine.model = model;
    if (bench_format_parse(a->format, &a->out.format, err)) return -1;
    if (!a->limits) return check_model_run(a, err);
    return a->engine.model ? fail(err, "--limits measures the machine: got a MODEL, wanted none")
                           : 0;
}

static void print_limit(void *ctx, const struct limit *l) {
    struct bench_out *out = ctx;
    if (out->format == BENCH_MD) {
        if (!out->n_rows++)
            printf("| %-19s | %-10s | %7s | %9s | %9s | %-7s |\n"
                   "| %.19s | %.10s | %.6s: | %.8s: | %.8s: | %.7s |\n",
                   "limit", "isa", "threads", "best", "median", "unit", "-------------------",
                   "----------", "------", "--------", "--------", "-------");
        printf("| %-19s | %-10s | %7d | %9.1f | %9.1f | %-7s |\n", l->what, l->isa, l->threads,
               l->best, l->median, l->unit);
        fflush(stdout);
        return;
    }
    cJSON *j = cJSON_CreateObject();
    if (j) {
        cJSON_AddStringToObject(j, "cpu_info", cpu_name());
        cJSON_AddStringToObject(j, "limit", l->what);
        cJSON_AddStringToObject(j, "isa", l->isa);
        cJSON_AddNumberToObject(j, "n_threads", l->threads);
        cJSON_AddNumberToObject(j, "best", l->best);
        cJSON_AddNumberToObject(j, "median", l->median);
        cJSON_AddStringToObject(j, "unit", l->unit);
    }
    bench_out_object(out, j);
}

static int run_limits(struct bench_args *a, struct err *err) {
    const int threads = a->engine.threads ? a->engine.threads : cpu_default_threads();
    return limits_run(threads, print_limit, &a->out, err);
}

static int run_model(struct bench_args *a, struct engine *e, struct err *err) {
    const int rc = engine_open(e, err) || engine_load(e, err) ? -1
                 : bench_run(e, &a->o, bench_print, &a->out, err);
    engine_close(e);
    return rc;
}

int main(int argc, char **argv) {
    threads_wait_gently(argv);
    static struct bench_args a = { .engine = ENGINE_ARGS, .prompt = "512", .gen = "64",
                                   .depth = "0", .fill = "synthetic", .format = "md",
                                   .o.reps = 5 };
    struct err err = { .msg = "" }, end = { .msg = "" };
    struct engine e = { 0 };
    for (int i = 1; i + 1 < argc; i++)
        if (!strcmp(argv[i], "--attn") && !strcmp(argv[i + 1], "help")) {
            static char text[16384];
            attn_help(text, sizeof text);
            fputs(text, stdout);
            return 0;
        }
    if (parse(&a, argc, argv, &err)) goto wrong;
    if (a.help) return 0;
    a.engine.no_tokenizer = true;
    if (!a.limits && engine_check(&e, &a.engine, &err)) goto wrong;
    const int rc = a.limits ? run_limits(&a, &err) : run_model(&a, &e, &err);
    if (rc && !a.out.n_rows) goto failed;          /* nothing was begun that needs an end */
    if (!bench_out_end(&a.out, rc ? &end : &err) && !rc) return 0;
failed:
    fprintf(stderr, "bench: %s\n", err.msg);
    return 1 + err.usage;
wrong:
    fprintf(stderr, "bench: %s\n", err.msg);
    return 2;
}
