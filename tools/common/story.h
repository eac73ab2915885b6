/* story.h - endless little stories and facts to hide among them, from a
 * grammar: the haystack and the needle.
 *
 * The wording is what models/needle-proto.gguf was trained on, so that a question
 * about a fact is a fair one. Everything follows from the seed: the same seed gives
 * the same text on every machine. */
#ifndef TOOLS_COMMON_STORY_H
#define TOOLS_COMMON_STORY_H
#include <stddef.h>
#include <stdint.h>
#include "base/rand.h"

enum { STORY_SENTENCE = 256 };         /* no sentence is longer, its NUL included */

struct story {
    struct rand rng;
    int left;                          /* sentences to come in the middle of the current story */
    int part;                          /* 0: a new story begins */
    char hero[24], friend_[24], he[8], his[8], him[8];
    const char *animal, *animal2, *place, *place2, *thing, *thing_adj, *food, *mood;
};

struct fact {
    /* "The secret password of the old mill is 7391 orange kettle." */
    char statement[STORY_SENTENCE];
    /* "Question: What is the secret password of the old mill? Answer:" */
    char question[STORY_SENTENCE];
    /* "7391 orange kettle" */
    char answer[96];
};

void story_begin(struct story *, uint64_t seed);
/* The next sentence of the stream of stories. */
void story_next(struct story *, char out[STORY_SENTENCE]);
/* A secret; two draws share their subject only by chance: compare the questions. */
void story_fact(struct story *, struct fact *);

#endif
