#include "tools/common/heads_probe.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "attention/mode.h"
#include "model/sampler.h"

/* Scratch of one KV head. */
struct look {
    float *k;                          /* [k_dim] */
    float *q;                          /* [k_dim][rows] */
    float *score, *best;               /* [rows] */
    int *at;                           /* [rows] where the best is */
};

struct heads_probe {
    const struct model_config *c;
    struct session *s;
    struct heads_probe_options o;
    const struct heads_sample *sample;
    int32_t *held;                     /* tokens the session holds */
    int n_held, held_room, rows_room;
    float *hidden;                     /* [n_answer][n_embd] with nothing narrowed */
    float *logits;                     /* [n_vocab] */
    float *copy;                       /* the caller's */
    struct look *look;                 /* [n_kv_heads] */
    unsigned char *narrow;             /* [n_layers][n_kv_heads] */
};

int heads_probe_open(struct heads_probe **out, const struct model *m, struct session *s, const struct heads_probe_options *o,
                     struct err *err) {
    struct heads_probe *p = calloc(1, sizeof *p);
    if (!p) return fail(err, "no memory");
    p->c = &m->c, p->s = s, p->o = *o;
    p->look = calloc((size_t)p->c->n_kv_heads, sizeof *p->look);
    p->logits = malloc((size_t)p->c->n_vocab * sizeof *p->logits);
    p->narrow = calloc((size_t)p->c->n_layers * (size_t)p->c->n_kv_heads, 1);
    if (!p->look || !p->logits || !p->narrow) {
        heads_probe_close(p);
        return fail(err, "no memory to look into heads");
    }
    *out = p;
    return 0;
}

static void look_free(struct look *l) {
    free(l->k);
    free(l->q);
    free(l->score);
    free(l->best);
    free(l->at);
    *l = (struct look){ 0 };
}

void heads_probe_close(struct heads_probe *p) {
    if (!p) return;
    for (int g = 0; p->look && g < p->c->n_kv_heads; g++) look_free(&p->look[g]);
    free(p->look);
    free(p->held);
    free(p->hidden);
    free(p->logits);
    free(p->narrow);
    free(p);
}

/* Room for samples of n tokens with answers of n_answer. */
static int make_room(struct heads_probe *p, int n, int n_answer, struct err *err) {
    const size_t dim = (size_t)p->c->k_dim, rows = (size_t)n_answer * (size_t)(p->c->n_heads / p->c->n_kv_heads);
    if (n > p->held_room) {
        int32_t *held = realloc(p->held, (size_t)n * sizeof *held);
        if (!held) return fail(err, "no memory for %d tokens", n);
        p->held = held, p->held_room = n;
    }
    if (n_answer <= p->rows_room) return 0;
    free(p->hidden);
    p->rows_room = 0;
    p->hidden = malloc((size_t)n_answer * (size_t)p->c->n_embd * sizeof *p->hidden);
    int rc = p->hidden ? 0 : -1;
    for (int g = 0; g < p->c->n_kv_heads; g++) {
        struct look *l = &p->look[g];
        look_free(l);
        l->k = malloc(dim * sizeof *l->k), l->q = malloc(dim * rows * sizeof *l->q);
        l->score = malloc(rows * sizeof *l->score), l->best = malloc(rows * sizeof *l->best), l->at = malloc(rows * sizeof *l->at);
        if (!l->k || !l->q || !l->score || !l->best || !l->at) rc = -1;
    }
    if (rc) return fail(err, "no memory for an answer of %d tokens", n_answer);
    p->rows_room = n_answer;
    return 0;
}

/* ---- copies: where the query heads of one KV head look hardest ---- */

static void look_at_keys(struct heads_probe *p, const struct attn_call *c, int g) {
    const struct heads_sample *s = p->sample;
    const int group = p->c->n_heads / p->c->n_kv_heads, dim = p->c->k_dim, rows = s->n_answer * group, from = s->prompt - 1;
    struct look *l = &p->look[g];
    for (int r = 0; r < rows; r++) {
        const float *q = c->q + ((size_t)(from + r / group - c->pos) * p->c->n_heads + (size_t)g * group + r % group) * dim;
        for (int i = 0; i < dim; i++) l->q[(size_t)i * rows + r] = q[i];
        l->best[r] = -INFINITY, l->at[r] = -1;
    }
    for (int j = 0; j < c->pos + c->n; j++) {
        const int first = j > from ? (j - from) * group : 0;               /* rows of tokens before j do not see it */
        kv_read(c->kv, c->layer, g, j, l->k, NULL);
        memset(l->score, 0, (size_t)rows * sizeof *l->score);
        for (int i = 0; i < dim; i++)
            for (int r = 0; r < rows; r++) l->score[r] += l->k[i] * l->q[(size_t)i * rows + r];
        for (int r = first; r < rows; r++)
            if (l->score[r] > l->best[r]) l->best[r] = l->score[r], l->at[r] = j;
    }
    for (int r = 0; r < rows; r++) {
        const int at = l->at[r], in_needle = at >= s->needle && at < s->needle + s->n_needle;
        if (in_needle && s->ids[at] == s->ids[s->answer + r / group])
            p->copy[(size_t)c->layer * p->c->n_heads + (size_t)g * group + r % group] += 1.0f / s->n_answer;
    }
}

