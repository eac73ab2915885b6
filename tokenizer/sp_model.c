#include "tokenizer/sp_model.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------ writing */

struct out { char *p; size_t n, cap; bool failed; };

static void put(struct out *o, const void *p, size_t n) {
    if (o->cap - o->n < n) {
        size_t cap = o->cap * 2 + n + 4096;
        char *more = o->failed ? NULL : realloc(o->p, cap);
        if (!more) { o->failed = true; return; }
        o->p = more;
        o->cap = cap;
    }
    memcpy(o->p + o->n, p, n);
    o->n += n;
}

static size_t varint(unsigned char *b, uint64_t x) {
    size_t n = 0;
    for (; x >= 0x80; x >>= 7) b[n++] = (unsigned char)(x | 0x80);
    b[n++] = (unsigned char)x;
    return n;
}

static void put_varint(struct out *o, uint64_t x) {
    unsigned char b[10];
    put(o, b, varint(b, x));
}

static void put_int(struct out *o, int field, uint64_t x) {
    put_varint(o, (uint64_t)field << 3);
    put_varint(o, x);
}

static void put_bytes(struct out *o, int field, const void *p, size_t n) {
    put_varint(o, (uint64_t)field << 3 | 2);
    put_varint(o, n);
    put(o, p, n);
}

static void put_piece(struct out *o, const char *p, size_t n, float score, int type) {
    unsigned char length[10];
    put_varint(o, 1 << 3 | 2);
    put_varint(o, 1 + varint(length, n) + n + 5 + 2);
    put_bytes(o, 1, p, n);
    put_varint(o, 2 << 3 | 5);
    put(o, &score, 4);
    put_int(o, 3, (uint64_t)type);
}

int sp_model_build(const struct vocab *v, char **proto, size_t *n, struct err *err) {
    struct out o = { 0 }, spec = { 0 };
    bool bytes = true;
    int unk = v->unk >= 0 && v->piece[v->unk].type == TOK_UNKNOWN ? v->unk : v->n;
    for (int b = 0; b < 256; b++) bytes = bytes && v->byte_id[b] >= 0;
    for (int id = 0; unk == v->n && id < v->n; id++)
        if (v->piece[id].type == TOK_UNKNOWN) unk = id;
    for (int id = 0; id <= v->n; id++) {
        const struct piece *p = &v->piece[id];
        char hidden[24];                        /* the last code point there is: a noncharacter */
        int len = snprintf(hidden, sizeof hidden, "\xF4\x8F\xBF\xBF%d", id);
        if (id == v->n) {
            if (unk == v->n) put_piece(&o, hidden, (size_t)len, 0, TOK_UNKNOWN);
        } else if (p->type == TOK_BYTE && bytes && v->byte_id[strtol(p->p + 3, NULL, 16)] == id) {
            put_piece(&o, p->p, p->n, 0, TOK_BYTE);
        } else if (vocab_is_plain(v, id)) {
            put_piece(&o, p->p, p->n, p->score, p->type == TOK_UNUSED ? TOK_UNUSED : TOK_NORMAL);
        } else {
            put_piece(&o, hidden, (size_t)len, 0, id == unk ? TOK_UNKNOWN : TOK_CONTROL);
        }
    }
    put_int(&spec, 3, 2);
    put_int(&spec, 35, bytes);
    put_int(&spec, 40, (uint64_t)unk);
    put_int(&spec, 41, (uint64_t)-1);              /* libsentencepiece adds none of these itself */
    put_int(&spec, 42, (uint64_t)-1);
    put_int(&spec, 43, (uint64_t)-1);
    put_bytes(&o, 2, spec.p, spec.n);
    o.failed = o.failed || spec.failed;
    spec.n = 0;
    put_int(&spec, 3, 0);
    put_int(&spec, 4, 0);
    put_int(&spec, 5, 1);
    put_bytes(&o, 3, spec.p, spec.n);
    free(spec.p);
    if (o.failed) {
        free(o.p);
        return fail(err, "out of memory for a vocabulary of %d pieces", v->n);
    }
    *proto = o.p;
    *n = o.n;
    return 0;
}

/* ------------------------------------------------------------------ reading */

struct in { const unsigned char *p, *end; };
struct field { int number, wire; uint64_t x; struct in bytes; };   /* x: of wire types 0, 1 and 5 */

static int get_varint(struct in *in, uint64_t *x) {
    *x = 0;
    for (int shift = 0; shift < 64 && in->p < in->end; shift += 7) {
        unsigned char b = *in->p++;
        *x |= (uint64_t)(b & 0x7F) << shift;
        if (b < 0x80) return 0;
    }
    return -1;
}

