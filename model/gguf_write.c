/* gguf_write.c - collects keys and tensor headers in memory, then streams the file. */
#include "model/gguf_write.h"
#include "model/gguf_internal.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct bytes { uint8_t *p; size_t n, cap; };

/* value: type and bytes, as in the file. */
struct entry { char *key; size_t key_n; struct bytes value; };

struct header {
    char name[GGUF_NAME_MAX + 1];
    enum dtype type;
    int n_dims;
    uint64_t ne[4], bytes, offset;
};

struct gguf_writer {
    char *path, *tmp;
    FILE *file;
    struct entry *entries;
    size_t n_entries, cap_entries;
    struct header *headers;
    size_t n_headers, cap_headers;
    uint64_t alignment;
    size_t at;                     /* the tensor being written */
    uint64_t done;                 /* its bytes so far */
    bool began, failed;
    struct err first;              /* why it failed */
};

/* Remembers the first thing that went wrong; later calls then do nothing. */
#define BREAK(w, ...) ((void)((w)->failed || fail(&(w)->first, __VA_ARGS__)), (w)->failed = true)

static int report(const struct gguf_writer *w, struct err *err) {
    return fail(err, "%s", w->first.msg);
}

static void *grow(void *p, size_t *cap, size_t want, size_t item) {
    if (want <= *cap) return p;
    size_t n = *cap ? *cap : 16;
    while (n < want) n *= 2;
    void *q = realloc(p, n * item);
    if (q) *cap = n;
    return q;
}

static void append(struct gguf_writer *w, struct bytes *b, const void *p, size_t n) {
    uint8_t *q = w->failed ? NULL : grow(b->p, &b->cap, b->n + n, 1);
    if (!q) { BREAK(w, "%s: no memory for metadata", w->path); return; }
    b->p = q;
    if (n) memcpy(q + b->n, p, n);
    b->n += n;
}

static void append_uint(struct gguf_writer *w, struct bytes *b, uint64_t v, size_t bytes) {
    uint8_t le[8];
    for (int i = 0; i < 8; i++) le[i] = (uint8_t)(v >> 8 * i);
    append(w, b, le, bytes);
}

static void append_string(struct gguf_writer *w, struct bytes *b, const char *p, size_t n) {
    append_uint(w, b, n, 8);
    append(w, b, p, n);
}

static void append_float(struct gguf_writer *w, struct bytes *b, float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    append_uint(w, b, bits, 4);
}

int gguf_write_open(struct gguf_writer **out, const char *path, struct err *err) {
    struct gguf_writer *w = calloc(1, sizeof *w);
    size_t n = strlen(path);
    if (!w || !(w->path = strdup(path)) || !(w->tmp = malloc(n + 5))) {
        gguf_write_abort(w);
        return fail(err, "%s: no memory", path);
    }
    memcpy(w->tmp, path, n);
    memcpy(w->tmp + n, ".tmp", 5);
    struct stat there;                              /* a rename would replace /dev/null */
    const bool special = !stat(path, &there) && !S_ISREG(there.st_mode);
    if (special || !(w->file = fopen(w->tmp, "wb"))) {
        if (special)
            fail(err, "%s: %s, wanted a file to write", path,
                 S_ISDIR(there.st_mode) ? "a directory" : "not a regular file");
        else fail(err, "%s: %s", w->tmp, strerror(errno));
        free(w->tmp), w->tmp = NULL;                /* not ours: nothing to remove */
        gguf_write_abort(w);
        return -1;
    }
    *out = w;
    return 0;
}

