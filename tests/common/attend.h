/* attend.h - attention the slow and obvious way, in double, over what a cache really
 * holds; and random problems. */
#ifndef TESTS_COMMON_ATTEND_H
#define TESTS_COMMON_ATTEND_H
#include "attention/attention.h"

struct problem {
    struct attn_shape shape;
    enum dtype type_k, type_v;
    int n;              /* tokens */
    float *q, *k, *v;   /* [n][n_heads][k_dim], [n][n_kv_heads][k_dim], [n][n_kv_heads][v_dim] */
};

/* Random normal-ish queries, keys and values; layer 0 of shape.n_layers is the one filled. */
struct problem problem_new(int n, int n_heads, int n_kv_heads, int k_dim, int v_dim, enum dtype k,
                           enum dtype v);
void problem_free(struct problem *);

/* Feeds the problem to a fresh cache and a fresh mode in chunks of `chunk` tokens, as
 * a model does, and returns out [n][n_heads][v_dim] (free it). Aborts with a message
 * if something cannot be opened. */
float *problem_run(const struct problem *, const char *mode, const struct kernels *, int chunk);

/* A session in little: a mode and its cache, for batches of up to `batch` tokens.
 * Opening aborts as above. */
struct pair { struct attn *attn; struct kvcache *kv; };
struct pair pair_open(const struct problem *, const char *mode, const struct kernels *, int batch);
void pair_close(struct pair);
/* Tokens pos..pos+n-1 of the problem; out is that of the whole problem. */
void pair_feed(struct pair, const struct problem *, int pos, int n, float *out);

/* Whether the query at position p of a query head sees the key at position j <= p. NULL: all. */
typedef int sees(int query_head, int p, int j);

/* The same in double over the dequantised keys and values. *tolerance gets the error that f32
 * arithmetic may make with these numbers. */
double *problem_naive(const struct problem *, sees *, double *tolerance);

/* Largest |a - b|, infinite if one is NaN. */
double largest_error(const float *a, const double *b, size_t n);

#endif
