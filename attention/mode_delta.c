/* mode_delta.c - a few layers read everything and choose pages, the next ones read those (DELTA).
 *
 * Decode only: a prompt is attended in full. At each token of the answer a selecting layer, which
 * is a full one, turns its exact probabilities into a list: the most recent pages and those the
 * layer's query heads value most. The layers up to the next selecting one read that list, all heads
 * the same. A list lives for one token.
 *
 * Tokens read at n cached, in N layers of which F are full, with `budget` pages of which the last
 * holds `open` tokens: F n + (N - F) min(n, 16 (budget - 1) + open). The cache keeps everything. */
#include "attention/delta_pages.h"
#include "attention/mode.h"
#include <stdlib.h>
#include <string.h>

enum { SPARSE, FULL, SELECTS };                /* kinds of layers; SELECTS is full as well */
enum { NO_LIST = -1 };
enum { PAGES_MAX = 1 << 24 };

struct delta_args { struct delta_share share; double ratio; };

struct delta {
    struct attn_mode base;
    struct delta_args a;
    int n_layers;
    unsigned char *kind;                /* [n_layers] */
    int *page;                          /* [n_pages] the list, ascending */
    int n_pages, pos;                   /* ... chosen at this position; NO_LIST: no layer has yet */
    uint64_t *scratch;                  /* [2][pages of the longest context] */
    /* Steps with a list, lists, lists that met the next one's layer. */
    uint64_t tokens, lists, judged;
    double recall, recall_far, least;   /* sums over judged; the lowest */
};

static const struct attn_key keys[] = {
    { "full", "auto", "LAYERS that read everything, 0 among them: 0,1,2,14,22; auto: as "
                      "NAME.delta.txt beside NAME.gguf says, else 0,1,2, half way and at 4/5" },
    { "budget", "64", "pages of 16 tokens the other layers read" },
    { "recent", "8", "of these, the last pages" },
    { "sink", "0", "of these, the first pages" },
    { "ratio", "1", "starts when a context has more than ratio * budget pages" },
    { NULL, NULL, NULL },
};

static int read_args(struct delta_args *d, const struct attn_args *args, struct err *err) {
    struct delta_share *s = &d->share;
    if (args_int(args, "budget", 1, PAGES_MAX, &s->budget, err) ||
        args_int(args, "recent", 1, PAGES_MAX, &s->recent, err) ||
        args_int(args, "sink", 0, PAGES_MAX, &s->sink, err) ||
        args_real(args, "ratio", 1, 1e9, &d->ratio, err))
        return -1;
    if (s->recent + s->sink >= s->budget)
        return fail(err, "attention mode delta: recent=%d and sink=%d pages leave nothing to "
                         "choose of budget=%d", s->recent, s->sink, s->budget);
    return 0;
}

/* Layer numbers separated by commas, as marks [n_layers]. */
static int read_layers(unsigned char *mark, int n_layers, const char *text, struct err *err) {
    if (!strcmp(text, "auto")) {
        const int usual[] = { 0, 1, 2, n_layers / 2, 4 * n_layers / 5 };
        for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
            if (usual[i] < n_layers) mark[usual[i]] = FULL;
        return 0;
    }
    for (const char *at = text;; at++) {
        char *end;
        const long n = strtol(at, &end, 10);
        if (end == at || *at < '0' || *at > '9' || (*end && *end != ','))
            return fail(err, "attention mode delta: full=%.64s, want auto or layers "
                             "such as 0,1,2,14,22", text);
        if (n >= n_layers)
            return fail(err, "attention mode delta: full=%.64s names layer %ld, the model has %d",
                        text, n, n_layers);
        mark[n] = FULL;
        if (!*(at = end)) return 0;
    }
}

static int delta_check(const struct attn_args *args, struct err *err) {
    struct delta_args d;
    return read_args(&d, args, err);
}

static void delta_close(struct attn_mode *m) {
    struct delta *d = (struct delta *)m;
    free(d->kind);
    free(d->page);
    free(d->scratch);
    free(d);
}

