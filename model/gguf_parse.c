/* gguf_parse.c - from the bytes of one GGUF file to its list of keys and tensors, trusting none
 * of them.
 *
 * The layout, all little-endian: magic, u32 version, u64 tensor count, u64 key count; the keys
 * (string key, u32 type, value); the tensor headers (string name, u32 dims, u64 ne[dims], u32
 * type, u64 offset); padding up to general.alignment; the data section that the offsets count
 * from. A string is a u64 length and its bytes. */
#include "model/gguf_internal.h"
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER_BYTES = 24 };
/* The fewest bytes a key (1-byte name, 1-byte value) and a tensor header (1-byte name, 1
 * dimension) can take. */
enum { KEY_BYTES = 8 + 1 + 4 + 1, TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8 };

struct cursor {
    const struct gguf_part *part;
    size_t at;                  /* never past part->size */
    const char *what;           /* which list is being read, and which item of it, for messages */
    uint64_t index;
    struct err *err;
};

static size_t left(const struct cursor *c) { return c->part->size - c->at; }

/* Takes n bytes called `field`, or NULL with the error filled in. */
static const uint8_t *take(struct cursor *c, uint64_t n, const char *field) {
    if (n > left(c)) {
        fail(c->err, "%s: %s %" PRIu64 ": the %s needs %" PRIu64 " bytes at %zu, "
             "but the file ends after %zu more",
             c->part->path, c->what, c->index, field, n, c->at, left(c));
        return NULL;
    }
    const uint8_t *p = c->part->base + c->at;
    c->at += (size_t)n;
    return p;
}

static int take_u32(struct cursor *c, uint32_t *out, const char *field) {
    const uint8_t *p = take(c, 4, field);
    if (!p) return -1;
    *out = gguf_u32(p);
    return 0;
}

static int take_u64(struct cursor *c, uint64_t *out, const char *field) {
    const uint8_t *p = take(c, 8, field);
    if (!p) return -1;
    *out = gguf_u64(p);
    return 0;
}

static int take_string(struct cursor *c, struct gguf_str *out, const char *field) {
    uint64_t n;
    if (take_u64(c, &n, field)) return -1;
    const uint8_t *p = take(c, n, field);
    if (!p) return -1;
    *out = (struct gguf_str){ (const char *)p, (size_t)n };
    return 0;
}

/* Walks over `count` values of one type, so that later readers need no bounds. */
static int skip_values(struct cursor *c, int type, uint64_t count, const char *key) {
    const char *path = c->part->path;
    size_t size = gguf_type_bytes(type);
    uint64_t least = type == GGUF_STRING ? 8 : size;     /* an empty string is its length */
    if (count > left(c) / least)
        return fail(c->err, "%s: key '%s': %" PRIu64 " values of type %s, "
                    "but only %zu bytes of the file are left",
                    path, key, count, gguf_type_name(type), left(c));
    if (type == GGUF_STRING) {
        struct gguf_str s;
        for (uint64_t i = 0; i < count; i++)
            if (take_string(c, &s, "string value")) return -1;
        return 0;
    }
    const uint8_t *p = take(c, count * size, "value");
    if (!p) return -1;
    for (uint64_t i = 0; type == GGUF_BOOL && i < count; i++)
        if (p[i] > 1) return fail(c->err, "%s: key '%s': bool %d, want 0 or 1", path, key, p[i]);
    return 0;
}

static int read_key(struct cursor *c, struct gguf_kv *kv) {
    const char *path = c->part->path;
    char shown[GGUF_SHOWN];
    uint32_t type, item;
    if (take_string(c, &kv->key, "name")) return -1;
    if (!kv->key.n) return fail(c->err, "%s: key %" PRIu64 ": the name is empty", path, c->index);
    gguf_show(shown, kv->key.p, kv->key.n);
    if (take_u32(c, &type, "type")) return -1;
    if (type > GGUF_F64)
        return fail(c->err, "%s: key '%s': type %" PRIu32 ", want 0 to %d", path, shown, type,
                    GGUF_F64);
    kv->type = kv->item = (enum gguf_type)type;
    kv->count = 1;
    if (type == GGUF_ARRAY) {
        if (take_u32(c, &item, "item type") || take_u64(c, &kv->count, "item count")) return -1;
        if (item == GGUF_ARRAY)
            return fail(c->err, "%s: key '%s': an array of arrays, "
                        "want an array of numbers, bools or strings", path, shown);
        if (item > GGUF_F64)
            return fail(c->err, "%s: key '%s': items of type %" PRIu32 ", want 0 to %d", path,
                        shown, item, GGUF_F64);
        kv->item = (enum gguf_type)item;
    }
    kv->value = c->part->base + c->at;
    return skip_values(c, kv->item, kv->count, shown);
}

