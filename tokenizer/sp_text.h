/* sp_text.h - encodes text with a SentencePiece vocabulary: what libsentencepiece does, for
 * texts of any size and any bytes. */
#ifndef TOKENIZER_SP_TEXT_H
#define TOKENIZER_SP_TEXT_H
#include "tokenizer/ids.h"
#include "tokenizer/vocab.h"

struct sp_text;

/* v is borrowed. proto, when not NULL, is a tokenizer.model that libsentencepiece must see as it
 * is, with its own normaliser (it then also decides about prefix and white space; invalid UTF-8
 * becomes U+FFFD); NULL: built from v. */
int sp_text_open(struct sp_text **out, const struct vocab *v, const char *proto, size_t n,
                 struct err *);
void sp_text_close(struct sp_text *);              /* NULL is fine */

/* Appends the ids of text[n]. prefix: a space goes in front, as the vocabulary wants it at the
 * start of a text and after a special token. Bytes that are not UTF-8 become byte pieces (or the
 * unknown piece). */
int sp_text_encode(const struct sp_text *, const char *text, size_t n, bool prefix, struct ids *,
                   struct err *);

#endif
