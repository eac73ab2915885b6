#include "tokenizer/sp_text.h"
#include "tokenizer/sp_model.h"
#include "tokenizer/spm.h"
#include "tokenizer/utf8.h"
#include <string.h>

/* libsentencepiece takes a whole text at once, needs some hundred bytes of memory per byte and a
 * microsecond. So texts are cut, and only where that cannot change a single id: between two
 * characters that no piece has next to each other. BPE only ever makes symbols that are pieces,
 * so no symbol reaches over such a place, and what happens on its left does not see what happens
 * on its right. Which pairs occur in pieces is kept as a hashed set of bits; a false "occurs"
 * moves the cut to the next place, nothing more.
 *
 * Between words there is nearly always such a place, and words repeat: their ids are looked up
 * among those already written, in a cache that lives as long as the call. */
enum {
    PAIR_BITS = 21,
    CACHE_BITS = 14,
    CACHE_FROM = 4096,             /* shorter texts do without: clearing it costs more */
    CACHED = 64,                   /* the longest chunk worth a look */
    BLOCK = 0x2581,                /* the piece spelling of a space */
};

struct cached { const char *p; size_t at; uint32_t n, count; };  /* p[n] became ids[at..at+count) */

struct sp_text {
    struct spm *spm;
    const struct vocab *v;
    bool whole;                                    /* proto decides: never cut, never prefix */
    uint64_t pairs[(1 << PAIR_BITS) / 64];
};

static uint32_t pair_bit(uint32_t a, uint32_t b) {
    return (uint32_t)(((uint64_t)a << 21 | b) * 0x9E3779B97F4A7C15u >> (64 - PAIR_BITS));
}

static void note_pairs(struct sp_text *s, const struct piece *p) {
    uint32_t last = 0, cp;
    bool have = false;
    for (size_t i = 0; i < p->n;) {
        int len = utf8_next(p->p + i, p->n - i, &cp);
        if (len <= 0) {                     /* never matches: text arrives here as valid UTF-8 */
            have = false;
            i++;
            continue;
        }
        if (cp == ' ') cp = BLOCK;
        if (have) s->pairs[pair_bit(last, cp) / 64] |= (uint64_t)1 << pair_bit(last, cp) % 64;
        last = cp;
        have = true;
        i += (size_t)len;
    }
}

int sp_text_open(struct sp_text **out, const struct vocab *v, const char *proto, size_t n,
                 struct err *err) {
    char *built = NULL;
    struct sp_text *s = calloc(1, sizeof *s);
    int rc = -1;
    if (!s) { fail(err, "out of memory"); goto done; }
    s->v = v;
    s->whole = proto != NULL;
    if (!proto && sp_model_build(v, &built, &n, err)) goto done;
    if (spm_open(&s->spm, proto ? proto : built, n, err)) goto done;
    for (int id = 0; id < v->n; id++)
        if (vocab_is_plain(v, id)) note_pairs(s, &v->piece[id]);
    *out = s;
    s = NULL;
    rc = 0;
done:
    free(built);
    sp_text_close(s);
    return rc;
}

void sp_text_close(struct sp_text *s) {
    if (!s) return;
    spm_close(s->spm);
    free(s);
}

static int encode_chunk(const struct sp_text *s, const char *p, size_t n, struct ids *ids,
                        struct err *err) {
    if (n == 0) return 0;
    long count;
    for (size_t want = n / 2 + 16;; want = (size_t)count) {
        if (ids_reserve(ids, want))
            return fail(err, "out of memory for %zu token ids", ids->n + want);
        count = spm_encode(s->spm, p, n, ids->v + ids->n, ids->cap - ids->n, err);
        if (count < 0) return -1;
        if ((size_t)count <= ids->cap - ids->n) break;
    }
    int32_t *v = ids->v + ids->n;
    for (long i = 0; i < count; i++) {
        if (v[i] < s->v->n) continue;
        if (s->v->unk < 0)
            return fail(err, "the text has a character that the vocabulary has no piece for");
        v[i] = s->v->unk;
    }
    ids->n += (size_t)count;
    return 0;
}

