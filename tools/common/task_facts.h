/* task_facts.h - facts of every relation tools/train/tasks.py knows, in the same words: a subject,
 * its value, the ways to state and to ask it.
 *
 * Wordings keep the placeholders and the marks of tasks.py, so that the two can be compared letter
 * by letter: {k} and %s are filled in, the marks ( ) [ ] left out. */
#ifndef TOOLS_COMMON_TASK_FACTS_H
#define TOOLS_COMMON_TASK_FACTS_H
#include <stdbool.h>
#include <stddef.h>
#include "base/rand.h"
#include "tools/common/words.h"

enum { BLANKS_MAX = 6, BLANK_SIZE = 96 };

/* What a wording is filled with. */
struct blanks { int n; struct { const char *what; char text[BLANK_SIZE]; } at[BLANKS_MAX]; };

void blank(struct blanks *, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void fill_in(char *out, size_t size, const char *wording, const struct blanks *);

enum { WORDINGS_MAX = 6 };

struct relation {
    const char *name;
    void (*subject)(struct rand *, struct blanks *);
    void (*rest)(struct rand *, struct blanks *);  /* what follows from it; NULL: nothing */
    void (*value)(struct rand *, char out[BLANK_SIZE]);
    /* Up to a NULL; the last of each is kept out of training. */
    const char *says[WORDINGS_MAX], *asks[WORDINGS_MAX];
};

extern const struct relation relations[];
extern const int n_relations;

int wordings(const char *const list[WORDINGS_MAX]);    /* how many there are */
/* Draws a subject, of those kept out of training, and its value: the blank "%s".
 * The subject's words go to `key`. */
void relation_draw(const struct relation *, struct rand *, struct blanks *,
                   char key[2 * BLANK_SIZE]);

/* Whether training never asks about this subject, given as its words with
 * a space between: one in eight. */
bool held_out(const char *subject);

/* The dice of tools/train/dice.py. */
const char *pick(struct rand *, const struct words *);
void draw_name(struct rand *, char out[BLANK_SIZE]);
void draw_thing(struct rand *, char out[BLANK_SIZE]);
void draw_place(struct rand *, char out[BLANK_SIZE]);
void draw_digits(struct rand *, int shortest, int longest, char out[BLANK_SIZE]);
void draw_word(struct rand *, char out[BLANK_SIZE]);   /* adjective, object, place, animal, food */

#endif
