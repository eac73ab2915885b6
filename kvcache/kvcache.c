/* kvcache.c - blocks of pages, one list per (layer, KV head).
 *
 *   heads[layer * n_kv_heads + g]  ->  list of block[0], block[1], ...       KV_BLOCK tokens each
 *   block  =  KV_BLOCK_PAGES pages of keys, then as many of values
 *
 * A ring is the same list, cut off: after its sink pages it has ring_pages
 * places which the later pages take in turn. The pages that a stride keeps for
 * good lie in a second list, one after the other.
 *
 * All blocks are equally large. A reservation takes its blocks from one slab, so that a long prompt
 * lives in few large allocations, which huge pages like. */
#include "kvcache/kvcache.h"
#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20 };

struct list { char **block; int n_blocks; };

struct head {
    struct list near, far;         /* far: what a stride keeps */
    int sink_pages, ring_pages;    /* ring_pages is 0 for a head that keeps everything */
    int block_pages, stride;       /* of a stride's blocks; stride 0: none */
    uint64_t keep;
    int recent;                    /* tokens before any position that must stay */
    int written;                   /* end of the newest tokens in the ring; older pages gave way */
};

struct kvcache {
    struct kv_shape shape;
    size_t k_page, v_page, block;          /* bytes */
    struct head *heads;                    /* [n_layers * n_kv_heads] */
    int n_heads;
    int n_tokens;                          /* reserved */
    int max_blocks;                        /* room for so many in heads[].block */
    size_t n_blocks;                       /* of all heads together */
    char **slabs;
    int n_slabs, max_slabs;
};

static size_t block_bytes(const struct kv_shape *s) {
    return KV_BLOCK_PAGES * (tile_k_bytes(s->type_k, s->k_dim) + tile_v_bytes(s->type_v, s->v_dim));
}

static int div_up(int n, int by) { return n / by + (n % by != 0); }

/* Pages before `page` in the blocks that a stride keeps. */
static int strided_before(const struct head *h, int page) {
    if (!h->stride) return 0;
    const int block = page / h->block_pages, at = block % h->stride;
    const int whole = block / h->stride * __builtin_popcountll(h->keep) +
                      __builtin_popcountll(h->keep & (((uint64_t)1 << at) - 1));
    return whole * h->block_pages + (h->keep >> at & 1 ? page % h->block_pages : 0);
}

/* Those of them behind the sinks, and the pages before `page` that take turns in the ring. */
static int far_before(const struct head *h, int page) {
    return page > h->sink_pages ? strided_before(h, page) - strided_before(h, h->sink_pages) : 0;
}

static int ringed_before(const struct head *h, int page) {
    return h->ring_pages && page > h->sink_pages ? page - h->sink_pages - far_before(h, page) : 0;
}

/* recent + slack tokens may begin and end inside a page; how many of their pages need the ring
 * depends on where they begin against the stride's blocks. */
static int ring_pages(const struct head *h, const struct kv_store *s) {
    const int span = (s->recent + s->slack + KV_PAGE - 2) / KV_PAGE + 1;
    int most = h->stride ? 1 : span;
    for (int p = h->sink_pages; h->stride && p < h->sink_pages + h->stride * h->block_pages; p++) {
        const int n = ringed_before(h, p + span) - ringed_before(h, p);
        if (n > most) most = n;
    }
    return most;
}

static struct head head_new(const struct kv_store *s) {
    if (!s || !s->ring) return (struct head){ 0 };
    struct head h = { .sink_pages = div_up(s->sink, KV_PAGE), .ring_pages = 1, .recent = s->recent,
                      .stride = s->stride, .block_pages = s->block / KV_PAGE, .keep = s->keep };
    h.ring_pages = ring_pages(&h, s);
    return h;
}

/* Blocks that the two lists of a head want for n_tokens. */
static void blocks_for(const struct head *h, int n_tokens, int *near, int *far) {
    const int pages = div_up(n_tokens, KV_PAGE), ringed = ringed_before(h, pages),
              late = ringed - h->ring_pages;
    *far = div_up(far_before(h, pages), KV_BLOCK_PAGES);
    *near = div_up(pages - far_before(h, pages) - (h->ring_pages && late > 0 ? late : 0),
                   KV_BLOCK_PAGES);
}

