/* special.h - finds special tokens in text. */
#ifndef TOKENIZER_SPECIAL_H
#define TOKENIZER_SPECIAL_H
#include "tokenizer/vocab.h"

struct special;

int special_open(struct special **out, const struct vocab *, struct err *);  /* vocab is borrowed */
void special_close(struct special *);              /* NULL is fine */

/* The first special token at or after text[from], the longest one where several begin there.
 * User-defined tokens always count, control and unknown ones when `control` is set. Returns its
 * id and sets *at; -1: none, *at = n. */
int special_next(const struct special *, const char *text, size_t n, size_t from, bool control,
                 size_t *at);

#endif
