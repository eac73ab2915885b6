/* needle_lists.h - the lists a sweep is made of, as they are written on a command line. */
#ifndef TOOLS_COMMON_NEEDLE_LISTS_H
#define TOOLS_COMMON_NEEDLE_LISTS_H
#include "base/err.h"
#include "kernels/dtype.h"

enum { LENGTHS_MAX = 64, DEPTHS_MAX = 512, CACHES_MAX = 16 };

struct lengths { int n, at[LENGTHS_MAX]; };                 /* tokens, ascending, each once */
struct depths { int n; double at[DEPTHS_MAX]; };            /* percent, likewise */
struct cache_types { int n; enum dtype k[CACHES_MAX], v[CACHES_MAX]; };
struct shard { int i, n; };                                 /* part i of n, from 1 */

/* "1k,4096,16k": 1k is 1024. */
int lengths_parse(const char *text, struct lengths *, struct err *);
/* "0,50,100", "0:100:10" (from, to, step), or both mixed. */
int depths_parse(const char *text, struct depths *, struct err *);
/* "f16,q8_0,q8_0/q4_0": keys and values alike, or keys/values. In the order given, each once. */
int cache_types_parse(const char *text, struct cache_types *, struct err *);
/* "2/8" */
int shard_parse(const char *text, struct shard *, struct err *);
/* Whether cell number `cell`, from 0, is this part's: every n-th one is. */
int shard_has(const struct shard *, int cell);

#endif
