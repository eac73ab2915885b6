#include "tests/common/vocab_file.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "model/gguf_write.h"
#include "tests/common/temp.h"
#include <cmocka.h>

enum { MAX_PIECES = sizeof((struct vocab_file *)0)->token / sizeof(struct gguf_str) };

void vocab_file_init(struct vocab_file *f, const char *model, const char *pre) {
    memset(f, 0, sizeof *f);
    f->model = model;
    f->pre = pre;
    f->bos = f->eos = f->unk = f->add_bos = f->add_eos = f->add_space_prefix = f->remove_extra = -1;
}

int vocab_file_piece(struct vocab_file *f, const char *spelling, float score, enum tok_type type) {
    assert_true(f->n < (int)MAX_PIECES);
    f->token[f->n] = (struct gguf_str){ spelling, strlen(spelling) };
    f->score[f->n] = score;
    f->type[f->n] = type;
    return f->n++;
}

void vocab_file_merge(struct vocab_file *f, const char *s) {
    assert_true(f->n_merges < 256);
    f->merge[f->n_merges++] = (struct gguf_str){ s, strlen(s) };
}

void vocab_file_spm(struct vocab_file *f) {
    static char spelling[256][8];
    vocab_file_piece(f, "<unk>", 0, TOK_UNKNOWN);
    vocab_file_piece(f, "<s>", 0, TOK_CONTROL);
    vocab_file_piece(f, "</s>", 0, TOK_CONTROL);
    for (int b = 0; b < 256; b++) {
        snprintf(spelling[b], sizeof spelling[b], "<0x%02X>", b);
        vocab_file_piece(f, spelling[b], 0, TOK_BYTE);
    }
}

/* Bytes that print keep their code point, the others follow from U+0100 on. */
void vocab_file_bytes(struct vocab_file *f) {
    static char spelling[256][4];
    int next = 256;
    for (int b = 0; b < 256; b++) {
        int prints = (b > 32 && b < 127) || (b > 160 && b != 173);
        int cp = prints ? b : next++;
        if (cp < 128) spelling[b][0] = (char)cp;
        else {
            spelling[b][0] = (char)(0xC0 | cp >> 6);
            spelling[b][1] = (char)(0x80 | (cp & 0x3F));
        }
        vocab_file_piece(f, spelling[b], 0, TOK_NORMAL);
    }
}

void vocab_file_write(const struct vocab_file *f, const char *path) {
    struct gguf_writer *w;
    struct err err = { .msg = "" };
    if (gguf_write_open(&w, path, &err)) fail_msg("%s", err.msg);
    gguf_put_string(w, "general.architecture", "llama");
    if (f->name) gguf_put_string(w, "general.name", f->name);
    if (f->model) gguf_put_string(w, "tokenizer.ggml.model", f->model);
    if (f->pre) gguf_put_string(w, "tokenizer.ggml.pre", f->pre);
    gguf_put_strings(w, "tokenizer.ggml.tokens", f->token, (uint64_t)f->n);
    if (!f->no_scores) gguf_put_floats(w, "tokenizer.ggml.scores", f->score, (uint64_t)f->n);
    if (!f->no_types)
        gguf_put_ints(w, "tokenizer.ggml.token_type", GGUF_I32, f->type, (uint64_t)f->n);
    if (!f->no_merges)
        gguf_put_strings(w, "tokenizer.ggml.merges", f->merge, (uint64_t)f->n_merges);
    const struct { const char *key; int id; } ids[] = {
        { "tokenizer.ggml.bos_token_id", f->bos }, { "tokenizer.ggml.eos_token_id", f->eos },
        { "tokenizer.ggml.unknown_token_id", f->unk },
    };
    for (int i = 0; i < 3; i++)
        if (ids[i].id >= 0) gguf_put_int(w, ids[i].key, GGUF_U32, ids[i].id);
    const struct { const char *key; int on; } flags[] = {
        { "tokenizer.ggml.add_bos_token", f->add_bos },
        { "tokenizer.ggml.add_eos_token", f->add_eos },
        { "tokenizer.ggml.add_space_prefix", f->add_space_prefix },
        { "tokenizer.ggml.remove_extra_whitespaces", f->remove_extra },
    };
    for (int i = 0; i < 4; i++)
        if (flags[i].on >= 0) gguf_put_bool(w, flags[i].key, flags[i].on);
    if (gguf_write_begin(w, &err)) fail_msg("%s", err.msg);
    if (gguf_write_close(w, &err)) fail_msg("%s", err.msg);
}

struct tokenizer *vocab_file_open(const struct vocab_file *f, struct err *err) {
    const char *path = temp_path("vocabulary.gguf");
    struct gguf *g = NULL;
    struct tokenizer *t = NULL;
    vocab_file_write(f, path);
    if (gguf_open(&g, path, NULL, err)) fail_msg("%s", err->msg);
    if (tok_open(&t, g, NULL, err)) t = NULL;
    gguf_close(g);
    unlink(path);
    return t;
}
