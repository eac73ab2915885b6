/* gguf_set.c - metadata that the command line sets: "KEY=TYPE:VALUE" in place of what a file says,
 * or beside it. */
#include "model/gguf_internal.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct gguf_set {
    struct gguf_set *next;
    bool in_file, read;
    char *key;
    struct gguf_kv kv;             /* of key, and of the bytes */
    uint8_t bytes[];               /* as they would lie in a file */
};

static void put_u64(uint8_t *to, uint64_t v) {
    for (int i = 0; i < 8; i++) to[i] = (uint8_t)(v >> 8 * i);
}

static int put_number(enum gguf_type type, const char *text, uint8_t *to, struct err *err) {
    char *end;
    errno = 0;
    const int64_t i = type == GGUF_I64 ? strtoll(text, &end, 10) : 0;
    const double d = type == GGUF_F64 ? strtod(text, &end) : 0;
    uint64_t bits = (uint64_t)i;
    if (type == GGUF_F64) memcpy(&bits, &d, sizeof bits);
    if (end == text || *end || errno || !isfinite(d))
        return fail(err, "got '%s', wanted %s", text, type == GGUF_I64 ? "an integer" : "a number");
    put_u64(to, bits);
    return 0;
}

/* The value behind the type's name into s->bytes, which have room for it. */
static int put_value(struct gguf_set *s, const char *type, const char *value, struct err *err) {
    static const struct { const char *name; enum gguf_type type; } types[] = {
        { "int", GGUF_I64 }, { "float", GGUF_F64 }, { "bool", GGUF_BOOL }, { "str", GGUF_STRING },
    };
    const size_t n = (size_t)(value - 1 - type);
    s->kv.count = 1;
    s->kv.value = s->bytes;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strlen(types[i].name) != n || memcmp(types[i].name, type, n)) continue;
        s->kv.type = types[i].type;
        switch (s->kv.type) {
        case GGUF_STRING:
            put_u64(s->bytes, strlen(value));
            memcpy(s->bytes + 8, value, strlen(value));
            return 0;
        case GGUF_BOOL:
            s->bytes[0] = !strcmp(value, "true");
            if (s->bytes[0] || !strcmp(value, "false")) return 0;
            return fail(err, "got '%s', wanted true or false", value);
        default: return put_number(s->kv.type, value, s->bytes, err);
        }
    }
    return fail(err, "got type '%.*s', wanted int, float, bool or str", (int)n, type);
}

static int parse(struct gguf_set **out, const char *text, struct err *err) {
    const char *type = strchr(text, '='), *value = type ? strchr(type, ':') : NULL;
    if (!value || type == text)
        return fail(err, "got '%s', wanted KEY=TYPE:VALUE, such as llama.rope.freq_base=float:1e6",
                    text);
    const size_t n = (size_t)(type - text);
    struct gguf_set *s = calloc(1, sizeof *s + 8 + strlen(value));
    if (!s || !(s->key = strndup(text, n))) {
        free(s);
        return fail(err, "no memory");
    }
    s->kv.key = (struct gguf_str){ s->key, n };
    struct err why;
    if (put_value(s, type + 1, value + 1, &why)) {
        fail(err, "%s: %s", s->key, why.msg);
        gguf_sets_free(s);
        return -1;
    }
    *out = s;
    return 0;
}

void gguf_sets_free(struct gguf_set *s) {
    while (s) {
        struct gguf_set *next = s->next;
        free(s->key);
        free(s);
        s = next;
    }
}

int gguf_set_check(const char *text, struct err *err) {
    struct gguf_set *s;
    if (parse(&s, text, err)) return -1;
    gguf_sets_free(s);
    return 0;
}

/* Numbers of one kind stand for each other whatever their width, as they do for whoever reads
 * them. */
static enum gguf_type kind(enum gguf_type t) {
    switch (t) {
    case GGUF_U8: case GGUF_I8: case GGUF_U16: case GGUF_I16: case GGUF_U32: case GGUF_I32:
    case GGUF_U64: case GGUF_I64: return GGUF_I64;
    case GGUF_F32: case GGUF_F64: return GGUF_F64;
    default: return t;
    }
}

int gguf_set(struct gguf *g, const char *text, struct err *err) {
    struct gguf_set *s;
    if (parse(&s, text, err)) return -1;
    const struct gguf_kv *there = gguf_part_find(&g->parts[0], s->key);
    if (there && kind(there->type) != s->kv.type) {
        fail(err, "%s: got %s, the file has %s", s->key, gguf_type_name(s->kv.type),
             gguf_type_name(there->type));
        gguf_sets_free(s);
        return -1;
    }
    s->in_file = there != NULL;
    s->next = g->sets;
    g->sets = s;
    return 0;
}

const struct gguf_kv *gguf_set_find(const struct gguf *g, const char *key) {
    for (struct gguf_set *s = g->sets; s; s = s->next)
        if (!strcmp(s->key, key)) {
            s->read = true;
            return &s->kv;
        }
    return NULL;
}

const char *gguf_set_unread(const struct gguf *g) {
    const char *key = NULL;
    for (const struct gguf_set *s = g->sets; s; s = s->next)
        if (!s->in_file && !s->read && strncmp(s->key, "general.", strlen("general.")) &&
            strncmp(s->key, "tokenizer.", strlen("tokenizer.")))
            key = s->key;
    return key;
}
