/* mode_moa.c - every query head has a span of its own: the first 64 tokens and a window, whose
 * length grows linearly with the length that is planned for, alpha + beta * length. The two numbers
 * of each head come from a plan that was searched for the model, or are the same for all heads.
 *
 * A KV head keeps what the longest span of its group needs, in a ring; a query head of a shorter
 * span ignores the rest. Spans are laid down when the mode is opened: a text that outgrows the
 * planned length finds them as they are. */
#include "attention/mode.h"
#include "base/file.h"
#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    SINK = 64,             /* first tokens every head sees; a span counts them in */
    SPAN_LEAST = 128, SPAN_STEP = 64,
    LENGTH_MOST = 1 << 28,
};

/* Query heads of one group that share a window, which counts the query's own token. */
struct reach { int window; uint64_t heads; };

struct moa {
    struct attn_mode base;
    int n_layers, n_heads, n_kv_heads, group, max_batch, max_tokens;
    int *span;             /* [n_layers][n_heads] most tokens a query sees, with sinks and itself */
    struct reach *reach;   /* [n_layers][n_kv_heads][group], the widest first */
    int *n_reach;          /* [n_layers][n_kv_heads] */
};

static const struct attn_key keys[] = {
    { "plan", "", "FILE for this model: JSON, \"alphas\" and \"betas\" [layers][query heads]; "
                  "by itself NAME.moa.json beside NAME.gguf; without it all heads are alike" },
    { "alpha", "0", "tokens of a span that do not depend on the length" },
    { "beta", "0.5", "tokens of a span for each token of the length" },
    { "length", "0", "tokens the text is planned to have, answer included; 0: the whole context" },
    { NULL, NULL, NULL },
};

/* ---- Plans ---- */

/* Fills x[rows][columns] from an array of arrays. */
static int read_matrix(double *x, const char *path, const cJSON *plan, const char *name, int rows,
                       int columns, struct err *err) {
    const cJSON *matrix = cJSON_GetObjectItemCaseSensitive(plan, name), *row, *item;
    if (!cJSON_IsArray(matrix)) return fail(err, "%s: no list \"%s\"", path, name);
    const int n = cJSON_GetArraySize(matrix), wide = n ? cJSON_GetArraySize(matrix->child) : 0;
    if (n != rows || wide != columns)
        return fail(err, "%s: \"%s\" is %d x %d, the model has %d layers x %d query heads", path,
                    name, n, wide, rows, columns);
    int at = 0;
    cJSON_ArrayForEach(row, matrix) {
        const int here = cJSON_IsArray(row) ? cJSON_GetArraySize(row) : 0;
        if (here != columns)
            return fail(err, "%s: \"%s\" has %d numbers for layer %d, %d for layer 0", path, name,
                        here, at / columns, columns);
        cJSON_ArrayForEach(item, row) {
            if (!cJSON_IsNumber(item) || !isfinite(item->valuedouble))
                return fail(err, "%s: \"%s\", layer %d, head %d is not a number", path, name,
                            at / columns, at % columns);
            x[at++] = item->valuedouble;
        }
    }
    return 0;
}

static int read_plan(double *alpha, double *beta, const char *path, int n_layers, int n_heads,
                     struct err *err) {
    char *text;
    size_t size;
    if (file_read(path, &text, &size, err)) return -1;
    cJSON *plan = cJSON_ParseWithLength(text, size);
    int rc = cJSON_IsObject(plan)
        ? read_matrix(alpha, path, plan, "alphas", n_layers, n_heads, err) ||
          read_matrix(beta, path, plan, "betas", n_layers, n_heads, err) ? -1 : 0
        : fail(err, "%s: not one JSON object", path);
    cJSON_Delete(plan);
    free(text);
    return rc;
}

/* At most the length, at least two steps, whole steps:
 * in this order, so that a short text may get more than it has. */
static int span_of(double alpha, double beta, int length) {
    const double raw = fmin(trunc(alpha + beta * length), length);
    const int span = raw < SPAN_LEAST ? SPAN_LEAST : (int)raw;
    return (span + SPAN_STEP - 1) / SPAN_STEP * SPAN_STEP;
}

/* ---- The mode ---- */

static int moa_check(const struct attn_args *args, struct err *err) {
    double x;
    int n;
    for (int i = 0; i < 2 && *args_text(args, "plan"); i++)
        if (args_given(args, i ? "beta" : "alpha"))
            return fail(err, "attention mode moa: plan=%.64s and %s=%.64s both say "
                             "how long the spans are", args_text(args, "plan"),
                        i ? "beta" : "alpha", args_text(args, i ? "beta" : "alpha"));
    return args_real(args, "alpha", -LENGTH_MOST, LENGTH_MOST, &x, err) ||
           args_real(args, "beta", -1024, 1024, &x, err) ||
           args_int(args, "length", 0, LENGTH_MOST, &n, err) ? -1 : 0;
}

static void moa_close(struct attn_mode *m) {
    struct moa *s = (struct moa *)m;
    free(s->span);
    free(s->reach);
    free(s->n_reach);
    free(s);
}

/* Sorts the heads of a group by window into its list, and returns how many windows there are. */
static int sort_group(struct reach *list, const int *span, int group) {
    int n = 0;
    for (int h = 0; h < group; h++) {
        const int window = span[h] - SINK;
        int at = 0;
        while (at < n && list[at].window > window) at++;
        if (at == n || list[at].window != window) {
            memmove(list + at + 1, list + at, (size_t)(n++ - at) * sizeof *list);
            list[at] = (struct reach){ window, 0 };
        }
        if (h < 64) list[at].heads |= (uint64_t)1 << h;
    }
    return n;
}

