/* hip_params.h - what --attn hip can be told, and what of it makes no sense together. */
#ifndef ATTENTION_HIP_PARAMS_H
#define ATTENTION_HIP_PARAMS_H
#include "attention/args.h"

enum { HIP_STAGES = 3, HIP_SAMPLED = 1024 };    /* most keys of a block that may be sampled */
enum hip_sharing { HIP_OWNER_KV, HIP_OWNER_Q, HIP_OWNER_LAYER };
enum hip_rep { HIP_CENTRE, HIP_FIRST, HIP_LAST };

struct hip_params {                /* in tokens, unless said otherwise; the table in hip_params.c */
    int stages, sink, window, dense, until, bq, delta;
    enum hip_sharing owner;
    int k, bk, sq, sk, refresh;    /* stages=1 */
    enum hip_rep rep;
    int chunk[HIP_STAGES], keep[HIP_STAGES], every[HIP_STAGES];        /* stages=3 */
};

extern const struct attn_key hip_keys[];

/* args holds a value for every key. 0; or -1 with err filled. */
int hip_parse(struct hip_params *, const struct attn_args *args, struct err *);

#endif
