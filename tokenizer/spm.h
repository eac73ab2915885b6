/* spm.h - libsentencepiece behind a C face. */
#ifndef TOKENIZER_SPM_H
#define TOKENIZER_SPM_H
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#include "base/err.h"

struct spm;

/* proto: a serialised sentencepiece ModelProto, as sp_model.h builds them or as
 * tokenizer.model files hold them. */
int spm_open(struct spm **out, const void *proto, size_t n, struct err *);
void spm_close(struct spm *);                      /* NULL is fine */
int spm_n(const struct spm *);                     /* pieces */

/* Encodes text[n] into at most cap ids. Returns how many there are (more than cap: nothing was
 * written), or -1. */
long spm_encode(const struct spm *, const char *text, size_t n, int32_t *ids, size_t cap,
                struct err *);

#ifdef __cplusplus
}
#endif
#endif
