#include "tokenizer/bpe.h"
#include "model/gguf.h"
#include "tokenizer/pretok.h"
#include "tokenizer/utf8.h"
#include <stdlib.h>
#include <string.h>

/* A symbol is what merging works on: numbers below v->n are pieces, the ones above are spellings
 * that occur in merges only, on the way to a piece. */
struct merge { uint64_t pair; int32_t rank, to; };     /* pair: left << 32 | right; to -1: free */

struct extra { char *p; size_t n; };

struct bpe {
    const struct vocab *v;
    struct pretok *pretok;
    bool whole_words;
    int byte_symbol[256];
    struct merge *merge;
    uint64_t mask;
    struct extra *extra;           /* spellings of the symbols from v->n on */
    int n_extra, cap_extra;
    int32_t *extra_table;          /* spelling -> extra, -1 is free */
    uint32_t extra_mask;
};

/* ------------------------------------------------------------------ bytes as characters */

static bool printable(int b) {
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
}

/* The other 68 bytes are moved behind the first 256 code points, in order. */
static uint32_t byte_cp(int byte) {
    if (printable(byte)) return (uint32_t)byte;
    if (byte <= 0x20) return 0x100 + (uint32_t)byte;
    return byte <= 0xA0 ? 0x121 + (uint32_t)byte - 0x7F : 0x143;
}

int bpe_byte(uint32_t cp) {
    if (cp < 0x100) return printable((int)cp) ? (int)cp : -1;
    if (cp <= 0x120) return (int)cp - 0x100;
    if (cp <= 0x142) return (int)cp - 0x121 + 0x7F;
    return cp == 0x143 ? 0xAD : -1;
}

/* ------------------------------------------------------------------ symbols and merges */

static uint32_t hash_bytes(const char *p, size_t n) {
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)p[i]) * 0x100000001B3u;
    return (uint32_t)(h ^ h >> 32);
}

static int grow_extra(struct bpe *b) {
    int cap = b->cap_extra ? b->cap_extra * 2 : 512;
    struct extra *e = realloc(b->extra, (size_t)cap * sizeof *e);
    if (!e) return -1;
    b->extra = e;
    int32_t *table = malloc((size_t)cap * 2 * sizeof *table);
    if (!table) return -1;
    free(b->extra_table);
    b->extra_table = table;
    b->extra_mask = (uint32_t)cap * 2 - 1;
    b->cap_extra = cap;
    memset(table, 0xFF, (size_t)cap * 2 * sizeof *table);
    for (int i = 0; i < b->n_extra; i++) {
        uint32_t h = hash_bytes(e[i].p, e[i].n);
        while (table[h & b->extra_mask] >= 0) h++;
        table[h & b->extra_mask] = i;
    }
    return 0;
}

/* The symbol spelled p[n], made if there is none. -1 without memory. */
static int symbol(struct bpe *b, const char *p, size_t n) {
    int id = vocab_find(b->v, p, n);
    if (id >= 0) return id;
    if (b->n_extra == b->cap_extra && grow_extra(b)) return -1;
    uint32_t h = hash_bytes(p, n);
    for (; b->extra_table[h & b->extra_mask] >= 0; h++) {
        int i = b->extra_table[h & b->extra_mask];
        if (b->extra[i].n == n && !memcmp(b->extra[i].p, p, n)) return b->v->n + i;
    }
    char *copy = malloc(n + 1);
    if (!copy) return -1;
    memcpy(copy, p, n);
    b->extra_table[h & b->extra_mask] = b->n_extra;
    b->extra[b->n_extra] = (struct extra){ copy, n };
    return b->v->n + b->n_extra++;
}

static uint64_t hash_pair(uint64_t pair) {
    pair *= 0x9E3779B97F4A7C15u;
    return pair ^ pair >> 29;
}

static const struct merge *find_merge(const struct bpe *b, int32_t left, int32_t right) {
    uint64_t pair = (uint64_t)left << 32 | (uint32_t)right;
    for (uint64_t h = hash_pair(pair);; h++) {
        const struct merge *m = &b->merge[h & b->mask];
        if (m->to < 0) return NULL;
        if (m->pair == pair) return m;
    }
}

