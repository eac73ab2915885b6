/* utf8.h - strict UTF-8: no overlong forms, no surrogates, nothing past U+10FFFF. */
#ifndef TOKENIZER_UTF8_H
#define TOKENIZER_UTF8_H
#include <stddef.h>
#include <stdint.h>

/* Looks at the first character of p[n], n > 0. Returns its length 1..4 and sets *cp (NULL is
 * fine); 0 when the bytes begin a character that needs more of them; -k when the first k bytes
 * can never become one (k as Unicode's "maximal subpart": one U+FFFD stands for all k). */
int utf8_next(const char *p, size_t n, uint32_t *cp);

/* Writes cp as 1..4 bytes, returns how many. */
int utf8_put(char *out, uint32_t cp);

#endif
