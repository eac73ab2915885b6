/* perplexity.c - how well a model predicts a text, and how an attention mode moves its predictions.
 *
 * The text is cut into windows of -c tokens, each begun afresh (with BOS where the model wants it);
 * the second half of a window is scored. --kld MODE runs a second session beside the first, with an
 * f16 cache, and compares their logits, row by row: memory stays O(vocabulary). --ids/--logits
 * writes raw logits for a list of token ids: how to compare with another engine. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "base/threads.h"
#include "attention/attention.h"
#include "tools/common/engine.h"

enum { ROWS = 16 };                     /* rows of logits made together */

struct ppl {
    struct engine_args engine;
    const char *file, *kld, *ids, *logits;
    int n_ctx, windows;
    bool special, help, decode;
};

static const char usage[] =
    "usage: bin/perplexity MODEL -f TEXT [-c N] [--attn MODE] [--kld MODE]\n"
    "       bin/perplexity MODEL --ids FILE --logits FILE\n"
    "The last line on stdout is `ppl = X +/- E`.\n";

static int parse(struct ppl *p, int argc, char **argv, struct err *err) {
    const struct flag table[] = {
        { "-f --file", FLAG_STR, &p->file, "FILE", "the text (- for standard input)", 0, 0 },
        { "-c --ctx-size", FLAG_INT, &p->n_ctx, "N", "tokens of a window (512)", 4, 1 << 30 },
        { "--chunks", FLAG_INT, &p->windows, "N",
          "stop after N windows (default: all)", 1, 1 << 30 },
        { "--kld", FLAG_STR, &p->kld, "MODE",
          "also mean KL divergence from this mode with an f16 cache, usually full", 0, 0 },
        { "--decode", FLAG_ON, &p->decode, NULL,
          "feed one token at a time, as when generating: for modes of decode", 0, 0 },
        { "--special", FLAG_ON, &p->special, NULL, "parse special tokens in the text", 0, 0 },
        { "--ids", FLAG_STR, &p->ids, "FILE",
          "token ids, whitespace-separated, taken as they are", 0, 0 },
        { "--logits", FLAG_STR, &p->logits, "FILE",
          "where their logits go: little-endian f32 [n_tokens][n_vocab]", 0, 0 },
        ENGINE_FLAGS(p->engine),
        { "-h --help", FLAG_ON, &p->help, NULL, "print this", 0, 0 },
        { 0 },
    };
    const char *model;
    int n;
    if (flags_parse(table, argc, argv, &model, 1, &n, err)) return -1;
    if (p->help) {
        fputs(usage, stdout);
        flags_help(table, stdout);
        return 0;
    }
    if (p->engine.attn && !strcmp(p->engine.attn, "help")) {
        static char text[16384];
        attn_help(text, sizeof text);
        fputs(text, stdout);
        p->help = true;
        return 0;
    }
    if (n) p->engine.model = model;
    if (!p->ids != !p->logits) return fail(err, "--ids and --logits go together");
    if (!p->ids == !p->file) return fail(err, "give -f TEXT, or --ids FILE and --logits FILE");
    return 0;
}

/* Whitespace-separated integers. Returns their number, or -1. */
static int read_ids(const char *path, int32_t **out, struct err *err) {
    char *text, *p;
    size_t size;
    if (file_read(path, &text, &size, err)) return -1;
    int n = 0;
    int32_t *ids = malloc((size / 2 + 1) * sizeof *ids);
    if (!ids) { free(text); return fail(err, "%s: no memory for its ids", path); }
    for (p = text;;) {
        p += strspn(p, " \t\r\n");
        if (!*p) break;
        char *end;
        errno = 0;
        const long v = strtol(p, &end, 10);
        if (end == p || errno || v < 0 || v > INT32_MAX || !strchr(" \t\r\n", *end)) {
            fail(err, "%s: got '%.16s' as token %d, wanted a token id", path, p, n);
            free(text), free(ids);
            return -1;
        }
        ids[n++] = (int32_t)v;
        p = end;
    }
    free(text);
    *out = ids;
    return n;
}

