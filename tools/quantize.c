/* quantize.c - a copy of a model with its matrices in another type: smaller, or for other programs.
 *
 * Metadata is copied as it stands, apart from general.file_type and general.quantization_version;
 * a split model becomes one file. tools/common/recipe.c decides which tensor gets which type. */
#include <float.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/cpu.h"
#include "base/flags.h"
#include "base/threads.h"
#include "model/gguf_write.h"
#include "tools/common/recipe.h"

enum { SLAB = 1 << 20 };                            /* bytes of output made at a time */

struct options {
    const char *in, *out;
    const struct recipe *recipe;
    const struct dtype_info *output, *embedding;    /* NULL: as the recipe says */
    int threads;
    bool pure, requantize, verbose, help;
};

static const char usage[] =
    "usage: bin/quantize IN.gguf OUT.gguf TYPE [-t N] [--pure] [--output-tensor-type T]\n"
    "                    [--token-embedding-type T] [--allow-requantize] [-v]\n"
    "Writes OUT.gguf, the model IN.gguf with its matrices quantised.\n";

/* ---- the command line ---- */

static int parse_type(const struct dtype_info **out, const char *flag, const char *name,
                      struct err *err) {
    if (!name || (*out = dtype_by_name(name))) return 0;
    return fail(err, "%s: got '%s', wanted a type such as Q6_K", flag, name);
}

static int parse(struct options *o, int argc, char **argv, struct err *err) {
    const char *output = NULL, *embedding = NULL, *arg[3];
    const struct flag table[] = {
        { "-t --threads", FLAG_INT, &o->threads, "N",
          "threads (default: physical cores allowed)", 1, 1024 },
        { "--pure", FLAG_ON, &o->pure, NULL, "every matrix gets the recipe's base type", 0, 0 },
        { "--output-tensor-type", FLAG_STR, &output, "T", "the type of output.weight", 0, 0 },
        { "--token-embedding-type", FLAG_STR, &embedding, "T",
          "the type of token_embd.weight", 0, 0 },
        { "--allow-requantize", FLAG_ON, &o->requantize, NULL,
          "start from quantised tensors too", 0, 0 },
        { "-v --verbose", FLAG_ON, &o->verbose, NULL, "a line for every tensor", 0, 0 },
        { "-h --help", FLAG_ON, &o->help, NULL, "print this", 0, 0 },
        { 0 },
    };
    int n;
    if (flags_parse(table, argc, argv, arg, 3, &n, err)) return -1;
    if (o->help) {
        fputs(usage, stdout);
        flags_help(table, stdout);
        puts("\nTypes:");
        recipe_list(stdout);
        return 0;
    }
    if (n != 3) return fail(err, "got %d of 3 arguments, wanted IN.gguf OUT.gguf TYPE", n);
    o->in = arg[0], o->out = arg[1];
    if (!(o->recipe = recipe_by_name(arg[2])))
        return fail(err, "TYPE: got '%s', wanted Q4_K_M, Q8_0, ... (--help lists them)", arg[2]);
    if (parse_type(&o->output, "--output-tensor-type", output, err)) return -1;
    return parse_type(&o->embedding, "--token-embedding-type", embedding, err);
}

/* ---- what becomes of each tensor ---- */

struct plan { enum dtype *to; uint64_t bytes, weights, fallbacks; };

static uint64_t values(const struct gguf_tensor *t) {
    return t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
}

/* F32, F16 and BF16 hold the weights as they were trained; all else has lost something already. */
static bool is_quantised(int type) { return dtype_info(type)->block > 1; }

static enum dtype wanted_type(const struct options *o, const struct recipe_model *m,
                              const struct gguf_tensor *t) {
    bool embedding = !strcmp(t->name, "token_embd.weight");
    if (embedding && o->embedding) return o->embedding->type;
    if (o->output && (!strcmp(t->name, "output.weight") || (embedding && m->tied)))
        return o->output->type;
    return o->pure ? o->recipe->base : recipe_type(o->recipe, m, t->name, t->ne[0]);
}

