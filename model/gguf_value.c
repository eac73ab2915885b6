/* gguf_value.c - from the bytes of a GGUF value to numbers and strings. */
#include "model/gguf_internal.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct { const char *name; size_t bytes; } types[] = {
    [GGUF_U8] = { "u8", 1 }, [GGUF_I8] = { "i8", 1 }, [GGUF_U16] = { "u16", 2 },
    [GGUF_I16] = { "i16", 2 }, [GGUF_U32] = { "u32", 4 }, [GGUF_I32] = { "i32", 4 },
    [GGUF_F32] = { "f32", 4 }, [GGUF_BOOL] = { "bool", 1 }, [GGUF_STRING] = { "string", 0 },
    [GGUF_ARRAY] = { "array", 0 },
    [GGUF_U64] = { "u64", 8 }, [GGUF_I64] = { "i64", 8 }, [GGUF_F64] = { "f64", 8 },
};

size_t gguf_type_bytes(int type) { return type >= 0 && type <= GGUF_F64 ? types[type].bytes : 0; }
const char *gguf_type_name(int type) {
    return type >= 0 && type <= GGUF_F64 ? types[type].name : "unknown";
}

const char *gguf_show(char buf[GGUF_SHOWN], const char *p, size_t n) {
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        if (at + 12 > GGUF_SHOWN || at >= 80) {    /* room for one escape and the dots */
            memcpy(buf + at, "...", 4);
            return buf;
        }
        if (c >= ' ' && c < 127 && c != '\\') buf[at++] = (char)c;
        else at += (size_t)snprintf(buf + at, 5, "\\x%02x", c);
    }
    buf[at] = 0;
    return buf;
}

/* 0; -1: not an integer type; 1: an integer beyond int64_t. */
static int load_int(enum gguf_type type, const uint8_t *p, int64_t *out) {
    switch (type) {
    case GGUF_U8: *out = p[0]; return 0;
    case GGUF_I8: *out = (int8_t)p[0]; return 0;
    case GGUF_U16: *out = (uint16_t)(p[0] | p[1] << 8); return 0;
    case GGUF_I16: *out = (int16_t)(p[0] | p[1] << 8); return 0;
    case GGUF_U32: *out = gguf_u32(p); return 0;
    case GGUF_I32: *out = (int32_t)gguf_u32(p); return 0;
    case GGUF_I64: *out = (int64_t)gguf_u64(p); return 0;
    case GGUF_U64:
        if (gguf_u64(p) > INT64_MAX) return 1;
        *out = (int64_t)gguf_u64(p);
        return 0;
    default: return -1;
    }
}

static int load_float(enum gguf_type type, const uint8_t *p, double *out) {
    uint32_t u32;
    uint64_t u64;
    float f;
    switch (type) {
    case GGUF_F32: u32 = gguf_u32(p); memcpy(&f, &u32, 4); *out = f; return 0;
    case GGUF_F64: u64 = gguf_u64(p); memcpy(out, &u64, 8); return 0;
    default: return -1;
    }
}

static int wrong_type(const struct gguf_kv *kv, const char *path, const char *want,
                      struct err *err) {
    char shown[GGUF_SHOWN];
    gguf_show(shown, kv->key.p, kv->key.n);
    if (kv->type == GGUF_ARRAY)
        return fail(err, "%s: key '%s': an array of %" PRIu64 " x %s, want %s", path, shown,
                    kv->count, gguf_type_name(kv->item), want);
    return fail(err, "%s: key '%s': type %s, want %s", path, shown, gguf_type_name(kv->type), want);
}

int gguf_kv_int(const struct gguf_kv *kv, const char *path, int64_t min, int64_t max, int64_t *out,
                struct err *err) {
    if (!kv) return 0;
    int64_t v;
    int rc = load_int(kv->type, kv->value, &v);
    if (rc < 0) return wrong_type(kv, path, "an integer", err);
    if (!rc && v >= min && v <= max) { *out = v; return 1; }
    char shown[GGUF_SHOWN], value[24];
    if (rc) snprintf(value, sizeof value, "%" PRIu64, gguf_u64(kv->value));
    else snprintf(value, sizeof value, "%" PRId64, v);
    return fail(err, "%s: key '%s': %s, want %" PRId64 " to %" PRId64, path,
                gguf_show(shown, kv->key.p, kv->key.n), value, min, max);
}

int gguf_get_int(const struct gguf *g, const char *key, int64_t min, int64_t max, int64_t *out,
                 struct err *err) {
    return gguf_kv_int(gguf_find(g, key), gguf_path(g), min, max, out, err);
}

int gguf_get_float(const struct gguf *g, const char *key, double *out, struct err *err) {
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv) return 0;
    return load_float(kv->type, kv->value, out) ? wrong_type(kv, gguf_path(g), "a float", err) : 1;
}

int gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct err *err) {
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv) return 0;
    if (kv->type != GGUF_BOOL) return wrong_type(kv, gguf_path(g), "a bool", err);
    *out = kv->value[0];
    return 1;
}

int gguf_get_string(const struct gguf *g, const char *key, char *out, size_t size,
                    struct err *err) {
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv) return 0;
    if (kv->type != GGUF_STRING) return wrong_type(kv, gguf_path(g), "a string", err);
    const uint8_t *cursor = NULL;
    struct gguf_str s = gguf_next_string(kv, &cursor);
    char shown[GGUF_SHOWN];
    gguf_show(shown, kv->key.p, kv->key.n);
    if (s.n >= size)
        return fail(err, "%s: key '%s': a string of %zu bytes, want fewer than %zu", gguf_path(g),
                    shown, s.n, size);
    if (memchr(s.p, 0, s.n))
        return fail(err, "%s: key '%s': the string holds a NUL byte", gguf_path(g), shown);
    memcpy(out, s.p, s.n);
    out[s.n] = 0;
    return 1;
}

int gguf_array_int(const struct gguf_kv *kv, uint64_t i, int64_t *out) {
    return i < kv->count && !load_int(kv->item, kv->value + i * gguf_type_bytes(kv->item), out)
         ? 0 : -1;
}

int gguf_array_float(const struct gguf_kv *kv, uint64_t i, double *out) {
    return i < kv->count ? load_float(kv->item, kv->value + i * gguf_type_bytes(kv->item), out)
                         : -1;
}

struct gguf_str gguf_next_string(const struct gguf_kv *kv, const uint8_t **cursor) {
    const uint8_t *p = *cursor ? *cursor : kv->value;
    struct gguf_str s = { (const char *)p + 8, (size_t)gguf_u64(p) };
    *cursor = p + 8 + s.n;
    return s;
}