static int write_logits(const struct engine *e, const struct ppl *p, struct err *err) {
    int32_t *ids = NULL;
    float *rows = NULL;
    FILE *f = NULL;
    struct session *s = NULL;
    const size_t v = (size_t)e->model->c.n_vocab;
    int rc = -1;
    const int n = read_ids(p->ids, &ids, err);
    if (n <= 0) { if (!n) fail(err, "%s: no token ids", p->ids); goto done; }
    struct session_options so = engine_session_options(e, n);
    if (session_open(&s, e->model, &so, err)) goto done;
    if (!(rows = malloc(ROWS * v * sizeof *rows))) { fail(err, "no memory for logits"); goto done; }
    if (!(f = fopen(p->logits, "wb"))) {
        fail(err, "%s: %s", p->logits, strerror(errno));
        goto done;
    }
    for (int i = 0; i < n; i += session_batch(s)) {
        const int now = n - i < session_batch(s) ? n - i : session_batch(s);
        if (session_eval_rows(s, ids + i, now, err)) goto done;
        for (int r = 0; r < now; r += ROWS) {
            const size_t k = (size_t)(now - r < ROWS ? now - r : ROWS);
            session_rows(s, r, (int)k, rows);
            if (fwrite(rows, sizeof *rows, k * v, f) != k * v) {
                fail(err, "%s: %s", p->logits, strerror(errno));
                goto done;
            }
        }
    }
    rc = 0;
done:
    if (f && fclose(f) && !rc) rc = fail(err, "%s: %s", p->logits, strerror(errno));
    if (rc && f) remove(p->logits);
    session_close(s);
    free(rows);
    free(ids);
    return rc;
}

struct score { double nll, nll2, kl, kl2; uint64_t n, same; };

/* log of the softmax's denominator, relative to no shift: log sum exp(x). */
static double log_sum(const float *x, int n, int *best) {
    *best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[*best]) *best = i;
    double sum = 0;
    for (int i = 0; i < n; i++) sum += exp((double)x[i] - (double)x[*best]);
    return log(sum) + (double)x[*best];
}

/* One row: the token that came next, under this mode and (base not NULL) against the other mode's
 * row. */
static void score_row(struct score *sc, const float *x, const float *base, int n_vocab,
                      int32_t next) {
    int best, best_base;
    const double z = log_sum(x, n_vocab, &best), nll = z - (double)x[next];
    sc->nll += nll, sc->nll2 += nll * nll, sc->n++;
    if (!base) return;
    const double zb = log_sum(base, n_vocab, &best_base);
    double kl = 0;
    for (int i = 0; i < n_vocab; i++) {
        const double lb = (double)base[i] - zb;
        kl += exp(lb) * (lb - ((double)x[i] - z));
    }
    sc->kl += kl, sc->kl2 += kl * kl, sc->same += best == best_base;
}

/* Scores ids[half..n-1], each from the tokens before it. */
static int score_window(struct session *s, struct session *base, const int32_t *ids, int n,
                        bool decode, float *rows, int n_vocab, struct score *sc, struct err *err) {
    const int half = n / 2;
    session_truncate(s, 0);
    if (base) session_truncate(base, 0);
    for (int i = 0; decode && i < n - 1; i++) {
        if (session_eval(s, ids + i, 1, err) || (base && session_eval(base, ids + i, 1, err)))
            return -1;
        if (i + 1 >= half)
            score_row(sc, session_logits(s), base ? session_logits(base) : NULL, n_vocab,
                      ids[i + 1]);
    }
    if (decode) return 0;
    for (int i = 0; i < n; i += session_batch(s)) {
        const int now = n - i < session_batch(s) ? n - i : session_batch(s);
        if (session_eval_rows(s, ids + i, now, err) ||
            (base && session_eval_rows(base, ids + i, now, err)))
            return -1;
        for (int r = 0; r < now; r += ROWS) {
            const int k = now - r < ROWS ? now - r : ROWS;
            if (i + r + k < half) continue;
            session_rows(s, r, k, rows);
            if (base) session_rows(base, r, k, rows + (size_t)ROWS * n_vocab);
            for (int j = 0; j < k; j++) {
                const int next = i + r + j + 1;
                if (next < half || next >= n) continue;
                score_row(sc, rows + (size_t)j * n_vocab,
                          base ? rows + ((size_t)ROWS + j) * n_vocab : NULL, n_vocab, ids[next]);
            }
        }
    }
    return 0;
}

