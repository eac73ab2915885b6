/* attention.h - the interface between the forward pass, the attention modes and the cache.
 *
 * A mode chooses, one kernel attends, the cache owns the layout. A mode is a selection policy: for
 * one layer, one KV head and one block of queries it says which key spans they read. flash.c, with
 * its inner loop sweep.c, is the only code that multiplies Q with K and V. A new mode is one file
 * with a `const struct attn_ops` and one line in the list in attention.c.
 *
 * Arrays are f32, row-major: q [n][n_heads][k_dim], out [n][n_heads][v_dim];
 * n_heads % n_kv_heads == 0, query head h reads KV head h / (n_heads / n_kv_heads). Token t of a
 * call sits at position pos + t and sees positions 0..pos+t. */
#ifndef ATTENTION_ATTENTION_H
#define ATTENTION_ATTENTION_H
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "kernels/kernels.h"
#include "kvcache/kvcache.h"

struct attn_shape {
    int n_layers, n_heads, n_kv_heads, k_dim, v_dim;
    int max_batch;         /* most tokens of one attn_run */
    int max_tokens;        /* most tokens of the cache; 0: not known, which some modes refuse */
    const char *trained;   /* the mode the model was trained with, as text; NULL: full attention */
    /* How keys and queries were rotated: radians per position of each of the n_rot / 2 pairs, which
     * are (2i, 2i+1), or (i, i + n_rot/2) if rope_split. Read when a mode is opened; NULL: not
     * known, which some modes refuse. */
    const double *rope_freq;
    int n_rot, rope_split;
    float scale;           /* score = scale * q.k; 1/sqrt(k_dim) unless the model says otherwise */
};

struct attn;

/* text is "MODE" or "MODE,key=value,..."; an unknown mode or key is refused, known ones listed.
 * attn_check judges the text alone, before any model is loaded, attn_check_phases a pair. */
int attn_check(const char *text, struct err *);
int attn_check_phases(const char *prefill, const char *decode, struct err *);
int attn_open(struct attn **out, const char *text, const struct attn_shape *,
              const struct kernels *, struct err *);
/* One mode for prefill, another for decode: the cache keeps what either needs.
 * Refused when a mode has no such phase. */
int attn_open_phases(struct attn **out, const char *prefill, const char *decode,
                     const struct attn_shape *, const struct kernels *, struct err *);
enum attn_phase { ATTN_PREFILL = 1, ATTN_DECODE = 2 };
/* Which phase the next attn_run calls are of. Until told, one token is decode, several prefill. */
void attn_phase(struct attn *, enum attn_phase);
void attn_close(struct attn *);                 /* NULL is fine */
const char *attn_name(const struct attn *);     /* "full"; "full+delta" when the phases differ */
const char *attn_warning(const struct attn *);  /* what its user should know; or NULL */
const char *attn_params(const struct attn *);   /* "sink=64,recent=256": every key with its value */

/* What the cache must keep per head, for kv_shape.stores: [n_layers][n_kv_heads]; NULL: all. */
const struct kv_store *attn_stores(const struct attn *);

/* For tools that look into heads. The observer is told of every attn_run before it
 * attends (attention/mode.h has struct attn_call); fn NULL: nobody. The observer may
 * read the cache; it is called from one thread. */
struct attn_call;
typedef void attn_observer(void *ctx, const struct attn_call *);
void attn_observe(struct attn *, attn_observer *fn, void *ctx);
/* From now on the KV heads with narrow[n_layers][n_kv_heads] set (borrowed) see the
 * first `sink` tokens and the `recent` before each query, whatever the mode says;
 * NULL: none. For modes whose cache keeps everything. */
void attn_narrow(struct attn *, const unsigned char *narrow, int sink, int recent);

/* Attends for n tokens of one layer whose keys and values are cached already. Allocates nothing. */
void attn_run(struct attn *, float *out, const float *q, const struct kvcache *, int layer, int pos,
              int n);

size_t attn_scratch_bytes(const struct attn *);
/* Keys multiplied so far, summed over layers and query heads, and the (layer, query head, token)
 * triples they served: their quotient is keys_read_per_token. */
void attn_counters(const struct attn *, uint64_t *keys_read, uint64_t *rows);
/* Keys scored so far to choose, each once for all the query heads it was scored for together. */
uint64_t attn_searched(const struct attn *);

/* Calls fn for each figure a mode keeps about itself, such as "recall", if it keeps any. */
typedef void attn_figure(void *ctx, const char *name, double value);
void attn_report(const struct attn *, attn_figure *fn, void *ctx);

/* The text of `--attn help`: every mode with its keys, defaults and source paper. */
void attn_help(char *buf, size_t size);

#endif