static int make_plan(struct plan *p, const struct options *o, const struct gguf *g,
                     struct err *err) {
    struct recipe_model m;
    if (recipe_model(&m, g, err)) return -1;
    if (!(p->to = calloc((size_t)gguf_n_tensors(g) + 1, sizeof *p->to)))
        return fail(err, "%s: no memory", o->in);
    for (int i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        if (!dtype_info(t->type))
            return fail(err, "%s: tensor '%s' has type %s, which cannot be read", t->file, t->name,
                        dtype_name(t->type));
        enum dtype to = (enum dtype)t->type;
        if (recipe_wants(t)) {
            enum dtype want = wanted_type(o, &m, t);
            to = recipe_fallback(want, t->ne[0]);
            p->fallbacks += to != want;
        }
        if ((int)to != t->type && is_quantised(t->type) && !o->requantize)
            return fail(err, "%s: tensor '%s' is quantised already, as %s; --allow-requantize "
                        "makes %s of it all the same", t->file, t->name, dtype_name(t->type),
                        dtype_name(to));
        p->to[i] = to;
        p->bytes += values(t) / (uint64_t)dtype_info((int)to)->block *
                    (uint64_t)dtype_info((int)to)->bytes;
        p->weights += values(t);
    }
    return 0;
}

/* Writing over a file that is mapped as input would destroy both. */
static int refuse_same_file(const struct options *o, const struct gguf *g, struct err *err) {
    struct stat out, in;
    if (stat(o->out, &out)) return 0;               /* not there: fine */
    if (S_ISDIR(out.st_mode))
        return fail(err, "%s: is a directory, wanted a file to write", o->out);
    const char *seen = NULL;
    for (int i = -1; i < gguf_n_tensors(g); i++) {
        const char *path = i < 0 ? gguf_path(g) : gguf_tensor_at(g, i)->file;
        if (path == seen) continue;
        seen = path;
        if (!stat(path, &in) && in.st_dev == out.st_dev && in.st_ino == out.st_ino)
            return fail(err, "%s: is the input itself, wanted another file to write", o->out);
    }
    return 0;
}

/* ---- conversion ---- */

/* Every value finite and within what the type can hold? */
static bool row_fits(const float *x, size_t n, float limit) {
    for (size_t i = 0; i < n; i++) if (!(fabsf(x[i]) <= limit)) return false;
    return true;
}

/* Rows first..first+n-1 of t to out. Returns the first row where a value does not fit, or -1. */
static int64_t convert_rows(const struct gguf_tensor *t, enum dtype to, int64_t first, int64_t n,
                            float *scratch, uint8_t *out) {
    const enum dtype from = (enum dtype)t->type;
    const size_t cols = (size_t)t->ne[0], row_in = dtype_row_bytes(from, cols),
                 row_out = dtype_row_bytes(to, cols);
    const float limit = to == DT_F32 || to == DT_BF16 ? FLT_MAX : 65504;
    int64_t bad = INT64_MAX;
    /* Small tensors are done before a second thread has woken up. */
    #pragma omp parallel for schedule(dynamic) reduction(min : bad) if ((size_t)n * cols > 1 << 17)
    for (int64_t r = 0; r < n; r++) {
        float *x = scratch + (size_t)omp_get_thread_num() * cols;
        dequant_row(from, (const uint8_t *)t->data + (size_t)(first + r) * row_in, x, cols);
        if (!row_fits(x, cols, limit)) bad = first + r < bad ? first + r : bad;
        quant_row(to, x, out + (size_t)r * row_out, cols);
    }
    return bad == INT64_MAX ? -1 : bad;
}

static int convert(struct gguf_writer *w, const struct gguf_tensor *t, enum dtype to,
                   struct err *err) {
    if ((int)to == t->type) return gguf_write_data(w, t->data, (size_t)t->bytes, err);
    const size_t cols = (size_t)t->ne[0], row = dtype_row_bytes(to, cols);
    const int64_t rows = (int64_t)(values(t) / t->ne[0]),
                  slab = row < SLAB ? (int64_t)(SLAB / row) : 1;
    const int64_t most = rows < slab ? rows : slab;
    float *scratch = malloc((size_t)omp_get_max_threads() * cols * sizeof *scratch);
    uint8_t *out = malloc((size_t)most * row);
    int rc = -1;
    if (!scratch || !out) { fail(err, "no memory for tensor '%s'", t->name); goto done; }
    for (int64_t r = 0; r < rows; r += most) {
        int64_t n = rows - r < most ? rows - r : most,
                bad = convert_rows(t, to, r, n, scratch, out);
        if (bad >= 0) {
            fail(err, "%s: tensor '%s', row %lld: a value that is not finite or too large for %s",
                 t->file, t->name, (long long)bad, dtype_name(to));
            goto done;
        }
        if (gguf_write_data(w, out, (size_t)n * row, err)) goto done;
    }
    rc = 0;
done:
    free(scratch);
    free(out);
    return rc;
}

/* ---- progress ---- */

static const double mib = 1 << 20;

