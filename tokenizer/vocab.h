/* vocab.h - the pieces of a vocabulary and what its metadata says about them, checked. Owns
 * copies of everything. */
#ifndef TOKENIZER_VOCAB_H
#define TOKENIZER_VOCAB_H
#include "tokenizer/tokenizer.h"

enum vocab_kind { VOCAB_SPM, VOCAB_BPE };

struct piece {
    const char *p;                 /* as the file spells it, not NUL-terminated; n may be 0 */
    uint32_t n;
    float score;
    uint8_t type;                  /* enum tok_type */
    bool end;                      /* generation stops here */
    bool strip_right;              /* as a special token, swallows the white space behind it */
    bool strip_left;               /* and this kind the white space before it */
};

struct vocab {
    enum vocab_kind kind;
    char pre[64];                  /* tokenizer.ggml.pre; "default" when absent */
    bool pre_missing;              /* and a BPE vocabulary would have needed it */
    int n;
    struct piece *piece;           /* [n] */
    char *spelling;                /* every piece's bytes, one behind the other */
    /* Spelling -> id, open addressing, -1 is free; the first of duplicates wins. */
    int32_t *table;
    uint32_t mask;
    int bos, eos, eot, eom, unk;   /* -1: none */
    bool add_bos, add_eos;
    bool add_space_prefix, remove_extra_spaces;
    int byte_id[256];              /* SPM: the byte pieces, -1 where there is none */
};

/* Reads tokenizer.ggml.*. 0; or -1 with *err, and v needs vocab_free all the same (zero it
 * first). */
int vocab_load(struct vocab *v, const struct gguf *, struct err *);
void vocab_free(struct vocab *);

/* The same in steps, for pieces from elsewhere: room for n pieces of `bytes` bytes together,
 * then each in turn (ids in order). */
int vocab_alloc(struct vocab *v, uint64_t n, uint64_t bytes, struct err *);
void vocab_set(struct vocab *v, int id, const char *p, size_t n, float score, int type);
int vocab_index(struct vocab *v, struct err *);          /* builds the table and byte_id */
/* Ids, flags and special tokens from the metadata, on top of what v says already. */
int vocab_specials(struct vocab *v, const struct gguf *, struct err *);

int vocab_find(const struct vocab *, const char *p, size_t n);         /* id, or -1 */

/* Whether merging plain text may come to this piece: no control, unknown or byte piece, no
 * duplicate. */
bool vocab_is_plain(const struct vocab *, int id);

#endif
