/* session.h - one timeline through a model: its KV cache, position and the last token's logits.
 *
 * Tokens are appended in chunks of at most `batch`; the cache grows as they come. The bits of
 * the logits do not depend on the number of threads. */
#ifndef MODEL_SESSION_H
#define MODEL_SESSION_H
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "kernels/dtype.h"
#include "model/model.h"

struct session;

struct session_options {
    int n_ctx;                      /* most tokens this session may hold */
    int batch;                      /* tokens per chunk of prefill; 0: 512 */
    enum dtype type_k, type_v;      /* storage of keys and values: F32 F16 BF16 Q8_0 Q4_0 */
    const char *attn;               /* "full", "MODE,key=value,..."; NULL: as trained, else full */
    const char *attn_prefill, *attn_decode;    /* the mode of one phase; NULL: attn */
    /* Called after every chunk of a session_eval of several tokens; may be NULL. */
    void (*progress)(void *ctx, int done, int total);
    void *progress_ctx;
    /* When it becomes non-zero, session_eval ends early with "interrupted". */
    volatile sig_atomic_t *stop;
};

int session_open(struct session **out, const struct model *, const struct session_options *,
                 struct err *);
void session_close(struct session *);                  /* NULL is fine */

/* Appends n tokens. 0; or -1 with *err (the context would overflow, an id is out of range, memory
 * lacks): tokens of finished chunks stay. */
int session_eval(struct session *, const int32_t *ids, int n, struct err *);
/* The same for n <= session_batch() tokens, keeping all of them ready for session_rows. */
int session_eval_rows(struct session *, const int32_t *ids, int n, struct err *);
/* logits [n][n_vocab] of tokens first..first+n-1 of the last session_eval_rows. */
void session_rows(struct session *, int first, int n, float *logits);
/* Their hidden states after the last norm: [n_embd] each, from token first on; valid until
 * the next eval. Within an observer (session_observe): the residual stream of the call's
 * tokens, as its layer got it. */
const float *session_hidden(const struct session *, int first);
int session_batch(const struct session *);             /* tokens per chunk */

/* Appends n tokens whose keys and values come from fill instead of the forward pass: how
 * a benchmark gets a full cache in seconds. fill writes k [n][n_kv_heads][k_dim], as RoPE
 * leaves them, and v [n][n_kv_heads][v_dim] of one layer for positions pos..pos+n-1, n at most
 * session_batch(); it is called for every layer of a chunk, then for the next chunk. */
typedef void (*session_fill_fn)(void *ctx, int layer, int pos, int n, float *k, float *v);
int session_fill(struct session *, int n, session_fill_fn fill, void *ctx, struct err *);

const float *session_logits(const struct session *);   /* [n_vocab] of the last token; NULL: none */
int session_pos(const struct session *);               /* tokens so far */
/* Forgets all from pos on; the logits stay those of the last eval. Returns the tokens left:
 * pos, or 0 with nothing left when the cache no longer has what a mode would read at pos
 * (rings go back by one chunk at most). */
int session_truncate(struct session *, int pos);

/* Memory: what is allocated now, and what n_tokens will need. */
size_t session_kv_bytes(const struct session *);
size_t session_scratch_bytes(const struct session *);
size_t session_kv_bytes_at(const struct session *, int n_tokens);
double session_token_kv_bytes(const struct session *); /* of one token, in all heads and layers */

const char *session_attn_name(const struct session *);
const char *session_attn_warning(const struct session *);  /* one line, or NULL */
const char *session_attn_params(const struct session *);
/* For tools that look into heads: who is told of every attention call, and heads that see
 * less; see attn_observe and attn_narrow. */
struct attn_call;
void session_observe(struct session *, void (*fn)(void *ctx, const struct attn_call *), void *ctx);
void session_narrow(struct session *, const unsigned char *narrow, int sink, int recent);
/* Figures the attention mode keeps about itself, since the session was opened; see attn_report. */
void session_report(const struct session *, void (*fn)(void *ctx, const char *name, double value),
                    void *ctx);
/* Keys read per token, layer and query head, over everything evaluated since the last reset. */
double session_keys_read(const struct session *);
/* Keys scored in order to choose what is read, per token, layer and KV head: a key
 * counts once for all query heads. */
double session_keys_searched(const struct session *);
void session_keys_reset(struct session *);

#endif
