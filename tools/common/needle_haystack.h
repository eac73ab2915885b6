/* needle_haystack.h - long texts with something hidden in them, as token ids of an exact number.
 *
 * The filler is endless: stories, or a text of the user's repeated over and over. It is cut at
 * sentence ends and tokenised sentence by sentence, each as it stands in the middle of a text;
 * white space between sentences becomes one space. So the filler in front of a place is the same
 * tokens, whatever lies behind it: prompts of one haystack share prefixes. */
#ifndef TOOLS_COMMON_NEEDLE_HAYSTACK_H
#define TOOLS_COMMON_NEEDLE_HAYSTACK_H
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "tokenizer/tokenizer.h"

struct haystack;

/* text NULL: stories of that seed. Otherwise n bytes of text that outlive the haystack; seed 1
 * starts at its beginning, other seeds at other sentences. The tokenizer is borrowed. */
int haystack_open(struct haystack **out, const struct tokenizer *, const char *text, size_t n,
                  uint64_t seed, struct err *);
void haystack_close(struct haystack *);            /* NULL is fine */

struct planting {
    /* of the whole prompt: BOS, filler, what is hidden, distractors, question */
    int n_tokens;
    double depth;                      /* percent of the filler in front of the needle */
    const char *needle, *question;     /* the question ends the prompt */
    /* what is hidden behind the needle: evenly spread from there to the end, in this order */
    const char *const *more;
    int n_more;
    const char *const *distractors;    /* evenly spread, at places that do not depend on depth */
    int n_distractors;
};

struct prompt {
    int32_t *ids;              /* malloc'd */
    int n;                     /* == planting.n_tokens */
    int needle_at;             /* index of the needle's first token; of several, the first's */
    int n_needle, n_question;  /* their tokens; the question's are the last */
};

/* A needle stands at the first sentence end at or behind its depth; 0 and 100 are the
 * very beginning and the place before the question. What lacks to n_tokens is filled by
 * the end of one more sentence. -1 with *err when needle, question and distractors
 * alone are longer than n_tokens. */
int haystack_plant(struct haystack *, const struct planting *, struct prompt *, struct err *);

#endif
