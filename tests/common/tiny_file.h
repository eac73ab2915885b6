/* tiny_file.h - a little random model, open: what tests of sessions begin with. */
#ifndef TESTS_COMMON_TINY_FILE_H
#define TESTS_COMMON_TINY_FILE_H
#include "model/session.h"
#include "tests/common/tiny.h"

struct tiny_file { struct gguf *file; struct model *model; };

/* Writes and opens an F32 model of n_layers layers with 4 heads on 2 of 16, 101 tokens;
 * ends the test program if that fails. */
struct tiny_file tiny_file_open(const char *name, int n_layers, uint64_t seed);
/* Any GGUF. */
struct tiny_file tiny_file_of(const char *path);
void tiny_file_close(struct tiny_file *);

/* n ids below n_vocab. */
void tiny_ids(int32_t *ids, int n, int n_vocab, uint64_t seed);
/* A session of F16 keys and values; batch 0: the default. */
struct session *tiny_talk(const struct tiny_file *, const char *attn, int n_ctx, int batch);
size_t tiny_logit_bytes(const struct tiny_file *);

#endif
