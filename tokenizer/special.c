#include "tokenizer/special.h"
#include <stdlib.h>
#include <string.h>

/* The spellings in order of their bytes: those that share a prefix stand together, so a match
 * narrows the range byte by byte. Most text stops at the first byte. */
struct special {
    const struct vocab *v;
    int *id;
    int first[257];                /* id[first[b]..first[b+1]) begin with byte b */
};

static int by_spelling(const void *a, const void *b, void *vocab) {
    const struct vocab *v = vocab;
    const struct piece *x = &v->piece[*(const int *)a], *y = &v->piece[*(const int *)b];
    int c = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);
    return c ? c : (x->n > y->n) - (x->n < y->n);
}

int special_open(struct special **out, const struct vocab *v, struct err *err) {
    struct special *s = calloc(1, sizeof *s);
    if (!s || !(s->id = malloc(((size_t)v->n + 1) * sizeof *s->id))) {
        special_close(s);
        return fail(err, "out of memory");
    }
    int n = 0;
    for (int id = 0; id < v->n; id++) {
        const struct piece *p = &v->piece[id];
        bool counts = p->type == TOK_CONTROL || p->type == TOK_USER || p->type == TOK_UNKNOWN;
        if (counts && p->n && vocab_find(v, p->p, p->n) == id) s->id[n++] = id;
    }
    s->v = v;
    qsort_r(s->id, (size_t)n, sizeof *s->id, by_spelling, (void *)v);
    for (int b = 0, i = 0; b <= 256; b++) {
        while (i < n && (unsigned char)v->piece[s->id[i]].p[0] < b) i++;
        s->first[b] = i;
    }
    *out = s;
    return 0;
}

void special_close(struct special *s) {
    if (!s) return;
    free(s->id);
    free(s);
}

/* The first of id[lo..hi) whose byte at depth is not below b; all of them have more than depth
 * bytes. */
static int narrow(const struct special *s, int lo, int hi, size_t depth, int b) {
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2;
        if ((unsigned char)s->v->piece[s->id[mid]].p[depth] < b) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

int special_next(const struct special *s, const char *text, size_t n, size_t from, bool control,
                 size_t *at) {
    for (size_t i = from; i < n; i++) {
        unsigned char b = (unsigned char)text[i];
        int lo = s->first[b], hi = s->first[b + 1], found = -1;
        for (size_t depth = 1; lo < hi; depth++) {
            if (s->v->piece[s->id[lo]].n == depth) {        /* ends here: the first of its range */
                if (control || s->v->piece[s->id[lo]].type == TOK_USER) found = s->id[lo];
                lo++;
            }
            if (i + depth == n) break;
            b = (unsigned char)text[i + depth];
            lo = narrow(s, lo, hi, depth, b);
            hi = narrow(s, lo, hi, depth, b + 1);
        }
        if (found >= 0) {
            *at = i;
            return found;
        }
    }
    *at = n;
    return -1;
}
