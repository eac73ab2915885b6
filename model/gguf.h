/* gguf.h - reads GGUF files (versions 2 and 3, split ones too): metadata, tensors; memory-mapped.
 *
 * A GGUF is untrusted input: every count, offset, length and shape is checked before use. A bad
 * file gives one line naming file, field, value found and value wanted. Everything returned
 * is borrowed and lives until gguf_close. */
#ifndef MODEL_GGUF_H
#define MODEL_GGUF_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "kernels/dtype.h"

enum gguf_type {
    GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL, GGUF_STRING,
    GGUF_ARRAY, GGUF_U64, GGUF_I64, GGUF_F64,
};

struct gguf_str { const char *p; size_t n; };      /* not NUL-terminated; may hold NUL bytes */

struct gguf_kv {
    struct gguf_str key;
    enum gguf_type type;
    enum gguf_type item;    /* of an array */
    uint64_t count;         /* items of an array, else 1 */
    const uint8_t *value;   /* the first value in the file, unaligned (strings: length, bytes) */
};

struct gguf_tensor {
    char name[65];      /* GGUF names are at most 64 bytes */
    int type;           /* enum dtype, or a type this engine does not know (data is then NULL) */
    int n_dims;
    uint64_t ne[4];     /* ne[0] runs fastest: the columns of a matrix; unused ones are 1 */
    uint64_t bytes;
    const void *data;
    const char *file;   /* the split file it lies in */
};

struct gguf;

struct gguf_options { bool no_mmap, mlock; };      /* no_mmap: read into memory instead */

/* path may be one file or the first of a split (NAME-00001-of-0000N.gguf). */
int gguf_open(struct gguf **out, const char *path, const struct gguf_options *, struct err *);
void gguf_close(struct gguf *);                    /* NULL is fine */
const char *gguf_path(const struct gguf *);
/* These bytes of a tensor are not wanted soon: their pages may leave memory. They
 * can still be read, from disk. */
void gguf_release(const struct gguf *, const void *data, size_t bytes);

/* Sets a key for all gguf_find and gguf_get_* to come: "KEY=TYPE:VALUE", TYPE int, float, bool or
 * str, in place of what the file says or beside it; the last one counts. gguf_kv_at shows the file
 * as it is. -1 with *err: not of that form, or the file's value is of another kind. */
int gguf_set(struct gguf *, const char *text, struct err *);
int gguf_set_check(const char *text, struct err *);        /* the form alone */
/* The first key set that the file lacks and nobody has asked for, a typing mistake; or NULL. Keys
 * of "general." and "tokenizer." are left out: they may be read late. */
const char *gguf_set_unread(const struct gguf *);

int gguf_n_kv(const struct gguf *);
const struct gguf_kv *gguf_kv_at(const struct gguf *, int i);
const struct gguf_kv *gguf_find(const struct gguf *, const char *key);         /* NULL: absent */
int gguf_n_tensors(const struct gguf *);
const struct gguf_tensor *gguf_tensor_at(const struct gguf *, int i);
const struct gguf_tensor *gguf_tensor(const struct gguf *, const char *name);  /* NULL: absent */
uint64_t gguf_tensor_bytes(const struct gguf *);                               /* of all tensors */

/* One value of a key. 1: found and *out filled; 0: absent, *out untouched; -1: present
 * but of another kind or out of range, *err says so. Integers of any width convert when
 * the value fits; floats take F32 and F64. The string form copies and NUL-terminates,
 * refusing what does not fit in size. */
int gguf_get_int(const struct gguf *, const char *key, int64_t min, int64_t max, int64_t *out,
                 struct err *);
int gguf_get_float(const struct gguf *, const char *key, double *out, struct err *);
int gguf_get_bool(const struct gguf *, const char *key, bool *out, struct err *);
int gguf_get_string(const struct gguf *, const char *key, char *out, size_t size, struct err *);
/* Items of an array: a cursor for strings (start with *cursor = NULL), direct conversion for
 * numbers: 0, or -1 if they are not integers. */
int gguf_array_int(const struct gguf_kv *, uint64_t i, int64_t *out);
int gguf_array_float(const struct gguf_kv *, uint64_t i, double *out);
struct gguf_str gguf_next_string(const struct gguf_kv *, const uint8_t **cursor);

#endif