/* 1: a field; 0: the end; -1: not a protocol buffer. */
static int get_field(struct in *in, struct field *f) {
    uint64_t tag, n = 0;
    if (in->p == in->end) return 0;
    if (get_varint(in, &tag) || tag >> 3 == 0 || tag >> 3 > 0x1FFFFFFF) return -1;
    f->number = (int)(tag >> 3);
    f->wire = (int)(tag & 7);
    f->x = 0;
    if (f->wire == 0) return get_varint(in, &f->x) ? -1 : 1;
    if (f->wire == 2) {
        if (get_varint(in, &n)) return -1;
    } else if (f->wire == 1 || f->wire == 5) {
        n = f->wire == 1 ? 8 : 4;
    } else return -1;
    if (n > (uint64_t)(in->end - in->p)) return -1;
    f->bytes = (struct in){ in->p, in->p + n };
    if (f->wire != 2) memcpy(&f->x, in->p, (size_t)n);
    in->p += n;
    return 1;
}

struct one { const char *p; size_t n; float score; int64_t type; };

static int read_piece(struct in in, struct one *one) {
    struct field f;
    int rc;
    *one = (struct one){ .p = "", .type = TOK_NORMAL };
    while ((rc = get_field(&in, &f)) > 0) {
        if (f.number == 1 && f.wire == 2) {
            one->p = (const char *)f.bytes.p;
            one->n = (size_t)(f.bytes.end - f.bytes.p);
        } else if (f.number == 2 && f.wire == 5) memcpy(&one->score, &f.x, 4);
        else if (f.number == 3 && f.wire == 0) one->type = (int64_t)f.x;
    }
    return rc < 0 || one->type < TOK_NORMAL || one->type > TOK_BYTE || one->n > INT32_MAX / 8
         ? -1 : 0;
}

int sp_model_read(struct vocab *v, bool *plain, const char *proto, size_t n, const char *name,
                  struct err *err) {
    const struct in all = { (const unsigned char *)proto, (const unsigned char *)proto + n };
    uint64_t count = 0, bytes = 0;
    int64_t model_type = 1;
    bool charsmap = false, escape = true, suffix = false;
    struct field f, g;
    struct one one;
    struct in in = all;
    int rc;
    v->kind = VOCAB_SPM;
    strcpy(v->pre, "default");
    v->eot = v->eom = -1;
    v->unk = 0;
    v->bos = 1;
    v->eos = 2;
    v->add_bos = v->add_space_prefix = v->remove_extra_spaces = true;
    while ((rc = get_field(&in, &f)) > 0) {
        if (f.wire != 2) continue;
        struct in inner = f.bytes;
        if (f.number == 1) {
            if (read_piece(inner, &one))
                return fail(err, "%s: piece %llu is damaged", name, (unsigned long long)count);
            count++;
            bytes += one.n;
        } else if (f.number == 2 || f.number == 3) {
            while ((rc = get_field(&inner, &g)) > 0) {
                if (f.number == 2) switch (g.number) {
                    case 3: model_type = (int64_t)g.x; break;
                    case 24: suffix = g.x; break;
                    case 40: v->unk = (int)(int64_t)g.x; break;
                    case 41: v->bos = (int)(int64_t)g.x; break;
                    case 42: v->eos = (int)(int64_t)g.x; break;
                } else switch (g.number) {
                    case 2: charsmap = g.wire == 2 && g.bytes.p != g.bytes.end; break;
                    case 3: v->add_space_prefix = g.x; break;
                    case 4: v->remove_extra_spaces = g.x; break;
                    case 5: escape = g.x; break;
                }
            }
            if (rc < 0) break;
        }
    }
    if (rc < 0 || count == 0) return fail(err, "%s: not a SentencePiece model", name);
    *plain = model_type == 2 && !charsmap && escape && !suffix;
    if (vocab_alloc(v, count, bytes, err)) return -1;
    in = all;
    for (int id = 0; get_field(&in, &f) > 0;) {
        if (f.number != 1 || f.wire != 2) continue;
        read_piece(f.bytes, &one);                 /* looked at above, so it is sound */
        vocab_set(v, id++, one.p, one.n, one.score, (int)one.type);
    }
    int *const ids[] = { &v->unk, &v->bos, &v->eos };
    for (int i = 0; i < 3; i++)
        if (*ids[i] < 0 || *ids[i] >= v->n) *ids[i] = -1;
    return 0;
}
