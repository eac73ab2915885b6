#include "attention/hip_params.h"
#include <stdlib.h>
#include <string.h>

static const char *const owners[] = { "kv", "q", "layer", NULL },
                  *const reps[] = { "centre", "first", "last", NULL };

const struct attn_key hip_keys[] = {
    { "k", "1024", "keys the search selects; the authors: 512 (stages=1)" },
    { "window", "256", "recent keys always read, the query's own among them" },
    { "sink", "16", "first keys always read" },
    { "bk", "16", "keys of a selected block: a page of the cache; the authors: 2 (stages=1)" },
    { "sk", "1", "of a block that is judged, every sk-th key is scored (stages=1)" },
    { "bq", "64", "queries that share a mask while prefilling" },
    { "sq", "2", "of these, every sq-th judges (stages=1)" },
    { "rep", "centre", "the block that speaks for a branch: centre, first, last (stages=1)" },
    { "refresh", "8", "decoding steps a mask serves (stages=1)" },
    { "owner", "kv", "who shares a mask: kv (the heads of a KV head), q (nobody), layer" },
    { "dense", "3", "first layers that read everything" },
    { "until", "auto",
      "contexts up to this length read everything; auto: 4 times k + window + sink" },
    { "delta", "0",
      "prefill: every delta-th query reads everything and corrects the ones after it; 0: none" },
    { "stages", "1", "1: one beam search; 3: InfiniteHiP's chain of prunings" },
    { "chunk", "256:32:8", "tokens of a chunk in each stage (stages=3)" },
    { "keep", "32768:8192:2048", "keys each stage keeps (stages=3)" },
    { "every", "16:8:4", "decoding steps the outcome of each stage serves (stages=3)" },
    { NULL, NULL, NULL },
};
static const char *const of_one_stage[] = { "k", "bk", "sk", "sq", "rep", "refresh" },
                  *const of_three_stages[] = { "chunk", "keep", "every" };

static int word(const struct attn_args *args, const char *key, const char *const *words, int *out,
                struct err *err) {
    char list[64] = "";
    for (*out = 0; words[*out]; ++*out) {
        if (!strcmp(words[*out], args_text(args, key))) return 0;
        strcat(strcat(list, *out ? ", " : ""), words[*out]);
    }
    return fail(err, "attention mode hip: %s=%.64s, want one of %s", key, args_text(args, key),
                list);
}

static int three(const struct attn_args *args, const char *key, int *out, struct err *err) {
    const char *at = args_text(args, key);
    for (int i = 0; i < HIP_STAGES; i++) {
        char *end;
        long x = strtol(at, &end, 10);
        if (end == at || *end != (i == HIP_STAGES - 1 ? 0 : ':') || x < 1 || x > 1 << 24)
            return fail(err, "attention mode hip: %s=%.64s, want three whole numbers, "
                             "as in 256:32:8", key, args_text(args, key));
        out[i] = (int)x;
        at = end + 1;
    }
    return 0;
}

/* A parameter of the other search would be silently without effect. */
static int check_foreign(const struct attn_args *args, int stages, struct err *err) {
    const char *const *foreign = stages == 1 ? of_three_stages : of_one_stage;
    size_t n = stages == 1 ? sizeof of_three_stages : sizeof of_one_stage;
    for (size_t i = 0; i < n / sizeof *foreign; i++)
        if (args_given(args, foreign[i]))
            return fail(err, "attention mode hip: %s=%.64s has no meaning with stages=%d",
                        foreign[i], args_text(args, foreign[i]), stages);
    return 0;
}

static int check_beam(const struct hip_params *p, struct err *err) {
    if (p->k % p->bk)
        return fail(err, "attention mode hip: k=%d is no multiple of bk=%d", p->k, p->bk);
    if (p->sk > p->bk)
        return fail(err, "attention mode hip: sk=%d is more than bk=%d", p->sk, p->bk);
    if (p->sq > p->bq)
        return fail(err, "attention mode hip: sq=%d is more than bq=%d", p->sq, p->bq);
    return 0;
}

static int check_chain(const struct hip_params *p, struct err *err) {
    for (int i = 0; i < HIP_STAGES; i++) {
        if (p->chunk[i] < 2 || p->chunk[i] > 4096 || (p->chunk[i] & (p->chunk[i] - 1)))
            return fail(err, "attention mode hip: chunk of %d tokens, want powers of two, "
                             "2 to 4096", p->chunk[i]);
        if (p->keep[i] % p->chunk[i])
            return fail(err, "attention mode hip: keep=%d is no multiple of chunk=%d", p->keep[i],
                        p->chunk[i]);
        if (i && p->chunk[i] > p->chunk[i - 1])
            return fail(err, "attention mode hip: chunk grows from %d to %d", p->chunk[i - 1],
                        p->chunk[i]);
        if (i && p->keep[i] > p->keep[i - 1])
            return fail(err, "attention mode hip: keep grows from %d to %d", p->keep[i - 1],
                        p->keep[i]);
    }
    if (p->window < 2 * p->chunk[0])
        return fail(err, "attention mode hip: window=%d is less than two chunks of %d", p->window,
                    p->chunk[0]);
    if (p->every[0] > p->chunk[0])
        return fail(err, "attention mode hip: every=%d steps is more than chunk=%d: "
                         "some keys would never be seen", p->every[0], p->chunk[0]);
    return 0;
}

int hip_parse(struct hip_params *p, const struct attn_args *args, struct err *err) {
    int owner, rep;
    if (args_int(args, "stages", 1, 3, &p->stages, err)) return -1;
    if (p->stages == 2) return fail(err, "attention mode hip: stages=2, want 1 or 3");
    if (args_int(args, "k", 1, 1 << 20, &p->k, err) ||
        args_int(args, "bk", 1, HIP_SAMPLED, &p->bk, err) ||
        args_int(args, "sk", 1, HIP_SAMPLED, &p->sk, err) ||
        args_int(args, "bq", 1, 1024, &p->bq, err) || args_int(args, "sq", 1, 1024, &p->sq, err) ||
        args_int(args, "window", 1, 1 << 24, &p->window, err) ||
        args_int(args, "sink", 0, 1 << 24, &p->sink, err) ||
        args_int(args, "refresh", 1, 1 << 20, &p->refresh, err) ||
        args_int(args, "dense", 0, 1 << 20, &p->dense, err) ||
        args_int(args, "delta", 0, 1 << 20, &p->delta, err) ||
        word(args, "owner", owners, &owner, err) || word(args, "rep", reps, &rep, err) ||
        three(args, "chunk", p->chunk, err) || three(args, "keep", p->keep, err) ||
        three(args, "every", p->every, err) || check_foreign(args, p->stages, err))
        return -1;
    p->owner = (enum hip_sharing)owner;
    p->rep = (enum hip_rep)rep;
    if (p->window < p->bq)
        return fail(err, "attention mode hip: window=%d is less than bq=%d: "
                         "queries would miss keys between", p->window, p->bq);
    if (p->stages == 1 ? check_beam(p, err) : check_chain(p, err)) return -1;
    p->until = 4 * ((p->stages == 1 ? p->k : p->keep[HIP_STAGES - 1]) + p->window + p->sink);
    if (strcmp(args_text(args, "until"), "auto") &&
        args_int(args, "until", 0, 1 << 30, &p->until, err))
        return -1;
    return 0;
}