static int by_bytes(const char *a, size_t na, const char *b, size_t nb) {
    int order = memcmp(a, b, na < nb ? na : nb);
    return order ? order : (na > nb) - (na < nb);
}

static int by_key(const void *a, const void *b) {
    const struct gguf_kv *x = *(const struct gguf_kv *const *)a,
                         *y = *(const struct gguf_kv *const *)b;
    return by_bytes(x->key.p, x->key.n, y->key.p, y->key.n);
}

/* Sorting costs the same for every file; a hash table would let a hostile one pick colliding
 * names. */
static int index_keys(struct gguf_part *p, struct err *err) {
    if (!(p->kv_by_key = malloc(((size_t)p->n_kv + 1) * sizeof *p->kv_by_key)))
        return fail(err, "%s: no memory to index %d keys", p->path, p->n_kv);
    for (int i = 0; i < p->n_kv; i++) p->kv_by_key[i] = &p->kv[i];
    qsort(p->kv_by_key, (size_t)p->n_kv, sizeof *p->kv_by_key, by_key);
    char shown[GGUF_SHOWN];
    for (int i = 1; i < p->n_kv; i++)
        if (!by_key(&p->kv_by_key[i - 1], &p->kv_by_key[i]))
            return fail(err, "%s: key '%s' appears twice", p->path,
                        gguf_show(shown, p->kv_by_key[i]->key.p, p->kv_by_key[i]->key.n));
    return 0;
}

const struct gguf_kv *gguf_part_find(const struct gguf_part *p, const char *key) {
    size_t n = strlen(key);
    for (int lo = 0, hi = p->n_kv; lo < hi; ) {
        int mid = lo + (hi - lo) / 2;
        const struct gguf_kv *kv = p->kv_by_key[mid];
        int order = by_bytes(key, n, kv->key.p, kv->key.n);
        if (!order) return kv;
        if (order < 0) hi = mid; else lo = mid + 1;
    }
    return NULL;
}

/* Bytes of the tensor into t->bytes, 0 for a type the engine does not know. Every product is
 * checked. */
static int measure(const struct gguf_part *p, struct gguf_tensor *t, const char *shown,
                   struct err *err) {
    const struct dtype_info *d = dtype_info(t->type);
    uint64_t values = 1;
    for (int i = 0; i < t->n_dims; i++) {
        if (!t->ne[i])
            return fail(err, "%s: tensor '%s': dimension %d is 0, want at least 1",
                        p->path, shown, i);
        if (__builtin_mul_overflow(values, t->ne[i], &values) || values > INT64_MAX)
            return fail(err, "%s: tensor '%s': %" PRIu64 " x %" PRIu64 " x %" PRIu64 " x %" PRIu64
                        " values, more than 64 bits can count",
                        p->path, shown, t->ne[0], t->ne[1], t->ne[2], t->ne[3]);
    }
    if (!d) return 0;
    if (t->ne[0] % (uint64_t)d->block)
        return fail(err, "%s: tensor '%s': rows of %" PRIu64 " values, %s wants a multiple of %d",
                    p->path, shown, t->ne[0], d->name, d->block);
    if (__builtin_mul_overflow(values / (uint64_t)d->block, (uint64_t)d->bytes, &t->bytes))
        return fail(err, "%s: tensor '%s': %" PRIu64 " values of type %s, "
                    "more bytes than 64 bits can count", p->path, shown, values, d->name);
    return 0;
}

