#include "tokenizer/tokenizer.h"
#include "base/file.h"
#include "model/gguf.h"
#include "tokenizer/bpe.h"
#include "tokenizer/sp_model.h"
#include "tokenizer/sp_text.h"
#include "tokenizer/special.h"
#include "tokenizer/utf8.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>

struct tokenizer {
    struct vocab v;
    struct special *special;
    struct sp_text *sp;            /* one of these two */
    struct bpe *bpe;
    size_t max_piece;
};

/* A tokenizer.model beside the GGUF, or instead of one. */
static int open_sp_model(struct tokenizer *t, const struct gguf *g, const char *path,
                         struct err *err) {
    char *proto = NULL;
    size_t n;
    bool plain;
    int rc = -1;
    if (file_read(path, &proto, &n, err)) return -1;
    if (!sp_model_read(&t->v, &plain, proto, n, path, err) && !vocab_index(&t->v, err) &&
        !vocab_specials(&t->v, g, err))
        rc = sp_text_open(&t->sp, &t->v, plain ? NULL : proto, n, err);
    free(proto);
    return rc;
}

int tok_open(struct tokenizer **out, const struct gguf *g, const char *sp_model, struct err *err) {
    struct tokenizer *t = calloc(1, sizeof *t);
    if (!t) return fail(err, "out of memory");
    int rc;
    if (sp_model) rc = open_sp_model(t, g, sp_model, err);
    else if (!(rc = vocab_load(&t->v, g, err)))
        rc = t->v.kind == VOCAB_SPM ? sp_text_open(&t->sp, &t->v, NULL, 0, err)
                                    : bpe_open(&t->bpe, &t->v, g, err);
    if (!rc) rc = special_open(&t->special, &t->v, err);
    if (rc) {
        tok_close(t);
        return -1;
    }
    for (int id = 0; id < t->v.n; id++)
        if (3 * (size_t)t->v.piece[id].n > t->max_piece)
            t->max_piece = 3 * (size_t)t->v.piece[id].n;
    *out = t;
    return 0;
}

void tok_close(struct tokenizer *t) {
    if (!t) return;
    special_close(t->special);
    sp_text_close(t->sp);
    bpe_close(t->bpe);
    vocab_free(&t->v);
    free(t);
}

static bool valid(const struct tokenizer *t, int id) { return id >= 0 && id < t->v.n; }

const char *tok_warning(const struct tokenizer *t) {
    if (!t->v.pre_missing) return NULL;
    return "no tokenizer.ggml.pre: text is cut into words by the default rules, "
           "hardly the model's own";
}

int tok_n(const struct tokenizer *t) { return t->v.n; }
int tok_bos(const struct tokenizer *t) { return t->v.bos; }
int tok_eos(const struct tokenizer *t) { return t->v.eos; }
bool tok_adds_bos(const struct tokenizer *t) { return t->v.add_bos; }
bool tok_adds_eos(const struct tokenizer *t) { return t->v.add_eos; }
bool tok_is_end(const struct tokenizer *t, int id) { return valid(t, id) && t->v.piece[id].end; }
size_t tok_max_piece(const struct tokenizer *t) { return t->max_piece; }
int tok_find(const struct tokenizer *t, const char *piece, size_t n) {
    return vocab_find(&t->v, piece, n);
}

const char *tok_piece(const struct tokenizer *t, int id, size_t *n) {
    *n = valid(t, id) ? t->v.piece[id].n : 0;
    return valid(t, id) ? t->v.piece[id].p : "";
}

enum tok_type tok_type(const struct tokenizer *t, int id) {
    return valid(t, id) ? (enum tok_type)t->v.piece[id].type : TOK_UNUSED;
}

/* ------------------------------------------------------------------ encode */

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static int encode_plain(const struct tokenizer *t, const char *p, size_t n, bool prefix,
                        struct ids *ids, struct err *err) {
    if (n == 0) return 0;
    return t->sp ? sp_text_encode(t->sp, p, n, prefix, ids, err)
                 : bpe_encode(t->bpe, p, n, ids, err);
}

/* Plain text between special tokens. A llama vocabulary starts anew after each of them, with its
 * space in front. */
static int encode_parts(const struct tokenizer *t, const char *text, size_t n, bool control,
                        struct ids *ids, struct err *err) {
    bool prefix = true;
    for (size_t from = 0; from < n;) {
        size_t at;
        int id = special_next(t->special, text, n, from, control, &at);
        size_t end = at;
        if (id >= 0 && t->v.piece[id].strip_left)
            while (end > from && is_space(text[end - 1])) end--;
        if (encode_plain(t, text + from, end - from, prefix, ids, err)) return -1;
        prefix = id >= 0;
        if (id < 0) break;
        if (ids_push(ids, id)) return fail(err, "out of memory for %zu token ids", ids->n);
        from = at + t->v.piece[id].n;
        if (t->v.piece[id].strip_right)
            while (from < n && is_space(text[from])) from++;
    }
    return 0;
}

