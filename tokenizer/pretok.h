/* pretok.h - cuts text into words before byte-level BPE, by the rules tokenizer.ggml.pre names. */
#ifndef TOKENIZER_PRETOK_H
#define TOKENIZER_PRETOK_H
#include <stdbool.h>
#include <stddef.h>
#include "base/err.h"

struct pretok;

/* -1 with a list of the known names when this one is not among them. */
int pretok_open(struct pretok **out, const char *name, struct err *);
void pretok_close(struct pretok *);                /* NULL is fine */

/* What else the name decides: whole words that are pieces skip the merges; BOS is added unless
 * metadata says no. */
bool pretok_ignores_merges(const char *name);
bool pretok_adds_bos(const char *name);

/* Hands the words of text[n], valid UTF-8, to word() one after the other: together they are the
 * text. Stops with what word() returns when that is not 0. -1 with *err for a failure of its
 * own. */
int pretok_split(const struct pretok *, const char *text, size_t n,
                 int (*word)(void *to, const char *p, size_t n), void *to, struct err *);

#endif
