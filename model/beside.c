#include "model/beside.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *mode, *key, *ending; int quoted; const char *instead[2];
} rules[] = {
    { "duo", "heads", ".heads.tsv", 0, { NULL } },
    { "delta", "full", ".delta.txt", 1, { NULL } },            /* the file says it, among others */
    { "moa", "plan", ".moa.json", 0, { "alpha", "beta" } },    /* `instead` of the key */
};

static int is_mode(const char *attn, const char *mode) {
    const size_t n = strlen(mode);
    return !strncmp(attn, mode, n) && (!attn[n] || attn[n] == ',');
}

static int gives(const char *attn, const char *key) {
    const size_t n = strlen(key);
    for (const char *p = attn; (p = strchr(p, ',')); )
        if (!strncmp(++p, key, n) && p[n] == '=') return 1;
    return 0;
}

/* The numbers behind "key=" in the file's first line: "0,2" of "delta,full=0,2,budget=64". */
static int quote(char *value, size_t size, const char *file, const char *key) {
    char line[512] = "", wanted[32];
    FILE *f = fopen(file, "r");
    if (!f) return 0;
    const int got = fgets(line, sizeof line, f) != NULL;
    fclose(f);
    snprintf(wanted, sizeof wanted, ",%s=", key);
    const char *p = got ? strstr(line, wanted) : NULL;
    if (!p) return 0;
    p += strlen(wanted);
    size_t n = strspn(p, "0123456789,");
    if (n && p[n - 1] == ',') n--;
    if (!n || n >= size) return 0;
    memcpy(value, p, n);
    value[n] = 0;
    return 1;
}

const char *beside_attn(char *buf, size_t size, const char *attn, const char *path) {
    static const char gguf[] = ".gguf";
    size_t n = strlen(path);
    if (n >= sizeof gguf && !strcmp(path + n - (sizeof gguf - 1), gguf)) n -= sizeof gguf - 1;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        char file[1024], value[1024];
        if (!is_mode(attn, rules[i].mode) || gives(attn, rules[i].key)) continue;
        if (rules[i].instead[0] &&
            (gives(attn, rules[i].instead[0]) || gives(attn, rules[i].instead[1])))
            continue;
        if ((size_t)snprintf(file, sizeof file, "%.*s%s", (int)n, path, rules[i].ending)
                >= sizeof file || access(file, R_OK))
            continue;
        if (rules[i].quoted && !quote(value, sizeof value, file, rules[i].key)) continue;
        if (!rules[i].quoted && strchr(file, ',')) continue;           /* a comma ends a value */
        const char *v = rules[i].quoted ? value : file;
        if ((size_t)snprintf(buf, size, "%s,%s=%s", attn, rules[i].key, v) < size) return buf;
    }
    return attn;
}