static void on_call(void *ctx, const struct attn_call *c) {
    struct heads_probe *p = ctx;
    #pragma omp parallel for schedule(dynamic, 1)
    for (int g = 0; g < p->c->n_kv_heads; g++) look_at_keys(p, c, g);
}

/* ---- the tail: question and answer ---- */

/* What the rows of the answer say; moved is left alone. */
static void read_rows(struct heads_probe *p, struct heads_tail *t) {
    const struct heads_sample *s = p->sample;
    t->right = 0, t->log_prob = 0;
    for (int i = 0; i < s->n_answer; i++) {
        const int32_t want = s->ids[s->answer + i];
        session_rows(p->s, s->prompt - 1 - s->tail + i, 1, p->logits);
        const int32_t top = sampler_argmax(p->logits, p->c->n_vocab);
        double sum = 0;
        for (int v = 0; top >= 0 && v < p->c->n_vocab; v++) sum += exp((double)p->logits[v] - p->logits[top]);
        t->right += top == want;
        t->log_prob += top < 0 ? -INFINITY : (double)p->logits[want] - p->logits[top] - log(sum);
    }
    t->log_prob /= s->n_answer;
}

static double moved(const struct heads_probe *p) {
    const struct heads_sample *s = p->sample;
    const float *now = session_hidden(p->s, s->prompt - 1 - s->tail);
    double mean = 0;
    for (int i = 0; i < s->n_answer; i++) {
        const float *a = p->hidden + (size_t)i * p->c->n_embd, *b = now + (size_t)i * p->c->n_embd;
        double apart = 0, size = 0;
        for (int d = 0; d < p->c->n_embd; d++) apart += ((double)a[d] - b[d]) * ((double)a[d] - b[d]), size += (double)a[d] * a[d];
        mean += size > 0 ? apart / size : 0;
    }
    return mean / s->n_answer;
}

static int read_tail(struct heads_probe *p, struct err *err) {
    const struct heads_sample *s = p->sample;
    if (p->o.stop && *p->o.stop) return fail(err, "interrupted");
    if (session_truncate(p->s, s->tail) != s->tail) return fail(err, "the cache cannot go back to token %d", s->tail);
    return session_eval_rows(p->s, s->ids + s->tail, s->n - s->tail, err);
}

int heads_probe_read(struct heads_probe *p, const struct heads_sample *s, float *copy, struct heads_tail *t, struct err *err) {
    int common = 0;
    if (s->n - s->tail > session_batch(p->s))
        return fail(err, "question and answer have %d tokens, a batch %d (-b)", s->n - s->tail, session_batch(p->s));
    if (make_room(p, s->n, s->n_answer, err)) return -1;
    p->sample = s, p->copy = copy;
    session_narrow(p->s, NULL, 0, 0);
    while (common < s->tail && common < p->n_held && p->held[common] == s->ids[common]) common++;
    p->n_held = session_truncate(p->s, common);
    if (session_eval(p->s, s->ids + p->n_held, s->tail - p->n_held, err)) return -1;
    memcpy(p->held, s->ids, (size_t)s->tail * sizeof *s->ids);
    p->n_held = s->tail;

    memset(copy, 0, (size_t)p->c->n_layers * (size_t)p->c->n_heads * sizeof *copy);
    session_observe(p->s, on_call, p);
    const int rc = read_tail(p, err);
    session_observe(p->s, NULL, NULL);
    if (rc) return -1;
    memcpy(p->hidden, session_hidden(p->s, s->prompt - 1 - s->tail), (size_t)s->n_answer * (size_t)p->c->n_embd * sizeof *p->hidden);
    read_rows(p, t);
    t->moved = 0;
    return 0;
}

int heads_probe_narrowed(struct heads_probe *p, const unsigned char *narrow, struct heads_tail *t, struct err *err) {
    session_narrow(p->s, narrow, p->o.sink, p->o.recent);
    const int rc = read_tail(p, err);
    session_narrow(p->s, NULL, 0, 0);
    if (rc) return -1;
    t->moved = moved(p);
    read_rows(p, t);
    return 0;
}

int heads_probe_ablate(struct heads_probe *p, float *harm, struct err *err) {
    const int n = p->c->n_layers * p->c->n_kv_heads;
    int rc = 0;
    for (int i = 0; i < n && !rc; i++) {
        p->narrow[i] = 1;
        session_narrow(p->s, p->narrow, p->o.sink, p->o.recent);
        rc = read_tail(p, err);
        session_narrow(p->s, NULL, 0, 0);
        p->narrow[i] = 0;
        if (rc) break;
        harm[i] = (float)moved(p);
        if (p->o.progress) p->o.progress(p->o.ctx, i + 1, n);
    }
    return rc;
}