static int load_merges(struct bpe *b, const struct gguf *g, struct err *err) {
    const struct gguf_kv *kv = gguf_find(g, "tokenizer.ggml.merges");
    if (!kv)
        return fail(err, "%s: no tokenizer.ggml.merges, which tokenizer.ggml.model gpt2 needs",
                    gguf_path(g));
    if (kv->type != GGUF_ARRAY || kv->item != GGUF_STRING)
        return fail(err, "%s: tokenizer.ggml.merges is not an array of strings", gguf_path(g));
    if (kv->count > 1 << 26)
        return fail(err, "%s: %llu merges, wanted at most %d", gguf_path(g),
                    (unsigned long long)kv->count, 1 << 26);
    uint64_t size = 16;
    while (size < 2 * kv->count) size *= 2;
    b->merge = malloc((size_t)size * sizeof *b->merge);
    if (!b->merge) return fail(err, "out of memory for %llu merges", (unsigned long long)kv->count);
    memset(b->merge, 0xFF, (size_t)size * sizeof *b->merge);
    b->mask = size - 1;

    const uint8_t *cursor = NULL;
    char *joined = NULL;
    size_t room = 0;
    for (uint64_t rank = 0; rank < kv->count; rank++) {
        struct gguf_str s = gguf_next_string(kv, &cursor);
        const char *space = s.n > 2 ? memchr(s.p + 1, ' ', s.n - 2) : NULL;
        if (!space) {
            free(joined);
            return fail(err, "%s: merge %llu is '%.*s', wanted two parts with a space between",
                        gguf_path(g), (unsigned long long)rank, (int)(s.n < 64 ? s.n : 64), s.p);
        }
        if (room < s.n) {
            char *more = realloc(joined, room = s.n * 2);
            if (!more) goto no_memory;
            joined = more;
        }
        size_t left = (size_t)(space - s.p), right = s.n - left - 1;
        memcpy(joined, s.p, left);
        memcpy(joined + left, space + 1, right);
        int l = symbol(b, s.p, left), r = symbol(b, space + 1, right),
            to = symbol(b, joined, left + right);
        if (l < 0 || r < 0 || to < 0) goto no_memory;
        if (find_merge(b, l, r)) continue;         /* the first of equals counts */
        uint64_t pair = (uint64_t)l << 32 | (uint32_t)r, h = hash_pair(pair);
        while (b->merge[h & b->mask].to >= 0) h++;
        b->merge[h & b->mask] = (struct merge){ pair, (int32_t)rank, to };
    }
    free(joined);
    return 0;
no_memory:
    free(joined);
    return fail(err, "out of memory for %llu merges", (unsigned long long)kv->count);
}

int bpe_open(struct bpe **out, const struct vocab *v, const struct gguf *g, struct err *err) {
    struct bpe *b = calloc(1, sizeof *b);
    if (!b) return fail(err, "out of memory");
    b->v = v;
    b->whole_words = pretok_ignores_merges(v->pre);
    struct err why;
    if (pretok_open(&b->pretok, v->pre, &why)) {
        fail(err, "%s: %s", gguf_path(g), why.msg);
        goto failed;
    }
    if (load_merges(b, g, err)) goto failed;
    for (int i = 0; i < 256; i++) {
        char s[4];
        b->byte_symbol[i] = symbol(b, s, (size_t)utf8_put(s, byte_cp(i)));
        if (b->byte_symbol[i] < 0) { fail(err, "out of memory"); goto failed; }
    }
    *out = b;
    return 0;
failed:
    bpe_close(b);
    return -1;
}

void bpe_close(struct bpe *b) {
    if (!b) return;
    pretok_close(b->pretok);
    for (int i = 0; i < b->n_extra; i++) free(b->extra[i].p);
    free(b->extra);
    free(b->extra_table);
    free(b->merge);
    free(b);
}

/* ------------------------------------------------------------------ one word */

/* What could be merged next: lowest rank first, then leftmost. */
struct candidate { uint64_t order; int32_t left, right, to; };    /* order: rank << 32 | position */

struct work {
    const struct bpe *b;
    struct ids *ids;
    struct err *err;
    size_t room;                   /* of the three lists, one entry per byte of the word */
    int32_t *symbol;               /* -1: merged into the one before */
    int32_t *next, *prev;          /* positions; -1: none */
    struct candidate *heap;
    size_t n_heap, cap_heap;
};

static int make_room(struct work *w, size_t n) {
    if (n <= w->room) return 0;
    if (n > INT32_MAX) return fail(w->err, "a word of %zu bytes", n);
    n += n / 2 + 64;
    int32_t **lists[] = { &w->symbol, &w->next, &w->prev };
    for (int i = 0; i < 3; i++) {
        int32_t *more = realloc(*lists[i], n * sizeof *more);
        if (!more) return fail(w->err, "out of memory for a word of %zu bytes", n);
        *lists[i] = more;
    }
    w->room = n;
    return 0;
}