static int check_type(const char *what, enum dtype type, int dim, struct err *err) {
    if (tile_supports(type, dim)) return 0;
    return fail(err, "KV cache: %s of %d floats cannot be stored as %s (F32, F16, BF16; "
                     "Q8_0 and Q4_0 for multiples of 32)", what, dim, dtype_name(type));
}

static int check_stores(const struct kv_shape *s, struct err *err) {
    for (size_t i = 0; s->stores && i < (size_t)s->n_layers * s->n_kv_heads; i++) {
        const struct kv_store *t = &s->stores[i];
        if (t->ring && (t->sink < 0 || t->recent < 0 || t->slack < 1 ||
                        t->sink > 1 << 28 || t->recent > 1 << 28 || t->slack > 1 << 28))
            return fail(err, "KV cache: a ring of %d first and %d last tokens for batches of %d",
                        t->sink, t->recent, t->slack);
        if (t->ring && t->stride &&
            (t->stride < 0 || t->stride > 64 || t->block < KV_PAGE || t->block % KV_PAGE))
            return fail(err, "KV cache: a stride of %d blocks of %d tokens, "
                             "wanted 1 to 64 blocks of a multiple of %d",
                        t->stride, t->block, KV_PAGE);
    }
    return 0;
}

int kv_open(struct kvcache **out, const struct kv_shape *shape, struct err *err) {
    if (shape->n_layers < 1 || shape->n_kv_heads < 1)
        return fail(err, "KV cache: %d layers of %d heads", shape->n_layers, shape->n_kv_heads);
    if (check_type("keys", shape->type_k, shape->k_dim, err) ||
        check_type("values", shape->type_v, shape->v_dim, err) || check_stores(shape, err))
        return -1;
    const size_t n_heads = (size_t)shape->n_layers * shape->n_kv_heads;
    struct kvcache *c = calloc(1, sizeof *c);
    struct head *heads = calloc(n_heads, sizeof *heads);
    struct kv_store *stores = calloc(n_heads, sizeof *stores);
    if (!c || !heads || !stores) {
        free(c);
        free(heads);
        free(stores);
        return fail(err, "KV cache: no memory for the tables of %d layers", shape->n_layers);
    }
    *c = (struct kvcache){
        .shape = *shape, .heads = heads, .n_heads = (int)n_heads,
        .k_page = tile_k_bytes(shape->type_k, shape->k_dim),
        .v_page = tile_v_bytes(shape->type_v, shape->v_dim), .block = block_bytes(shape),
    };
    if (shape->stores) memcpy(stores, shape->stores, n_heads * sizeof *stores);
    c->shape.stores = stores;
    for (size_t h = 0; h < n_heads; h++) heads[h] = head_new(&stores[h]);
    *out = c;
    return 0;
}

void kv_close(struct kvcache *c) {
    if (!c) return;
    for (int h = 0; h < c->n_heads; h++) {
        free(c->heads[h].near.block);
        free(c->heads[h].far.block);
    }
    for (int i = 0; i < c->n_slabs; i++) free(c->slabs[i]);
    free(c->heads);
    free((void *)c->shape.stores);
    free(c->slabs);
    free(c);
}

const struct kv_shape *kv_shape(const struct kvcache *c) { return &c->shape; }

