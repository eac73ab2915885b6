/* run.c - the command line: flags -> load -> prefill -> sample loop. Nothing else knows argv.
 *
 * stdout carries the completion and nothing else; all else goes to stderr. Exit 0 on success, 2 for
 * a wrong command line, 1 for what failed at run time, 130 after Ctrl-C. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "attention/attention.h"
#include "base/cpu.h"
#include "base/file.h"
#include "base/flags.h"
#include "base/threads.h"
#include "model/chat.h"
#include "model/prompt_cache.h"
#include "model/sampler.h"
#include "tools/common/engine.h"

enum { N_DEFAULT = 256, UNTIL_END = -1, UNTIL_FULL = -2 };

struct run {
    struct engine_args engine;
    const char *prompt, *file, *binary_file, *stats, *system, *chat_format, *cache;
    int n_predict, n_ctx;
    bool escapes, special, chat, single_turn, no_display_prompt, verbose_prompt, quiet, dry_run,
         version, help, ignore_eos, ignored, cache_ro, cache_all;
    struct sampler_options sampler;
    double seed;
};

static volatile sig_atomic_t stop;
static void on_interrupt(int sig) {
    (void)sig;
    stop = 1;
    signal(SIGINT, SIG_DFL);                        /* a second Ctrl-C ends at once */
}

static const char usage[] =
    "usage: ./run MODEL [-p TEXT | -f FILE | -] [-n N] [--attn MODE,...] [flags]\n"
    "Continues the prompt with a GGUF model. The text goes to stdout, all else to stderr.\n";

