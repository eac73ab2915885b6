#include "tools/common/needle_grid.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "tools/common/heatmap.h"

static bool same_grid(const struct row *a, const struct row *b) {
    return !strcmp(a->model, b->model) && !strcmp(a->version, b->version) &&
           !strcmp(a->attn, b->attn) && !strcmp(a->attn_params, b->attn_params) &&
           !strcmp(a->type_k, b->type_k) && !strcmp(a->type_v, b->type_v);
}

/* Puts v into its place unless it is there. */
static void insert_length(struct grid *g, int v) {
    int i = 0;
    while (i < g->n_lengths && g->length[i] < v) i++;
    if (i < g->n_lengths && g->length[i] == v) return;
    memmove(g->length + i + 1, g->length + i, (size_t)(g->n_lengths++ - i) * sizeof *g->length);
    g->length[i] = v;
}

static void insert_depth(struct grid *g, double v) {
    int i = 0;
    while (i < g->n_depths && g->depth[i] < v - 1e-6) i++;
    if (i < g->n_depths && g->depth[i] <= v + 1e-6) return;
    memmove(g->depth + i + 1, g->depth + i, (size_t)(g->n_depths++ - i) * sizeof *g->depth);
    g->depth[i] = v;
}

static int length_index(const struct grid *g, int v) {
    int i = 0;
    while (g->length[i] != v) i++;
    return i;
}

static int depth_index(const struct grid *g, double v) {
    int i = 0;
    while (fabs(g->depth[i] - v) > 1e-6) i++;
    return i;
}

struct mean { double sum; int n; };

static void mean_add(struct mean *m, double v) { if (v >= 0) m->sum += v, m->n++; }
static double mean_of(const struct mean *m) { return m->n ? m->sum / m->n : -1; }

static void fill_column(struct grid *g, int l, const struct rows *rows) {
    struct mean score = { 0 }, kv = { 0 }, keys = { 0 }, prefill = { 0 }, decode = { 0 };
    for (int i = 0; i < rows->n; i++) {
        const struct row *r = &rows->row[i];
        if (r->context_length != g->length[l] || !same_grid(r, g->first)) continue;
        mean_add(&score, r->score), mean_add(&kv, r->kv_bytes), mean_add(&keys, r->keys_read);
        mean_add(&prefill, r->prefill_tps), mean_add(&decode, r->decode_tps);
    }
    g->column[l] = (struct grid_column){ score.n, mean_of(&score), mean_of(&kv), mean_of(&keys),
                                         mean_of(&prefill), mean_of(&decode) };
}

static int fill(struct grid *g, const struct rows *rows, struct err *err) {
    const size_t n = (size_t)rows->n;
    g->length = malloc(n * sizeof *g->length);
    g->depth = malloc(n * sizeof *g->depth);
    if (!g->length || !g->depth) return fail(err, "no memory for a grid");
    for (int i = 0; i < rows->n; i++)
        if (same_grid(&rows->row[i], g->first))
            insert_length(g, rows->row[i].context_length),
            insert_depth(g, rows->row[i].depth_percent);
    const size_t cells = (size_t)g->n_depths * (size_t)g->n_lengths;
    struct mean *mean = calloc(cells, sizeof *mean);
    g->score = malloc(cells * sizeof *g->score);
    g->column = calloc((size_t)g->n_lengths, sizeof *g->column);
    if (!mean || !g->score || !g->column) { free(mean); return fail(err, "no memory for a grid"); }
    for (int i = 0; i < rows->n; i++) {
        const struct row *r = &rows->row[i];
        if (!same_grid(r, g->first)) continue;
        const size_t depth = (size_t)depth_index(g, r->depth_percent),
                     length = (size_t)length_index(g, r->context_length);
        mean_add(&mean[depth * (size_t)g->n_lengths + length], r->score);
    }
    for (size_t i = 0; i < cells; i++) g->score[i] = mean[i].n ? mean_of(&mean[i]) : NAN;
    free(mean);
    for (int l = 0; l < g->n_lengths; l++) fill_column(g, l, rows);
    return 0;
}

int grids_make(struct grids *s, const struct rows *rows, struct err *err) {
    *s = (struct grids){ .grid = calloc((size_t)rows->n + 1, sizeof *s->grid) };
    if (!s->grid) return fail(err, "no memory for grids");
    for (int i = 0; i < rows->n; i++) {
        int g = 0;
        while (g < s->n && !same_grid(s->grid[g].first, &rows->row[i])) g++;
        if (g < s->n) continue;
        s->grid[s->n++].first = &rows->row[i];
        if (fill(&s->grid[g], rows, err)) { grids_free(s); return -1; }
    }
    return 0;
}

void grids_free(struct grids *s) {
    for (int i = 0; i < s->n; i++) {
        free(s->grid[i].length);
        free(s->grid[i].depth);
        free(s->grid[i].score);
        free(s->grid[i].column);
    }
    free(s->grid);
    *s = (struct grids){ 0 };
}

static void print_number(FILE *f, const char *fmt, double v) {
    if (v < 0) fputs(" - |", f);
    else fprintf(f, fmt, v);
}

const char *grid_cache_label(const struct row *r, char buf[64]) {
    if (!strcmp(r->type_k, r->type_v)) snprintf(buf, 64, "%s", r->type_k);
    else snprintf(buf, 64, "%s/%s", r->type_k, r->type_v);
    return buf;
}

static bool same_mode(const struct row *a, const struct row *b) {
    return !strcmp(a->attn, b->attn) && !strcmp(a->attn_params, b->attn_params);
}