static int lay_spans(struct moa *s, const double *alpha, const double *beta, int length,
                     struct err *err) {
    for (int i = 0; i < s->n_layers * s->n_heads; i++)
        s->span[i] = span_of(alpha[i], beta[i], length);
    for (int i = 0; i < s->n_layers * s->n_kv_heads; i++) {
        const size_t first = (size_t)i * s->group;
        s->n_reach[i] = sort_group(s->reach + first, s->span + first, s->group);
        if (s->n_reach[i] > 1 && s->group > 64)
            return fail(err, "attention mode moa: %d query heads share a KV head, "
                             "spans of their own are for 64 at most", s->group);
    }
    return 0;
}

static int moa_open(struct attn_mode **out, const struct attn_args *args,
                    const struct attn_shape *shape, struct err *err) {
    const size_t heads = (size_t)shape->n_layers * shape->n_heads,
                 kv_heads = (size_t)shape->n_layers * shape->n_kv_heads;
    const char *plan = args_text(args, "plan");
    int rc = -1, length = 0;
    double a = 0, b = 0, *alpha = calloc(heads, sizeof *alpha), *beta = calloc(heads, sizeof *beta);
    struct moa *s = calloc(1, sizeof *s);
    if (!alpha || !beta || !s || !(s->span = calloc(heads, sizeof *s->span)) ||
        !(s->reach = calloc(heads, sizeof *s->reach)) ||
        !(s->n_reach = calloc(kv_heads, sizeof *s->n_reach))) {
        fail(err, "attention mode moa: no memory");
        goto done;
    }
    s->base = (struct attn_mode){ .ops = &mode_moa,
                                  .max_spans = 1 + shape->n_heads / shape->n_kv_heads };
    s->n_layers = shape->n_layers, s->n_heads = shape->n_heads, s->n_kv_heads = shape->n_kv_heads;
    s->group = shape->n_heads / shape->n_kv_heads;
    s->max_batch = shape->max_batch, s->max_tokens = shape->max_tokens;
    if (moa_check(args, err) || args_int(args, "length", 0, LENGTH_MOST, &length, err) ||
        args_real(args, "alpha", -LENGTH_MOST, LENGTH_MOST, &a, err) ||
        args_real(args, "beta", -1024, 1024, &b, err))
        goto done;
    if (!length) length = shape->max_tokens > LENGTH_MOST ? LENGTH_MOST : shape->max_tokens;
    if (!length) {
        fail(err, "attention mode moa wants length=N, the tokens that are planned for: "
                  "no context size is known");
        goto done;
    }
    if (shape->max_tokens > length)
        s->base.warning = "moa: the context is longer than the length its spans are planned for";
    for (size_t i = 0; i < heads; i++) alpha[i] = a, beta[i] = b;
    if ((*plan && read_plan(alpha, beta, plan, shape->n_layers, shape->n_heads, err)) ||
        lay_spans(s, alpha, beta, length, err))
        goto done;
    *out = &s->base;
    s = NULL;
    rc = 0;
done:
    free(alpha);
    free(beta);
    if (s) moa_close(&s->base);
    return rc;
}

static int moa_select(struct attn_mode *m, const struct attn_block *b, struct attn_span *span) {
    const struct moa *s = (const struct moa *)m;
    const size_t i = (size_t)b->layer * s->n_kv_heads + b->kv_head;
    const struct reach *reach = s->reach + i * s->group;
    const int end = b->pos + b->n, n = s->n_reach[i];
    span[0] = (struct attn_span){ .begin = 0, .end = end < SINK ? end : SINK };
    for (int r = 0; r < n; r++) {
        const int from = b->pos + 1 - reach[r].window;
        span[1 + r] = (struct attn_span){ .begin = from > 0 ? from : 0, .end = end,
                                          .window = reach[r].window,
                                          .heads = n > 1 ? reach[r].heads : 0 };
    }
    return 1 + n;
}

static struct kv_store moa_store(const struct attn_mode *m, int layer, int kv_head) {
    const struct moa *s = (const struct moa *)m;
    const int widest = s->reach[((size_t)layer * s->n_kv_heads + kv_head) * s->group].window;
    if (s->max_tokens && SINK + widest >= s->max_tokens)   /* sees all there can be */
        return (struct kv_store){ 0 };
    return (struct kv_store){ .ring = 1, .sink = SINK, .recent = widest - 1,
                              .slack = s->max_batch };
}

/* Tokens of the mean span of a query head, and of what a KV head keeps for its group. */
static void moa_report(const struct attn_mode *m, attn_figure *fn, void *ctx) {
    const struct moa *s = (const struct moa *)m;
    double spans = 0, kept = 0;
    const int heads = s->n_layers * s->n_heads, kv_heads = s->n_layers * s->n_kv_heads;
    for (int i = 0; i < heads; i++) spans += s->span[i];
    for (int i = 0; i < kv_heads; i++) kept += SINK + s->reach[(size_t)i * s->group].window;
    fn(ctx, "mean_span", spans / heads);
    fn(ctx, "mean_kept", kept / kv_heads);
}

const struct attn_ops mode_moa = {
    .name = "moa",
    .about = "each query head has a span of its own, planned for the length of the text (MoA)",
    .source = "arXiv 2406.14909", .keys = keys, .check = moa_check, .open = moa_open,
    .close = moa_close, .select = moa_select, .store = moa_store, .report = moa_report,
};