static int push(struct work *w, int32_t left) {
    int32_t right = left < 0 ? -1 : w->next[left];
    if (right < 0) return 0;
    const struct merge *m = find_merge(w->b, w->symbol[left], w->symbol[right]);
    if (!m) return 0;
    if (w->n_heap == w->cap_heap) {
        size_t cap = w->cap_heap * 2 + 64;
        struct candidate *more = realloc(w->heap, cap * sizeof *more);
        if (!more) return fail(w->err, "out of memory for a long word");
        w->heap = more;
        w->cap_heap = cap;
    }
    struct candidate c = { .order = (uint64_t)m->rank << 32 | (uint32_t)left,
                           .left = w->symbol[left], .right = w->symbol[right], .to = m->to };
    size_t i = w->n_heap++;
    for (; i && w->heap[(i - 1) / 2].order > c.order; i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = c;
    return 0;
}

static struct candidate pop(struct work *w) {
    struct candidate top = w->heap[0], c = w->heap[--w->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < w->n_heap; i = child) {
        if (child + 1 < w->n_heap && w->heap[child + 1].order < w->heap[child].order) child++;
        if (w->heap[child].order >= c.order) break;
        w->heap[i] = w->heap[child];
    }
    w->heap[i] = c;
    return top;
}

/* A symbol's id, unless it has none or one that plain text must not become. */
static int plain_id(const struct bpe *b, int32_t symbol) {
    if (symbol >= b->v->n) return -1;
    int t = b->v->piece[symbol].type;
    return t == TOK_CONTROL || t == TOK_UNKNOWN ? -1 : symbol;
}

static int emit(struct work *w, int id) {
    return ids_push(w->ids, id) ? fail(w->err, "out of memory for %zu token ids", w->ids->n) : 0;
}

/* Some vocabularies lack the bytes that their training text never had (0xF2, say). As in the
 * tokenizers they were made with, such a byte has no token. */
static int emit_bytes(struct work *w, const char *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        int id = plain_id(w->b, w->b->byte_symbol[(unsigned char)p[i]]);
        if (id >= 0 && emit(w, id)) return -1;
    }
    return 0;
}

/* The piece that spells the whole word, or -1. */
static int whole_word(const struct bpe *b, const char *p, size_t n) {
    char s[512];
    size_t m = 0;
    if (n > sizeof s / 2) return -1;
    for (size_t i = 0; i < n; i++) m += (size_t)utf8_put(s + m, byte_cp((unsigned char)p[i]));
    int id = vocab_find(b->v, s, m);
    return id < 0 ? -1 : plain_id(b, id);
}

static int encode_word(void *to, const char *p, size_t n) {
    struct work *w = to;
    if (w->b->whole_words) {
        int id = whole_word(w->b, p, n);
        if (id >= 0) return emit(w, id);
    }
    if (make_room(w, n)) return -1;
    for (size_t i = 0; i < n; i++) {
        w->symbol[i] = w->b->byte_symbol[(unsigned char)p[i]];
        w->next[i] = i + 1 < n ? (int32_t)i + 1 : -1;
        w->prev[i] = (int32_t)i - 1;
    }
    w->n_heap = 0;
    for (size_t i = 0; i + 1 < n; i++)
        if (push(w, (int32_t)i)) return -1;
    while (w->n_heap) {
        struct candidate c = pop(w);
        int32_t left = (int32_t)(uint32_t)c.order, right = w->next[left];
        if (w->symbol[left] != c.left || right < 0 || w->symbol[right] != c.right)
            continue;                               /* stale */
        w->symbol[left] = c.to;
        w->symbol[right] = -1;
        w->next[left] = w->next[right];
        if (w->next[left] >= 0) w->prev[w->next[left]] = left;
        if (push(w, w->prev[left]) || push(w, left)) return -1;
    }
    for (int32_t i = 0; i >= 0; i = w->next[i]) {
        int id = plain_id(w->b, w->symbol[i]);
        size_t end = w->next[i] < 0 ? n : (size_t)w->next[i];
        if (id >= 0 ? emit(w, id) : emit_bytes(w, p + i, end - (size_t)i)) return -1;
    }
    return 0;
}

/* ------------------------------------------------------------------ a text */

/* A copy with U+FFFD for every byte that is not UTF-8, or NULL in *out when the text is clean. */
static int clean(const char *p, size_t n, char **out, size_t *m, struct err *err) {
    size_t bad = 0;
    *out = NULL;
    for (size_t i = 0; i < n;) {
        int len = utf8_next(p + i, n - i, NULL);
        if (len <= 0) bad++;
        i += len > 0 ? (size_t)len : 1;
    }
    if (!bad) return 0;
    char *q = malloc(n + 2 * bad);
    if (!q) return fail(err, "out of memory for a text of %zu bytes", n);
    *m = 0;
    for (size_t i = 0; i < n;) {
        int len = utf8_next(p + i, n - i, NULL);
        if (len > 0) memcpy(q + *m, p + i, (size_t)len);
        *m += (size_t)(len > 0 ? len : utf8_put(q + *m, 0xFFFD));
        i += len > 0 ? (size_t)len : 1;
    }
    *out = q;
    return 0;
}

int bpe_encode(const struct bpe *b, const char *text, size_t n, struct ids *ids, struct err *err) {
    struct work w = { .b = b, .ids = ids, .err = err };
    char *cleaned;
    size_t m;
    if (clean(text, n, &cleaned, &m, err)) return -1;
    int rc = pretok_split(b->pretok, cleaned ? cleaned : text, cleaned ? m : n, encode_word, &w,
                          err);
    free(cleaned);
    free(w.symbol);
    free(w.next);
    free(w.prev);
    free(w.heap);
    return rc;
}