static int encode_byte(const struct sp_text *s, unsigned char byte, struct ids *ids,
                       struct err *err) {
    int id = s->v->byte_id[byte] >= 0 ? s->v->byte_id[byte] : s->v->unk;
    if (id < 0)
        return fail(err, "the text has the byte 0x%02X, the vocabulary has no piece for it", byte);
    return ids_push(ids, id) ? fail(err, "out of memory for %zu token ids", ids->n) : 0;
}

static int encode_cached(const struct sp_text *s, struct cached *cache, const char *p, size_t n,
                         struct ids *ids, struct err *err) {
    if (!cache || n > CACHED || n == 0) return encode_chunk(s, p, n, ids, err);
    uint64_t h = n;
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)p[i]) * 0x100000001B3u;
    struct cached *c = &cache[(h * 0x9E3779B97F4A7C15u) >> (64 - CACHE_BITS)];
    if (c->n == n && !memcmp(c->p, p, n)) {
        if (ids_reserve(ids, c->count))
            return fail(err, "out of memory for %zu token ids", ids->n + c->count);
        memcpy(ids->v + ids->n, ids->v + c->at, c->count * sizeof *ids->v);
        ids->n += c->count;
        return 0;
    }
    size_t at = ids->n;
    if (encode_chunk(s, p, n, ids, err)) return -1;
    *c = (struct cached){ p, at, (uint32_t)n, (uint32_t)(ids->n - at) };
    return 0;
}

/* Walks over valid text in chunks and bytes that are none. */
static int encode_all(const struct sp_text *s, const char *p, size_t n, struct ids *ids,
                      struct err *err) {
    struct cached *cache = n < CACHE_FROM ? NULL : calloc((size_t)1 << CACHE_BITS, sizeof *cache);
    size_t start = 0;
    uint32_t last = 0, cp;
    int rc = -1;
    for (size_t i = 0; i < n;) {
        int len = utf8_next(p + i, n - i, &cp);
        if (len <= 0) {
            if (encode_cached(s, cache, p + start, i - start, ids, err)) goto done;
            for (int k = len ? -len : (int)(n - i); k > 0; k--, i++)
                if (encode_byte(s, (unsigned char)p[i], ids, err)) goto done;
            start = i;
            continue;
        }
        if (cp == ' ') cp = BLOCK;
        uint32_t bit = pair_bit(last, cp);
        if (i > start && !(s->pairs[bit / 64] >> bit % 64 & 1)) {
            if (encode_cached(s, cache, p + start, i - start, ids, err)) goto done;
            start = i;
        }
        last = cp;
        i += (size_t)len;
    }
    rc = encode_cached(s, cache, p + start, n - start, ids, err);
done:
    free(cache);
    return rc;
}

/* Bytes of the space that text[n] ends with, in either spelling; 0: none. */
static size_t space_before(const char *text, size_t n) {
    if (n && text[n - 1] == ' ') return 1;
    return n >= 3 && !memcmp(text + n - 3, "\xE2\x96\x81", 3) ? 3 : 0;
}

int sp_text_encode(const struct sp_text *s, const char *text, size_t n, bool prefix,
                   struct ids *ids, struct err *err) {
    if (s->whole) return encode_chunk(s, text, n, ids, err);
    prefix = prefix && s->v->add_space_prefix;
    if (!prefix && !s->v->remove_extra_spaces) return encode_all(s, text, n, ids, err);
    char *copy = malloc(n + 1);
    if (!copy) return fail(err, "out of memory for a text of %zu bytes", n);
    size_t m = 0;
    if (prefix) copy[m++] = ' ';
    if (s->v->remove_extra_spaces) {
        for (size_t len; (len = space_before(text, n)) > 0;) n -= len;
        size_t i = 0;
        while (i < n && text[i] == ' ') i++;
        for (; i < n; i++)
            if (text[i] != ' ' || text[i - 1] != ' ') copy[m++] = text[i];
    } else {
        memcpy(copy + m, text, n);
        m += n;
    }
    int rc = n ? encode_all(s, copy, m, ids, err) : 0;
    free(copy);
    return rc;
}
