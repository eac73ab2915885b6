/* heads_sample.h - a needle prompt with its answer, cut up for looking at heads: which tokens are
 * the needle, which of them the answer copies, and where the question begins. */
#ifndef TOOLS_COMMON_HEADS_SAMPLE_H
#define TOOLS_COMMON_HEADS_SAMPLE_H
#include "tools/common/needle_haystack.h"

struct heads_sample {
    int32_t *ids;              /* malloc'd: the prompt, then its answer without the last token */
    int n, prompt;             /* tokens in all, of the prompt */
    int tail;                  /* where the question begins */
    int needle, n_needle;      /* the statement */
    int answer, n_answer;      /* the answer within it; position prompt - 1 + i foretells token i */
};

/* The planting's needle must spell `answer`. want->n_tokens counts prompt and answer. */
int heads_sample_make(struct heads_sample *out, struct haystack *, const struct tokenizer *,
                      const struct planting *want, const char *answer, struct err *);
/* n tokens of any text as a sample without a needle: the last n_answer of them
 * stand for the answer. n > n_answer. */
int heads_sample_text(struct heads_sample *out, const int32_t *ids, int n, int n_answer,
                      struct err *);
void heads_sample_free(struct heads_sample *);

#endif