/* The empty value of a key, its type already in it; NULL after a failure. */
static struct bytes *start_value(struct gguf_writer *w, const char *key, size_t key_n,
                                 enum gguf_type type) {
    if (w->failed) return NULL;
    struct entry *e = NULL;
    for (size_t i = 0; i < w->n_entries && !e; i++)
        if (w->entries[i].key_n == key_n && !memcmp(w->entries[i].key, key, key_n))
            e = &w->entries[i];
    if (!e) {
        struct entry *grown = grow(w->entries, &w->cap_entries, w->n_entries + 1, sizeof *grown);
        char *copy = malloc(key_n + 1);
        if (grown) w->entries = grown;
        if (!grown || !copy) {
            free(copy);
            BREAK(w, "%s: no memory for metadata", w->path);
            return NULL;
        }
        memcpy(copy, key, key_n);
        e = &w->entries[w->n_entries++];
        *e = (struct entry){ .key = copy, .key_n = key_n };
    }
    e->value.n = 0;
    append_uint(w, &e->value, type, 4);
    return &e->value;
}

static struct bytes *start_array(struct gguf_writer *w, const char *key, enum gguf_type item,
                                 uint64_t n) {
    struct bytes *b = start_value(w, key, strlen(key), GGUF_ARRAY);
    if (!b) return NULL;
    append_uint(w, b, item, 4);
    append_uint(w, b, n, 8);
    return b;
}

static void append_int(struct gguf_writer *w, struct bytes *b, const char *key, enum gguf_type type,
                       int64_t v) {
    size_t bytes = gguf_type_bytes(type);
    bool is_signed = type == GGUF_I8 || type == GGUF_I16 || type == GGUF_I32 || type == GGUF_I64;
    if (!is_signed && type != GGUF_U8 && type != GGUF_U16 && type != GGUF_U32 && type != GGUF_U64) {
        BREAK(w, "%s: key '%s': an integer cannot have type %s", w->path, key,
              gguf_type_name(type));
        return;
    }
    int bits = 8 * (int)bytes - is_signed;         /* of magnitude */
    if ((!is_signed && v < 0) ||
        (bits < 63 && (v >= (int64_t)1 << bits || v < -((int64_t)1 << bits)))) {
        BREAK(w, "%s: key '%s': %" PRId64 " does not fit into type %s", w->path, key, v,
              gguf_type_name(type));
        return;
    }
    append_uint(w, b, (uint64_t)v, bytes);
}

void gguf_put_int(struct gguf_writer *w, const char *key, enum gguf_type type, int64_t value) {
    struct bytes *b = start_value(w, key, strlen(key), type);
    if (b) append_int(w, b, key, type, value);
}

void gguf_put_float(struct gguf_writer *w, const char *key, double value) {
    struct bytes *b = start_value(w, key, strlen(key), GGUF_F32);
    if (b) append_float(w, b, (float)value);
}

void gguf_put_bool(struct gguf_writer *w, const char *key, bool value) {
    struct bytes *b = start_value(w, key, strlen(key), GGUF_BOOL);
    if (b) append_uint(w, b, value, 1);
}

void gguf_put_string(struct gguf_writer *w, const char *key, const char *value) {
    struct bytes *b = start_value(w, key, strlen(key), GGUF_STRING);
    if (b) append_string(w, b, value, strlen(value));
}

void gguf_put_strings(struct gguf_writer *w, const char *key, const struct gguf_str *s,
                      uint64_t n) {
    struct bytes *b = start_array(w, key, GGUF_STRING, n);
    for (uint64_t i = 0; b && i < n; i++) append_string(w, b, s[i].p, s[i].n);
}

void gguf_put_floats(struct gguf_writer *w, const char *key, const float *f, uint64_t n) {
    struct bytes *b = start_array(w, key, GGUF_F32, n);
    for (uint64_t i = 0; b && i < n; i++) append_float(w, b, f[i]);
}

void gguf_put_ints(struct gguf_writer *w, const char *key, enum gguf_type type, const int32_t *v,
                   uint64_t n) {
    struct bytes *b = start_array(w, key, type, n);
    for (uint64_t i = 0; b && i < n; i++) append_int(w, b, key, type, v[i]);
}

/* The bytes of a value as they lie in the file it was read from. */
static size_t value_bytes(const struct gguf_kv *kv) {
    if (kv->item != GGUF_STRING) return (size_t)kv->count * gguf_type_bytes(kv->item);
    const uint8_t *end = NULL;
    for (uint64_t i = 0; i < kv->count; i++) gguf_next_string(kv, &end);
    return end ? (size_t)(end - kv->value) : 0;
}

