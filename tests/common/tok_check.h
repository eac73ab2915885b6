/* tok_check.h - what the tests of the tokenizer compare. */
#ifndef TESTS_COMMON_TOK_CHECK_H
#define TESTS_COMMON_TOK_CHECK_H
#include "tests/common/vocab_file.h"

struct tokenizer *tok_must(const struct vocab_file *);      /* vocab_file_open, or the test fails */

/* Encodes text and wants these pieces, spelled and joined by '|'. */
void tok_pieces(const struct tokenizer *, const char *text, size_t n, int flags, const char *want);
#define pieces(t, text, flags, want) tok_pieces(t, text, sizeof text - 1, flags, want)

/* The text ids[n] decode to, as one stream; malloc'd, NUL-terminated, *size without the NUL
 * (NULL is fine). */
char *tok_text(const struct tokenizer *, const int32_t *ids, int n, bool special, size_t *size);

uint32_t tok_random(uint64_t *state);                       /* start with any state but 0 */

#endif