static int read_tensor(struct cursor *c, struct gguf_tensor *t, uint64_t *offset) {
    const char *path = c->part->path;
    char shown[GGUF_SHOWN];
    struct gguf_str name;
    uint32_t n_dims, type;
    if (take_string(c, &name, "name")) return -1;
    gguf_show(shown, name.p, name.n);
    if (!name.n || name.n > GGUF_NAME_MAX)
        return fail(c->err, "%s: tensor %" PRIu64 " ('%s'): a name of %zu bytes, want 1 to %d",
                    path, c->index, shown, name.n, GGUF_NAME_MAX);
    if (memchr(name.p, 0, name.n))
        return fail(c->err, "%s: tensor %" PRIu64 ": the name '%s' holds a NUL byte", path,
                    c->index, shown);
    memcpy(t->name, name.p, name.n);
    if (take_u32(c, &n_dims, "dimension count")) return -1;
    if (n_dims < 1 || n_dims > 4)
        return fail(c->err, "%s: tensor '%s': %" PRIu32 " dimensions, want 1 to 4", path, shown,
                    n_dims);
    t->n_dims = (int)n_dims;
    t->ne[0] = t->ne[1] = t->ne[2] = t->ne[3] = 1;
    for (uint32_t i = 0; i < n_dims; i++)
        if (take_u64(c, &t->ne[i], "shape")) return -1;
    if (take_u32(c, &type, "type") || take_u64(c, offset, "offset")) return -1;
    if (type > INT_MAX)
        return fail(c->err, "%s: tensor '%s': type %" PRIu32 ", no such type", path, shown, type);
    t->type = (int)type;
    t->file = path;
    return measure(c->part, t, shown, c->err);
}

/* data holds `size` bytes; the offset must leave room for the tensor in it. */
static int place(const struct gguf_part *p, struct gguf_tensor *t, uint64_t offset,
                 uint64_t alignment, const uint8_t *data, uint64_t size, struct err *err) {
    char shown[GGUF_SHOWN];
    gguf_show(shown, t->name, strlen(t->name));
    if (offset % alignment)
        return fail(err, "%s: tensor '%s': offset %" PRIu64 ", want a multiple of %" PRIu64,
                    p->path, shown, offset, alignment);
    uint64_t need = t->bytes ? t->bytes : 1;    /* a type we do not know takes some bytes as well */
    if (offset > size || need > size - offset)
        return fail(err, "%s: tensor '%s': %" PRIu64 " bytes at offset %" PRIu64
                    ", but the data section has %" PRIu64 " (is the file complete?)",
                    p->path, shown, t->bytes, offset, size);
    t->data = t->bytes ? data + offset : NULL;
    return 0;
}

static int by_address(const void *a, const void *b) {
    const struct gguf_tensor *x = *(const struct gguf_tensor *const *)a,
                             *y = *(const struct gguf_tensor *const *)b;
    return (x->data > y->data) - (x->data < y->data);
}

static int refuse_overlaps(const struct gguf_part *p, struct err *err) {
    const struct gguf_tensor **order = malloc(((size_t)p->n_tensors + 1) * sizeof *order);
    if (!order) return fail(err, "%s: no memory to index %d tensors", p->path, p->n_tensors);
    int n = 0, rc = 0;
    for (int i = 0; i < p->n_tensors; i++)
        if (p->tensors[i].data) order[n++] = &p->tensors[i];
    qsort(order, (size_t)n, sizeof *order, by_address);
    for (int i = 1; i < n && !rc; i++) {
        const struct gguf_tensor *a = order[i - 1], *b = order[i];
        char sa[GGUF_SHOWN], sb[GGUF_SHOWN];
        if ((const uint8_t *)a->data + a->bytes > (const uint8_t *)b->data)
            rc = fail(err, "%s: tensors '%s' and '%s' overlap", p->path,
                      gguf_show(sa, a->name, strlen(a->name)),
                      gguf_show(sb, b->name, strlen(b->name)));
    }
    free(order);
    return rc;
}

