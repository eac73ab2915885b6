/* args.h - the parameters behind a mode's name: "stream,sink=64,recent=256". */
#ifndef ATTENTION_ARGS_H
#define ATTENTION_ARGS_H
#include <stddef.h>
#include "base/err.h"

struct attn_key { const char *name, *value, *help; };      /* value: the default */

enum { ATTN_MAX_KEYS = 24, ATTN_ARGS_MAX = 1024 };

struct attn_args {
    const char *mode;
    const struct attn_key *keys;           /* closed by a NULL name; NULL: none */
    const char *value[ATTN_MAX_KEYS];      /* one for each key: what was given, or the default */
    char text[ATTN_ARGS_MAX];              /* owns the values that were given */
};

/* Reads ",key=value,key=value" or "". A value may be a list of numbers, as in "full=0,1,2". A key
 * that is unknown or given twice is refused, with the list of known ones. */
int args_parse(struct attn_args *, const char *mode, const struct attn_key *keys, const char *text,
               struct err *);
/* "sink=64,recent=256": every key with its value. */
void args_print(const struct attn_args *, char *buf, size_t size);

const char *args_text(const struct attn_args *, const char *key);
/* Whether the text said it, even if it said the default. */
int args_given(const struct attn_args *, const char *key);
/* The value as a number lo..hi. */
int args_int(const struct attn_args *, const char *key, int lo, int hi, int *out, struct err *);
int args_real(const struct attn_args *, const char *key, double lo, double hi, double *out,
              struct err *);

#endif
