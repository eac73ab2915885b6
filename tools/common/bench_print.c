#include "tools/common/bench_print.h"
#include <math.h>
#include <stdio.h>
#include "base/cpu.h"

#ifndef NEEDLE_COMMIT
#define NEEDLE_COMMIT "unknown"
#endif

/* Six digits after the point are enough for anything but bytes, which are whole. */
static cJSON *rounded(double x) {
    return isfinite(x) ? cJSON_CreateNumber(round(x * 1e6) / 1e6) : cJSON_CreateNull();
}

static void add(cJSON *o, const char *key, double x) { cJSON_AddItemToObject(o, key, rounded(x)); }

static void add_samples(cJSON *o, const char *key, const struct bench_row *r, bool speed) {
    cJSON *a = cJSON_AddArrayToObject(o, key);
    const int tokens = r->n_prompt + r->n_gen;
    for (int i = 0; i < r->reps; i++)
        cJSON_AddItemToArray(a, rounded(speed ? tokens * 1e9 / r->ns[i] : round(r->ns[i])));
}

static void model_type(const struct engine *e, char *buf, size_t size) {
    char types[128], params[32];
    model_type_name(e->model, types, sizeof types);
    snprintf(buf, size, "%s %s %s", e->model->c.arch->name,
             human_count(params, (double)e->model->n_params), types);
}

static cJSON *row_object(const struct engine *e, const struct bench_options *o,
                         const struct bench_row *r) {
    char type[256];
    cJSON *j = cJSON_CreateObject();
    if (!j) return NULL;
    model_type(e, type, sizeof type);
    cJSON_AddStringToObject(j, "build_commit", NEEDLE_COMMIT);
    cJSON_AddStringToObject(j, "cpu_info", cpu_name());
    cJSON_AddStringToObject(j, "kernels", e->kernels->name);
    cJSON_AddStringToObject(j, "model_filename", e->args.model);
    cJSON_AddStringToObject(j, "model_type", type);
    add(j, "model_size", (double)e->model->weight_bytes);
    add(j, "model_n_params", (double)e->model->n_params);
    add(j, "n_batch", e->args.batch);
    add(j, "n_ubatch", e->args.ubatch);
    add(j, "n_threads", r->n_threads);
    cJSON_AddStringToObject(j, "type_k", e->args.type_k);
    cJSON_AddStringToObject(j, "type_v", e->args.type_v);
    cJSON_AddStringToObject(j, "attn", r->attn);
    cJSON_AddStringToObject(j, "attn_params", r->attn_params);
    cJSON_AddStringToObject(j, "fill", o->fill_model ? "model" : "synthetic");
    add(j, "n_prompt", r->n_prompt);
    add(j, "n_gen", r->n_gen);
    add(j, "n_depth", r->n_depth);
    cJSON_AddStringToObject(j, "test_time", r->test_time);
    add(j, "avg_ns", round(r->avg_ns));
    add(j, "stddev_ns", round(r->stddev_ns));
    add(j, "median_ns", round(r->median_ns));
    add(j, "avg_ts", r->avg_ts);
    add(j, "stddev_ts", r->stddev_ts);
    add(j, "median_ts", r->median_ts);
    add_samples(j, "samples_ns", r, false);
    add_samples(j, "samples_ts", r, true);
    add(j, "kv_bytes", (double)r->kv_bytes);
    add(j, "peak_rss", (double)r->peak_rss);
    add(j, "keys_read_per_token", r->keys_read);
    add(j, "keys_searched_per_token", r->keys_searched);
    add(j, "gb_per_s", r->gb_per_s);
    add(j, "gflop_per_s", r->gflop_per_s);
    return j;
}

static void attn_label(const struct bench_row *r, char *buf, size_t size) {
    snprintf(buf, size, "%s%s%s", r->attn, *r->attn_params ? "," : "", r->attn_params);
}

