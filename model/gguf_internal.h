/* gguf_internal.h - what the files of the GGUF reader share; nobody else includes it. */
#ifndef MODEL_GGUF_INTERNAL_H
#define MODEL_GGUF_INTERNAL_H
#include "model/gguf.h"

enum { GGUF_ALIGNMENT = 32, GGUF_ALIGNMENT_MIN = 8, GGUF_NAME_MAX = 64, GGUF_SHOWN = 200 };

/* One file: its bytes and what its header says. A model is one part, or several when it was
 * split. */
struct gguf_part {
    char *path;
    uint8_t *base;                 /* the whole file, mapped or read; munmap frees either */
    size_t size;
    bool can_release;              /* mapped and not locked: pages can be read again */
    struct gguf_kv *kv;
    const struct gguf_kv **kv_by_key;       /* sorted */
    int n_kv;
    struct gguf_tensor *tensors;
    int n_tensors;
};

struct gguf {
    struct gguf_part *parts;       /* parts[0] holds the metadata everybody reads */
    int n_parts;
    struct gguf_tensor *tensors;   /* of all parts, in file order */
    const struct gguf_tensor **by_name;     /* sorted */
    int n_tensors;
    uint64_t tensor_bytes;
    struct gguf_set *sets;         /* by gguf_set, the last one first */
};

/* Fills kv, tensors and their counts from p->base. On failure p may be half filled;
 * gguf_part_free cleans up. */
int gguf_parse(struct gguf_part *p, struct err *);
void gguf_part_free(struct gguf_part *);
const struct gguf_kv *gguf_part_find(const struct gguf_part *, const char *key);

/* What gguf_set has set, NULL: nothing. */
const struct gguf_kv *gguf_set_find(const struct gguf *, const char *key);
void gguf_sets_free(struct gguf_set *);

/* The three-way results of gguf_get_int, on one key that was looked up already (NULL: absent). */
int gguf_kv_int(const struct gguf_kv *, const char *path, int64_t min, int64_t max, int64_t *out,
                struct err *);

size_t gguf_type_bytes(int type);       /* of one value; 0 for strings, arrays and unknown types */
const char *gguf_type_name(int type);   /* "u32", "string", ...; "unknown" otherwise */

/* Bytes from a file made fit for a terminal: printable ASCII as it is, the rest escaped, long
 * ones cut. Returns buf. */
const char *gguf_show(char buf[GGUF_SHOWN], const char *p, size_t n);

static inline uint32_t gguf_u32(const uint8_t *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t gguf_u64(const uint8_t *p) {
    return gguf_u32(p) | (uint64_t)gguf_u32(p + 4) << 32;
}

#endif
