/* kvcache.c - blocks of pages, one list per (layer, KV head).
 *
 *   heads[layer * n_kv_heads + g]  ->  block[0], block[1], ...       KV_BLOCK tokens each
 *   block  =  KV_BLOCK_PAGES pages of keys, then as many of values
 *
 * All blocks are equally large. A reservation takes its blocks from one slab, so that a long prompt lives in few
 * large allocations, which huge pages like. */
#include "kvcache/kvcache.h"
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20 };

struct head { char **block; };

struct kvcache {
    struct kv_shape shape;
    size_t k_page, v_page, block;          /* bytes */
    struct head *heads;                    /* [n_layers * n_kv_heads] */
    int n_heads;
    int n_blocks, max_blocks;              /* blocks of every head; room for so many in heads[].block */
    char **slabs;
    int n_slabs, max_slabs;
};

static size_t block_bytes(const struct kv_shape *s) {
    return KV_BLOCK_PAGES * (tile_k_bytes(s->type_k, s->k_dim) + tile_v_bytes(s->type_v, s->v_dim));
}

static int blocks_for(int n_tokens) { return n_tokens / KV_BLOCK + (n_tokens % KV_BLOCK != 0); }

int kv_open(struct kvcache **out, const struct kv_shape *shape, struct err *err) {
    if (shape->n_layers < 1 || shape->n_kv_heads < 1)
        return fail(err, "KV cache: %d layers of %d heads", shape->n_layers, shape->n_kv_heads);
    if (!tile_supports(shape->type_k, shape->k_dim))
        return fail(err, "KV cache: keys of %d floats cannot be stored as %s (F32, F16, BF16; Q8_0 and Q4_0 if a "
                         "multiple of 32)", shape->k_dim, dtype_name(shape->type_k));
    if (!tile_supports(shape->type_v, shape->v_dim))
        return fail(err, "KV cache: values of %d floats cannot be stored as %s (F32, F16, BF16; Q8_0 and Q4_0 if a "
                         "multiple of 32)", shape->v_dim, dtype_name(shape->type_v));
    struct kvcache *c = calloc(1, sizeof *c);
    struct head *heads = calloc((size_t)shape->n_layers * shape->n_kv_heads, sizeof *heads);
    if (!c || !heads) {
        free(c);
        free(heads);
        return fail(err, "KV cache: no memory for the tables of %d layers", shape->n_layers);
    }
    *c = (struct kvcache){
        .shape = *shape, .heads = heads, .n_heads = shape->n_layers * shape->n_kv_heads,
        .k_page = tile_k_bytes(shape->type_k, shape->k_dim), .v_page = tile_v_bytes(shape->type_v, shape->v_dim),
        .block = block_bytes(shape),
    };
    *out = c;
    return 0;
}

void kv_close(struct kvcache *c) {
    if (!c) return;
    for (int h = 0; h < c->n_heads; h++) free(c->heads[h].block);
    for (int i = 0; i < c->n_slabs; i++) free(c->slabs[i]);
    free(c->heads);
    free(c->slabs);
    free(c);
}

const struct kv_shape *kv_shape(const struct kvcache *c) { return &c->shape; }

/* Room in the tables, doubled when it runs out; the pages themselves never move. */
static int grow_tables(struct kvcache *c, int n_blocks) {
    if (n_blocks > c->max_blocks) {
        int max = n_blocks > 2 * c->max_blocks ? n_blocks : 2 * c->max_blocks;
        for (int h = 0; h < c->n_heads; h++) {
            char **p = realloc(c->heads[h].block, (size_t)max * sizeof *p);
            if (!p) return -1;
            c->heads[h].block = p;
        }
        c->max_blocks = max;
    }
    if (c->n_slabs == c->max_slabs) {
        int max = c->max_slabs ? 2 * c->max_slabs : 8;
        char **p = realloc(c->slabs, (size_t)max * sizeof *p);
        if (!p) return -1;
        c->slabs = p;
        c->max_slabs = max;
    }
    return 0;
}