void gguf_put_kv(struct gguf_writer *w, const struct gguf *g, const struct gguf_kv *kv) {
    (void)g;                                       /* kv borrows from it: it must still be open */
    struct bytes *b = start_value(w, kv->key.p, kv->key.n, kv->type);
    if (!b) return;
    if (kv->type == GGUF_ARRAY) {
        append_uint(w, b, kv->item, 4);
        append_uint(w, b, kv->count, 8);
    }
    append(w, b, kv->value, value_bytes(kv));
}

void gguf_declare(struct gguf_writer *w, const char *name, enum dtype type, int n_dims,
                  const uint64_t *ne) {
    const struct dtype_info *d = dtype_info(type);
    size_t name_n = strlen(name);
    struct header h = { .type = type, .n_dims = n_dims, .ne = { 1, 1, 1, 1 } };
    if (w->failed) return;
    if (!name_n || name_n > GGUF_NAME_MAX || n_dims < 1 || n_dims > 4 || !d) {
        BREAK(w, "%s: tensor '%s': a name of %zu bytes (want 1 to %d), %d dimensions "
              "(want 1 to 4), type %s", w->path, name, name_n, GGUF_NAME_MAX, n_dims,
              dtype_name(type));
        return;
    }
    memcpy(h.name, name, name_n);
    uint64_t values = 1;
    bool bad = false;
    for (int i = 0; i < n_dims; i++) {
        h.ne[i] = ne[i];
        bad |= !ne[i] || __builtin_mul_overflow(values, ne[i], &values);
    }
    bad |= ne[0] % (uint64_t)d->block ||
           __builtin_mul_overflow(values / d->block, (uint64_t)d->bytes, &h.bytes);
    struct header *grown = bad ? NULL
                         : grow(w->headers, &w->cap_headers, w->n_headers + 1, sizeof *grown);
    if (bad)
        BREAK(w, "%s: tensor '%s': shape %" PRIu64 " x %" PRIu64 " x %" PRIu64 " x %" PRIu64
              " does not suit type %s",
              w->path, name, h.ne[0], h.ne[1], h.ne[2], h.ne[3], d->name);
    else if (!grown)
        BREAK(w, "%s: no memory for %zu tensors", w->path, w->n_headers + 1);
    else {
        w->headers = grown;
        w->headers[w->n_headers++] = h;
    }
}

static int header_by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void refuse_twins(struct gguf_writer *w) {
    char **names = malloc((w->n_headers + 1) * sizeof *names);
    if (!names) { BREAK(w, "%s: no memory for %zu tensors", w->path, w->n_headers); return; }
    for (size_t i = 0; i < w->n_headers; i++) names[i] = w->headers[i].name;
    qsort(names, w->n_headers, sizeof *names, header_by_name);
    for (size_t i = 1; i < w->n_headers; i++)
        if (!strcmp(names[i - 1], names[i]))
            BREAK(w, "%s: tensor '%s' declared twice", w->path, names[i]);
    free(names);
}

/* A copied or set general.alignment holds for this file too. */
static void find_alignment(struct gguf_writer *w) {
    w->alignment = GGUF_ALIGNMENT;
    for (size_t i = 0; i < w->n_entries; i++) {
        const struct entry *e = &w->entries[i];
        if (e->key_n != strlen("general.alignment") ||
            memcmp(e->key, "general.alignment", e->key_n))
            continue;
        uint64_t a = 0;
        for (size_t j = e->value.n; j-- > 4; ) a = a << 8 | e->value.p[j];
        if (a < GGUF_ALIGNMENT_MIN || a > UINT32_MAX || (a & (a - 1)))
            BREAK(w, "%s: key 'general.alignment': %" PRIu64 ", want a power of two of at least %d",
                  w->path, a, GGUF_ALIGNMENT_MIN);
        else w->alignment = a;
    }
}

