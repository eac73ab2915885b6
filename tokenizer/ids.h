/* ids.h - a list of token ids that grows. Start with zeros; free(v) at the end. */
#ifndef TOKENIZER_IDS_H
#define TOKENIZER_IDS_H
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

struct ids { int32_t *v; size_t n, cap; };

/* Room for more ids behind v[n]. 0, or -1 without memory (the list stays as it was). */
static inline int ids_reserve(struct ids *ids, size_t more) {
    if (more <= ids->cap - ids->n) return 0;
    size_t cap = ids->cap + ids->cap / 2;
    if (cap < ids->n + more) cap = ids->n + more;
    int32_t *v = realloc(ids->v, cap * sizeof *v);
    if (!v) return -1;
    ids->v = v;
    ids->cap = cap;
    return 0;
}

static inline int ids_push(struct ids *ids, int32_t id) {
    if (ids->n == ids->cap && ids_reserve(ids, 64)) return -1;
    ids->v[ids->n++] = id;
    return 0;
}

#endif