static char *slab_new(size_t bytes) {
    size_t align = bytes >= HUGE_PAGE ? HUGE_PAGE : 64;
    char *slab = aligned_alloc(align, (bytes + align - 1) / align * align);
    if (slab && align == HUGE_PAGE) madvise(slab, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
    return slab;
}

int kv_reserve(struct kvcache *c, int n_tokens, struct err *err) {
    int more = blocks_for(n_tokens) - c->n_blocks;
    if (more <= 0) return 0;
    size_t count = (size_t)more * c->n_heads;
    char *slab = NULL;
    if (count > SIZE_MAX / 2 / c->block || grow_tables(c, c->n_blocks + more) ||
        !(slab = slab_new(count * c->block)))
        return fail(err, "KV cache: no memory for %d tokens, %.0f MiB more than the %.0f it has", n_tokens,
                    (double)count * c->block / (1 << 20), (double)kv_bytes(c) / (1 << 20));
    c->slabs[c->n_slabs++] = slab;
    for (int h = 0; h < c->n_heads; h++)                   /* a head's new blocks lie side by side */
        for (int b = 0; b < more; b++, slab += c->block) c->heads[h].block[c->n_blocks + b] = slab;
    c->n_blocks += more;
    return 0;
}

static char *k_page(const struct kvcache *c, int head, int page) {
    return c->heads[head].block[page / KV_BLOCK_PAGES] + page % KV_BLOCK_PAGES * c->k_page;
}

static char *v_page(const struct kvcache *c, int head, int page) {
    return c->heads[head].block[page / KV_BLOCK_PAGES] + KV_BLOCK_PAGES * c->k_page +
           page % KV_BLOCK_PAGES * c->v_page;
}

struct kv_page kv_page(const struct kvcache *c, int layer, int kv_head, int page) {
    int head = layer * c->shape.n_kv_heads + kv_head;
    assert(page >= 0 && page / KV_BLOCK_PAGES < c->n_blocks);
    return (struct kv_page){ k_page(c, head, page), v_page(c, head, page) };
}

void kv_append(struct kvcache *c, int layer, int pos, int n, const float *k, const float *v) {
    const struct kv_shape *s = &c->shape;
    assert(pos >= 0 && n >= 0 && blocks_for(pos + n) <= c->n_blocks);
    #pragma omp parallel for collapse(2) if (n >= KV_PAGE)
    for (int g = 0; g < s->n_kv_heads; g++)
        for (int page = pos / KV_PAGE; page <= (pos + n - 1) / KV_PAGE; page++) {
            int head = layer * s->n_kv_heads + g;
            for (int slot = 0; slot < KV_PAGE; slot++) {
                int t = page * KV_PAGE + slot - pos;
                if (t < 0 || t >= n) continue;
                size_t row = (size_t)t * s->n_kv_heads + g;
                tile_put_k(k_page(c, head, page), s->type_k, s->k_dim, slot, k + row * s->k_dim);
                tile_put_v(v_page(c, head, page), s->type_v, s->v_dim, slot, v + row * s->v_dim);
            }
        }
}

void kv_read(const struct kvcache *c, int layer, int kv_head, int pos, float *k, float *v) {
    struct kv_page page = kv_page(c, layer, kv_head, pos / KV_PAGE);
    if (k) tile_get_k(page.k, c->shape.type_k, c->shape.k_dim, pos % KV_PAGE, k, 1);
    if (v) tile_get_v(page.v, c->shape.type_v, c->shape.v_dim, pos % KV_PAGE, v, 1);
}

void kv_truncate(struct kvcache *c, int n_tokens) {
    (void)c;
    (void)n_tokens;                                        /* dense pages are overwritten in place */
}

size_t kv_bytes(const struct kvcache *c) { return (size_t)c->n_blocks * c->n_heads * c->block; }

size_t kv_bytes_at(const struct kv_shape *s, int n_tokens) {
    return (size_t)blocks_for(n_tokens) * s->n_layers * s->n_kv_heads * block_bytes(s);
}