static void print_md(struct bench_out *out, const struct engine *e, const struct bench_row *r) {
    char type[256], size[32], kv[32], cache[32], attn[256], test[64], gb[32] = "", speed[64];
    if (!out->n_rows++)
        printf("| %-24s | %10s | %7s | %9s | %-20s | %18s | "
               "%20s | %10s | %10s | %8s | %6s | %8s |\n"
               "| %.24s | %.9s: | %.6s: | %.9s | %.20s | %.17s: | "
               "%.19s: | %.9s: | %.9s: | %.7s: | %.5s: | %.7s: |\n",
               "model", "size", "threads", "k/v", "attn", "test",
               "t/s", "kv", "keys/token", "searched", "GB/s", "GFLOP/s",
               "------------------------", "----------", "-------", "---------",
               "--------------------", "------------------",
               "--------------------", "----------", "----------",
               "--------", "------", "--------");
    model_type(e, type, sizeof type);
    attn_label(r, attn, sizeof attn);
    snprintf(cache, sizeof cache, "%s/%s", e->args.type_k, e->args.type_v);
    int n = snprintf(test, sizeof test, "%s%d", r->n_gen ? "tg" : "pp",
                     r->n_gen ? r->n_gen : r->n_prompt);
    if (r->n_depth) snprintf(test + n, sizeof test - (size_t)n, " @ d%d", r->n_depth);
    if (isfinite(r->gb_per_s)) snprintf(gb, sizeof gb, "%.1f", r->gb_per_s);
    snprintf(speed, sizeof speed, "%.2f ± %.2f", r->median_ts, r->stddev_ts);
    printf("| %-24s | %10s | %7d | %9s | %-20s | %18s | "
           "%21s | %10s | %10.1f | %8.1f | %6s | %8.1f |\n",
           type, human_bytes(size, (double)e->model->weight_bytes), r->n_threads, cache, attn, test,
           speed, human_bytes(kv, (double)r->kv_bytes), r->keys_read, r->keys_searched, gb,
           r->gflop_per_s);
    fflush(stdout);
}

/* A row is complete when the decode of its lane is. */
static void print_sweep(struct bench_out *out, const struct engine *e,
                        const struct bench_options *o, const struct bench_row *r) {
    if (!r->n_gen) { out->prefill_ms[r->lane] = r->median_ns / 1e6; return; }
    const int pp = o->prompt.item[0];
    const double t_pp = out->prefill_ms[r->lane] / 1e3, t_tg = r->median_ns / 1e9;
    char attn[256];
    attn_label(r, attn, sizeof attn);
    if (out->format == BENCH_MD) {
        if (!out->n_rows++)
            printf("|%6s | %6s | %6s | %8s | %8s | %8s | %8s |%s\n"
                   "|-------|--------|--------|----------|----------|----------|----------|%s\n",
                   "PP", "TG", "N_KV", "T_PP s", "S_PP t/s", "T_TG s", "S_TG t/s",
                   r->n_lanes > 1 ? " ATTN |" : "", r->n_lanes > 1 ? "------|" : "");
        printf("|%6d | %6d | %6d | %8.3f | %8.2f | %8.3f | %8.2f |", pp, r->n_gen, r->n_depth, t_pp,
               pp / t_pp, t_tg, r->n_gen / t_tg);
        if (r->n_lanes > 1) printf(" %s |", attn);
        putchar('\n');
        fflush(stdout);
        return;
    }
    cJSON *j = cJSON_CreateObject();
    if (j) {
        add(j, "n_batch", e->args.batch);
        add(j, "n_ubatch", e->args.ubatch);
        add(j, "n_threads", e->args.threads);
        add(j, "n_threads_batch", e->args.threads_batch);
        add(j, "pp", pp);
        add(j, "tg", r->n_gen);
        add(j, "n_kv", r->n_depth);
        add(j, "t_pp", t_pp);
        add(j, "speed_pp", pp / t_pp);
        add(j, "t_tg", t_tg);
        add(j, "speed_tg", r->n_gen / t_tg);
        cJSON_AddStringToObject(j, "attn", attn);
    }
    bench_out_object(out, j);
}

void bench_print(void *ctx, const struct engine *e, const struct bench_options *o,
                 const struct bench_row *r) {
    struct bench_out *out = ctx;
    if (out->sweep) print_sweep(out, e, o, r);
    else if (out->format == BENCH_MD) print_md(out, e, r);
    else bench_out_object(out, row_object(e, o, r));
}
