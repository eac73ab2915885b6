#include "tools/common/synth_vocab.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tokenizer/tokenizer.h"

#define SPM_SPACE "\xe2\x96\x81"       /* U+2581, how SentencePiece spells a space */

enum { TEXT_PER_PIECE = 48 };          /* a piece and a merge, each of at most 24 bytes */

static int start(struct synth_vocab *v, const char *model, const char *pre, int cap,
                 struct err *err) {
    *v = (struct synth_vocab){ .model = model, .pre = pre, .cap = cap,
                               .bos = -1, .eos = -1, .unk = -1, .eot = -1 };
    v->piece = calloc((size_t)cap, sizeof *v->piece);
    v->merge = calloc((size_t)cap, sizeof *v->merge);
    v->score = calloc((size_t)cap, sizeof *v->score);
    v->type = calloc((size_t)cap, sizeof *v->type);
    v->text_cap = (size_t)cap * TEXT_PER_PIECE;
    v->text = malloc(v->text_cap);
    if (v->piece && v->merge && v->score && v->type && v->text) return 0;
    vocab_release(v);
    return fail(err, "no memory for a vocabulary of %d pieces", cap);
}

void vocab_release(struct synth_vocab *v) {
    free(v->piece);
    free(v->merge);
    free(v->score);
    free(v->type);
    free(v->text);
    *v = (struct synth_vocab){0};
}

/* Concatenates a, middle and b in the vocabulary's own memory. */
static struct gguf_str spell(struct synth_vocab *v, struct gguf_str a, const char *middle,
                             struct gguf_str b) {
    size_t m = strlen(middle), n = a.n + m + b.n;
    /* Our own pieces are short: a bug, whatever the flags. */
    if (n > v->text_cap - v->text_n) abort();
    char *to = v->text + v->text_n;
    memcpy(to, a.p, a.n);
    memcpy(to + a.n, middle, m);
    memcpy(to + a.n + m, b.p, b.n);
    v->text_n += n;
    return (struct gguf_str){ to, n };
}

static struct gguf_str str(const char *s) { return (struct gguf_str){ s, strlen(s) }; }

static int add(struct synth_vocab *v, struct gguf_str piece, enum tok_type type, float score) {
    if (v->n == v->cap) return -1;
    v->piece[v->n] = piece;
    v->type[v->n] = type;
    v->score[v->n] = score;
    return v->n++;
}

static int add_text(struct synth_vocab *v, const char *text, enum tok_type type, float score) {
    return add(v, spell(v, str(text), "", str("")), type, score);
}

/* <unk> <s> </s> and the 256 byte pieces: where every SentencePiece vocabulary of the Llama
 * family begins. */
static void begin_spm(struct synth_vocab *v) {
    char byte[8];
    v->unk = add_text(v, "<unk>", TOK_UNKNOWN, 0);
    v->bos = add_text(v, "<s>", TOK_CONTROL, 0);
    v->eos = add_text(v, "</s>", TOK_CONTROL, 0);
    v->add_bos = true;
    for (int b = 0; b < 256; b++) {
        snprintf(byte, sizeof byte, "<0x%02X>", (unsigned)b & 255);
        add_text(v, byte, TOK_BYTE, 0);
    }
}

/* UTF-8 of the character that stands for a byte in byte-level BPE: printable Latin-1 for itself,
 * the rest from U+0100. */