static int parse(struct run *r, int argc, char **argv, struct err *err) {
    const struct flag table[] = {
        { "", FLAG_HEADING, 0, 0, "Prompt and answer:", 0, 0 },
        { "-p --prompt", FLAG_STR, &r->prompt, "TEXT",
          "the prompt (\\n \\t \\\\ \\\" \\xHH are escapes)", 0, 0 },
        { "-f --file", FLAG_STR, &r->file, "FILE",
          "the prompt from a file; one final newline is dropped", 0, 0 },
        { "-bf --binary-file", FLAG_STR, &r->binary_file, "FILE",
          "the prompt from a file, every byte of it", 0, 0 },
        { "-n --predict --n-predict", FLAG_INT, &r->n_predict, "N",
          "tokens to generate (256; -1: to the end of text)", -2, 1 << 30 },
        { "-c --ctx-size", FLAG_INT, &r->n_ctx, "N",
          "context (default: prompt + n; 0: the model's)", 0, 1 << 30 },
        { "-e --escape", FLAG_ON, &r->escapes, NULL, NULL, 0, 0 },
        { "--no-escape", FLAG_OFF, &r->escapes, NULL, "take -p literally", 0, 0 },
        { "--prompt-cache", FLAG_STR, &r->cache, "FILE",
          "save the prefill there; reuse what it shares with this prompt", 0, 0 },
        { "--prompt-cache-ro", FLAG_ON, &r->cache_ro, NULL, "reuse only, do not save", 0, 0 },
        { "--prompt-cache-all", FLAG_ON, &r->cache_all, NULL, "save what was generated too", 0, 0 },
        { "--special -sp", FLAG_ON, &r->special, NULL,
          "parse special tokens in the prompt, print them too", 0, 0 },
        { "--no-display-prompt", FLAG_ON, &r->no_display_prompt, NULL, NULL, 0, 0 },
        { "--display-prompt", FLAG_OFF, &r->no_display_prompt, NULL,
          "print the prompt before the completion", 0, 0 },
        { "--verbose-prompt", FLAG_ON, &r->verbose_prompt, NULL,
          "list the prompt's tokens on stderr", 0, 0 },
        { "--ignore-eos", FLAG_ON, &r->ignore_eos, NULL, "go on after the end of text", 0, 0 },
        { "-cnv --chat --conversation", FLAG_ON, &r->chat, NULL,
          "chat: one message per line of standard input (-p: the first)", 0, 0 },
        { "-no-cnv --no-conversation", FLAG_OFF, &r->chat, NULL, NULL, 0, 0 },
        { "-sys --system-prompt", FLAG_STR, &r->system, "TEXT",
          "chat: what the model is told first", 0, 0 },
        { "-st --single-turn", FLAG_ON, &r->single_turn, NULL,
          "chat: end after the first reply", 0, 0 },
        { "--chat-template", FLAG_STR, &r->chat_format, "NAME",
          "chat: the format (default: as the file says)", 0, 0 },
        { "", FLAG_HEADING, 0, 0, "Sampling:", 0, 0 },
        { "--temp --temperature", FLAG_FLOAT, &r->sampler.temp, "X",
          "temperature (0.8; 0: greedy)", 0, 100 },
        { "--top-k", FLAG_INT, &r->sampler.top_k, "N",
          "the N most likely (40; 0: all)", 0, 1 << 30 },
        { "--top-p", FLAG_FLOAT, &r->sampler.top_p, "X",
          "the most likely that hold X of the mass (0.95)", 1e-9, 1 },
        { "--min-p", FLAG_FLOAT, &r->sampler.min_p, "X",
          "at least X times as likely as the best (0.05)", 0, 1 },
        { "--repeat-penalty", FLAG_FLOAT, &r->sampler.repeat_penalty, "X",
          "repeated tokens are X less likely (1: off)", 0.01, 100 },
        { "--repeat-last-n", FLAG_INT, &r->sampler.repeat_last_n, "N",
          "tokens it looks back (64; -1: all)", -1, 1 << 24 },
        { "-s --seed", FLAG_FLOAT, &r->seed, "N",
          "random seed (-1: from the clock)", -1, 9007199254740991.0 },
        ENGINE_FLAGS(r->engine),
        { "", FLAG_HEADING, 0, 0, "Output:", 0, 0 },
        { "--stats", FLAG_STR, &r->stats, "json|text|none",
          "what a run cost, on stderr (default text)", 0, 0 },
        { "--log-disable -q", FLAG_ON, &r->quiet, NULL,
          "nothing on stderr but errors and --stats json", 0, 0 },
        { "--dry-run", FLAG_ON, &r->dry_run, NULL,
          "say what memory the run needs, and stop", 0, 0 },
        { "--version", FLAG_ON, &r->version, NULL, "print the version", 0, 0 },
        { "-h --help", FLAG_ON, &r->help, NULL, "print this", 0, 0 },
        { "--no-warmup --simple-io --no-perf -v", FLAG_IGNORED, &r->ignored, NULL, NULL, 0, 0 },
        { 0 },
    };
    const char *arg[2];
    int n;
    if (flags_parse(table, argc, argv, arg, 2, &n, err)) return -1;
    if (r->help) {
        fputs(usage, stdout);
        flags_help(table, stdout);
        return 0;
    }
    for (int i = 0; i < n; i++) {
        if (!strcmp(arg[i], "-")) r->file = "-";
        else if (r->engine.model)
            return fail(err, "two models given: '%s' and '%s'", r->engine.model, arg[i]);
        else r->engine.model = arg[i];
    }
    if (r->chat_format && !chat_by_name(r->chat_format)) {
        char names[128];
        chat_names(names, sizeof names);
        return fail(err, "--chat-template: got '%s', wanted one of %s", r->chat_format, names);
    }
    if (r->chat && (r->file || r->binary_file))
        return fail(err, "-cnv reads standard input: -f, -bf and - do not go with it");
    if (!!r->prompt + !!r->file + !!r->binary_file > 1)
        return fail(err, "give one of -p, -f, -bf and -");
    if (!r->engine.model) r->engine.model = getenv("LLAMA_ARG_MODEL");
    if (strcmp(r->stats, "json") && strcmp(r->stats, "text") && strcmp(r->stats, "none"))
        return fail(err, "--stats: got '%s', wanted json, text or none", r->stats);
    return 0;
}

/* Replaces \n \t \r \\ \" \' \0 \xHH in place; other backslashes stay. */
static size_t unescape(char *s, size_t n) {
    static const char from[] = "nrt\\\"'", to[] = "\n\r\t\\\"'";
    size_t w = 0;
    for (size_t i = 0; i < n; i++) {
        const char *at = i + 1 < n && s[i] == '\\' ? strchr(from, s[i + 1]) : NULL;
        char hex[3] = { 0 }, *end = NULL;
        if (i + 3 < n && s[i] == '\\' && s[i + 1] == 'x') {
            memcpy(hex, s + i + 2, 2);
            long v = strtol(hex, &end, 16);
            if (end == hex + 2) { s[w++] = (char)v; i += 3; continue; }
        }
        if (at && *at) { s[w++] = to[at - from]; i++; }
        else s[w++] = s[i];
    }
    return w;
}

