#include "tools/common/heads_calibrate.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "kvcache/kvcache.h"
#include "model/sampler.h"
#include "tools/common/heads_delta.h"
#include "tools/common/heads_layers.h"
#include "tools/common/heads_picture.h"

enum { PLANS_SHOWN = 8, SETTING = 2048 };
static const double WORTHWHILE = 0.85;                     /* of what the best lists could hold */

struct calibration {
    struct heads_ask *ask;
    const struct heads_options *o;
    int n;                             /* layers */
    struct heads_delta *delta;
    int32_t *ids;                      /* [n_ids] the user's text; NULL: none */
    int n_ids;
    int runs;                          /* samples */
    /* [n] harm when the layer sees nothing far: first the sum, then the mean */
    double *weight;
    float *harm;                       /* [n] of one sample */
    /* [n][n] far recall of a layer (column) by the list of another (row); [n] by the best list */
    double *recall, *best;
    unsigned char *full;               /* [n][n] */
    double *kept;                      /* [n] */
    int n_full;                        /* chosen */
};

/* ---- measuring ---- */

static int take_layers(void *ctx, struct heads_probe *p, struct session *session,
                       const struct heads_sample *s, struct err *err) {
    struct calibration *c = ctx;
    (void)session;
    heads_delta_sample(c->delta, s->prompt - 1, 1);
    if (heads_probe_watch(p, heads_delta_observe, c->delta, err) ||
        heads_probe_ablate(p, c->ask->e->model->c.n_kv_heads, c->harm, err))
        return -1;
    for (int l = 0; l < c->n; l++) c->weight[l] += c->harm[l];
    c->runs++;
    return 0;
}

static int read_text(struct calibration *c, struct err *err) {
    char *text = NULL;
    size_t size;
    if (file_read(c->o->text, &text, &size, err)) return -1;
    const int n = tok_encode(c->ask->e->tok, text, size, TOK_BOS, &c->ids, err);
    free(text);
    if (n >= 0) c->n_ids = n;
    return n < 0 ? -1 : 0;
}

static int measure(struct calibration *c, struct err *err) {
    const struct heads_options *o = c->o;
    for (int i = 0; i < o->lengths.n && !o->no_questions; i++)
        if (heads_ask(c->ask, o->lengths.at[i], o->seed, o->samples, take_layers, c, err))
            return -1;
    const int answered = c->runs;
    for (int i = 0; i < o->lengths.n && c->ids; i++)
        if (heads_ask_text(c->ask, c->ids, c->n_ids, o->lengths.at[i], o->samples, take_layers, c,
                           err))
            return -1;
    const struct heads_delta_sums *s = heads_delta_sums(c->delta, err);
    if (!s) return -1;
    if (!s->rows)
        return fail(err, "no question answered and no text long enough: nothing can be said about "
                         "layers (%d of %d questions; --style, --lengths, --text)",
                    answered, c->ask->asked);
    for (int j = 0; j < c->n; j++) {
        c->weight[j] /= c->runs;
        c->best[j] = s->far[j] > 0 ? s->best[j] / s->far[j] : 1;
        for (int i = 0; i <= j; i++) {
            const size_t at = (size_t)i * c->n + j;
            c->recall[at] = s->far[j] > 0 ? s->held[at] / s->far[j] : 1;
        }
    }
    printf("%d layers; %d of %d questions answered, %d stretches of text, %d tokens in all\n"
           "lists of %d pages: the last %d, the first %d, the rest chosen\n",
           c->n, answered, c->ask->asked, c->runs - answered, s->rows, o->share.budget,
           o->share.recent, o->share.sink);
    return 0;
}

/* ---- choosing ---- */

static int choose(struct calibration *c, struct err *err) {
    if (heads_layers(c->full, c->kept, c->recall, c->weight, c->n, err)) return -1;
    c->n_full = c->o->n_full;
    for (int f = 1; f <= c->n && !c->n_full; f++)
        if (c->kept[f - 1] >= c->o->keep || f == c->n) c->n_full = f;
    return 0;
}

static const unsigned char *plan_of(const struct calibration *c, int n_full) {
    return c->full + (size_t)(n_full - 1) * c->n;
}