/* Room in the tables, doubled when it runs out; the pages themselves never move. */
static int grow_tables(struct kvcache *c, int n_blocks) {
    if (n_blocks > c->max_blocks) {
        int max = n_blocks > 2 * c->max_blocks ? n_blocks : 2 * c->max_blocks;
        for (int h = 0; h < c->n_heads; h++) {
            struct list *lists[] = { &c->heads[h].near, &c->heads[h].far };
            for (int i = 0; i < 2; i++) {
                char **p = realloc(lists[i]->block, (size_t)max * sizeof *p);
                if (!p) return -1;
                lists[i]->block = p;
            }
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
    size_t count = 0;
    int most = 0;
    if (n_tokens <= c->n_tokens) return 0;
    for (int h = 0; h < c->n_heads; h++) {
        int near, far;
        blocks_for(&c->heads[h], n_tokens, &near, &far);
        count += (size_t)(near - c->heads[h].near.n_blocks) +
                 (size_t)(far - c->heads[h].far.n_blocks);
        if (near > most) most = near;
        if (far > most) most = far;
    }
    char *slab = NULL;
    if (count && (count > SIZE_MAX / 2 / c->block || grow_tables(c, most) ||
                  !(slab = slab_new(count * c->block))))
        return fail(err, "KV cache: no memory for %d tokens, %.0f MiB more than the %.0f it has",
                    n_tokens, (double)count * c->block / (1 << 20),
                    (double)kv_bytes(c) / (1 << 20));
    if (slab) c->slabs[c->n_slabs++] = slab;
    for (int h = 0; h < c->n_heads; h++) {                 /* new blocks of a head: side by side */
        struct head *head = &c->heads[h];
        int near, far;
        blocks_for(head, n_tokens, &near, &far);
        for (; head->near.n_blocks < near; slab += c->block)
            head->near.block[head->near.n_blocks++] = slab;
        for (; head->far.n_blocks < far; slab += c->block)
            head->far.block[head->far.n_blocks++] = slab;
    }
    c->n_blocks += count;
    c->n_tokens = n_tokens;
    return 0;
}

static int is_far(const struct head *h, int page) {
    return far_before(h, page + 1) > far_before(h, page);
}

/* Where a page is kept: in which list, at which place. */
static const struct list *find(const struct head *h, int page, int *at) {
    if (is_far(h, page)) { *at = far_before(h, page); return &h->far; }
    *at = !h->ring_pages || page < h->sink_pages ? page
        : h->sink_pages + ringed_before(h, page) % h->ring_pages;
    return &h->near;
}

static struct kv_page page_at(const struct kvcache *c, const struct head *h, int page) {
    int at = page;
    const struct list *list = h->ring_pages ? find(h, page, &at) : &h->near;
    assert(at / KV_BLOCK_PAGES < list->n_blocks);
    char *block = list->block[at / KV_BLOCK_PAGES];
    return (struct kv_page){ block + at % KV_BLOCK_PAGES * c->k_page,
                             block + KV_BLOCK_PAGES * c->k_page + at % KV_BLOCK_PAGES * c->v_page };
}

/* Whether the ring still holds every page from `page` on: none of them gave way to a newer one. */
static int still_held(const struct head *h, int page) {
    return ringed_before(h, div_up(h->written, KV_PAGE)) - ringed_before(h, page) <= h->ring_pages;
}

struct kv_page kv_page(const struct kvcache *c, int layer, int kv_head, int page) {
    const struct head *h = &c->heads[(size_t)layer * c->shape.n_kv_heads + kv_head];
    assert(page >= 0 &&
           (!h->ring_pages || page < h->sink_pages || is_far(h, page) || still_held(h, page)));
    return page_at(c, h, page);
}

void kv_append(struct kvcache *c, int layer, int pos, int n, const float *k, const float *v) {
    const struct kv_shape *s = &c->shape;
    assert(pos >= 0 && n >= 0 && pos + n <= c->n_tokens);
    #pragma omp parallel for collapse(2) if (n >= KV_PAGE)
    for (int g = 0; g < s->n_kv_heads; g++)
        for (int page = pos / KV_PAGE; page < div_up(pos + n, KV_PAGE); page++) {
            struct kv_page to = page_at(c, &c->heads[(size_t)layer * s->n_kv_heads + g], page);
            for (int slot = 0; slot < KV_PAGE; slot++) {
                int t = page * KV_PAGE + slot - pos;
                if (t < 0 || t >= n) continue;
                size_t row = (size_t)t * s->n_kv_heads + g;
                tile_put_k((void *)to.k, s->type_k, s->k_dim, slot, k + row * s->k_dim);
                tile_put_v((void *)to.v, s->type_v, s->v_dim, slot, v + row * s->v_dim);
            }
        }
    for (int g = 0; g < s->n_kv_heads; g++) {
        struct head *h = &c->heads[(size_t)layer * s->n_kv_heads + g];
        assert(ringed_before(h, div_up(pos + n, KV_PAGE)) - ringed_before(h, pos / KV_PAGE) <=
               h->ring_pages);
        if (h->written < pos + n) h->written = pos + n;
    }
}

void kv_read(const struct kvcache *c, int layer, int kv_head, int pos, float *k, float *v) {
    struct kv_page page = kv_page(c, layer, kv_head, pos / KV_PAGE);
    if (k) tile_get_k(page.k, c->shape.type_k, c->shape.k_dim, pos % KV_PAGE, k, 1);
    if (v) tile_get_v(page.v, c->shape.type_v, c->shape.v_dim, pos % KV_PAGE, v, 1);
}

/* Whether a head still has all that queries from position n_tokens on may look at. */
static int can_go_back(const struct head *h, int n_tokens) {
    const int sinks = h->sink_pages * KV_PAGE,
              from = n_tokens - h->recent > sinks ? n_tokens - h->recent : sinks;
    return !h->ring_pages || n_tokens <= sinks || still_held(h, from / KV_PAGE);
}

int kv_truncate(struct kvcache *c, int n_tokens) {
    for (int h = 0; h < c->n_heads; h++)
        if (!can_go_back(&c->heads[h], n_tokens)) n_tokens = 0;
    /* Pages behind the sinks will be written before they are read. */
    for (int h = 0; h < c->n_heads; h++)
        if (n_tokens <= c->heads[h].sink_pages * KV_PAGE) c->heads[h].written = n_tokens;
    return n_tokens;
}

/* Every block that n_tokens need, head by head, the near list before the far one. */
static int each_block(const struct kvcache *c, int n_tokens,
                      int (*move)(const struct kvcache *, char *, FILE *), FILE *f) {
    for (int h = 0; h < c->n_heads; h++) {
        int near, far;
        blocks_for(&c->heads[h], n_tokens, &near, &far);
        for (int b = 0; b < near; b++)
            if (move(c, c->heads[h].near.block[b], f)) return -1;
        for (int b = 0; b < far; b++)
            if (move(c, c->heads[h].far.block[b], f)) return -1;
    }
    return 0;
}

static int put_block(const struct kvcache *c, char *block, FILE *f) {
    return fwrite(block, c->block, 1, f) == 1 ? 0 : -1;
}

static int get_block(const struct kvcache *c, char *block, FILE *f) {
    return fread(block, c->block, 1, f) == 1 ? 0 : -1;
}

int kv_save(const struct kvcache *c, int n_tokens, FILE *f, struct err *err) {
    assert(n_tokens <= c->n_tokens);
    for (int h = 0; h < c->n_heads; h++)
        if (fwrite(&c->heads[h].written, sizeof c->heads[h].written, 1, f) != 1)
            return fail(err, "%s", strerror(errno));
    return each_block(c, n_tokens, put_block, f) ? fail(err, "%s", strerror(errno)) : 0;
}

int kv_load(struct kvcache *c, int n_tokens, FILE *f, struct err *err) {
    if (kv_reserve(c, n_tokens, err)) return -1;
    for (int h = 0; h < c->n_heads; h++) {
        int written;
        if (fread(&written, sizeof written, 1, f) != 1) return fail(err, "the file ends early");
        if (written < n_tokens)
            return fail(err, "a head holds %d tokens, wanted %d", written, n_tokens);
        c->heads[h].written = written;
    }
    return each_block(c, n_tokens, get_block, f) ? fail(err, "the file ends early") : 0;
}

size_t kv_bytes(const struct kvcache *c) { return c->n_blocks * c->block; }

size_t kv_bytes_at(const struct kv_shape *s, int n_tokens) {
    size_t blocks = 0;
    for (size_t i = 0; i < (size_t)s->n_layers * s->n_kv_heads; i++) {
        struct head h = head_new(s->stores ? &s->stores[i] : NULL);
        int near, far;
        blocks_for(&h, n_tokens, &near, &far);
        blocks += (size_t)near + (size_t)far;
    }
    return blocks * block_bytes(s);
}