static int read_counts(struct cursor *c, uint64_t *n_tensors, uint64_t *n_kv) {
    const struct gguf_part *p = c->part;
    char shown[GGUF_SHOWN];
    if (p->size < HEADER_BYTES)
        return fail(c->err, "%s: %zu bytes, a GGUF file has at least %d", p->path, p->size,
                    HEADER_BYTES);
    if (memcmp(p->base, "GGUF", 4))
        return fail(c->err, "%s: not a GGUF file: it starts with '%s', want 'GGUF'", p->path,
                    gguf_show(shown, (const char *)p->base, 4));
    uint32_t version = gguf_u32(p->base + 4);
    if (version && !(version & 0xffff))
        return fail(c->err, "%s: a big-endian GGUF (version %" PRIu32 "), want little-endian",
                    p->path, version >> 24 | (version >> 8 & 0xff00));
    if (version != 2 && version != 3)
        return fail(c->err, "%s: GGUF version %" PRIu32 ", want 2 or 3", p->path, version);
    *n_tensors = gguf_u64(p->base + 8);
    *n_kv = gguf_u64(p->base + 16);
    c->at = HEADER_BYTES;
    if (*n_kv > left(c) / KEY_BYTES || *n_kv > INT_MAX)
        return fail(c->err, "%s: %" PRIu64 " keys, more than %zu bytes can hold", p->path, *n_kv,
                    left(c));
    if (*n_tensors > left(c) / TENSOR_BYTES || *n_tensors > INT_MAX)
        return fail(c->err, "%s: %" PRIu64 " tensors, more than %zu bytes can hold", p->path,
                    *n_tensors, left(c));
    return 0;
}

static int read_alignment(const struct gguf_part *p, uint64_t *out, struct err *err) {
    int64_t a = GGUF_ALIGNMENT;
    if (gguf_kv_int(gguf_part_find(p, "general.alignment"), p->path, INT64_MIN, INT64_MAX,
                    &a, err) < 0)
        return -1;
    if (a < GGUF_ALIGNMENT_MIN || a > UINT32_MAX || (a & (a - 1)))
        return fail(err, "%s: key 'general.alignment': %" PRId64
                    ", want a power of two of at least %d", p->path, a, GGUF_ALIGNMENT_MIN);
    *out = (uint64_t)a;
    return 0;
}

static int read_tensors(struct cursor *c, struct gguf_part *p, uint64_t n) {
    uint64_t alignment = 0, *offsets = malloc((size_t)(n + 1) * sizeof *offsets);
    int rc = -1;
    if (!offsets || !(p->tensors = calloc((size_t)n + 1, sizeof *p->tensors))) {
        fail(c->err, "%s: no memory for %" PRIu64 " tensors", p->path, n);
        goto done;
    }
    if (read_alignment(p, &alignment, c->err)) goto done;
    for (c->what = "tensor", c->index = 0; c->index < n; c->index++)
        if (read_tensor(c, &p->tensors[c->index], &offsets[c->index])) goto done;
    p->n_tensors = (int)n;
    uint64_t start = (c->at + alignment - 1) & ~(alignment - 1);
    uint64_t size = start < p->size ? p->size - start : 0;
    for (uint64_t i = 0; i < n; i++)
        if (place(p, &p->tensors[i], offsets[i], alignment, p->base + start, size, c->err))
            goto done;
    rc = refuse_overlaps(p, c->err);
done:
    free(offsets);
    return rc;
}

int gguf_parse(struct gguf_part *p, struct err *err) {
    struct cursor c = { .part = p, .what = "key", .err = err };
    uint64_t n_tensors = 0, n_kv = 0;
    if (read_counts(&c, &n_tensors, &n_kv)) return -1;
    if (!(p->kv = calloc((size_t)n_kv + 1, sizeof *p->kv)))
        return fail(err, "%s: no memory for %" PRIu64 " keys", p->path, n_kv);
    for (; c.index < n_kv; c.index++)
        if (read_key(&c, &p->kv[c.index])) return -1;
    p->n_kv = (int)n_kv;
    return index_keys(p, err) || read_tensors(&c, p, n_tensors) ? -1 : 0;
}
