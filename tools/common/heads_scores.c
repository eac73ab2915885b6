#include "tools/common/heads_scores.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "attention/heads.h"
#include "tools/common/heads_copy.h"
#include "tools/common/heads_local.h"
#include "tools/common/heads_picture.h"
#include "tools/common/heads_table.h"

static const double RETRIEVAL = 0.1;               /* Wu et al.: a head above is a retrieval head */

struct search {
    struct heads_ask *ask;
    const struct heads_options *o;
    struct heads_table table;
};

static int take_scores(void *ctx, struct heads_probe *p, struct session *session,
                       const struct heads_sample *s, struct err *err) {
    struct search *h = ctx;
    const struct model *m = h->ask->e->model;
    struct heads_run run;
    if (heads_table_add(&h->table, &run, err) || heads_copy(p, m, s, run.copy, err) ||
        heads_local(p, m, session, s, h->o->sink, h->o->recent, run.local, err))
        return -1;
    return h->o->no_ablation ? 0 : heads_probe_ablate(p, 1, run.harm, err);
}

/* ---- what comes of them ---------------------------------------------------------------------- */

struct verdict {
    int n;                             /* KV heads of the model */
    int n_retrieval;                   /* with a copy score above RETRIEVAL */
    float *copy, *value;               /* [n] */
    float *harm, *rank, *local, *local_rank;
};

static void judge(const struct search *h, struct verdict *v) {
    heads_table_copy(&h->table, v->copy);
    heads_table_mean(&h->table, h->table.harm, v->harm);
    heads_table_rank(&h->table, h->table.harm, v->rank);
    heads_table_mean(&h->table, h->table.local, v->local);
    heads_table_rank(&h->table, h->table.local, v->local_rank);
    for (int i = 0; i < v->n; i++) {
        const float of[] = { (v->copy[i] + v->rank[i]) / 2, v->copy[i], v->rank[i],
                             v->local_rank[i] };
        v->value[i] = of[h->o->score];
        v->n_retrieval += v->copy[i] > RETRIEVAL;
    }
}

static const char *percent_name(char buf[32], double ratio) {
    snprintf(buf, 32, "the best %g %%", 100 * ratio);
    return buf;
}

/* What two ways agree on: k heads are expected at the top. */
static void print_agreement(const char *names, const float *a, const float *b, int n, int k) {
    printf("%s: rank correlation %.3f", names, heads_agree(a, b, n));
    if (k) printf(", %d of the first %d the same", heads_shared(a, b, n, k), k);
    putchar('\n');
}

static void print_heads(const struct search *h, const struct verdict *v) {
    const struct heads_table *t = &h->table;
    const int most = h->o->top < v->n ? h->o->top : v->n;
    printf("%d layers, %d query heads on %d KV heads; %d of %d questions answered\n\n",
           t->n_layers, t->n_heads, t->n_kv_heads, t->n_runs, h->ask->asked);
    printf("| rank | layer | KV head | copy score | harm | harm rank "
           "| local harm | local rank | written |\n"
           "|---|---|---|---|---|---|---|---|---|\n");
    for (int place = 0; place < most; place++)
        for (int i = 0; i < v->n; i++) {
            int before = 0;
            for (int j = 0; j < v->n; j++)
                before += v->value[j] > v->value[i] || (v->value[j] == v->value[i] && j < i);
            if (before != place) continue;
            printf("| %d | %d | %d | %.3f | ", place + 1, i / t->n_kv_heads, i % t->n_kv_heads,
                   v->copy[i]);
            if (h->o->no_ablation) printf("- | - | ");
            else printf("%.2e | %.3f | ", v->harm[i], v->rank[i]);
            printf("%.2e | %.3f | %.3f |\n", v->local[i], v->local_rank[i], v->value[i]);
        }
    printf("\nretrieval heads (copy score above %g): %d of %d KV heads:", RETRIEVAL,
           v->n_retrieval, v->n);
    for (int i = 0; i < v->n; i++)
        if (v->copy[i] > RETRIEVAL) printf(" %d-%d", i / t->n_kv_heads, i % t->n_kv_heads);
    putchar('\n');
    print_agreement("copy test and local harm", v->copy, v->local_rank, v->n, v->n_retrieval);
    if (!h->o->no_ablation) {
        print_agreement("copy test and ablation", v->copy, v->rank, v->n, v->n_retrieval);
        print_agreement("local harm and ablation", v->local_rank, v->rank, v->n, v->n_retrieval);
        printf("ablation, one half of the runs and the other: rank correlation %.3f\n",
               heads_table_split_half(t, t->harm));
    }
    printf("local harm, one half of the runs and the other: rank correlation %.3f\n",
           heads_table_split_half(t, t->local));
}

/* ---- the proof: facts not seen before, with many heads narrowed at once ---------------------- */

enum { PROOFS = 6 };

struct proof {
    const char *name;
    unsigned char *narrow;             /* [n]; NULL: this one is not run */
    double right, moved, log_prob;     /* sums */
    int runs, tokens;
};

static int take_proofs(void *ctx, struct heads_probe *p, struct session *session,
                       const struct heads_sample *s, struct err *err) {
    struct proof *proof = ctx;
    (void)session;
    for (int i = 0; i < PROOFS; i++) {
        struct heads_tail t;
        if (!proof[i].narrow) continue;
        if (heads_probe_narrowed(p, proof[i].narrow, &t, err)) return -1;
        proof[i].right += t.right, proof[i].moved += t.moved, proof[i].log_prob += t.log_prob;
        proof[i].runs++, proof[i].tokens += s->n_answer;
    }
    return 0;
}

