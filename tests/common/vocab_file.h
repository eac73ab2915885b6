/* vocab_file.h - small vocabularies written to a GGUF, for tests. */
#ifndef TESTS_COMMON_VOCAB_FILE_H
#define TESTS_COMMON_VOCAB_FILE_H
#include "model/gguf.h"
#include "tokenizer/tokenizer.h"

struct vocab_file {
    const char *model, *pre, *name;    /* NULL: no such key; name is general.name */
    int n;
    struct gguf_str token[1024];
    float score[1024];
    int32_t type[1024];
    int n_merges;
    struct gguf_str merge[256];
    int no_scores, no_types, no_merges;
    int bos, eos, unk;             /* -1: no such key */
    int add_bos, add_eos, add_space_prefix, remove_extra;      /* -1: no such key */
};

/* An empty one. The strings of pieces are borrowed. */
void vocab_file_init(struct vocab_file *, const char *model, const char *pre);
/* Returns its id. */
int vocab_file_piece(struct vocab_file *, const char *spelling, float score, enum tok_type);
void vocab_file_merge(struct vocab_file *, const char *left_space_right);
/* <unk> <s> </s> and the 256 byte pieces of SentencePiece: the ids 0 to 258. */
void vocab_file_spm(struct vocab_file *);
/* The 256 byte-level characters in the order of their bytes: the ids 0 to 255. */
void vocab_file_bytes(struct vocab_file *);

/* Writes it to path; fails the test when that does not work. */
void vocab_file_write(const struct vocab_file *, const char *path);
/* Writes to a temporary file, opens, removes. NULL with *err when tok_open refuses. */
struct tokenizer *vocab_file_open(const struct vocab_file *, struct err *err);

#endif