static int read_prompt(const struct run *r, char **text, size_t *n, struct err *err) {
    const char *path = r->binary_file ? r->binary_file : r->file;
    if (!path && !r->prompt && !isatty(STDIN_FILENO)) path = "-";
    if (path) {
        if (file_read(path, text, n, err)) return -1;
        if (!r->binary_file && *n && (*text)[*n - 1] == '\n') --*n;
        return 0;
    }
    if (!(*text = strdup(r->prompt ? r->prompt : ""))) return fail(err, "no memory for the prompt");
    *n = strlen(*text);
    if (r->escapes) *n = unescape(*text, *n);
    return 0;
}

/* Writes to stdout; a reader that went away ends the run with one line. */
static int put(const char *text, size_t n, struct err *err) {
    if (n && (fwrite(text, 1, n, stdout) != n || fflush(stdout)))
        return fail(err, "stdout: %s", strerror(errno));
    return 0;
}

static void show_progress(void *ctx, int done, int total) {
    const double *start = ctx, ms = clock_ms() - *start, rate = ms > 0 ? done / ms * 1e3 : 0;
    fprintf(stderr, "\rprefill %d/%d %d%% %.0f t/s eta %.0f s ", done, total,
            (int)(100.0 * done / total), rate, rate > 0 ? (total - done) / rate : 0);
    if (done == total) fputs("\r\033[K", stderr);
}

static void report_memory(const struct engine *e, const struct session *s,
                          const struct session_options *so, FILE *log) {
    char w[32], k[32], c[32], t[32], p[32], type[128];
    const struct model_config *m = &e->model->c;
    const double kv = (double)session_kv_bytes_at(s, so->n_ctx),
                 scratch = (double)session_scratch_bytes(s);
    const double sum = (double)e->model->weight_bytes + kv + scratch;
    model_type_name(e->model, type, sizeof type);
    fprintf(log, "%s: %s %s, %s parameters, %d layers, %d/%d heads of %d, trained for %d tokens\n",
            e->args.model, m->arch->name, type, human_count(p, (double)e->model->n_params),
            m->n_layers, m->n_heads, m->n_kv_heads, m->k_dim, m->n_ctx_train);
    fprintf(log, "memory: weights %s + KV %s (%d tokens, %s/%s) + scratch %s = %s; "
            "%s kernels, %d threads, attention %s\n",
            human_bytes(w, (double)e->model->weight_bytes), human_bytes(k, kv), so->n_ctx,
            dtype_name(so->type_k), dtype_name(so->type_v), human_bytes(c, scratch),
            human_bytes(t, sum), e->kernels->name, e->args.threads, session_attn_name(s));
    const double room = (double)mem_available();
    if (room > 0 && kv + scratch > room)
        fprintf(log, "warning: KV and scratch need %s, %s of memory are available\n",
                human_bytes(t, kv + scratch), human_bytes(w, room));
    if (session_attn_warning(s)) fprintf(log, "warning: %s\n", session_attn_warning(s));
    if (so->n_ctx > m->n_ctx_train)
        fprintf(log, "warning: a context of %d tokens is beyond the %d the model was trained for\n",
                so->n_ctx, m->n_ctx_train);
}

struct stats {
    int cache_n, prompt_n, predicted_n;         /* cache_n: prompt tokens not evaluated again */
    double prompt_ms, predicted_ms, keys_read, keys_searched, load_ms;
};

static double per_second(int n, double ms) { return ms > 0 ? n / ms * 1e3 : 0; }

static void add_figure(void *json, const char *name, double value) {
    cJSON_AddNumberToObject(json, name, value);
}