bool tok_has_bos(const struct tokenizer *t, const char *text, size_t n) {
    size_t at;
    return t->v.bos >= 0 && n && special_next(t->special, text, n, 0, true, &at) == t->v.bos &&
           at == 0;
}

int tok_encode(const struct tokenizer *t, const char *text, size_t n, int flags, int32_t **out,
               struct err *err) {
    struct ids ids = { 0 };
    bool control = flags & TOK_SPECIAL;
    if (ids_reserve(&ids, n / 4 + 8)) goto no_memory;
    bool bos = flags & TOK_BOS && t->v.add_bos && !(control && tok_has_bos(t, text, n));
    if (bos && ids_push(&ids, t->v.bos)) goto no_memory;
    if (encode_parts(t, text, n, control, &ids, err)) goto failed;
    bool eos = flags & TOK_BOS && t->v.add_eos &&
               !(control && ids.n && ids.v[ids.n - 1] == t->v.eos);
    if (eos && ids_push(&ids, t->v.eos)) goto no_memory;
    if (ids.n > INT_MAX) {
        fail(err, "%zu tokens, wanted at most %d", ids.n, INT_MAX);
        goto failed;
    }
    *out = ids.v;
    return (int)ids.n;
no_memory:
    fail(err, "out of memory for the tokens of %zu bytes", n);
failed:
    free(ids.v);
    return -1;
}

/* ------------------------------------------------------------------ decode */

/* Passes bytes on as far as they are whole characters. */
static size_t stream_bytes(struct tok_stream *s, const char *p, size_t n, char *out) {
    size_t m = 0;
    for (size_t i = 0; i < n;) {
        if (s->n_held == 0 && (unsigned char)p[i] < 0x80) {
            out[m++] = p[i++];
            continue;
        }
        s->held[s->n_held++] = (unsigned char)p[i++];
        while (s->n_held) {
            int len = utf8_next((char *)s->held, (size_t)s->n_held, NULL);
            if (len == 0) break;
            if (len > 0) memcpy(out + m, s->held, (size_t)len);
            m += (size_t)(len > 0 ? len : utf8_put(out + m, 0xFFFD));
            if (len < 0) len = -len;
            s->n_held -= len;
            memmove(s->held, s->held + len, (size_t)s->n_held);
        }
    }
    return m;
}

/* The bytes a piece of a byte-level vocabulary stands for; as it is spelled when one character
 * stands for none. */
static size_t byte_level(const struct piece *p, char *out) {
    size_t m = 0;
    for (size_t i = 0; i < p->n;) {
        uint32_t cp;
        int len = utf8_next(p->p + i, p->n - i, &cp), byte = len > 0 ? bpe_byte(cp) : -1;
        if (byte < 0) {
            memcpy(out, p->p, p->n);
            return p->n;
        }
        out[m++] = (char)byte;
        i += (size_t)len;
    }
    return m;
}

/* SentencePiece spells a space as U+2581. */
static size_t with_spaces(const struct piece *p, char *out) {
    size_t m = 0;
    for (size_t i = 0; i < p->n;) {
        bool block = p->n - i >= 3 && !memcmp(p->p + i, "\xE2\x96\x81", 3);
        out[m++] = block ? ' ' : p->p[i];
        i += block ? 3 : 1;
    }
    return m;
}

size_t tok_decode(const struct tokenizer *t, struct tok_stream *s, int id, bool special,
                  char *out) {
    if (!valid(t, id)) return 0;
    const struct piece *p = &t->v.piece[id];
    /* The raw bytes go to the last third of the room: U+FFFD for each of them just does not
     * overtake reading. */
    char *raw = out + 16 + t->max_piece - p->n;
    size_t n = p->n;
    switch (p->type) {
    case TOK_CONTROL:
    case TOK_UNKNOWN:
        if (!special) return 0;
        memcpy(raw, p->p, n);
        /* A text that starts with them still starts behind them. */
        return stream_bytes(s, raw, n, out);
    case TOK_UNUSED:
        return 0;
    case TOK_BYTE:
        if (t->sp) {
            *raw = (char)strtol(p->p + 3, NULL, 16);
            n = 1;
        } else n = byte_level(p, raw);
        break;
    case TOK_USER:
        if (t->sp) n = with_spaces(p, raw);
        else memcpy(raw, p->p, n);
        break;
    default:
        n = t->sp ? with_spaces(p, raw) : byte_level(p, raw);
    }
    bool first = !s->started && t->sp && t->v.add_space_prefix && p->type == TOK_NORMAL;
    size_t skip = first && n && raw[0] == ' ';
    s->started = true;
    return stream_bytes(s, raw + skip, n - skip, out);
}

size_t tok_flush(struct tok_stream *s, char *out) {
    size_t m = 0;
    while (s->n_held) {
        int len = utf8_next((char *)s->held, (size_t)s->n_held, NULL);
        len = len < 0 ? -len : s->n_held;          /* an unfinished character is one U+FFFD */
        m += (size_t)utf8_put(out + m, 0xFFFD);
        s->n_held -= len;
        memmove(s->held, s->held + len, (size_t)s->n_held);
    }
    return m;
}