static void show_tensor(const struct gguf_tensor *t, enum dtype to, int i, int n) {
    char shape[64];
    int at = snprintf(shape, sizeof shape, "%llu", (unsigned long long)t->ne[0]);
    for (int d = 1; d < t->n_dims && at < (int)sizeof shape; d++)
        at += snprintf(shape + at, sizeof shape - (size_t)at, " x %llu",
                       (unsigned long long)t->ne[d]);
    double after = (double)(values(t) / (uint64_t)dtype_info((int)to)->block) *
                   dtype_info((int)to)->bytes;
    fprintf(stderr, "[%4d/%4d] %-36s %-18s %6s", i + 1, n, t->name, shape, dtype_name(t->type));
    if ((int)to == t->type) fprintf(stderr, "  kept     %9.2f MiB\n", after / mib);
    else
        fprintf(stderr, " -> %-6s %9.2f -> %.2f MiB\n", dtype_name(to), (double)t->bytes / mib,
                after / mib);
}

/* On a terminal one line that changes; elsewhere a line now and then. */
static void show_progress(double *last, uint64_t done, uint64_t all, int i, int n) {
    bool tty = isatty(STDERR_FILENO);
    double now = clock_ms();
    if (i < n && now - *last < (tty ? 200 : 10000)) return;
    if (i == n && !tty) return;
    *last = now;
    fprintf(stderr, "%squantize %3.0f%%  %d/%d tensors  %.0f of %.0f MiB%s", tty ? "\r" : "",
            all ? 100 * (double)done / (double)all : 100, i, n, (double)done / mib,
            (double)all / mib, tty && i < n ? "" : "\n");
}

static void show_result(const struct options *o, const struct gguf *g, const struct plan *p,
                        double ms) {
    double before = (double)gguf_tensor_bytes(g), weights = p->weights ? (double)p->weights : 1;
    if (p->fallbacks)
        fprintf(stderr, "%llu tensors got another type because their rows are no multiple of "
                "the block\n", (unsigned long long)p->fallbacks);
    fprintf(stderr, "%s: %.1f MiB (%.2f bits a weight) -> %.1f MiB (%.2f), %s%s, %.1f s\n", o->out,
            before / mib, 8 * before / weights, (double)p->bytes / mib,
            8 * (double)p->bytes / weights, o->recipe->name, o->pure ? " pure" : "", ms / 1000);
}

/* ---- the whole ---- */

static bool is_split_key(struct gguf_str key) { return key.n > 6 && !memcmp(key.p, "split.", 6); }

static int quantize(const struct options *o, struct err *err) {
    struct gguf *g = NULL;
    struct gguf_writer *w = NULL;
    struct plan p = { 0 };
    double start = clock_ms(), last = start;
    uint64_t done = 0;
    int rc = -1;
    if (gguf_open(&g, o->in, NULL, err)) goto out;
    if (refuse_same_file(o, g, err) || make_plan(&p, o, g, err)) goto out;
    if (gguf_write_open(&w, o->out, err)) goto out;
    for (int i = 0; i < gguf_n_kv(g); i++)
        if (!is_split_key(gguf_kv_at(g, i)->key)) gguf_put_kv(w, g, gguf_kv_at(g, i));
    gguf_put_int(w, "general.quantization_version", GGUF_U32, 2);
    gguf_put_int(w, "general.file_type", GGUF_U32, o->recipe->file_type);
    const int n = gguf_n_tensors(g);
    for (int i = 0; i < n; i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        gguf_declare(w, t->name, p.to[i], t->n_dims, t->ne);
    }
    if (gguf_write_begin(w, err)) goto out;
    for (int i = 0; i < n; i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        if (o->verbose) show_tensor(t, p.to[i], i, n);
        else show_progress(&last, done, gguf_tensor_bytes(g), i, n);
        if (convert(w, t, p.to[i], err)) goto out;
        done += t->bytes;
    }
    if (!o->verbose) show_progress(&last, done, gguf_tensor_bytes(g), n, n);
    rc = gguf_write_close(w, err);
    w = NULL;
    if (!rc) show_result(o, g, &p, clock_ms() - start);
out:
    gguf_write_abort(w);
    free(p.to);
    gguf_close(g);
    return rc;
}

int main(int argc, char **argv) {
    threads_wait_gently(argv);
    struct options o = { 0 };
    struct err err = { .msg = "" };
    if (parse(&o, argc, argv, &err)) {
        fprintf(stderr, "quantize: %s\n", err.msg);
        return 2;
    }
    if (o.help) return 0;
    omp_set_num_threads(o.threads ? o.threads : cpu_default_threads());
    if (quantize(&o, &err)) {
        fprintf(stderr, "quantize: %s\n", err.msg);
        return 1;
    }
    return 0;
}
