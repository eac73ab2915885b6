#include "model/session_internal.h"
#include <stdlib.h>
#include <string.h>
#include "attention/args.h"
#include "model/beside.h"

enum { BATCH_DEFAULT = 512 };

/* The name of the mode a file was trained with, alone, means it with the file's own parameters.
 * Others take what lies beside the file. */
static const char *meant(char buf[ATTN_ARGS_MAX], const char *attn, const char *trained,
                         const struct model *m) {
    const size_t n = trained ? strcspn(trained, ",") : 0;
    return n && !strncmp(attn, trained, n) && !attn[n]
         ? trained : beside_attn(buf, ATTN_ARGS_MAX, attn, gguf_path(m->file));
}

int session_open(struct session **out, const struct model *m, const struct session_options *o,
                 struct err *err) {
    const struct model_config *c = &m->c;
    struct session *s = calloc(1, sizeof *s);
    double magnitude, *freq = malloc((size_t)c->rope.n_rot / 2 * sizeof *freq);
    if (!s || !freq) { free(s), free(freq); return fail(err, "no memory for a session"); }
    rope_freqs(&c->rope, freq, &magnitude);
    s->m = m, s->o = *o;
    if (!s->o.batch) s->o.batch = BATCH_DEFAULT;
    if (s->o.batch > s->o.n_ctx) s->o.batch = s->o.n_ctx;
    const char *trained = *c->attn ? c->attn : NULL,
               *attn = o->attn ? o->attn : trained ? trained : "full";
    const struct attn_shape shape = {
        .n_layers = c->n_layers, .n_heads = c->n_heads, .n_kv_heads = c->n_kv_heads,
        .k_dim = c->k_dim, .v_dim = c->v_dim, .max_batch = s->o.batch, .max_tokens = o->n_ctx,
        .trained = trained, .rope_freq = freq, .n_rot = c->rope.n_rot,
        .rope_split = c->arch->rope_split, .scale = c->attn_scale };
    if (o->n_ctx < 1) { fail(err, "context of %d tokens, wanted at least 1", o->n_ctx); goto fail; }
    char prefill[ATTN_ARGS_MAX], decode[ATTN_ARGS_MAX];
    if (attn_open_phases(&s->attn,
                         meant(prefill, o->attn_prefill ? o->attn_prefill : attn, trained, m),
                         meant(decode, o->attn_decode ? o->attn_decode : attn, trained, m),
                         &shape, m->kernels, err))
        goto fail;
    const struct kv_shape kv = { .n_layers = c->n_layers, .n_kv_heads = c->n_kv_heads,
                                 .k_dim = c->k_dim, .v_dim = c->v_dim, .type_k = o->type_k,
                                 .type_v = o->type_v, .stores = attn_stores(s->attn) };
    if (kv_open(&s->kv, &kv, err) || forward_open(&s->f, m, s->o.batch, err)) goto fail;
    if (!(s->logits = malloc((size_t)c->n_vocab * sizeof *s->logits))) {
        fail(err, "no memory for logits");
        goto fail;
    }
    free(freq);
    *out = s;
    return 0;
fail:
    free(freq);
    session_close(s);
    return -1;
}

void session_close(struct session *s) {
    if (!s) return;
    forward_close(s->f);
    attn_close(s->attn);
    kv_close(s->kv);
    free(s->logits);
    free(s->ids);
    free(s);
}

static int check_room(const struct session *s, int n, struct err *err) {
    if (n > s->o.n_ctx - s->pos)
        return fail(err, "context full: %d tokens so far and %d more do not fit %d (-c sets it)",
                    s->pos, n, s->o.n_ctx);
    return 0;
}

static int check_tokens(const struct session *s, const int32_t *ids, int n, struct err *err) {
    if (check_room(s, n, err)) return -1;
    for (int i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= s->m->c.n_vocab)
            return fail(err, "token %d is %d, wanted 0 to %d", i, (int)ids[i], s->m->c.n_vocab - 1);
    return 0;
}

int session_grow(struct session *s, int n, struct err *err) {
    if (s->pos + n <= s->max_ids) return 0;
    const int max = s->pos + n > 2 * s->max_ids ? s->pos + n : 2 * s->max_ids;
    int32_t *ids = realloc(s->ids, (size_t)max * sizeof *ids);
    if (!ids) return fail(err, "no memory for the list of %d tokens", max);
    s->ids = ids, s->max_ids = max;
    return 0;
}

static int run_chunk(struct session *s, const int32_t *ids, int n, int n_out, struct err *err) {
    if (s->o.stop && *s->o.stop) return fail(err, "interrupted");
    if (session_grow(s, n, err) || kv_reserve(s->kv, s->pos + n, err)) return -1;
    memcpy(s->ids + s->pos, ids, (size_t)n * sizeof *ids);
    forward_run(s->f, s->kv, s->attn, ids, s->pos, n, n_out);
    s->pos += n;
    return 0;
}

