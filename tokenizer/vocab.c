#include "tokenizer/vocab.h"
#include "model/gguf.h"
#include "tokenizer/pretok.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PIECES = 1 << 24 };     /* the largest vocabularies have a quarter of a million */

static uint32_t hash(const char *p, size_t n) {
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)p[i]) * 0x100000001B3u;
    return (uint32_t)(h ^ h >> 32);
}

int vocab_alloc(struct vocab *v, uint64_t n, uint64_t bytes, struct err *err) {
    if (n == 0 || n > MAX_PIECES)
        return fail(err, "vocabulary of %llu pieces, wanted 1 to %d", (unsigned long long)n,
                    MAX_PIECES);
    if (bytes > UINT32_MAX)
        return fail(err, "vocabulary of %llu bytes, wanted less than 4 GiB",
                    (unsigned long long)bytes);
    v->piece = calloc((size_t)n, sizeof *v->piece);
    v->spelling = malloc((size_t)bytes + 1);
    if (!v->piece || !v->spelling)
        return fail(err, "out of memory for a vocabulary of %llu pieces", (unsigned long long)n);
    v->n = (int)n;
    return 0;
}

void vocab_set(struct vocab *v, int id, const char *p, size_t n, float score, int type) {
    char *to = id ? (char *)v->piece[id - 1].p + v->piece[id - 1].n : v->spelling;
    if (n) memcpy(to, p, n);
    v->piece[id] = (struct piece){ .p = to, .n = (uint32_t)n, .score = score,
                                   .type = (uint8_t)type };
}

void vocab_free(struct vocab *v) {
    free(v->piece);
    free(v->spelling);
    free(v->table);
    memset(v, 0, sizeof *v);
}

int vocab_find(const struct vocab *v, const char *p, size_t n) {
    for (uint32_t i = hash(p, n);; i++) {
        int id = v->table[i & v->mask];
        if (id < 0) return -1;
        if (v->piece[id].n == n && !memcmp(v->piece[id].p, p, n)) return id;
    }
}

bool vocab_is_plain(const struct vocab *v, int id) {
    const struct piece *p = &v->piece[id];
    bool text = p->type == TOK_NORMAL || p->type == TOK_USER || p->type == TOK_UNUSED;
    return text && p->n && vocab_find(v, p->p, p->n) == id;
}

/* <0x41> -> 0x41; -1 for anything else. */
static int byte_of(const struct piece *p) {
    int b = 0;
    if (p->n != 6 || memcmp(p->p, "<0x", 3) || p->p[5] != '>') return -1;
    for (int i = 3; i < 5; i++) {
        int c = (unsigned char)p->p[i];
        if (c >= '0' && c <= '9') b = b * 16 + c - '0';
        else if (c >= 'A' && c <= 'F') b = b * 16 + c - 'A' + 10;
        else return -1;
    }
    return b;
}

int vocab_index(struct vocab *v, struct err *err) {
    uint32_t size = 16;
    while (size < 2u * (uint32_t)v->n) size *= 2;
    v->table = malloc((size_t)size * sizeof *v->table);
    if (!v->table) return fail(err, "out of memory for a vocabulary of %d pieces", v->n);
    v->mask = size - 1;
    memset(v->table, 0xFF, (size_t)size * sizeof *v->table);
    memset(v->byte_id, 0xFF, sizeof v->byte_id);
    for (int id = 0; id < v->n; id++) {
        const struct piece *p = &v->piece[id];
        if (isnan(p->score)) return fail(err, "the score of piece %d is not a number", id);
        if (v->kind == VOCAB_SPM && p->type == TOK_BYTE) {
            int b = byte_of(p);
            if (b < 0)
                return fail(err, "piece %d '%.*s' is of type byte, "
                            "wanted a spelling from <0x00> to <0xFF>",
                            id, (int)(p->n < 64 ? p->n : 64), p->p);
            if (v->byte_id[b] < 0) v->byte_id[b] = id;
        }
        if (!p->n || vocab_find(v, p->p, p->n) >= 0) continue;
        uint32_t i = hash(p->p, p->n);
        while (v->table[i & v->mask] >= 0) i++;
        v->table[i & v->mask] = id;
    }
    return 0;
}

/* ------------------------------------------------------------------ special tokens */