static const char *byte_char(int byte, char out[4]) {
    int c = 0;
    bool plain = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    if (plain) c = byte;
    else {
        c = 256;
        for (int b = 0; b < byte; b++)
            c += !((b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae);
    }
    if (c < 128) { out[0] = (char)c; out[1] = 0; }
    else { out[0] = (char)(0xc0 | c >> 6); out[1] = (char)(0x80 | (c & 63)); out[2] = 0; }
    return out;
}

static void begin_bytes(struct synth_vocab *v) {
    char c[4];
    for (int pass = 0; pass < 2; pass++)                   /* printable ones first, as in GPT-2 */
        for (int b = 0; b < 256; b++) {
            bool plain = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
            if (plain == !pass) add_text(v, byte_char(b, c), TOK_NORMAL, 0);
        }
}

/* Fills up to n pieces: every piece is a shorter one and a letter, shortest first, words (after a
 * space) among them. */
static void fill_letters(struct synth_vocab *v, const char *space, int n) {
    struct gguf_str letter[26], root[27];
    for (int i = 0; i < 26; i++)
        letter[i] = root[i + 1] = (struct gguf_str){ &"abcdefghijklmnopqrstuvwxyz"[i], 1 };
    root[0] = spell(v, str(space), "", str(""));
    int first = v->n;
    for (int parent = -27; v->n < n; parent++) {
        struct gguf_str left = parent < 0 ? root[parent + 27] : v->piece[first + parent];
        for (int i = 0; i < 26 && v->n < n; i++) {
            v->merge[v->n_merges++] = spell(v, left, " ", letter[i]);
            add(v, spell(v, left, "", letter[i]), TOK_NORMAL, (float)(first - v->n));
        }
    }
}

static void fill_unused(struct synth_vocab *v, const char *form, int n) {
    char name[40];
    for (int i = 0; v->n < n; i++) {
        snprintf(name, sizeof name, form, i);
        add_text(v, name, TOK_UNUSED, 0);
    }
}

static void finish_llama3(struct synth_vocab *v, int n) {
    int first = v->n;
    v->bos = add_text(v, "<|begin_of_text|>", TOK_CONTROL, 0);
    v->eos = add_text(v, "<|end_of_text|>", TOK_CONTROL, 0);
    v->add_bos = true;
    char name[40];
    while (v->n < n) {
        int i = v->n - first;
        static const char *const known[] = { [4] = "<|finetune_right_pad_id|>",
                                             [6] = "<|start_header_id|>", [7] = "<|end_header_id|>",
                                             [8] = "<|eom_id|>", [9] = "<|eot_id|>" };
        snprintf(name, sizeof name, "<|reserved_special_token_%d|>", i);
        add_text(v, i <= 9 && known[i] ? known[i] : name, TOK_CONTROL, 0);
        if (i == 9) v->eot = v->n - 1;
    }
}

int vocab_filled(struct synth_vocab *v, enum synth_tokens family, int n, struct err *err) {
    static const char *const pre[] = { [TOKENS_LLAMA3] = "llama-bpe", [TOKENS_QWEN2] = "qwen2",
                                       [TOKENS_SMOLLM] = "smollm" };
    if (n < 1024) return fail(err, "a vocabulary of %d pieces, want at least 1024", n);
    if (start(v, family == TOKENS_SPM ? "llama" : "gpt2", pre[family], n + 64, err)) return -1;
    char space[4];
    byte_char(' ', space);
    switch (family) {
    case TOKENS_SPM:
        begin_spm(v);
        for (int c = ' '; c < 127; c++) {
            char one[2] = { (char)c, 0 };
            add_text(v, c == ' ' ? SPM_SPACE : one, TOK_NORMAL, -1e6f);
        }
        fill_letters(v, SPM_SPACE, n);
        break;
    case TOKENS_LLAMA3:
        begin_bytes(v);
        fill_letters(v, space, n - 256);
        finish_llama3(v, n);
        break;
    case TOKENS_QWEN2:
        begin_bytes(v);
        fill_letters(v, space, n > 151900 ? 151643 : n - 64);  /* sizes differ only in padding */
        v->bos = v->eot = add_text(v, "<|endoftext|>", TOK_CONTROL, 0);
        add_text(v, "<|im_start|>", TOK_CONTROL, 0);
        v->eos = add_text(v, "<|im_end|>", TOK_CONTROL, 0);
        fill_unused(v, "[PAD%d]", n);
        break;
    case TOKENS_SMOLLM:
        v->bos = v->unk = add_text(v, "<|endoftext|>", TOK_CONTROL, 0);
        add_text(v, "<|im_start|>", TOK_CONTROL, 0);
        v->eos = add_text(v, "<|im_end|>", TOK_CONTROL, 0);
        fill_unused(v, "<unused%d>", 17);
        begin_bytes(v);
        fill_letters(v, space, n);
        break;
    }
    return 0;
}

/* ---- words ---- */

static int by_text(const void *a, const void *b) {
    const struct gguf_str *x = a, *y = b;
    int order = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);
    return order ? order : (x->n > y->n) - (x->n < y->n);
}

/* Every beginning of every word, once: merges then walk down from the space letter by letter. */
struct prefixes { struct gguf_str *item; int n, cap; char *text; size_t text_n; };