/* How many modes of this name, other parameters apart, come before the grid's: 0 for the first. */
static int mode_number(const struct grids *s, int i) {
    int n = 0;
    for (int j = 0; j < i; j++) {
        if (same_mode(s->grid[j].first, s->grid[i].first)) return mode_number(s, j);
        bool fresh = !strcmp(s->grid[j].first->attn, s->grid[i].first->attn);
        for (int k = 0; k < j && fresh; k++) fresh = !same_mode(s->grid[k].first, s->grid[j].first);
        n += fresh;
    }
    return n;
}

const char *grid_mode_label(const struct grids *s, int i, char buf[128]) {
    const int n = mode_number(s, i);
    snprintf(buf, 128, n ? "%.100s-%d" : "%.100s", s->grid[i].first->attn, n + 1);
    return buf;
}

void grids_print_parameters(const struct grids *s, FILE *f) {
    char mode[128];
    for (int i = 0; i < s->n; i++) {
        bool said = !*s->grid[i].first->attn_params;
        for (int j = 0; j < i; j++) said = said || same_mode(s->grid[j].first, s->grid[i].first);
        if (!said)
            fprintf(f, "\n%s: %s\n", grid_mode_label(s, i, mode), s->grid[i].first->attn_params);
    }
}

void grids_print(const struct grids *s, FILE *f) {
    char kv[64], mode[128], length[16];
    fputs("| model | test | attn | KV | length | cells | score | KV MiB | keys read per token "
          "| prefill t/s | decode t/s |\n"
          "|---|---|---|---|---:|---:|---:|---:|---:|---:|---:|\n", f);
    for (int i = 0; i < s->n; i++) {
        const struct grid *g = &s->grid[i];
        for (int l = 0; l < g->n_lengths; l++) {
            const struct grid_column *c = &g->column[l];
            fprintf(f, "| %s | %s | %s | %s | %s | %d |", g->first->model, g->first->version,
                    grid_mode_label(s, i, mode), grid_cache_label(g->first, kv),
                    length_label(length, g->length[l]), c->cells);
            print_number(f, " %.3f |", c->score);
            print_number(f, " %.2f |", c->kv_bytes / 1048576);
            print_number(f, " %.0f |", c->keys_read);
            print_number(f, " %.1f |", c->prefill_tps);
            print_number(f, " %.1f |", c->decode_tps);
            fputc('\n', f);
        }
    }
    grids_print_parameters(s, f);
}

int grid_test_label(const struct grids *s, const char *version) {
    const size_t n = strcspn(version, "-");
    for (int i = 0; i < s->n; i++) {
        const char *other = s->grid[i].first->version;
        if (strcmp(other, version) && strcspn(other, "-") == n && !memcmp(other, version, n))
            return (int)strlen(version);
    }
    return (int)n;
}

/* "TEST." when there are several tests, or nothing. */
static void test_prefix(const struct grids *s, int i, char buf[128]) {
    const char *version = s->grid[i].first->version;
    buf[0] = 0;
    for (int j = 0; j < s->n && !*buf; j++)
        if (strcmp(s->grid[j].first->version, version))
            snprintf(buf, 128, "%.*s.", grid_test_label(s, version), version);
}

/* "NAME.TEST.MODE-TYPE.png" for grid i, with a number where grids of other
 * models would have the same name. */
static char *path_alone(const struct grids *s, int i, const char *path) {
    const size_t n = strlen(path), stem = n > 4 && !strcmp(path + n - 4, ".png") ? n - 4 : n;
    char kv[64], kv_earlier[64], mode[128], test[128], number[16] = "", *out;
    const struct row *r = s->grid[i].first;
    int earlier = 0;
    grid_cache_label(r, kv);
    for (int j = 0; j < i; j++) {
        const struct row *q = s->grid[j].first;
        earlier += same_mode(q, r) && !strcmp(grid_cache_label(q, kv_earlier), kv) &&
                   !strcmp(q->version, r->version);
    }
    test_prefix(s, i, test);
    if (earlier) snprintf(number, sizeof number, "-%d", earlier + 1);
    if (asprintf(&out, "%.*s.%s%s-%s%s.png", (int)stem, path, test, grid_mode_label(s, i, mode), kv,
                 number) < 0)
        return NULL;
    for (char *p = out + stem; *p; p++)
        if (*p == '/') *p = '-';
    return out;
}

struct caption { char title[128], subtitle[1024]; };

int grids_draw(const struct grids *s, const char *path, struct err *err) {
    int rc = -1;
    struct heatmap *m = calloc((size_t)s->n + 1, sizeof *m);
    struct caption *c = calloc((size_t)s->n + 1, sizeof *c);
    char kv[64], *alone = NULL;
    if (!m || !c) { fail(err, "no memory for %d heat maps", s->n); goto done; }
    for (int i = 0; i < s->n; i++) {
        const struct grid *g = &s->grid[i];
        const struct row *r = g->first;
        grid_mode_label(s, i, c[i].title);
        snprintf(c[i].subtitle, sizeof c[i].subtitle, "%.200s, KV %s, %.200s%s%.500s", r->model,
                 grid_cache_label(r, kv), r->version, *r->attn_params ? ", " : "", r->attn_params);
        m[i] = (struct heatmap){ c[i].title, c[i].subtitle, g->n_lengths, g->n_depths,
                                 g->length, g->depth, g->score };
    }
    if (heatmap_draw(path, m, s->n, err)) goto done;
    for (int i = 0; i < s->n && s->n > 1; i++) {
        if (!(alone = path_alone(s, i, path))) { fail(err, "no memory for a name"); goto done; }
        if (heatmap_draw(alone, &m[i], 1, err)) goto done;
        free(alone);
        alone = NULL;
    }
    rc = 0;
done:
    free(alone);
    free(m);
    free(c);
    return rc;
}