/* A special token named by its id. Some converters write -1 as an unsigned number for "none". */
static int read_id(const struct gguf *g, const char *key, int n, int *id, struct err *err) {
    int64_t x;
    int rc = gguf_get_int(g, key, INT32_MIN, UINT32_MAX, &x, err);
    if (rc <= 0) return rc;
    if (x == -1 || x == UINT32_MAX) *id = -1;
    else if (x >= 0 && x < n) *id = (int)x;
    else
        return fail(err, "%s: %s is %lld, the vocabulary has %d pieces", gguf_path(g), key,
                    (long long)x, n);
    return 0;
}

static bool read_flag(const struct gguf *g, const char *key, bool *flag, struct err *err) {
    return gguf_get_bool(g, key, flag, err) < 0;
}

/* Vocabularies spell these for a purpose and often forget to type them as control tokens. */
static void well_known(struct vocab *v) {
    static const char *const end[] = {
        "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>",
        "<|end_of_text|>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]",
        "<end_of_utterance>", "<turn|>",
        "<\xEF\xBD\x9C" "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
        /* a repository or the next file begins: the code models' end of an infill */
        "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "<|fim_repo|>", "<|repo_name|>",
        "<fim-repo>", "<REPO>", "<reponame>", "<|file_sep|>",
    };
    static const char *const control[] = {
        "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<PRE>",
        "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<SUF>",
        "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<MID>",
    };
    for (size_t i = 0; i < sizeof end / sizeof *end; i++) {
        int id = vocab_find(v, end[i], strlen(end[i]));
        if (id < 0) continue;
        v->piece[id].type = TOK_CONTROL;
        v->piece[id].end = true;
    }
    for (size_t i = 0; i < sizeof control / sizeof *control; i++) {
        int id = vocab_find(v, control[i], strlen(control[i]));
        if (id >= 0) v->piece[id].type = TOK_CONTROL;
    }
}

/* White space around some special tokens belongs to them; GGUF has no key for it, only the
 * model's name tells. */
static void strip_rules(struct vocab *v, const struct gguf *g) {
    char name[128] = "";
    if (g && gguf_get_string(g, "general.name", name, sizeof name, NULL) < 0) name[0] = 0;
    if (strcasestr(name, "phi-3") || strcasestr(name, "phi3")) {
        for (int id = 0; id < v->n; id++) {
            int t = v->piece[id].type;
            v->piece[id].strip_right = t == TOK_CONTROL || t == TOK_USER || t == TOK_UNKNOWN;
        }
        static const char *const keep[] = { "<unk>", "<s>", "<|endoftext|>" };
        for (int i = 0; i < 3; i++) {
            int id = vocab_find(v, keep[i], strlen(keep[i]));
            if (id >= 0) v->piece[id].strip_right = false;
        }
        int id = vocab_find(v, "</s>", 4);
        if (id >= 0) v->piece[id].strip_right = true;
    } else if (!strncmp(v->pre, "jina-v2-", 8) && strcmp(v->pre, "jina-v2-en")) {
        int id = vocab_find(v, "<mask>", 6);
        if (id >= 0) v->piece[id].strip_left = true;
    }
}

int vocab_specials(struct vocab *v, const struct gguf *g, struct err *err) {
    if (g) {
        if (read_id(g, "tokenizer.ggml.bos_token_id", v->n, &v->bos, err) ||
            read_id(g, "tokenizer.ggml.eos_token_id", v->n, &v->eos, err) ||
            read_id(g, "tokenizer.ggml.eot_token_id", v->n, &v->eot, err) ||
            read_id(g, "tokenizer.ggml.eom_token_id", v->n, &v->eom, err) ||
            read_id(g, "tokenizer.ggml.unknown_token_id", v->n, &v->unk, err) ||
            read_flag(g, "tokenizer.ggml.add_bos_token", &v->add_bos, err) ||
            read_flag(g, "tokenizer.ggml.add_eos_token", &v->add_eos, err))
            return -1;
    }
    v->add_bos = v->add_bos && v->bos >= 0;
    v->add_eos = v->add_eos && v->eos >= 0;
    well_known(v);
    const int ends[] = { v->eos, v->eot, v->eom };
    for (int i = 0; i < 3; i++)
        if (ends[i] >= 0) v->piece[ends[i]].end = true;
    strip_rules(v, g);
    return 0;
}

/* ------------------------------------------------------------------ from GGUF */

