#include "tools/common/heads_probe.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "model/sampler.h"

struct heads_probe {
    const struct model_config *c;
    struct session *s;
    struct heads_probe_options o;
    const struct heads_sample *sample;
    int32_t *held;                     /* tokens the session holds */
    int n_held, held_room, rows_room;
    float *hidden;                     /* [n_answer][n_embd] with nothing narrowed */
    float *logits;                     /* [n_vocab] */
    unsigned char *narrow;             /* [n_layers][n_kv_heads] */
};

int heads_probe_open(struct heads_probe **out, const struct model *m, struct session *s,
                     const struct heads_probe_options *o, struct err *err) {
    struct heads_probe *p = calloc(1, sizeof *p);
    if (!p) return fail(err, "no memory");
    p->c = &m->c, p->s = s, p->o = *o;
    p->logits = malloc((size_t)p->c->n_vocab * sizeof *p->logits);
    p->narrow = calloc((size_t)p->c->n_layers * (size_t)p->c->n_kv_heads, 1);
    if (!p->logits || !p->narrow) {
        heads_probe_close(p);
        return fail(err, "no memory to look into heads");
    }
    *out = p;
    return 0;
}

void heads_probe_close(struct heads_probe *p) {
    if (!p) return;
    free(p->held);
    free(p->hidden);
    free(p->logits);
    free(p->narrow);
    free(p);
}

/* Room for samples of n tokens with answers of n_answer. */
static int make_room(struct heads_probe *p, int n, int n_answer, struct err *err) {
    if (n > p->held_room) {
        int32_t *held = realloc(p->held, (size_t)n * sizeof *held);
        if (!held) return fail(err, "no memory for %d tokens", n);
        p->held = held, p->held_room = n;
    }
    if (n_answer <= p->rows_room) return 0;
    free(p->hidden);
    p->rows_room = 0;
    p->hidden = malloc((size_t)n_answer * (size_t)p->c->n_embd * sizeof *p->hidden);
    if (!p->hidden) return fail(err, "no memory for an answer of %d tokens", n_answer);
    p->rows_room = n_answer;
    return 0;
}

void heads_probe_logits(struct heads_probe *p, int i, float *logits) {
    session_rows(p->s, p->sample->prompt - 1 - p->sample->tail + i, 1, logits);
}

/* What the rows of the answer say; moved is left alone. */
static void read_rows(struct heads_probe *p, struct heads_tail *t) {
    const struct heads_sample *s = p->sample;
    t->right = 0, t->log_prob = 0;
    for (int i = 0; i < s->n_answer; i++) {
        const int32_t want = s->ids[s->answer + i];
        heads_probe_logits(p, i, p->logits);
        const int32_t top = sampler_argmax(p->logits, p->c->n_vocab);
        double sum = 0;
        for (int v = 0; top >= 0 && v < p->c->n_vocab; v++)
            sum += exp((double)p->logits[v] - p->logits[top]);
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
        for (int d = 0; d < p->c->n_embd; d++)
            apart += ((double)a[d] - b[d]) * ((double)a[d] - b[d]), size += (double)a[d] * a[d];
        mean += size > 0 ? apart / size : 0;
    }
    return mean / s->n_answer;
}

static int read_tail(struct heads_probe *p, struct err *err) {
    const struct heads_sample *s = p->sample;
    if (p->o.stop && *p->o.stop) return fail(err, "interrupted");
    if (session_truncate(p->s, s->tail) != s->tail)
        return fail(err, "the cache cannot go back to token %d", s->tail);
    return session_eval_rows(p->s, s->ids + s->tail, s->n - s->tail, err);
}

int heads_probe_read(struct heads_probe *p, const struct heads_sample *s, struct heads_tail *t,
                     struct err *err) {
    int common = 0;
    if (s->n - s->tail > session_batch(p->s))
        return fail(err, "question and answer have %d tokens, a batch %d (-b)", s->n - s->tail,
                    session_batch(p->s));
    if (make_room(p, s->n, s->n_answer, err)) return -1;
    p->sample = s;
    while (common < s->tail && common < p->n_held && p->held[common] == s->ids[common]) common++;
    p->n_held = session_truncate(p->s, common);
    if (session_eval(p->s, s->ids + p->n_held, s->tail - p->n_held, err)) return -1;
    memcpy(p->held, s->ids, (size_t)s->tail * sizeof *s->ids);
    p->n_held = s->tail;
    if (read_tail(p, err)) return -1;
    memcpy(p->hidden, session_hidden(p->s, s->prompt - 1 - s->tail),
           (size_t)s->n_answer * (size_t)p->c->n_embd * sizeof *p->hidden);
    read_rows(p, t);
    t->moved = 0;
    return 0;
}

int heads_probe_watch(struct heads_probe *p, attn_observer *fn, void *ctx, struct err *err) {
    session_observe(p->s, fn, ctx);
    const int rc = read_tail(p, err);
    session_observe(p->s, NULL, NULL);
    return rc;
}

int heads_probe_narrowed(struct heads_probe *p, const unsigned char *narrow, struct heads_tail *t,
                         struct err *err) {
    session_narrow(p->s, narrow, p->o.sink, p->o.recent);
    const int rc = read_tail(p, err);
    session_narrow(p->s, NULL, 0, 0);
    if (rc) return -1;
    t->moved = moved(p);
    read_rows(p, t);
    return 0;
}

int heads_probe_ablate(struct heads_probe *p, int unit, float *harm, struct err *err) {
    const int n = p->c->n_layers * p->c->n_kv_heads / unit;
    int rc = 0;
    for (int i = 0; i < n && !rc; i++) {
        unsigned char *heads = p->narrow + (size_t)i * unit;
        memset(heads, 1, (size_t)unit);
        session_narrow(p->s, p->narrow, p->o.sink, p->o.recent);
        rc = read_tail(p, err);
        session_narrow(p->s, NULL, 0, 0);
        memset(heads, 0, (size_t)unit);
        if (rc) break;
        harm[i] = (float)moved(p);
        if (p->o.progress) p->o.progress(p->o.ctx, i + 1, n);
    }
    return rc;
}