static double standard_error(double sum, double squares, double n) {
    return n > 1 ? sqrt(fmax(0, squares / n - sum / n * (sum / n)) / (n - 1)) : 0;
}

static int perplexity(const struct engine *e, const struct ppl *p, struct err *err) {
    char *text = NULL;
    size_t size;
    int32_t *ids = NULL, *window = NULL;
    float *rows = NULL;
    struct session *s = NULL, *base = NULL;
    struct score sc = { 0 };
    const int v = e->model->c.n_vocab;
    int rc = -1;
    if (file_read(p->file, &text, &size, err)) goto done;
    const bool bos = tok_adds_bos(e->tok) && tok_bos(e->tok) >= 0;
    const int n = tok_encode(e->tok, text, size, p->special ? TOK_SPECIAL : 0, &ids, err);
    if (n < 0) goto done;
    const int fresh = p->n_ctx - bos, windows = n / fresh;    /* text tokens of a window */
    if (!windows) {
        fail(err, "%s: %d tokens, wanted at least the %d of a window (-c)", p->file, n, fresh);
        goto done;
    }
    struct session_options so = engine_session_options(e, p->n_ctx), bo = so;
    bo.attn = p->kld, bo.attn_prefill = bo.attn_decode = NULL;
    bo.type_k = bo.type_v = DT_F16;
    window = malloc((size_t)p->n_ctx * sizeof *window);
    rows = malloc(2 * ROWS * (size_t)v * sizeof *rows);
    if (!window || !rows) { fail(err, "no memory for logits"); goto done; }
    if (session_open(&s, e->model, &so, err) || (p->kld && session_open(&base, e->model, &bo, err)))
        goto done;
    const int want = p->windows && p->windows < windows ? p->windows : windows;
    for (int w = 0; w < want; w++) {
        if (bos) window[0] = tok_bos(e->tok);
        memcpy(window + bos, ids + (size_t)w * fresh, (size_t)fresh * sizeof *window);
        if (score_window(s, base, window, p->n_ctx, p->decode, rows, v, &sc, err)) goto done;
        fprintf(stderr, "window %d/%d: ppl %.4f\n", w + 1, want, exp(sc.nll / (double)sc.n));
    }
    const double m = (double)sc.n, ppl = exp(sc.nll / m);
    if (p->kld)
        printf("mean KL(%s || %s) = %.6g +/- %.2g, same top token %.3f %%, %llu tokens\n", p->kld,
               session_attn_name(s), sc.kl / m, standard_error(sc.kl, sc.kl2, m),
               100.0 * (double)sc.same / m, (unsigned long long)sc.n);
    printf("ppl = %.4f +/- %.4f\n", ppl, ppl * standard_error(sc.nll, sc.nll2, m));
    rc = fflush(stdout) ? fail(err, "stdout: %s", strerror(errno)) : 0;
done:
    session_close(s);
    session_close(base);
    free(rows);
    free(window);
    free(ids);
    free(text);
    return rc;
}

int main(int argc, char **argv) {
    threads_wait_gently(argv);
    struct ppl p = { .engine = ENGINE_ARGS, .n_ctx = 512 };
    struct err err = { 0 };
    struct engine e;
    if (parse(&p, argc, argv, &err)) goto wrong;
    if (p.help) return 0;
    p.engine.no_tokenizer = p.ids != NULL;
    if (engine_check(&e, &p.engine, &err) || engine_check_attn(&p.engine, &err) ||
        (p.kld && attn_check(p.kld, &err)))
        goto wrong;
    int rc = engine_open(&e, &err) || engine_load(&e, &err);
    if (!rc) rc = p.ids ? write_logits(&e, &p, &err) : perplexity(&e, &p, &err);
    engine_close(&e);
    if (rc) fprintf(stderr, "perplexity: %s\n", err.msg);
    return rc ? 1 + err.usage : 0;
wrong:
    fprintf(stderr, "perplexity: %s\n", err.msg);
    return 2;
}