static int put(struct gguf_writer *w, const void *p, size_t n) {
    if (!w->failed && n && fwrite(p, 1, n, w->file) != n)
        BREAK(w, "%s: %s", w->tmp, strerror(errno));
    return w->failed ? -1 : 0;
}

static int pad(struct gguf_writer *w, uint64_t at) {
    static const uint8_t zeros[4096];
    for (uint64_t n = (w->alignment - at % w->alignment) % w->alignment; n; ) {
        size_t piece = n < sizeof zeros ? (size_t)n : sizeof zeros;
        if (put(w, zeros, piece)) return -1;
        n -= piece;
    }
    return 0;
}

/* Everything up to the data section, in one buffer: its length decides the padding. */
static void write_head(struct gguf_writer *w) {
    struct bytes b = {0};
    append(w, &b, "GGUF", 4);
    append_uint(w, &b, 3, 4);
    append_uint(w, &b, w->n_headers, 8);
    append_uint(w, &b, w->n_entries, 8);
    for (size_t i = 0; i < w->n_entries; i++) {
        append_string(w, &b, w->entries[i].key, w->entries[i].key_n);
        append(w, &b, w->entries[i].value.p, w->entries[i].value.n);
    }
    uint64_t offset = 0;
    for (size_t i = 0; i < w->n_headers; i++) {
        struct header *h = &w->headers[i];
        append_string(w, &b, h->name, strlen(h->name));
        append_uint(w, &b, (uint64_t)h->n_dims, 4);
        for (int j = 0; j < h->n_dims; j++) append_uint(w, &b, h->ne[j], 8);
        append_uint(w, &b, h->type, 4);
        append_uint(w, &b, offset, 8);
        offset += (h->bytes + w->alignment - 1) / w->alignment * w->alignment;
    }
    if (!put(w, b.p, b.n)) pad(w, b.n);
    free(b.p);
}

int gguf_write_begin(struct gguf_writer *w, struct err *err) {
    find_alignment(w);
    refuse_twins(w);
    write_head(w);
    w->began = true;
    return w->failed ? report(w, err) : 0;
}

int gguf_write_data(struct gguf_writer *w, const void *data, size_t bytes, struct err *err) {
    const struct header *h = w->at < w->n_headers ? &w->headers[w->at] : NULL;
    if (!w->failed && (!w->began || !h || bytes > h->bytes - w->done))
        BREAK(w, "%s: %zu bytes of data for tensor '%s', which has room for %" PRIu64, w->path,
              bytes, h ? h->name : "(past the last)", h && w->began ? h->bytes - w->done : 0);
    if (put(w, data, bytes)) return report(w, err);
    w->done += bytes;
    if (w->done == h->bytes) {
        if (pad(w, h->bytes)) return report(w, err);
        w->at++;
        w->done = 0;
    }
    return 0;
}

int gguf_write_close(struct gguf_writer *w, struct err *err) {
    if (!w->failed && (!w->began || w->at < w->n_headers))
        BREAK(w, "%s: closed after %zu of %zu tensors", w->path, w->at, w->n_headers);
    if (!w->failed && (fflush(w->file) || ferror(w->file)))
        BREAK(w, "%s: %s", w->tmp, strerror(errno));
    int rc = fclose(w->file);
    w->file = NULL;
    if (!w->failed && rc) BREAK(w, "%s: %s", w->tmp, strerror(errno));
    if (!w->failed && rename(w->tmp, w->path)) BREAK(w, "%s: %s", w->path, strerror(errno));
    rc = w->failed ? report(w, err) : 0;
    if (!rc) { free(w->tmp); w->tmp = NULL; }   /* it has the final name now: nothing to remove */
    gguf_write_abort(w);
    return rc;
}

void gguf_write_abort(struct gguf_writer *w) {
    if (!w) return;
    if (w->file) fclose(w->file);
    if (w->tmp) unlink(w->tmp);
    for (size_t i = 0; i < w->n_entries; i++) {
        free(w->entries[i].key);
        free(w->entries[i].value.p);
    }
    free(w->entries);
    free(w->headers);
    free(w->tmp);
    free(w->path);
    free(w);
}