static void print_stats(const struct run *r, const struct engine *e, const struct session *s,
                        const struct stats *st) {
    const double pps = per_second(st->prompt_n, st->prompt_ms),
                 tps = per_second(st->predicted_n, st->predicted_ms);
    if (!strcmp(r->stats, "text") && !r->quiet) {
        char kv[32], rss[32], searched[48] = "";
        if (st->keys_searched > 0)
            snprintf(searched, sizeof searched, ", searched %.0f", st->keys_searched);
        fprintf(stderr, "prefill %d tokens %.1f t/s | decode %d tokens %.1f t/s | KV %s | "
                "keys read per token %.0f%s | peak %s | attention %s%s%s\n",
                st->prompt_n, pps, st->predicted_n, tps,
                human_bytes(kv, (double)session_kv_bytes(s)), st->keys_read, searched,
                human_bytes(rss, (double)mem_peak_rss()), session_attn_name(s),
                *session_attn_params(s) ? "," : "", session_attn_params(s));
    }
    if (strcmp(r->stats, "json")) return;
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "model", e->args.model);
    cJSON_AddNumberToObject(j, "load_ms", st->load_ms);
    cJSON_AddNumberToObject(j, "cache_n", st->cache_n);
    cJSON_AddNumberToObject(j, "prompt_n", st->prompt_n);
    cJSON_AddNumberToObject(j, "prompt_ms", st->prompt_ms);
    cJSON_AddNumberToObject(j, "prompt_per_second", pps);
    cJSON_AddNumberToObject(j, "predicted_n", st->predicted_n);
    cJSON_AddNumberToObject(j, "predicted_ms", st->predicted_ms);
    cJSON_AddNumberToObject(j, "predicted_per_second", tps);
    cJSON_AddNumberToObject(j, "kv_bytes", (double)session_kv_bytes(s));
    cJSON_AddNumberToObject(j, "peak_rss_bytes", (double)mem_peak_rss());
    cJSON_AddStringToObject(j, "attn", session_attn_name(s));
    cJSON_AddStringToObject(j, "attn_params", session_attn_params(s));
    cJSON_AddNumberToObject(j, "keys_read_per_token", st->keys_read);
    cJSON_AddNumberToObject(j, "keys_searched_per_token", st->keys_searched);
    session_report(s, add_figure, cJSON_AddObjectToObject(j, "attn_figures"));
    cJSON_AddStringToObject(j, "type_k", dtype_name(e->type_k));
    cJSON_AddStringToObject(j, "type_v", dtype_name(e->type_v));
    cJSON_AddStringToObject(j, "kernels", e->kernels->name);
    cJSON_AddNumberToObject(j, "threads", e->args.threads);
    cJSON_AddNumberToObject(j, "seed", (double)r->sampler.seed);
    char *text = cJSON_PrintUnformatted(j);
    if (text) fprintf(stderr, "%s\n", text);
    cJSON_free(text);
    cJSON_Delete(j);
}

/* Evaluates the prompt, but for what the prompt cache holds of it, and saves it there. */
static int prefill(const struct run *r, struct session *s, const int32_t *ids, int n, double *start,
                   struct stats *st, FILE *log, struct err *err) {
    *start = clock_ms();
    const int cached = r->cache ? prompt_cache_load(s, r->cache, ids, n, err) : 0;
    if (cached < 0 && r->cache_ro) return -1;
    if (cached < 0) fprintf(log, "prompt cache not used: %s\n", err->msg);  /* it is made anew */
    st->cache_n = session_pos(s);
    const int rc = session_eval(s, ids + st->cache_n, n - st->cache_n, err);
    st->prompt_n = session_pos(s) - st->cache_n, st->prompt_ms = clock_ms() - *start;
    if (rc || !r->cache || r->cache_ro || st->cache_n == n) return rc;
    return prompt_cache_save(s, r->cache, err);
}

/* Samples until n tokens, the end of text, a full context or Ctrl-C. 0, or -1 with *err. */
static int generate(const struct run *r, const struct engine *e, struct session *s,
                    struct sampler *sm, int n, int n_ctx, struct stats *st, FILE *log,
                    struct err *err) {
    struct tok_stream stream = { .started = session_pos(s) > 0 };
    size_t room = tok_max_piece(e->tok) + 64;
    char *text = malloc(room);
    int rc = -1;
    if (!text) return fail(err, "no memory for a piece of text");
    engine_threads_decode(e);
    const double start = clock_ms();
    for (int i = 0; (n < 0 || i < n) && !stop; i++) {
        const int32_t id = sampler_next(sm, session_logits(s));
        if (id < 0) {
            fail(err, "the logits at position %d hold no numbers (broken weights?)",
                 session_pos(s) - 1);
            goto done;
        }
        st->predicted_n++;
        if (tok_is_end(e->tok, id) && !r->ignore_eos && r->n_predict != UNTIL_FULL) {
            if (r->special && put(text, tok_decode(e->tok, &stream, id, true, text), err))
                goto done;
            break;
        }
        if (put(text, tok_decode(e->tok, &stream, id, r->special, text), err)) goto done;
        sampler_accept(sm, id);
        if (n >= 0 && i + 1 == n) break;
        if (session_pos(s) == n_ctx) {
            fprintf(log, "\nthe context of %d tokens is full (-c sets it)\n", n_ctx);
            break;
        }
        if (session_eval(s, &id, 1, err)) goto done;
    }
    rc = put(text, tok_flush(&stream, text), err);
done:
    st->predicted_ms += clock_ms() - start;
    free(text);
    return rc;
}

