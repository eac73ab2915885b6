#include "model/sampler.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/rand.h"

struct candidate { float logit; int32_t id; };

struct sampler {
    struct sampler_options o;
    int n_vocab;
    struct rand rng;
    struct candidate *c;           /* [n_vocab] */
    double *p;                     /* [n_vocab] */
    int32_t *recent;               /* ring of the last accepted tokens */
    int n_recent, size_recent, at;
    uint8_t *seen;                 /* [n_vocab] scratch of the penalty */
};

int sampler_open(struct sampler **out, int n_vocab, const struct sampler_options *o,
                 struct err *err) {
    struct sampler *s = calloc(1, sizeof *s);
    if (!s) return fail(err, "no memory for a sampler");
    s->o = *o, s->n_vocab = n_vocab, s->rng.s = o->seed;
    s->size_recent = o->repeat_last_n < 0 ? 1 << 20 : o->repeat_last_n;
    s->c = malloc((size_t)n_vocab * sizeof *s->c);
    s->p = malloc((size_t)n_vocab * sizeof *s->p);
    s->seen = calloc((size_t)n_vocab, 1);
    s->recent = malloc(((size_t)s->size_recent + 1) * sizeof *s->recent);
    if (!s->c || !s->p || !s->seen || !s->recent) {
        sampler_close(s);
        return fail(err, "no memory for a sampler of %d tokens", n_vocab);
    }
    *out = s;
    return 0;
}

void sampler_close(struct sampler *s) {
    if (!s) return;
    free(s->c);
    free(s->p);
    free(s->seen);
    free(s->recent);
    free(s);
}

void sampler_accept(struct sampler *s, int32_t id) {
    if (!s->size_recent) return;
    s->recent[s->at] = id;
    s->at = (s->at + 1) % s->size_recent;
    if (s->n_recent < s->size_recent) s->n_recent++;
}

/* Uniform in [0, 1), 53 bits. */
static double uniform(struct sampler *s) {
    return (double)(rand_u64(&s->rng) >> 11) * 0x1p-53;
}

int32_t sampler_argmax(const float *logits, int n_vocab) {
    int best = -1;
    for (int i = 0; i < n_vocab; i++)
        if (!isnan(logits[i]) && (best < 0 || logits[i] > logits[best])) best = i;
    return best;
}

/* Highest logit first; the lower id among equals, so that the order is one. */
static int better(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* Divides positive logits of recent tokens by the penalty and multiplies negative
 * ones (Keskar et al. 2019). */
static void penalise(struct sampler *s) {
    if (s->o.repeat_penalty == 1 || !s->n_recent) return;
    for (int i = 0; i < s->n_recent; i++)
        if (s->recent[i] >= 0 && s->recent[i] < s->n_vocab) s->seen[s->recent[i]] = 1;
    for (int i = 0; i < s->n_vocab; i++)
        if (s->seen[i])
            s->c[i].logit *= (float)(s->c[i].logit > 0 ? 1 / s->o.repeat_penalty
                                                       : s->o.repeat_penalty);
    for (int i = 0; i < s->n_recent; i++)
        if (s->recent[i] >= 0 && s->recent[i] < s->n_vocab) s->seen[s->recent[i]] = 0;
}

/* Moves the k best to the front, sorted: a sort of all only when k is a large share. */
static void sort_best(struct candidate *c, int n, int k) {
    if (k < n / 8) {                            /* a heap of the k best, the worst of them on top */
        for (int i = 0; i < n; i++) {
            int at = i;
            if (i >= k) {
                if (better(&c[i], &c[0]) >= 0) continue;
                struct candidate t = c[0]; c[0] = c[i]; c[i] = t;
                for (int p = 0, q; (q = 2 * p + 1) < k; p = q) {
                    if (q + 1 < k && better(&c[q + 1], &c[q]) > 0) q++;
                    if (better(&c[q], &c[p]) <= 0) break;
                    t = c[p]; c[p] = c[q]; c[q] = t;
                }
                continue;
            }
            while (at && better(&c[at], &c[(at - 1) / 2]) > 0) {
                struct candidate t = c[at]; c[at] = c[(at - 1) / 2]; c[(at - 1) / 2] = t;
                at = (at - 1) / 2;
            }
        }
        qsort(c, (size_t)k, sizeof *c, better);
    } else qsort(c, (size_t)n, sizeof *c, better);
}

int32_t sampler_next(struct sampler *s, const float *logits) {
    int n = 0;
    for (int i = 0; i < s->n_vocab; i++)
        s->c[n++] = (struct candidate){ isnan(logits[i]) ? -INFINITY : logits[i], i };
    penalise(s);
    if (s->o.temp <= 0) {
        int best = 0;
        for (int i = 1; i < n; i++)
            if (s->c[i].logit > s->c[best].logit) best = i;
        return s->c[best].logit == -INFINITY ? -1 : s->c[best].id;
    }
    const int k = s->o.top_k > 0 && s->o.top_k < n ? s->o.top_k : n;
    sort_best(s->c, n, k);
    n = k;
    const double top = s->c[0].logit;
    if (isinf(top)) return top > 0 ? s->c[0].id : -1;

    if (s->o.top_p < 1) {                   /* the fewest holding top_p of the mass, at least one */
        double sum = 0, run = 0;
        for (int i = 0; i < n; i++) sum += s->p[i] = exp(s->c[i].logit - top);
        for (int i = 0; i < n; i++)
            if ((run += s->p[i]) >= s->o.top_p * sum) { n = i + 1; break; }
    }
    if (s->o.min_p > 0) {                   /* at least min_p of the best one's probability */
        const double least = top + log(s->o.min_p);
        while (n > 1 && s->c[n - 1].logit < least) n--;
    }
    double sum = 0;
    for (int i = 0; i < n; i++) sum += s->p[i] = exp((s->c[i].logit - top) / s->o.temp);
    double r = uniform(s) * sum;
    for (int i = 0; i < n - 1; i++)
        if ((r -= s->p[i]) < 0) return s->c[i].id;
    return s->c[n - 1].id;
}
