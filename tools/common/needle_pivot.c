#include "tools/common/needle_pivot.h"
#include <stdlib.h>
#include <string.h>
#include "tools/common/heatmap.h"

struct column { const char *test; int length; };       /* NULL, 0: all of them */

static bool holds(const struct column *c, const struct grid *g, int l) {
    return (!c->test || !strcmp(c->test, g->first->version)) &&
           (!c->length || c->length == g->length[l]);
}

static bool same_line(const struct row *a, const struct row *b) {
    return !strcmp(a->model, b->model) && !strcmp(a->attn, b->attn) &&
           !strcmp(a->attn_params, b->attn_params) && !strcmp(a->type_k, b->type_k) &&
           !strcmp(a->type_v, b->type_v);
}

static bool first_of_line(const struct grids *s, int i) {
    int j = 0;
    while (!same_line(s->grid[j].first, s->grid[i].first)) j++;
    return j == i;
}

/* Tests in order of appearance, lengths ascending in each. Returns their number; room
 * for one a length of each grid. */
static int make_columns(const struct grids *s, bool by_test, bool by_length, struct column *c) {
    int n = 0;
    for (int i = 0; i < s->n; i++)
        for (int l = 0; l < s->grid[i].n_lengths; l++) {
            const struct column want = { by_test ? s->grid[i].first->version : NULL,
                                         by_length ? s->grid[i].length[l] : 0 };
            int at = 0;
            while (at < n && want.test && strcmp(c[at].test, want.test)) at++;
            while (at < n && (!want.test || !strcmp(c[at].test, want.test)) &&
                   c[at].length < want.length)
                at++;
            if (at < n && (!want.test || !strcmp(c[at].test, want.test)) &&
                c[at].length == want.length)
                continue;
            memmove(c + at + 1, c + at, (size_t)(n - at) * sizeof *c);
            c[at] = want;
            n++;
        }
    return n;
}

static bool several_models(const struct grids *s) {
    for (int i = 1; i < s->n; i++)
        if (strcmp(s->grid[i].first->model, s->grid[0].first->model)) return true;
    return false;
}

static void print_head(const struct grids *s, bool models, const struct column *c, int n, FILE *f) {
    char length[16];
    fprintf(f, "|%s attn | KV |", models ? " model |" : "");
    for (int i = 0; i < n; i++) {
        if (c[i].test) fprintf(f, " %.*s", grid_test_label(s, c[i].test), c[i].test);
        if (c[i].length) fprintf(f, " %s", length_label(length, c[i].length));
        fputs(" |", f);
    }
    fprintf(f, "\n|%s---|---|", models ? "---|" : "");
    for (int i = 0; i < n; i++) fputs("---:|", f);
    fputc('\n', f);
}

static void print_cell(const struct grids *s, const struct row *line, const struct column *c,
                       FILE *f) {
    double sum = 0;
    int n = 0;
    for (int i = 0; i < s->n; i++)
        for (int l = 0; same_line(s->grid[i].first, line) && l < s->grid[i].n_lengths; l++)
            if (holds(c, &s->grid[i], l)) {
                const struct grid_column *g = &s->grid[i].column[l];
                sum += g->cells * g->score, n += g->cells;
            }
    if (n) fprintf(f, " %.2f |", sum / n);
    else fputs(" - |", f);
}

int grids_pivot(const struct grids *s, bool by_test, bool by_length, FILE *f, struct err *err) {
    int room = 1;
    for (int i = 0; i < s->n; i++) room += s->grid[i].n_lengths;
    struct column *c = calloc((size_t)room, sizeof *c);
    if (!c) return fail(err, "no memory for a table of %d columns", room);
    const int n = make_columns(s, by_test, by_length, c);
    const bool models = several_models(s);
    char mode[128], kv[64];
    print_head(s, models, c, n, f);
    for (int i = 0; i < s->n; i++) {
        const struct row *line = s->grid[i].first;
        if (!first_of_line(s, i)) continue;
        fputc('|', f);
        if (models) fprintf(f, " %s |", line->model);
        fprintf(f, " %s | %s |", grid_mode_label(s, i, mode), grid_cache_label(line, kv));
        for (int k = 0; k < n; k++) print_cell(s, line, &c[k], f);
        fputc('\n', f);
    }
    free(c);
    grids_print_parameters(s, f);
    return 0;
}
