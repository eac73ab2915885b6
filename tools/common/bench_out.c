/* bench_out.c - flat JSON objects as JSON, JSON lines or CSV. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tools/common/bench_print.h"

int bench_format_parse(const char *name, enum bench_format *out, struct err *err) {
    static const char *const names[] = { "md", "csv", "json", "jsonl" };
    for (int i = 0; i < 4; i++)
        if (!strcmp(name, names[i])) { *out = (enum bench_format)i; return 0; }
    return fail(err, "-o: got '%s', wanted md, csv, json or jsonl", name);
}

/* A quoted field; quotes within are doubled. */
static void csv_text(const char *s) {
    putchar('"');
    for (; *s; s++) {
        if (*s == '"') putchar('"');
        putchar(*s);
    }
    putchar('"');
}

static void csv_value(const cJSON *v) {
    if (cJSON_IsNull(v)) { csv_text(""); return; }
    if (cJSON_IsString(v)) { csv_text(v->valuestring); return; }
    if (cJSON_IsArray(v)) {                         /* samples: numbers apart by spaces */
        putchar('"');
        for (const cJSON *i = v->child; i; i = i->next)
            printf("%.15g%s", i->valuedouble, i->next ? " " : "");
        putchar('"');
        return;
    }
    printf("\"%.15g\"", v->valuedouble);
}

static void csv_row(const cJSON *o, bool head) {
    for (const cJSON *v = o->child; v; v = v->next) {
        if (head) fputs(v->string, stdout);
        else csv_value(v);
        putchar(v->next ? ',' : '\n');
    }
}

void bench_out_object(struct bench_out *out, cJSON *o) {
    char *text = NULL;
    if (!o) { out->failed = true; return; }
    if (out->format == BENCH_CSV) {
        if (!out->n_rows) csv_row(o, true);
        csv_row(o, false);
    } else if ((text = out->format == BENCH_JSON ? cJSON_Print(o) : cJSON_PrintUnformatted(o))) {
        if (out->format == BENCH_JSON) fputs(out->n_rows ? ",\n" : "[\n", stdout);
        printf(out->format == BENCH_JSON ? "%s" : "%s\n", text);
    } else out->failed = true;
    fflush(stdout);
    out->n_rows++;
    free(text);
    cJSON_Delete(o);
}

int bench_out_end(struct bench_out *out, struct err *err) {
    if (out->format == BENCH_JSON) puts(out->n_rows ? "\n]" : "[]");
    if (fflush(stdout) || ferror(stdout))
        return fail(err, "stdout: %s", strerror(errno ? errno : EIO));
    if (out->failed) return fail(err, "no memory to print a row");
    return 0;
}
