#include "tools/common/needle_lists.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/flags.h"
#include "tools/common/engine.h"

/* The next item of a comma-separated list, into buf; *text moves on. 1; 0 at the
 * end; -1: longer than any number. */
static int next_item(const char **text, char *buf, size_t size) {
    if (!*text) return 0;
    const size_t n = strcspn(*text, ",");
    if (n >= size) return -1;
    memcpy(buf, *text, n);
    buf[n] = 0;
    *text = (*text)[n] ? *text + n + 1 : NULL;
    return 1;
}

static int by_int(const void *a, const void *b) {
    const int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

static int by_double(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int lengths_parse(const char *text, struct lengths *l, struct err *err) {
    char item[32];
    int rc;
    const char *p = text;
    l->n = 0;
    while ((rc = next_item(&p, item, sizeof item)) > 0) {
        if (l->n == LENGTHS_MAX) return fail(err, "--lengths: more than %d of them", LENGTHS_MAX);
        if (flags_int(item, "--lengths", 16, 1 << 26, &l->at[l->n++], err)) return -1;
    }
    if (rc < 0) return fail(err, "--lengths: got '%s', wanted numbers like 1k,4k,16k", text);
    qsort(l->at, (size_t)l->n, sizeof *l->at, by_int);
    int n = 0;
    for (int i = 0; i < l->n; i++)
        if (!n || l->at[n - 1] != l->at[i]) l->at[n++] = l->at[i];
    l->n = n;
    return 0;
}

/* One item: a depth, or from:to:step. */
static int depth_item(const char *item, struct depths *d, struct err *err) {
    char part[3][32] = { "", "", "" }, rest;
    double from, to, step = 1;
    const int n = sscanf(item, "%31[^:]:%31[^:]:%31[^:]%c", part[0], part[1], part[2], &rest);
    if (n != 1 && n != 3)
        return fail(err, "--depths: got '%s', wanted a percentage or from:to:step", item);
    if (flags_float(part[0], "--depths", 0, 100, &from, err)) return -1;
    to = from;
    if (n == 3 && (flags_float(part[1], "--depths", 0, 100, &to, err) ||
                   flags_float(part[2], "--depths", 1e-3, 100, &step, err)))
        return -1;
    if (to < from) return fail(err, "--depths: got '%s', which goes down", item);
    for (int i = 0; from + i * step <= to + step * 1e-9; i++) {
        if (d->n == DEPTHS_MAX) return fail(err, "--depths: more than %d of them", DEPTHS_MAX);
        d->at[d->n++] = from + i * step;
    }
    return 0;
}

int depths_parse(const char *text, struct depths *d, struct err *err) {
    char item[96];
    int rc;
    const char *p = text;
    d->n = 0;
    while ((rc = next_item(&p, item, sizeof item)) > 0)
        if (depth_item(item, d, err)) return -1;
    if (rc < 0) return fail(err, "--depths: got '%s', wanted percentages or from:to:step", text);
    qsort(d->at, (size_t)d->n, sizeof *d->at, by_double);
    int n = 0;
    for (int i = 0; i < d->n; i++)
        if (!n || d->at[i] - d->at[n - 1] > 1e-6) d->at[n++] = d->at[i];
    d->n = n;
    return 0;
}

int cache_types_parse(const char *text, struct cache_types *c, struct err *err) {
    char item[32];
    int rc;
    const char *p = text;
    c->n = 0;
    while ((rc = next_item(&p, item, sizeof item)) > 0) {
        char *values = strchr(item, '/');
        enum dtype k, v;
        if (values) *values++ = 0;
        if (engine_cache_type("--kv", item, &k, err) ||
            engine_cache_type("--kv", values ? values : item, &v, err))
            return -1;
        int i = 0;
        while (i < c->n && (c->k[i] != k || c->v[i] != v)) i++;
        if (i == CACHES_MAX) return fail(err, "--kv: more than %d of them", CACHES_MAX);
        if (i == c->n) c->k[i] = k, c->v[i] = v, c->n++;
    }
    return rc < 0 ? fail(err, "--kv: got '%s', wanted types like f16,q8_0,q8_0/q4_0", text) : 0;
}

int shard_parse(const char *text, struct shard *s, struct err *err) {
    char rest;
    if (sscanf(text, "%d/%d%c", &s->i, &s->n, &rest) != 2 || s->n < 1 || s->i < 1 || s->i > s->n)
        return fail(err, "--shard: got '%s', wanted I/N with 1 <= I <= N", text);
    return 0;
}

int shard_has(const struct shard *s, int cell) { return cell % s->n == s->i - 1; }