int session_eval(struct session *s, const int32_t *ids, int n, struct err *err) {
    if (check_tokens(s, ids, n, err)) return -1;
    attn_phase(s->attn, n > 1 ? ATTN_PREFILL : ATTN_DECODE);
    for (int done = 0; done < n;) {
        const int now = n - done < s->o.batch ? n - done : s->o.batch;
        const bool last = done + now == n;
        if (run_chunk(s, ids + done, now, last, err)) return -1;
        done += now;
        if (s->o.progress && n > 1) s->o.progress(s->o.progress_ctx, done, n);
    }
    if (n) forward_logits(s->f, 0, 1, s->logits);
    s->any = s->any || n;
    return 0;
}

int session_eval_rows(struct session *s, const int32_t *ids, int n, struct err *err) {
    if (n > s->o.batch) return fail(err, "%d rows wanted at once, a chunk has %d", n, s->o.batch);
    attn_phase(s->attn, ATTN_PREFILL);
    if (check_tokens(s, ids, n, err) || run_chunk(s, ids, n, n, err)) return -1;
    if (n) forward_logits(s->f, n - 1, 1, s->logits);
    s->any = s->any || n;
    return 0;
}

int session_fill(struct session *s, int n, session_fill_fn fill, void *ctx, struct err *err) {
    const struct model_config *c = &s->m->c;
    if (check_room(s, n, err) || session_grow(s, n, err) || kv_reserve(s->kv, s->pos + n, err))
        return -1;
    for (int i = 0; i < n; i++) s->ids[s->pos + i] = -1;
    const size_t batch = (size_t)s->o.batch, heads = (size_t)c->n_kv_heads;
    float *k = malloc(batch * heads * (size_t)(c->k_dim + c->v_dim) * sizeof *k);
    if (!k) return fail(err, "no memory for a chunk of keys and values");
    float *v = k + batch * heads * (size_t)c->k_dim;
    while (n > 0) {
        const int now = n < s->o.batch ? n : s->o.batch;
        for (int l = 0; l < c->n_layers; l++) {
            fill(ctx, l, s->pos, now, k, v);
            kv_append(s->kv, l, s->pos, now, k, v);
        }
        s->pos += now, n -= now;
    }
    free(k);
    return 0;
}

void session_rows(struct session *s, int first, int n, float *logits) {
    forward_logits(s->f, first, n, logits);
}
const float *session_hidden(const struct session *s, int first) {
    return forward_hidden(s->f, first);
}
int session_batch(const struct session *s) { return s->o.batch; }

const float *session_logits(const struct session *s) { return s->any ? s->logits : NULL; }
int session_pos(const struct session *s) { return s->pos; }

int session_truncate(struct session *s, int pos) {
    if (pos < s->pos) s->pos = kv_truncate(s->kv, pos);
    return s->pos;
}

size_t session_kv_bytes(const struct session *s) { return kv_bytes(s->kv); }
size_t session_scratch_bytes(const struct session *s) {
    return forward_bytes(s->f) + attn_scratch_bytes(s->attn) +
           (size_t)s->m->c.n_vocab * sizeof(float);
}
size_t session_kv_bytes_at(const struct session *s, int n_tokens) {
    return kv_bytes_at(kv_shape(s->kv), n_tokens);
}
double session_token_kv_bytes(const struct session *s) {
    const struct kv_shape *k = kv_shape(s->kv);
    const size_t page = tile_k_bytes(k->type_k, k->k_dim) + tile_v_bytes(k->type_v, k->v_dim);
    return (double)page * k->n_layers * k->n_kv_heads / KV_PAGE;
}
const char *session_attn_warning(const struct session *s) { return attn_warning(s->attn); }
const char *session_attn_name(const struct session *s) { return attn_name(s->attn); }
const char *session_attn_params(const struct session *s) { return attn_params(s->attn); }

void session_observe(struct session *s, attn_observer *fn, void *ctx) {
    attn_observe(s->attn, fn, ctx);
}
void session_narrow(struct session *s, const unsigned char *narrow, int sink, int recent) {
    attn_narrow(s->attn, narrow, sink, recent);
}

void session_report(const struct session *s, attn_figure *fn, void *ctx) {
    attn_report(s->attn, fn, ctx);
}

double session_keys_read(const struct session *s) {
    uint64_t keys, queries;
    attn_counters(s->attn, &keys, &queries);
    return queries > s->queries0 ? (double)(keys - s->keys0) / (double)(queries - s->queries0) : 0;
}

double session_keys_searched(const struct session *s) {
    const struct model_config *c = &s->m->c;
    uint64_t keys, queries;
    attn_counters(s->attn, &keys, &queries);
    const double asked = (double)(queries - s->queries0) / (c->n_heads / c->n_kv_heads);
    return asked > 0 ? (double)(attn_searched(s->attn) - s->searched0) / asked : 0;
}

void session_keys_reset(struct session *s) {
    attn_counters(s->attn, &s->keys0, &s->queries0);
    s->searched0 = attn_searched(s->attn);
}
