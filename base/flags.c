#include "base/flags.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int bounded(const char *what, const char *text, double v, double min, double max,
                   struct err *err) {
    if ((min != 0 || max != 0) && (v < min || v > max))
        return fail(err, "%s: got %s, wanted %.10g to %.10g", what, text, min, max);
    return 0;
}

int flags_float(const char *text, const char *what, double min, double max, double *out,
                struct err *err) {
    char *end;
    errno = 0;
    double v = strtod(text, &end);
    if (end == text || *end || !isfinite(v))
        return fail(err, "%s: got '%s', wanted a number", what, text);
    if (bounded(what, text, v, min, max, err)) return -1;
    *out = v;
    return 0;
}

int flags_int(const char *text, const char *what, double min, double max, int *out,
              struct err *err) {
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    bool ok = end != text && !errno;
    if (*end == 'k' || *end == 'K')
        v = v > (1LL << 40) || v < -(1LL << 40) ? (ok = false, 0) : v * 1024, end++;
    else if (*end == 'm' || *end == 'M')
        v = v > (1LL << 40) || v < -(1LL << 40) ? (ok = false, 0) : v << 20, end++;
    if (!ok || *end || v != (int)v) return fail(err, "%s: got '%s', wanted an integer", what, text);
    if (bounded(what, text, (double)v, min, max, err)) return -1;
    *out = (int)v;
    return 0;
}

/* Does the space-separated list hold this spelling (n bytes)? */
static bool spelled(const char *names, const char *name, size_t n) {
    for (const char *p = names; *p;) {
        size_t len = strcspn(p, " ");
        if (len == n && !memcmp(p, name, n)) return true;
        p += len + (p[len] == ' ');
    }
    return false;
}

static const struct flag *find(const struct flag *table, const char *arg, size_t n) {
    for (const struct flag *f = table; f->names; f++)
        if (f->kind != FLAG_HEADING && spelled(f->names, arg, n)) return f;
    return NULL;
}

static int store(const struct flag *f, const char *name, const char *value, struct err *err) {
    switch (f->kind) {
    case FLAG_ON:  *(bool *)f->to = true; return 0;
    case FLAG_OFF: *(bool *)f->to = false; return 0;
    case FLAG_INT: return flags_int(value, name, f->min, f->max, f->to, err);
    case FLAG_FLOAT: return flags_float(value, name, f->min, f->max, f->to, err);
    case FLAG_STR: *(const char **)f->to = value; return 0;
    case FLAG_LIST: {
        struct flag_list *l = f->to;
        if (l->n == FLAG_LIST_MAX)
            return fail(err, "%s: more than %d of them", name, FLAG_LIST_MAX);
        l->item[l->n++] = value;
        return 0;
    }
    case FLAG_SWITCH: *(bool *)f->to = !value || !spelled("off 0", value, strlen(value)); return 0;
    case FLAG_IGNORED: if (f->to) *(bool *)f->to = true; return 0;
    case FLAG_HEADING: break;
    }
    return 0;
}

int flags_parse(const struct flag *table, int argc, char **argv, const char **positional,
                int max_positional, int *n_positional, struct err *err) {
    bool only_positional = false;
    *n_positional = 0;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (only_positional || a[0] != '-' || !a[1]) {
            if (*n_positional == max_positional)
                return fail(err, "unexpected argument '%s' (at most %d without a flag)",
                            a, max_positional);
            positional[(*n_positional)++] = a;
            continue;
        }
        if (!strcmp(a, "--")) { only_positional = true; continue; }
        size_t n = a[1] == '-' ? strcspn(a, "=") : strlen(a);
        const struct flag *f = find(table, a, n);
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)n, a);
        if (!f) return fail(err, "unknown flag '%s' (--help lists them)", name);
        const char *value = a[n] == '=' ? a + n + 1 : NULL;
        if (f->kind == FLAG_SWITCH && !value && i + 1 < argc &&
            spelled("on off auto 0 1", argv[i + 1], strlen(argv[i + 1])))
            value = argv[++i];
        else if (!f->arg && value && f->kind != FLAG_SWITCH)
            return fail(err, "%s takes no value, got '%s'", name, value);
        if (f->arg && !value) {
            if (i + 1 == argc) return fail(err, "%s: got nothing, wanted %s", name, f->arg);
            value = argv[++i];
        }
        if (store(f, name, value, err)) return -1;
    }
    return 0;
}

void flags_help(const struct flag *table, FILE *out) {
    for (const struct flag *f = table; f->names; f++) {
        if (!f->help) continue;
        if (f->kind == FLAG_HEADING) { fprintf(out, "\n%s\n", f->help); continue; }
        char left[80];
        int n = snprintf(left, sizeof left, "  ");
        for (const char *p = f->names; *p && n < (int)sizeof left - 1; p++)
            n += snprintf(left + n, sizeof left - (size_t)n, "%s",
                          *p == ' ' ? ", " : (char[]){ *p, 0 });
        if (f->arg && n < (int)sizeof left)
            snprintf(left + n, sizeof left - (size_t)n, " %s", f->arg);
        fprintf(out, "%-34s %s\n", left, f->help);
    }
}
