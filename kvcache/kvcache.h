/* kvcache.h - who owns keys and values.
 *
 * A cache holds, per (layer, KV head), the keys and values of token positions 0..n-1 in pages of
 * KV_PAGE tokens (kernels/tile.h says what a page looks like inside). It grows by blocks of
 * KV_BLOCK_PAGES pages as tokens arrive: nothing is reserved for a context that is not used, and
 * nothing ever moves. Keys are stored after RoPE, with absolute positions.
 *
 * A head that never looks back far can be a ring: it keeps the first tokens and
 * the most recent ones, in pages that are used again and again, and stops
 * growing. Which head is what, the attention mode says.
 *
 * Readers ask for a page by its number, position / KV_PAGE, wherever and however it is stored. */
#ifndef KVCACHE_KVCACHE_H
#define KVCACHE_KVCACHE_H
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "base/err.h"
#include "kernels/dtype.h"
#include "kernels/tile.h"

enum { KV_BLOCK_PAGES = 16, KV_BLOCK = KV_BLOCK_PAGES * KV_PAGE };

/* What one head keeps. */
struct kv_store {
    int ring;            /* 0: everything. 1: the first `sink` tokens and the last `recent` ... */
    int sink, recent;
    int slack;           /* ... seen from each of the last `slack` positions: the largest batch */
    /* A ring with a stride also keeps, for good, every block
     * whose number modulo stride has its bit set in keep. */
    int block, stride;   /* tokens of a block, multiple of KV_PAGE; 1..64 blocks, stride 0: none */
    uint64_t keep;
};

struct kv_shape {
    int n_layers, n_kv_heads;
    int k_dim, v_dim;          /* floats per head of a key and of a value; they may differ */
    enum dtype type_k, type_v; /* F32 F16 BF16 Q8_0 Q4_0; the quantised ones need dims % 32 == 0 */
    /* [n_layers][n_kv_heads], copied by kv_open; NULL: every head keeps everything. */
    const struct kv_store *stores;
};

struct kv_page { const void *k, *v; };

struct kvcache;

int kv_open(struct kvcache **out, const struct kv_shape *, struct err *);
void kv_close(struct kvcache *);                                   /* NULL is fine */
const struct kv_shape *kv_shape(const struct kvcache *);

/* Makes room for positions below n_tokens; -1 when memory lacks (the cache stays as it was). */
int kv_reserve(struct kvcache *, int n_tokens, struct err *);
/* Stores n tokens of one layer at positions pos..pos+n-1 (reserved before):
 * k [n][n_kv_heads][k_dim], v [n][n_kv_heads][v_dim], f32. With rings, n is at most their slack. */
void kv_append(struct kvcache *, int layer, int pos, int n, const float *k, const float *v);
/* Forgets positions >= n_tokens. Their memory stays, for the tokens that come next. Returns how
 * many tokens are left: n_tokens; or 0, with nothing left, when a ring no longer has the tokens
 * before n_tokens (it can go back by slack). */
int kv_truncate(struct kvcache *, int n_tokens);

/* Page number page (positions page * KV_PAGE ...) of one head, which a ring must still keep. Slots
 * never written hold anything at all. */
struct kv_page kv_page(const struct kvcache *, int layer, int kv_head, int page);

/* One stored token, as the numbers the cache kept: k_dim and v_dim floats; either may be NULL. */
void kv_read(const struct kvcache *, int layer, int kv_head, int pos, float *k, float *v);

/* What n_tokens need of all heads, as it lies in memory: the same stores and types read it back. 0,
 * or -1 with *err; a failed load leaves the cache with rubbish: truncate it to 0. */
int kv_save(const struct kvcache *, int n_tokens, FILE *, struct err *);
int kv_load(struct kvcache *, int n_tokens, FILE *, struct err *);

size_t kv_bytes(const struct kvcache *);                    /* in pages, allocated now */
size_t kv_bytes_at(const struct kv_shape *, int n_tokens);  /* what n_tokens will need, exactly */

#endif
