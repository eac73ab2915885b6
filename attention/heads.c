#include "attention/heads.h"
#include "base/file.h"
#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int read_tsv(float *score, const char *path, char *text, size_t size, int n_layers,
                    int n_kv_heads, struct err *err) {
    int line = 0;
    if (strlen(text) != size) return fail(err, "%s: holds a NUL byte", path);
    for (char *p = text; *p; line++) {
        char *end = p + strcspn(p, "\n"), *next = *end ? end + 1 : end;
        int column = 0;
        *end = 0;
        while (end > p && (end[-1] == '\r' || end[-1] == ' ')) *--end = 0;
        if (!*p && !next[strspn(next, "\r\n")]) break;     /* empty lines at the end */
        if (line == n_layers)
            return fail(err, "%s: more than %d lines, one for each layer of the model", path,
                        n_layers);
        for (char *field = p; field <= end; column++) {
            char *stop;
            float x = strtof(field, &stop);
            if (*field == '\t' || stop == field || (*stop && *stop != '\t') || !isfinite(x))
                return fail(err, "%s: line %d, field %d is not a number", path, line + 1,
                            column + 1);
            if (column < n_kv_heads) score[(size_t)line * n_kv_heads + column] = x;
            field = stop + 1;
        }
        if (column != n_kv_heads)
            return fail(err, "%s: line %d has %d fields, the model %d KV heads", path, line + 1,
                        column, n_kv_heads);
        p = next;
    }
    if (line != n_layers)
        return fail(err, "%s: %d lines, the model has %d layers", path, line, n_layers);
    return 0;
}

/* The mean of an array of numbers, or a single number; -1 if it is something else. */
static int mean(const cJSON *x, double *out) {
    const cJSON *item;
    double sum = 0;
    int n = 0;
    if (cJSON_IsNumber(x)) return *out = x->valuedouble, isfinite(*out) ? 0 : -1;
    if (!cJSON_IsArray(x)) return -1;
    cJSON_ArrayForEach(item, x) {
        if (!cJSON_IsNumber(item)) return -1;
        sum += item->valuedouble;
        n++;
    }
    *out = n ? sum / n : 0;
    return isfinite(*out) ? 0 : -1;
}

static int read_object(float *score, const char *path, const cJSON *object, int n_layers,
                       int n_heads, int n_kv_heads, struct err *err) {
    const cJSON *item;
    const int want = n_layers * n_heads;
    int n = 0;
    if (!cJSON_IsObject(object)) return fail(err, "%s: not one JSON object", path);
    unsigned char *seen = calloc((size_t)want, 1);
    if (!seen) return fail(err, "%s: no memory", path);
    for (int i = 0; i < n_layers * n_kv_heads; i++) score[i] = -INFINITY;
    cJSON_ArrayForEach(item, object) {
        char *end = NULL;
        long layer = strtol(item->string, &end, 10),
             head = *end == '-' ? strtol(end + 1, &end, 10) : -1;
        double x;
        if (*end || layer < 0 || layer >= n_layers || head < 0 || head >= n_heads) {
            fail(err, "%s: \"%.32s\", wanted LAYER-HEAD up to %d-%d", path, item->string,
                 n_layers - 1, n_heads - 1);
            goto fail;
        }
        if (seen[layer * n_heads + head]) {
            fail(err, "%s: \"%.32s\" twice", path, item->string);
            goto fail;
        }
        if (mean(item, &x)) {
            fail(err, "%s: \"%.32s\" is no list of numbers", path, item->string);
            goto fail;
        }
        float *best = &score[layer * n_kv_heads + head / (n_heads / n_kv_heads)];
        if (x > *best) *best = (float)x;
        seen[layer * n_heads + head] = 1;
        n++;
    }
    free(seen);
    if (n != want)
        return fail(err, "%s: scores of %d heads, the model has %d x %d", path, n, n_layers,
                    n_heads);
    return 0;
fail:
    free(seen);
    return -1;
}

int heads_read(float *score, const char *path, int n_layers, int n_heads, int n_kv_heads,
               struct err *err) {
    char *text;
    size_t size;
    int rc;
    if (file_read(path, &text, &size, err)) return -1;
    if (text[strspn(text, " \t\r\n")] == '{') {
        cJSON *object = cJSON_ParseWithLength(text, size);
        rc = object ? read_object(score, path, object, n_layers, n_heads, n_kv_heads, err)
                    : fail(err, "%s: not valid JSON", path);
        cJSON_Delete(object);
    } else
        rc = read_tsv(score, path, text, size, n_layers, n_kv_heads, err);
    free(text);
    return rc;
}

static float cut(float x) { return x < 0 ? 0 : x > 1 ? 1 : x; }

int heads_choose(unsigned char *full, const float *score, int n, double ratio) {
    const int keep = ratio <= 0 ? 0 : ratio >= 1 ? n : n - (int)ceil((1 - ratio) * (n - 1) - 1e-9);
    for (int i = 0; i < n; i++) {
        int before = 0;                                    /* heads chosen before this one */
        for (int j = 0; j < n; j++)
            before += cut(score[j]) > cut(score[i]) || (cut(score[j]) == cut(score[i]) && j < i);
        full[i] = before < keep;
    }
    return keep;
}