static void print_plan(const struct calibration *c) {
    const struct heads_delta_sums *s = heads_delta_sums(c->delta, NULL);
    const unsigned char *full = plan_of(c, c->n_full);
    double sum = 0, best = 0;
    printf("\n| layer | far | harm without | own list | best list | reads | recall | lost |\n"
           "|---|---|---|---|---|---|---|---|\n");
    for (int j = 0, from = 0; j < c->n; j++) {
        if (full[j]) from = j;
        printf("| %d | %.3f | %.2e | %.3f | %.3f | ", j, s->far[j] / s->rows, c->weight[j],
               c->recall[(size_t)j * c->n + j], c->best[j]);
        if (full[j]) printf("all | 1.000 | 0.000 |\n");
        else printf("list of %d | %.3f | %.3f |\n", from, c->recall[(size_t)from * c->n + j],
                    fmax(0, s->lost[(size_t)from * c->n + j] / s->rows));
        sum += c->weight[j], best += c->weight[j] * c->best[j];
    }
    const int longest = c->o->lengths.at[c->o->lengths.n - 1], list = KV_PAGE * c->o->share.budget;
    printf("\n| full layers | which | kept | keys read at %d |\n|---|---|---|---|\n", longest);
    for (int f = 1; f <= c->n; f++) {
        if (f > PLANS_SHOWN && f != c->n_full) continue;
        printf("| %d%s |", f, f == c->n_full ? " (chosen)" : "");
        for (int l = 0; l < c->n; l++)
            if (plan_of(c, f)[l]) printf("%c%d", l ? ',' : ' ', l);
        printf(" | %.4f | %.2f |\n", c->kept[f - 1],
               (f + (double)(c->n - f) * list / longest) / c->n);
    }
    if (sum > 0 && best / sum < WORTHWHILE)
        printf("\nEven the best lists of %d pages hold only %.2f of what layers look for far away: "
               "--budget wants to be larger.\n", c->o->share.budget, best / sum);
}

/* ---- the proof: the mode itself, on a fact not seen before ---- */

struct proof {
    struct calibration *c;
    struct session *s;                 /* of mode delta */
    float *full, *sparse;              /* [n_vocab] */
    int32_t *held;                     /* [context] the prompt in the session */
    int n_held;
    int right, right_full, same, tokens;   /* ... foretold by tokens that were decoded */
    double log_prob, log_prob_full, kl, keys;
};

static double log_sum(const float *x, int n, float top) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += exp((double)x[i] - top);
    return top + log(sum);
}

static void weigh(struct proof *p, int32_t want) {
    const int n = p->c->ask->e->model->c.n_vocab;
    const int32_t a = sampler_argmax(p->full, n), b = sampler_argmax(p->sparse, n);
    p->tokens++;
    if (a < 0 || b < 0) { p->kl = NAN; return; }
    const double za = log_sum(p->full, n, p->full[a]), zb = log_sum(p->sparse, n, p->sparse[b]);
    p->right_full += a == want, p->right += b == want, p->same += a == b;
    p->log_prob_full += p->full[want] - za, p->log_prob += p->sparse[want] - zb;
    for (int i = 0; i < n; i++) {
        const double la = p->full[i] - za, lb = p->sparse[i] - zb;
        p->kl += exp(la) * (la - lb);
    }
}

static int take_proof(void *ctx, struct heads_probe *probe, struct session *session,
                      const struct heads_sample *s, struct err *err) {
    struct proof *p = ctx;
    int common = 0;
    (void)session;
    while (common < s->prompt && common < p->n_held && p->held[common] == s->ids[common]) common++;
    p->n_held = 0;
    if (common == s->prompt) common--;                     /* the last one again, for its logits */
    common = session_truncate(p->s, common);
    if (session_eval(p->s, s->ids + common, s->prompt - common, err)) return -1;
    memcpy(p->held, s->ids, (size_t)s->prompt * sizeof *p->held);
    p->n_held = s->prompt;
    session_keys_reset(p->s);
    /* From 1: what the prompt itself foretells was read in full. */
    for (int i = 1; i < s->n_answer; i++) {
        if (session_eval(p->s, s->ids + s->prompt - 1 + i, 1, err)) return -1;
        heads_probe_logits(probe, i, p->full);
        memcpy(p->sparse, session_logits(p->s),
               (size_t)p->c->ask->e->model->c.n_vocab * sizeof *p->sparse);
        weigh(p, s->ids[s->answer + i]);
    }
    p->keys += session_keys_read(p->s) * (s->n_answer - 1);
    return 0;
}