static void add_prefixes(struct prefixes *p, const char *words, bool capital) {
    for (const char *w = words; *w; ) {
        size_t n = strcspn(w, " ");
        char *to = p->text + p->text_n;
        size_t space = strlen(SPM_SPACE);
        memcpy(to, SPM_SPACE, space);
        memcpy(to + space, w, n);
        if (capital && n) to[space] = (char)(to[space] - 'a' + 'A');
        p->text_n += space + n;
        for (size_t i = 1; i <= n; i++) p->item[p->n++] = (struct gguf_str){ to, space + i };
        w += n + strspn(w + n, " ");
    }
}

/* "00 01 .. 99 ": longer pieces keep the beginning of a number in sight while it is read. */
static const char *two_digits(char text[301]) {
    for (int i = 0; i < 100; i++) {
        text[3 * i] = (char)('0' + i / 10);
        text[3 * i + 1] = (char)('0' + i % 10);
        text[3 * i + 2] = ' ';
    }
    text[300] = 0;
    return text;
}

static float add_words(struct synth_vocab *v, const char *words, float score) {
    for (const char *w = words; *w; ) {
        size_t n = strcspn(w, " ");
        add(v, spell(v, (struct gguf_str){ w, n }, "", str("")), TOK_NORMAL, score--);
        w += n + strspn(w + n, " ");
    }
    return score;
}

int vocab_words(struct synth_vocab *v, struct err *err) {
    char digits[301];
    size_t letters = strlen(synth_words) + strlen(synth_openers) + sizeof digits;
    struct prefixes p = { .item = malloc(letters * sizeof *p.item), .text = malloc(2 * letters) };
    if (!p.item || !p.text || start(v, "llama", NULL, (int)letters + 1024, err)) {
        free(p.item);
        free(p.text);
        return fail(err, "no memory for the words of the vocabulary");
    }
    add_prefixes(&p, synth_words, false);
    add_prefixes(&p, two_digits(digits), false);
    add_prefixes(&p, synth_openers, true);
    qsort(p.item, (size_t)p.n, sizeof *p.item, by_text);
    begin_spm(v);
    float score = 0;
    for (int i = 0; i < p.n; i++)
        if (!i || by_text(&p.item[i - 1], &p.item[i]))
            add(v, spell(v, p.item[i], "", str("")), TOK_NORMAL, score--);
    score = add_words(v, synth_inner, score);   /* below all beginnings, so that these go first */
    score = add_words(v, digits, score);
    for (int c = ' '; c < 127; c++) {
        char one[2] = { (char)c, 0 };
        add_text(v, c == ' ' ? SPM_SPACE : one, TOK_NORMAL, score--);
    }
    fill_unused(v, "<unused%d>", (v->n + 63) / 64 * 64);
    free(p.item);
    free(p.text);
    return 0;
}

void vocab_put(const struct synth_vocab *v, struct gguf_writer *w) {
    gguf_put_string(w, "tokenizer.ggml.model", v->model);
    if (v->pre) gguf_put_string(w, "tokenizer.ggml.pre", v->pre);
    gguf_put_strings(w, "tokenizer.ggml.tokens", v->piece, (uint64_t)v->n);
    if (!v->pre) gguf_put_floats(w, "tokenizer.ggml.scores", v->score, (uint64_t)v->n);
    gguf_put_ints(w, "tokenizer.ggml.token_type", GGUF_I32, v->type, (uint64_t)v->n);
    if (v->pre) gguf_put_strings(w, "tokenizer.ggml.merges", v->merge, (uint64_t)v->n_merges);
    if (v->bos >= 0) gguf_put_int(w, "tokenizer.ggml.bos_token_id", GGUF_U32, v->bos);
    if (v->eos >= 0) gguf_put_int(w, "tokenizer.ggml.eos_token_id", GGUF_U32, v->eos);
    if (v->unk >= 0) gguf_put_int(w, "tokenizer.ggml.unknown_token_id", GGUF_U32, v->unk);
    if (v->eot >= 0) gguf_put_int(w, "tokenizer.ggml.eot_token_id", GGUF_U32, v->eot);
    gguf_put_bool(w, "tokenizer.ggml.add_bos_token", v->add_bos);
    if (!v->pre) gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", true);
}
