/* needle_style.h - what is hidden and how it is asked for. Everything follows from the seed. */
#ifndef TOOLS_COMMON_NEEDLE_STYLE_H
#define TOOLS_COMMON_NEEDLE_STYLE_H
#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"
#include "model/gguf.h"
#include "tools/common/story.h"

enum style {
    STYLE_STORY,  /* secrets as models/needle-proto.gguf knows them */
    STYLE_RULER,  /* a key with a number of seven digits, for models trained on anything */
    STYLE_COPY,   /* the story's secrets, asked for by the sentence's start: for models that copy */
};

const char *style_name(enum style);
bool style_find(const char *name, enum style *out);
/* What suits a model: those made by bin/synth copy, ours know the stories, others know English. */
enum style style_of_model(const struct gguf *);
const char *style_list(void);                      /* "story, ruler or copy" */

enum { STYLE_FACTS_MAX = 24 };                     /* most facts of one text, the needle included */

/* n facts with pairwise different subjects, of which no two can be taken for
 * each other: fact[0] is the needle. */
void style_facts(enum style, uint64_t seed, struct fact *, int n);

/* The share of the reference strings that the response contains, whatever
 * the case of ASCII letters: 0..1. */
double style_score(const char *response, const char *const *reference, int n);

#endif
