#include "tools/common/needle_timeline.h"
#include <stdlib.h>
#include <string.h>
#include "base/cpu.h"
#include "model/sampler.h"

struct timeline {
    struct engine e;
    struct session_options so;
    struct session *s;
    int32_t *held;                     /* [so.n_ctx], the first n_held are in the session */
    int n_held;
};

int timeline_open(struct timeline **out, const struct engine *e, const struct session_options *so,
                  struct err *err) {
    struct timeline *l = calloc(1, sizeof *l);
    if (!l) return fail(err, "no memory for a session");
    l->e = *e, l->so = *so;
    if (session_open(&l->s, e->model, so, err)) goto fail;
    if (!(l->held = malloc((size_t)so->n_ctx * sizeof *l->held))) {
        fail(err, "no memory for %d tokens", so->n_ctx);
        goto fail;
    }
    *out = l;
    return 0;
fail:
    timeline_close(l);
    return -1;
}

void timeline_close(struct timeline *l) {
    if (!l) return;
    session_close(l->s);
    free(l->held);
    free(l);
}

const struct session *timeline_session(const struct timeline *l) { return l->s; }

/* Back to the first `keep` tokens, or to as many of them as the cache can go back to. */
static int rewind_to(struct timeline *l, int keep, struct err *err) {
    l->n_held = session_truncate(l->s, keep);
    if (l->n_held <= keep) return 0;
    session_close(l->s);
    l->s = NULL, l->n_held = 0;
    return session_open(&l->s, l->e.model, &l->so, err);
}

static int evaluate(struct timeline *l, const int32_t *ids, int n, struct err *err) {
    if (session_eval(l->s, ids, n, err)) return -1;
    memcpy(l->held + l->n_held, ids, (size_t)n * sizeof *ids);
    l->n_held += n;
    return 0;
}

int timeline_prompt(struct timeline *l, const int32_t *ids, int n, bool reuse,
                    struct timeline_cost *cost, struct err *err) {
    int common = 0;
    while (reuse && common < n - 1 && common < l->n_held && l->held[common] == ids[common])
        common++;
    if (rewind_to(l, common, err)) return -1;
    session_keys_reset(l->s);
    engine_threads_prefill(&l->e);
    const int fresh = n - l->n_held;
    const double start = clock_ms();
    if (evaluate(l, ids + l->n_held, fresh, err)) return -1;
    *cost = (struct timeline_cost){ fresh, clock_ms() - start, session_keys_read(l->s) };
    return 0;
}

int timeline_answer(struct timeline *l, int n_predict, char **out, int *predicted,
                    struct timeline_cost *cost, struct err *err) {
    const size_t most = tok_max_piece(l->e.tok) + 16;
    struct tok_stream stream = { .started = true };
    char *text = malloc(((size_t)n_predict + 1) * most + 1);
    size_t used = 0;
    if (!text) return fail(err, "no memory for an answer of %d tokens", n_predict);
    session_keys_reset(l->s);
    engine_threads_decode(&l->e);
    const double start = clock_ms();
    *predicted = 0, *cost = (struct timeline_cost){ 0, 0, -1 };
    for (;;) {
        const int32_t id = sampler_argmax(session_logits(l->s), l->e.model->c.n_vocab);
        if (id < 0) {
            fail(err, "the logits at position %d hold no numbers (broken weights?)", l->n_held - 1);
            goto fail;
        }
        ++*predicted;
        if (tok_is_end(l->e.tok, id)) break;
        used += tok_decode(l->e.tok, &stream, id, false, text + used);
        if (*predicted == n_predict) break;
        if (evaluate(l, &id, 1, err)) goto fail;
        cost->tokens++;
    }
    cost->ms = clock_ms() - start;
    if (cost->tokens) cost->keys_read = session_keys_read(l->s);
    used += tok_flush(&stream, text + used);
    text[used] = 0;
    *out = text;
    return 0;
fail:
    free(text);
    return -1;
}
