/* needle_timeline.h - a session that remembers which tokens it holds, so that a prompt costs only
 * what differs from the one before. */
#ifndef TOOLS_COMMON_NEEDLE_TIMELINE_H
#define TOOLS_COMMON_NEEDLE_TIMELINE_H
#include <stdbool.h>
#include "model/session.h"
#include "tools/common/engine.h"

struct timeline;

/* Engine and options are copied; the engine's model, and its tokenizer if
 * timeline_answer is called, must stay open. */
int timeline_open(struct timeline **out, const struct engine *, const struct session_options *,
                  struct err *);
void timeline_close(struct timeline *);            /* NULL is fine */
const struct session *timeline_session(const struct timeline *);

struct timeline_cost {
    int tokens;            /* evaluated: not reused */
    double ms, keys_read;  /* keys_read: per token, layer and query head; -1: nothing evaluated */
};

/* Makes the session hold exactly ids[0..n-1], n > 0. With reuse, what the prompt shares
 * with the tokens held stays where the cache can go back so far; without, and where it
 * cannot, everything is evaluated. */
int timeline_prompt(struct timeline *, const int32_t *ids, int n, bool reuse,
                    struct timeline_cost *, struct err *);
/* After a prompt: the most likely tokens as text (malloc'd), up to the end of text or n_predict of
 * them. *predicted counts them; cost is that of the evaluations between them. */
int timeline_answer(struct timeline *, int n_predict, char **text, int *predicted,
                    struct timeline_cost *, struct err *);

#endif
