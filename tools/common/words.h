/* words.h - the vocabulary of the stories and of what is hidden in them: that of
 * tools/train/words.py, which a model that is to be asked about them was trained on.
 * tests/test_task.c holds the two together. */
#ifndef TOOLS_COMMON_WORDS_H
#define TOOLS_COMMON_WORDS_H

struct words { const char *const *at; int n; };

extern const struct words words_names, words_syllables, words_adjectives, words_objects,
    words_places, words_animals, words_foods, words_moods, words_kinds, words_things, words_times,
    words_key_first, words_key_second, words_activities;
/* Deeds to be counted, as told ("rang the bell of") and, at the same index,
 * as asked ("ring the bell of"). */
extern const struct words words_told, words_asked;

enum { WORDS_COLOURS = 12 };           /* the first adjectives, not fit for heroes */

#endif
