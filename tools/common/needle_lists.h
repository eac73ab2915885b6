/* needle_lists.h - the lists a sweep is made of, as they are written on a command line. */
#ifndef TOOLS_COMMON_NEEDLE_LISTS_H
#define TOOLS_COMMON_NEEDLE_LISTS_H
#include "base/err.h"

enum { LENGTHS_MAX = 64, DEPTHS_MAX = 512 };

struct lengths { int n, at[LENGTHS_MAX]; };                 /* tokens, ascending, each once */
struct depths { int n; double at[DEPTHS_MAX]; };            /* percent, likewise */
struct shard { int i, n; };                                 /* part i of n, from 1 */

/* "1k,4096,16k": 1k is 1024. */
int lengths_parse(const char *text, struct lengths *, struct err *);
/* "0,50,100", "0:100:10" (from, to, step), or both mixed. */
int depths_parse(const char *text, struct depths *, struct err *);
/* "2/8" */
int shard_parse(const char *text, struct shard *, struct err *);
/* Whether cell number `cell`, from 0, is this part's: every n-th one is. */
int shard_has(const struct shard *, int cell);

#endif
