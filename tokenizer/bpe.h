/* bpe.h - byte-level BPE: text is cut into words, a word's bytes are merged pair by pair, lowest
 * rank first. */
#ifndef TOKENIZER_BPE_H
#define TOKENIZER_BPE_H
#include "tokenizer/ids.h"
#include "tokenizer/vocab.h"

struct bpe;

/* Reads tokenizer.ggml.merges. v is borrowed. */
int bpe_open(struct bpe **out, const struct vocab *v, const struct gguf *, struct err *);
void bpe_close(struct bpe *);                      /* NULL is fine */

/* Appends the ids of text[n]; every byte that is not part of valid UTF-8 counts as U+FFFD. A byte
 * that the vocabulary has no piece for is left out. */
int bpe_encode(const struct bpe *, const char *text, size_t n, struct ids *, struct err *);

/* Byte-level vocabularies spell each byte as one printable character: the byte behind such a
 * character, -1 if it is none of those 256. */
int bpe_byte(uint32_t cp);

#endif