static int prove(struct search *h, const struct verdict *v, struct err *err) {
    static const double ratios[] = { 1, 0.75, 0.5, 0.25 };
    struct proof proof[PROOFS] = { { .name = "all" } };
    char name[PROOFS][32];
    const int length = h->o->lengths.at[h->o->lengths.n - 1];
    unsigned char *narrow = calloc((size_t)v->n, PROOFS);
    if (!narrow) return fail(err, "no memory");
    for (int i = 0; i < PROOFS; i++) {
        unsigned char *full = narrow + (size_t)i * v->n;
        if (i >= 4 && (!v->n_retrieval || v->n_retrieval == v->n)) continue;
        if (i < 4) heads_choose(full, v->value, v->n, ratios[i]);
        else
            for (int j = 0; j < v->n; j++) full[j] = (v->copy[j] > RETRIEVAL) == (i == 4);
        for (int j = 0; j < v->n; j++) full[j] = !full[j];
        proof[i].narrow = full;
        proof[i].name = i == 0 ? "all" :
                        i < 4 ? percent_name(name[i], ratios[i]) :
                        i == 4 ? "the retrieval heads" : "all but the retrieval heads";
    }
    const int rc = heads_ask(h->ask, length, h->o->seed + h->o->samples, 1, take_proofs, proof,
                             err);
    if (!rc && proof[0].runs) {
        printf("\nA fact not seen before, in %d tokens; the other heads see %d + %d tokens "
               "while it is asked for:\n\n"
               "| KV heads that see everything | tokens right | log-probability | moved |\n"
               "|---|---|---|---|\n",
               length, h->o->sink, h->o->recent);
        for (int i = 0; i < PROOFS; i++)
            if (proof[i].narrow)
                printf("| %s | %.0f of %d | %.3f | %.2e |\n", proof[i].name, proof[i].right,
                       proof[i].tokens, proof[i].log_prob / proof[i].runs,
                       proof[i].moved / proof[i].runs);
    }
    free(narrow);
    return rc;
}

/* ---- files ----------------------------------------------------------------------------------- */

/* The mean copy score of every query head, to be freed; NULL: no memory. */
static float *query_scores(const struct heads_table *t) {
    float *copy = calloc((size_t)t->n_layers * (size_t)t->n_heads, sizeof *copy);
    if (copy) heads_table_query_copy(t, copy);
    return copy;
}

static int write_plan(const struct search *h, struct err *err) {
    const struct heads_table *t = &h->table;
    float *copy = query_scores(t);
    if (!copy) return fail(err, "no memory for a plan");
    const int rc = heads_write_plan(h->o->moa, copy, t->n_layers, t->n_heads, RETRIEVAL,
                                    h->o->sink + h->o->recent, err);
    free(copy);
    return rc;
}

static int draw(const struct search *h, const struct verdict *v, struct err *err) {
    const struct heads_table *t = &h->table;
    const char *model = h->ask->e->args.model, *slash = strrchr(model, '/');
    float *copy = query_scores(t);
    if (!copy) return fail(err, "no memory for a picture");
    const struct heads_panel panel[] = {
        { "copy score of the query heads", "query head", t->n_heads, copy },
        { "rank of the local harm", "KV head", t->n_kv_heads, v->local_rank },
        { "the score written", "KV head", t->n_kv_heads, v->value },
        { "rank of the harm of narrowing", "KV head", t->n_kv_heads, v->rank },
    };
    const int rc = heads_draw(h->o->png, slash ? slash + 1 : model, t->n_layers, panel,
                              h->o->no_ablation ? 3 : 4, err);
    free(copy);
    return rc;
}

static int deliver(struct search *h, struct err *err) {
    const struct heads_table *t = &h->table;
    struct verdict v = { .n = t->n_layers * t->n_kv_heads };
    int rc = -1;
    v.copy = calloc((size_t)v.n * 6, sizeof *v.copy);
    if (!v.copy) return fail(err, "no memory");
    v.value = v.copy + v.n, v.harm = v.value + v.n, v.rank = v.harm + v.n,
    v.local = v.rank + v.n, v.local_rank = v.local + v.n;
    judge(h, &v);
    print_heads(h, &v);
    if ((!h->o->no_ablation && prove(h, &v, err)) ||
        (h->o->out && heads_write_tsv(h->o->out, v.value, t->n_layers, t->n_kv_heads, err)) ||
        (h->o->json && heads_write_json(h->o->json, t, err)) ||
        (h->o->moa && write_plan(h, err)) || (h->o->png && draw(h, &v, err)))
        goto done;
    rc = fflush(stdout) ? fail(err, "stdout: %s", strerror(errno)) : 0;
done:
    free(v.copy);
    return rc;
}

int heads_scores(struct heads_ask *ask, struct err *err) {
    const struct heads_options *o = ask->o;
    const struct model_config *c = &ask->e->model->c;
    struct search h = { .ask = ask, .o = o,
                        .table = { .n_layers = c->n_layers, .n_heads = c->n_heads,
                                   .n_kv_heads = c->n_kv_heads } };
    int rc = 0;
    for (int i = 0; i < o->lengths.n && !rc; i++)
        rc = heads_ask(ask, o->lengths.at[i], o->seed, o->samples, take_scores, &h, err);
    if (!rc && !ask->asked)
        rc = fail(err, "at no length and depth does the needle lie beyond the first %d tokens "
                       "and the last %d (--lengths, --depths, --sink, --recent)",
                  o->sink, o->recent);
    if (!rc && !h.table.n_runs)
        rc = fail(err, "the model answers none of the %d questions: nothing can be said about "
                       "its heads (--style, --lengths)", ask->asked);
    if (!rc) rc = deliver(&h, err);
    heads_table_free(&h.table);
    return rc;
}
