#include "tools/common/engine.h"
#include <omp.h>
#include <stdio.h>
#include <string.h>
#include "attention/attention.h"
#include "base/cpu.h"
#include "model/check_tensors.h"

int engine_cache_type(const char *flag, const char *name, enum dtype *out, struct err *err) {
    static const enum dtype known[] = { DT_F32, DT_F16, DT_BF16, DT_Q8_0, DT_Q4_0 };
    const struct dtype_info *d = dtype_by_name(name);
    for (size_t i = 0; d && i < sizeof known / sizeof *known; i++)
        if (known[i] == d->type) { *out = d->type; return 0; }
    return fail(err, "%s: got '%s', wanted f32, f16, bf16, q8_0 or q4_0", flag, name);
}

int engine_check(struct engine *e, const struct engine_args *a, struct err *err) {
    *e = (struct engine){ .args = *a };
    if (!a->model)
        return fail(err, "no MODEL given: wanted a .gguf file "
                         "(models/needle-s.gguf is a small one)");
    if (engine_cache_type("-ctk", a->type_k, &e->type_k, err) ||
        engine_cache_type("-ctv", a->type_v, &e->type_v, err))
        return -1;
    e->kernels = kernels_pick(a->kernels);
    if (!e->kernels)
        return fail(err, "--kernels: got '%s', this CPU runs: %s", a->kernels, kernels_names());
    for (int i = 0; i < a->set.n; i++) {
        struct err why;
        if (gguf_set_check(a->set.item[i], &why)) return fail(err, "--override-kv: %s", why.msg);
    }
    if (a->rope_freq_scale > 0) e->args.rope.factor = 1 / a->rope_freq_scale;
    if (!e->args.threads) e->args.threads = cpu_default_threads();
    if (!e->args.threads_batch) e->args.threads_batch = e->args.threads;
    if (e->args.ubatch < e->args.batch) e->args.batch = e->args.ubatch;
    return 0;
}

int engine_check_attn(const struct engine_args *a, struct err *err) {
    const char *both = a->attn ? a->attn : "full";
    return attn_check_phases(a->attn_prefill ? a->attn_prefill : both,
                             a->attn_decode ? a->attn_decode : both, err);
}

static int set_metadata(struct engine *e, struct err *err) {
    for (int i = 0; i < e->args.set.n; i++) {
        struct err why;
        if (gguf_set(e->file, e->args.set.item[i], &why))
            return fail(err, "%s: --override-kv %s", e->args.model, why.msg);
    }
    return 0;
}

int engine_open(struct engine *e, struct err *err) {
    const struct gguf_options go = { .no_mmap = e->args.no_mmap, .mlock = e->args.mlock };
    const struct model_options mo = { .kernels = e->kernels, .rope = &e->args.rope };
    if (gguf_open(&e->file, e->args.model, &go, err) || set_metadata(e, err) ||
        model_open(&e->model, e->file, &mo, err))
        return -1;
    if (!e->args.no_tokenizer && tok_open(&e->tok, e->file, e->args.tokenizer, err)) return -1;
    if (e->tok && tok_n(e->tok) > e->model->c.n_vocab)
        return fail(err, "%s: the vocabulary has %d pieces, the embedding %d rows", e->args.model,
                    tok_n(e->tok), e->model->c.n_vocab);
    if (gguf_set_unread(e->file))
        return fail(err, "--override-kv %s: %s has no such key, and nothing asks for it",
                    gguf_set_unread(e->file), e->args.model);
    engine_threads_prefill(e);
    return e->args.check_tensors ? check_tensors(e->file, err) : 0;
}

int engine_load(struct engine *e, struct err *err) {
    return e->args.no_repack ? 0 : model_repack(e->model, err);
}

void engine_close(struct engine *e) {
    tok_close(e->tok);
    model_close(e->model);
    gguf_close(e->file);
    e->tok = NULL, e->model = NULL, e->file = NULL;
}

struct session_options engine_session_options(const struct engine *e, int n_ctx) {
    return (struct session_options){ .n_ctx = n_ctx, .batch = e->args.batch,
                                     .type_k = e->type_k, .type_v = e->type_v,
                                     .attn = e->args.attn, .attn_prefill = e->args.attn_prefill,
                                     .attn_decode = e->args.attn_decode };
}

void engine_threads_prefill(const struct engine *e) { omp_set_num_threads(e->args.threads_batch); }
void engine_threads_decode(const struct engine *e) { omp_set_num_threads(e->args.threads); }

const char *human_bytes(char buf[32], double bytes) {
    static const char *const unit[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    int u = 0;
    while (bytes >= 1024 && u < 4) bytes /= 1024, u++;
    snprintf(buf, 32, u && bytes < 100 ? "%.1f %s" : "%.0f %s", bytes, unit[u]);
    return buf;
}

const char *human_count(char buf[32], double n) {
    if (n < 1e6) snprintf(buf, 32, "%.0f K", n / 1e3);
    else if (n < 1e9) snprintf(buf, 32, "%.1f M", n / 1e6);
    else snprintf(buf, 32, "%.2f B", n / 1e9);
    return buf;
}