/* An array of `type` with one item per piece, or NULL when the key is absent (and not wanted). */
static int find_array(const struct gguf *g, const char *key, bool strings, uint64_t n,
                      const struct gguf_kv **out, struct err *err) {
    const struct gguf_kv *kv = gguf_find(g, key);
    *out = kv;
    if (!kv) return 0;
    if (kv->type != GGUF_ARRAY || (kv->item == GGUF_STRING) != strings || kv->item == GGUF_ARRAY)
        return fail(err, "%s: %s is not an array of %s", gguf_path(g), key,
                    strings ? "strings" : "numbers");
    if (n && kv->count != n)
        return fail(err, "%s: %s has %llu items, tokenizer.ggml.tokens has %llu", gguf_path(g), key,
                    (unsigned long long)kv->count, (unsigned long long)n);
    return 0;
}

static int load_pieces(struct vocab *v, const struct gguf *g, struct err *err) {
    const struct gguf_kv *tokens, *scores, *types;
    if (find_array(g, "tokenizer.ggml.tokens", true, 0, &tokens, err)) return -1;
    if (!tokens) return fail(err, "%s: no tokenizer.ggml.tokens, so no vocabulary", gguf_path(g));
    if (find_array(g, "tokenizer.ggml.scores", false, tokens->count, &scores, err) ||
        find_array(g, "tokenizer.ggml.token_type", false, tokens->count, &types, err))
        return -1;

    uint64_t bytes = 0;
    const uint8_t *cursor = NULL;
    for (uint64_t i = 0; i < tokens->count; i++) bytes += gguf_next_string(tokens, &cursor).n;
    if (vocab_alloc(v, tokens->count, bytes, err)) return -1;
    cursor = NULL;
    for (int id = 0; id < v->n; id++) {
        struct gguf_str s = gguf_next_string(tokens, &cursor);
        double score = 0;
        int64_t type = TOK_NORMAL;
        if (scores && gguf_array_float(scores, (uint64_t)id, &score)) {
            int64_t whole;
            if (gguf_array_int(scores, (uint64_t)id, &whole))
                return fail(err, "%s: tokenizer.ggml.scores are not numbers", gguf_path(g));
            score = (double)whole;
        }
        if (types && gguf_array_int(types, (uint64_t)id, &type))
            return fail(err, "%s: tokenizer.ggml.token_type are not integers", gguf_path(g));
        if (type < TOK_NORMAL || type > TOK_BYTE) type = TOK_UNUSED;       /* 0 is "undefined" */
        if (s.n > INT32_MAX / 8)
            return fail(err, "%s: piece %d has %zu bytes", gguf_path(g), id, s.n);
        vocab_set(v, id, s.p, s.n, (float)score, (int)type);
        if (!types && v->kind == VOCAB_SPM && byte_of(&v->piece[id]) >= 0)
            v->piece[id].type = TOK_BYTE;
    }
    return 0;
}

int vocab_load(struct vocab *v, const struct gguf *g, struct err *err) {
    char model[64];
    int rc = gguf_get_string(g, "tokenizer.ggml.model", model, sizeof model, err);
    if (rc < 0) return -1;
    if (rc == 0) return fail(err, "%s: no tokenizer.ggml.model, so no vocabulary", gguf_path(g));
    v->bos = v->eos = v->eot = v->eom = v->unk = -1;
    if (!strcmp(model, "llama")) v->kind = VOCAB_SPM;
    else if (!strcmp(model, "gpt2")) v->kind = VOCAB_BPE;
    else return fail(err, "%s: tokenizer.ggml.model is %s; known: llama, gpt2", gguf_path(g),
                     model);

    strcpy(v->pre, "default");
    rc = gguf_get_string(g, "tokenizer.ggml.pre", v->pre, sizeof v->pre, err);
    if (rc < 0 || load_pieces(v, g, err)) return -1;
    v->pre_missing = rc == 0 && v->kind == VOCAB_BPE;
    if (v->kind == VOCAB_SPM) {
        for (int id = v->n - 1; id >= 0; id--)
            if (v->piece[id].type == TOK_UNKNOWN) v->unk = id;
        v->bos = v->n > 1 ? 1 : -1;                /* what the reference's vocabularies agree on */
        v->eos = v->n > 2 ? 2 : -1;
        v->add_bos = v->add_space_prefix = true;
    } else {
        v->add_bos = pretok_adds_bos(v->pre);
    }
    if (read_flag(g, "tokenizer.ggml.add_space_prefix", &v->add_space_prefix, err) ||
        read_flag(g, "tokenizer.ggml.remove_extra_whitespaces", &v->remove_extra_spaces, err))
        return -1;
    return vocab_index(v, err) || vocab_specials(v, g, err) ? -1 : 0;
}