/* The format by name, or the one the file's template shows. */
static const struct chat_format *find_format(const struct run *r, const struct engine *e,
                                             struct err *err) {
    if (r->chat_format) return chat_by_name(r->chat_format);
    static char jinja[65536];
    char names[128];
    const int got = gguf_get_string(e->file, "tokenizer.chat_template", jinja, sizeof jinja, err);
    const struct chat_format *f = got > 0 ? chat_recognise(jinja) : NULL;
    chat_names(names, sizeof names);
    if (!f && got >= 0)
        fail(err, "%s: %s; --chat-template names one of %s", e->args.model,
             got ? "its chat template is not one of the known"
                 : "it carries no chat template", names);
    return f;
}

/* Reads a message, lets the model reply, and so on until the input ends. */
static int chat(const struct run *r, const struct engine *e, struct session *s, struct sampler *sm,
                int n_ctx, struct stats *st, FILE *log, struct err *err) {
    const struct chat_format *f = find_format(r, e, err);
    char *line = r->prompt ? strdup(r->prompt) : NULL, *text = NULL;
    size_t size = 0;
    int32_t *ids = NULL;
    int rc = f ? 0 : -1, first = 1;
    for (; !rc && !stop; first = 0) {
        if (!line || !first) {
            if (isatty(STDIN_FILENO)) fputs("\n> ", log);
            const ssize_t got = getline(&line, &size, stdin);
            if (got < 0) break;                     /* end of input */
            if (got && line[got - 1] == '\n') line[got - 1] = 0;
        }
        rc = -1;
        if (!(text = chat_turn(f, first, r->system, line))) {
            fail(err, "no memory for a message");
            break;
        }
        const int n = tok_encode(e->tok, text, strlen(text), TOK_SPECIAL | (first ? TOK_BOS : 0),
                                 &ids, err);
        if (n < 0) break;
        for (int i = 0; i < n; i++) sampler_accept(sm, ids[i]);
        engine_threads_prefill(e);
        const double start = clock_ms();
        if (session_eval(s, ids, n, err)) break;
        st->prompt_n += n, st->prompt_ms += clock_ms() - start;
        if (generate(r, e, s, sm, r->n_predict, n_ctx, st, log, err) || put("\n", 1, err)) break;
        rc = 0;
        free(text), free(ids);
        text = NULL, ids = NULL;
        if (r->single_turn) break;
    }
    free(text), free(ids), free(line);
    return rc;
}

/* How large the context is: as asked, the model's, or just enough. -1: the prompt does not fit. */
static int context_size(const struct run *r, const struct model_config *c, int n_prompt,
                        struct err *err) {
    int n_ctx = r->n_ctx;
    if (n_ctx < 0 && r->n_predict >= 0 && !r->chat) {
        if (n_prompt > (1 << 30) - r->n_predict)
            return fail(err, "prompt of %d tokens and %d to generate are too many", n_prompt,
                        r->n_predict);
        n_ctx = n_prompt + r->n_predict;
    } else if (n_ctx <= 0) n_ctx = c->n_ctx_train;
    if (n_prompt > n_ctx || (n_prompt == n_ctx && r->n_predict))
        return fail(err, "the prompt has %d tokens, the context %d: "
                    "wanted -c %d or more (or a shorter prompt)", n_prompt, n_ctx,
                    n_prompt + (r->n_predict > 0 ? r->n_predict : 1));
    return n_ctx > 0 ? n_ctx : 1;
}

/* A run that goes through the weights but once reads them as they lie in the file: a repacked copy
 * would cost more memory and time than it saves. */
static bool passes_once(const struct run *r, const struct engine *e, int n_prompt) {
    return !r->chat && (r->n_predict == 0 || r->n_predict == 1) && n_prompt <= e->args.batch;
}

