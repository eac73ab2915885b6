/* tokenizer.h - text to token ids and back, from the vocabulary a GGUF carries.
 *
 * tokenizer.ggml.model = llama: a SentencePiece model is built from the file's pieces, scores
 * and types and libsentencepiece does the work; gpt2: byte-level BPE with the pre-tokenizer
 * named by tokenizer.ggml.pre on PCRE2. */
#ifndef TOKENIZER_TOKENIZER_H
#define TOKENIZER_TOKENIZER_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"

struct gguf;
struct tokenizer;

enum tok_type { TOK_NORMAL = 1, TOK_UNKNOWN = 2, TOK_CONTROL = 3, TOK_USER = 4, TOK_UNUSED = 5,
                TOK_BYTE = 6 };

/* Reads the tokenizer.* keys of the file. sp_model, when not NULL, is a SentencePiece
 * tokenizer.model whose pieces and rules replace the file's; what the file says about special
 * ids and BOS still counts, and the file may be NULL then. Nothing of either file is needed
 * after the call. A tokenizer may be used from several threads at once. */
int tok_open(struct tokenizer **out, const struct gguf *, const char *sp_model, struct err *);
void tok_close(struct tokenizer *);                     /* NULL is fine */

/* One line worth showing once: what the metadata leaves open and was guessed. NULL: nothing. */
const char *tok_warning(const struct tokenizer *);

int tok_n(const struct tokenizer *);                    /* vocabulary size */
int tok_bos(const struct tokenizer *), tok_eos(const struct tokenizer *);   /* -1: none */
bool tok_adds_bos(const struct tokenizer *);            /* what the metadata asks for */
bool tok_adds_eos(const struct tokenizer *);
bool tok_is_end(const struct tokenizer *, int id);      /* eos, eot, eom, ...: generation stops */
const char *tok_piece(const struct tokenizer *, int id, size_t *n);   /* as the vocabulary has it */
enum tok_type tok_type(const struct tokenizer *, int id);
int tok_find(const struct tokenizer *, const char *piece, size_t n);  /* the id so spelled, or -1 */

enum { TOK_BOS = 1, TOK_SPECIAL = 2 };  /* add BOS/EOS as the metadata says; parse special tokens */

/* Encodes n bytes of UTF-8; NUL is a character like others. Invalid bytes become byte pieces
 * (llama) or U+FFFD, one for each (gpt2). User-defined tokens are found in any text, control
 * tokens only with TOK_SPECIAL: without it no text becomes one. BOS and EOS come once: text that
 * under TOK_SPECIAL begins with BOS, or ends with EOS, gets no second. *ids is malloc'd, the
 * caller frees it. Returns the count, or -1 with *err. */
int tok_encode(const struct tokenizer *, const char *text, size_t n, int flags, int32_t **ids,
               struct err *);
/* Whether the text spells BOS at its start, so that TOK_BOS | TOK_SPECIAL has nothing to add:
 * worth a warning. */
bool tok_has_bos(const struct tokenizer *, const char *text, size_t n);

/* Streaming decode: never emits half a UTF-8 character; bytes that cannot become one come out as
 * U+FFFD. Start with zeros, or with started = true when the ids go on from an earlier text: a
 * llama vocabulary puts a space in front of every text, which the first piece of a stream
 * therefore loses. */
struct tok_stream { unsigned char held[4]; int n_held; bool started; };
/* Writes what id spells to out (size at least tok_max_piece() + 16); returns the bytes written.
 * special: spell control tokens too. An id outside the vocabulary spells nothing. */
size_t tok_decode(const struct tokenizer *, struct tok_stream *, int id, bool special, char *out);
size_t tok_flush(struct tok_stream *, char *out);       /* what is still held, as U+FFFD */
size_t tok_max_piece(const struct tokenizer *);

#endif
