/* synth_vocab.h - vocabularies made up on the spot, with tokenizers that encode and decode any
 * text.
 *
 * vocab_filled gives a vocabulary of any size whose pieces are bytes and runs of letters in order
 * of length; vocab_words gives a small one of English words, their beginnings and single
 * characters. Both are the same on every machine. */
#ifndef TOOLS_COMMON_SYNTH_VOCAB_H
#define TOOLS_COMMON_SYNTH_VOCAB_H
#include "model/gguf_write.h"
#include "tools/common/synth_shape.h"

struct synth_vocab {
    const char *model, *pre;       /* tokenizer.ggml.model and .pre (NULL: none) */
    int n, cap;
    struct gguf_str *piece;        /* borrows from text */
    float *score;                  /* of the SentencePiece kind */
    int32_t *type;                 /* enum tok_type */
    struct gguf_str *merge;        /* of the byte-level BPE kind: "left right" */
    int n_merges;
    char *text;
    size_t text_n, text_cap;
    int bos, eos, unk, eot;        /* -1: none */
    bool add_bos;
};

/* Exactly n pieces, spelled and numbered as the family does it. */
int vocab_filled(struct synth_vocab *, enum synth_tokens, int n, struct err *);
/* The words of synth_words.c; filled up with unused pieces to a multiple of 64. */
int vocab_words(struct synth_vocab *, struct err *);
void vocab_put(const struct synth_vocab *, struct gguf_writer *);  /* the tokenizer.ggml.* keys */
void vocab_release(struct synth_vocab *);

/* Space-separated, lower case. */
extern const char synth_words[], synth_openers[], synth_inner[];

#endif