static int prove(struct calibration *c, const char *setting, struct err *err) {
    const struct heads_options *o = c->o;
    const struct engine *e = c->ask->e;
    const int length = o->lengths.at[o->lengths.n - 1];
    const size_t n_vocab = (size_t)e->model->c.n_vocab;
    struct session_options so = engine_session_options(e, length);
    struct proof p = { .c = c, .full = malloc(n_vocab * sizeof *p.full),
                       .sparse = malloc(n_vocab * sizeof *p.sparse),
                       .held = malloc((size_t)length * sizeof *p.held) };
    int rc = -1;
    so.attn = setting, so.attn_prefill = so.attn_decode = NULL, so.stop = c->ask->stop;
    if (!p.full || !p.sparse || !p.held) fail(err, "no memory");
    else if (!session_open(&p.s, e->model, &so, err))
        rc = o->no_questions
                 ? heads_ask_text(c->ask, c->ids, c->n_ids, length, 1, take_proof, &p, err)
                 : heads_ask(c->ask, length, o->seed + o->samples, 1, take_proof, &p, err);
    if (!rc && p.tokens)
        printf("\nIn use, %s, in %d tokens (those the prompt itself foretells left out):\n\n"
               "| attention | tokens right | log-probability | same first choice "
               "| KL from full | keys read |\n"
               "|---|---|---|---|---|---|\n"
               "| full | %d of %d | %.3f | - | - | 1.00 |\n"
               "| delta | %d of %d | %.3f | %d of %d | %.2e | %.2f |\n",
               o->no_questions ? "on the text" : "on a fact not seen before", length, p.right_full,
               p.tokens, p.log_prob_full / p.tokens, p.right, p.tokens, p.log_prob / p.tokens,
               p.same, p.tokens, p.kl / p.tokens, p.keys / p.tokens / length);
    session_close(p.s);
    free(p.full);
    free(p.sparse);
    free(p.held);
    return rc;
}

/* ---- files ---- */

static int write_setting(const char *path, const char *setting, struct err *err) {
    FILE *f = fopen(path, "w");
    if (!f) return fail(err, "%s: %s", path, strerror(errno));
    fprintf(f, "%s\n", setting);
    const int bad = ferror(f);
    return fclose(f) || bad ? fail(err, "%s: %s", path, strerror(errno)) : 0;
}

static int draw(const struct calibration *c, struct err *err) {
    const size_t n = (size_t)c->n;
    const char *model = c->ask->e->args.model, *slash = strrchr(model, '/');
    float *recall = malloc(n * (n + 2) * sizeof *recall), *weight = recall + n * n,
          *full = weight + n;
    double most = 0;
    if (!recall) return fail(err, "no memory for a picture");
    for (size_t j = 0; j < n; j++) most = fmax(most, c->weight[j]);
    for (size_t j = 0; j < n; j++) {
        for (size_t i = 0; i < n; i++)
            recall[j * n + i] = i <= j ? (float)c->recall[i * n + j] : NAN;
        weight[j] = most > 0 ? (float)(c->weight[j] / most) : 0;
        full[j] = plan_of(c, c->n_full)[j];
    }
    const struct heads_panel panel[] = {
        { "far recall with the list of another layer", "layer that chose", c->n, recall },
        { "harm without far keys", "most: 1", 1, weight },
        { "layers that read everything", "1: full", 1, full },
    };
    const int rc = heads_draw(c->o->png, slash ? slash + 1 : model, c->n, panel, 3, err);
    free(recall);
    return rc;
}

static int deliver(struct calibration *c, struct err *err) {
    char setting[SETTING];
    if (choose(c, err)) return -1;
    heads_layers_setting(setting, sizeof setting, plan_of(c, c->n_full), c->n, &c->o->share);
    print_plan(c);
    if (prove(c, setting, err)) return -1;
    printf("\n--attn %s\n", setting);
    if ((c->o->out && write_setting(c->o->out, setting, err)) || (c->o->png && draw(c, err)))
        return -1;
    return fflush(stdout) ? fail(err, "stdout: %s", strerror(errno)) : 0;
}

int heads_calibrate(struct heads_ask *ask, struct err *err) {
    const struct heads_options *o = ask->o;
    const size_t n = (size_t)ask->e->model->c.n_layers;
    struct calibration c = { .ask = ask, .o = o, .n = (int)n };
    int rc = -1;
    if (o->n_full > c.n)
        return fail(err, "--full: got %d, the model has %d layers", o->n_full, c.n);
    c.weight = calloc(n, sizeof *c.weight), c.harm = malloc(n * sizeof *c.harm),
    c.best = malloc(n * sizeof *c.best);
    c.recall = calloc(n * n, sizeof *c.recall), c.full = malloc(n * n),
    c.kept = malloc(n * sizeof *c.kept);
    if (!c.weight || !c.harm || !c.best || !c.recall || !c.full || !c.kept)
        fail(err, "no memory to compare %zu layers", n);
    else if ((!o->text || !read_text(&c, err)) &&
             !heads_delta_open(&c.delta, ask->e->model, &o->share,
                                  o->lengths.at[o->lengths.n - 1], err))
        rc = measure(&c, err) || deliver(&c, err) ? -1 : 0;
    heads_delta_close(c.delta);
    free(c.ids);
    free(c.weight);
    free(c.harm);
    free(c.best);
    free(c.recall);
    free(c.full);
    free(c.kept);
    return rc;
}
