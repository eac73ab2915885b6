#include "attention/args.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int find(const struct attn_key *keys, const char *name) {
    for (int i = 0; keys && keys[i].name; i++)
        if (!strcmp(keys[i].name, name)) return i;
    return -1;
}

static int unknown(const struct attn_args *a, const char *name, struct err *err) {
    char list[ATTN_ARGS_MAX] = "";
    for (int i = 0; a->keys && a->keys[i].name; i++)
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "",
                 a->keys[i].name);
    if (!*list)
        return fail(err, "attention mode %s takes no parameters, but '%.64s' was given", a->mode,
                    name);
    return fail(err, "attention mode %s has no parameter '%.64s'; it has %.300s", a->mode, name,
                list);
}

int args_parse(struct attn_args *a, const char *mode, const struct attn_key *keys, const char *text,
               struct err *err) {
    memset(a, 0, sizeof *a);
    a->mode = mode;
    a->keys = keys;
    if (strlen(text) >= sizeof a->text)
        return fail(err, "attention mode %s: more than %d characters of parameters", mode,
                    ATTN_ARGS_MAX - 1);
    strcpy(a->text, text);
    const char *last = NULL;
    for (char *item = a->text + (*text == ','), *next; *item; item = next) {
        next = item + strcspn(item, ",");
        if (*next) *next++ = 0;
        if (last && *item >= '0' && *item <= '9') {            /* a further number of a list */
            item[-1] = ',';
            continue;
        }
        char *value = strchr(item, '=');
        if (value) *value++ = 0;
        int i = find(keys, item);
        if (i < 0) return unknown(a, item, err);
        if (!value)
            return fail(err, "attention mode %s: %s wants a value, as in %s=%s", mode, item, item,
                        keys[i].value);
        if (a->value[i]) return fail(err, "attention mode %s: %s is given twice", mode, item);
        a->value[i] = last = value;
    }
    for (int i = 0; keys && keys[i].name; i++) {
        assert(i < ATTN_MAX_KEYS);
        if (!a->value[i]) a->value[i] = keys[i].value;
    }
    return 0;
}

void args_print(const struct attn_args *a, char *buf, size_t size) {
    size_t used = 0;
    if (size) *buf = 0;
    for (int i = 0; a->keys && a->keys[i].name && used < size; i++)
        used += (size_t)snprintf(buf + used, size - used, "%s%s=%s", i ? "," : "", a->keys[i].name,
                                 a->value[i]);
}

const char *args_text(const struct attn_args *a, const char *key) {
    int i = find(a->keys, key);
    assert(i >= 0);
    return a->value[i];
}

int args_given(const struct attn_args *a, const char *key) {
    int i = find(a->keys, key);
    assert(i >= 0);
    return a->value[i] != a->keys[i].value;                /* the very string is the default */
}

int args_int(const struct attn_args *a, const char *key, int lo, int hi, int *out,
             struct err *err) {
    const char *text = args_text(a, key);
    char *end;
    long n = strtol(text, &end, 10);
    if (end == text || *end || n < lo || n > hi)
        return fail(err, "attention mode %s: %s=%.64s, want a whole number %d..%d", a->mode, key,
                    text, lo, hi);
    *out = (int)n;
    return 0;
}

int args_real(const struct attn_args *a, const char *key, double lo, double hi, double *out,
              struct err *err) {
    const char *text = args_text(a, key);
    char *end;
    double x = strtod(text, &end);
    if (end == text || *end || !(x >= lo && x <= hi))
        return fail(err, "attention mode %s: %s=%.64s, want a number %g..%g", a->mode, key, text,
                    lo, hi);
    *out = x;
    return 0;
}