static int run(struct run *r, struct engine *e, struct err *err) {
    char *text = NULL;
    size_t n_text = 0;
    int32_t *ids = NULL;
    struct session *s = NULL;
    struct sampler *sm = NULL;
    struct stats st = { 0 };
    int rc = -1, n_ctx;
    FILE *null = fopen("/dev/null", "w"), *log = r->quiet && null ? null : stderr;
    const double load_start = clock_ms();

    if ((r->cache && !r->cache_ro && !r->chat && prompt_cache_check(r->cache, err)) ||
        (!r->chat && read_prompt(r, &text, &n_text, err)) || engine_open(e, err))
        goto done;
    if (e->args.gpu) fprintf(log, "GPU flags have no effect: this engine computes on the CPU\n");
    const int n = r->chat ? 0 : tok_encode(e->tok, text, n_text,
                                           TOK_BOS | (r->special ? TOK_SPECIAL : 0), &ids, err);
    if (n < 0) goto done;
    if (n == 0 && !r->chat) {
        fail(err, "the prompt is empty and the model has no token to begin with");
        goto done;
    }
    for (int i = 0; r->verbose_prompt && i < n; i++) {
        size_t len;
        const char *piece = tok_piece(e->tok, ids[i], &len);
        fprintf(log, "%6d '%.*s'\n", (int)ids[i], (int)len, piece);
    }
    if ((n_ctx = context_size(r, &e->model->c, n, err)) < 0) goto done;

    double prefill_start = 0;
    struct session_options so = engine_session_options(e, n_ctx);
    so.stop = &stop;
    if (!r->quiet && isatty(STDERR_FILENO))
        so.progress = show_progress, so.progress_ctx = &prefill_start;
    if (session_open(&s, e->model, &so, err)) goto done;
    report_memory(e, s, &so, log);
    if (r->dry_run) { rc = 0; goto done; }
    if ((!passes_once(r, e, n) && engine_load(e, err)) ||
        sampler_open(&sm, e->model->c.n_vocab, &r->sampler, err))
        goto done;
    for (int i = 0; i < n; i++) sampler_accept(sm, ids[i]);
    st.load_ms = clock_ms() - load_start;

    if (r->chat) rc = chat(r, e, s, sm, n_ctx, &st, log, err);
    else {
        if (!r->no_display_prompt && put(text, n_text, err)) goto done;
        rc = prefill(r, s, ids, n, &prefill_start, &st, log, err);
        if (!rc) rc = generate(r, e, s, sm, r->n_predict, n_ctx, &st, log, err);
        if (!rc && r->cache && r->cache_all && !r->cache_ro)
            rc = prompt_cache_save(s, r->cache, err);
    }
    if (stop) rc = 0;                       /* Ctrl-C: what there is was printed; main says 130 */
    st.keys_read = session_keys_read(s), st.keys_searched = session_keys_searched(s);
    if (!rc && !put("\n", isatty(STDOUT_FILENO) && !r->chat, err)) print_stats(r, e, s, &st);
done:
    sampler_close(sm);
    session_close(s);
    free(ids);
    free(text);
    if (null) fclose(null);
    return rc;
}

int main(int argc, char **argv) {
    threads_wait_gently(argv);
    struct run r = { .engine = ENGINE_ARGS, .stats = "text", .n_predict = N_DEFAULT, .n_ctx = -1,
                     .escapes = true, .no_display_prompt = true, .sampler = SAMPLER_DEFAULTS,
                     .seed = -1 };
    struct err err = { 0 };
    struct engine e;
    if (parse(&r, argc, argv, &err)) goto wrong;
    if (r.help) return 0;
    if (r.version) { printf("needle.c %s\n", NEEDLE_VERSION); return 0; }
    if (r.engine.attn && !strcmp(r.engine.attn, "help")) {
        static char text[16384];
        attn_help(text, sizeof text);
        fputs(text, stdout);
        return 0;
    }
    if (engine_check(&e, &r.engine, &err) || engine_check_attn(&r.engine, &err)) goto wrong;
    r.sampler.seed = r.seed >= 0 ? (uint64_t)r.seed
                                 : (uint64_t)time(NULL) * 1000003u ^ (uint64_t)getpid();
    if (fcntl(STDOUT_FILENO, F_GETFD) < 0) {    /* else the next file opened would take its place */
        fprintf(stderr, "run: stdout is closed\n");
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    /* No SA_RESTART: reads end too. */
    sigaction(SIGINT, &(struct sigaction){ .sa_handler = on_interrupt }, NULL);
    const int rc = run(&r, &e, &err);
    engine_close(&e);
    if (rc && !stop) fprintf(stderr, "run: %s\n", err.msg);
    return stop ? 130 : rc ? 1 + err.usage : 0;
wrong:
    fprintf(stderr, "run: %s\n", err.msg);
    return 2;
}
