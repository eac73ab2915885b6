/* task.h - what bin/needle hides and how it asks for it: one fact, one fact among many like
 * it, several values, two facts that have to be joined, a chain of names, a count.
 * Everything follows from the seed.
 *
 * The first three are the styles of needle_style.h. The others are those of tools/train/tasks.py,
 * word for word, about subjects that training never asked about: what RULER (Hsieh et al. 2024)
 * calls retrieval, multi-hop tracing and aggregation. */
#ifndef TOOLS_COMMON_TASK_H
#define TOOLS_COMMON_TASK_H
#include "base/err.h"
#include "tools/common/needle_style.h"

enum task {
    TASK_STORY = STYLE_STORY, TASK_RULER = STYLE_RULER, TASK_COPY = STYLE_COPY,
    TASK_SINGLE,     /* one fact, of any relation of task_facts.h */
    TASK_MULTIKEY,   /* the same among many facts of its relation */
    TASK_MULTIVALUE, /* two to four values of one key, told one at a time */
    TASK_HOP,        /* where a thing lies and whose it is; asked is the owner of what lies there */
    TASK_CHAIN,      /* a number given to a name, then name to name; asked are two to five names */
    TASK_COUNT,      /* a deed told one to six times; asked is the number */
    TASK_WORDS,      /* as single, in wordings that training kept back */
    N_TASKS
};

enum { TASKS_MAX = 16 };
struct task_list { int n; enum task at[TASKS_MAX]; };

const char *task_name(enum task);
/* "single,hop": each once, in the order given. -1 with *err for a name that is none. */
int tasks_parse(const char *text, struct task_list *, struct err *);
/* How many distractors a task has when nobody says. */
int task_distractors(enum task);

enum { QUEST_PARTS = 8, QUEST_DISTRACTORS = STYLE_FACTS_MAX - 1, QUEST_ANSWER = 96 };

struct quest {
    int n_statements, n_answers, n_distractors;
    char statement[QUEST_PARTS][STORY_SENTENCE];       /* to be hidden in this order */
    char question[STORY_SENTENCE];
    char answer[QUEST_PARTS][QUEST_ANSWER];            /* all of them are wanted */
    char distractor[QUEST_DISTRACTORS][STORY_SENTENCE];        /* statements of other subjects */
};

/* What is hidden does not depend on the number of distractors, nor
 * distractor i on how many follow. */
void quest_draw(struct quest *, enum task, uint64_t seed, int n_distractors);

/* The share of the answers that the response contains, 0..1. For the three styles: anywhere
 * in it, be it within a word. For the others: as whole words and numbers of its first
 * sentence, so that a model that goes on telling stories finds no name and no number by
 * chance. ASCII letters match in either case. */
double task_score(enum task, const char *response, const char *const *answer, int n);

#endif