static int delta_open(struct attn_mode **out, const struct attn_args *args,
                      const struct attn_shape *shape, struct err *err) {
    const int pages = shape->max_tokens / KV_PAGE + 1, n = shape->n_layers;
    struct delta *d = calloc(1, sizeof *d);
    if (!d) return fail(err, "attention mode delta: no memory");
    if (read_args(&d->a, args, err)) goto fail;
    if (shape->max_tokens < 1) {
        fail(err, "attention mode delta has to know how long the context may get");
        goto fail;
    }
    const size_t most = (size_t)(d->a.share.budget < pages ? d->a.share.budget : pages);
    d->base = (struct attn_mode){ .ops = &mode_delta, .max_spans = (int)most };
    d->n_layers = n, d->pos = NO_LIST, d->least = 1;
    if (!(d->kind = calloc((size_t)n, 1)) || !(d->page = malloc(most * sizeof *d->page)) ||
        !(d->scratch = malloc(2 * (size_t)pages * sizeof *d->scratch))) {
        fail(err, "attention mode delta: no memory for lists of %zu pages", most);
        goto fail;
    }
    if (read_layers(d->kind, n, args_text(args, "full"), err)) goto fail;
    if (!d->kind[0]) {
        fail(err, "attention mode delta: full=%.64s lacks layer 0, which has no list to read",
             args_text(args, "full"));
        goto fail;
    }
    for (int l = 0; l + 1 < n; l++)
        if (d->kind[l] && !d->kind[l + 1]) d->kind[l] = SELECTS;
    *out = &d->base;
    return 0;
fail:
    delta_close(&d->base);
    return -1;
}

/* How much of this layer's probability the list before held: of all of it, and of what is neither
 * recent nor in the first page, which every list gets easily. */
static void judge(struct delta *d, const struct attn_masses *m) {
    double held = 0, held_far = 0, far = 0;
    for (int u = 1; u < m->n_pages - d->a.share.recent; u++) far += m->mean[u];
    for (int i = 0; i < d->n_pages; i++) {
        const int u = d->page[i];
        held += m->mean[u];
        if (u >= 1 && u < m->n_pages - d->a.share.recent) held_far += m->mean[u];
    }
    d->judged++;
    d->recall += held;
    d->recall_far += far > 0 ? held_far / far : 1;
    if (held < d->least) d->least = held;
}

static void delta_begin(struct attn_mode *m, const struct attn_call *c) {
    struct delta *d = (struct delta *)m;
    const int pages = c->pos / KV_PAGE + 1;
    if (c->layer == 0 || !c->decode) d->pos = NO_LIST;
    m->want_masses = c->decode && d->kind[c->layer] == SELECTS &&
                     pages > d->a.ratio * d->a.share.budget;
}

static void delta_take(struct attn_mode *m, const struct attn_masses *masses) {
    struct delta *d = (struct delta *)m;
    if (d->pos == masses->pos) judge(d, masses);
    else d->tokens++;
    d->n_pages = delta_choose(d->page, masses->peak, masses->n_pages, &d->a.share, d->scratch);
    d->pos = masses->pos;
    d->lists++;
}

static int delta_select(struct attn_mode *m, const struct attn_block *b, struct attn_span *span) {
    const struct delta *d = (const struct delta *)m;
    if (d->kind[b->layer] || b->n != 1 || d->pos != b->pos) {
        *span = (struct attn_span){ .begin = 0, .end = b->pos + b->n };
        return 1;
    }
    int n = 0;
    for (int i = 0; i < d->n_pages; i++) {
        const int begin = d->page[i] * KV_PAGE, end = begin + KV_PAGE;
        if (n && span[n - 1].end == begin) span[n - 1].end = end;
        else span[n++] = (struct attn_span){ .begin = begin, .end = end };
    }
    return n;
}

static void delta_report(const struct attn_mode *m, attn_figure *fn, void *ctx) {
    const struct delta *d = (const struct delta *)m;
    fn(ctx, "sparse_tokens", (double)d->tokens);
    fn(ctx, "lists", (double)d->lists);
    if (!d->judged) return;
    fn(ctx, "recall", d->recall / (double)d->judged);
    fn(ctx, "recall_far", d->recall_far / (double)d->judged);
    fn(ctx, "recall_min", d->least);
}

const struct attn_ops mode_delta = {
    .name = "delta",
    .about = "decode: a few full layers choose pages of keys, "
             "the layers after them read those (DELTA)",
    .source = "arXiv 2510.09883", .no_prefill = "it attends prompts in full", .keys = keys,
    .open = delta_open, .close = delta_close, .check = delta_check, .select = delta_select,
    .begin = delta_begin, .take_masses = delta_take, .report = delta_report,
};
