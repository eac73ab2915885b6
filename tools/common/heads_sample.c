#include "tools/common/heads_sample.h"
#include <stdlib.h>
#include <string.h>

/* Finds the tokens of ids[0..n-1] that spell the answer, with the space before it. */
static int find_answer(const struct tokenizer *tok, const int32_t *ids, int n, const char *answer,
                       int *first, int *count, struct err *err) {
    const size_t most = tok_max_piece(tok) + 16;
    char *text = malloc(((size_t)n + 1) * most + 1);
    size_t *end = malloc(((size_t)n + 1) * sizeof *end), used = 0;
    struct tok_stream stream = { .started = true };
    int rc = -1;
    *first = -1, *count = 0;
    if (!text || !end) { fail(err, "no memory for a needle of %d tokens", n); goto done; }
    for (int i = 0; i < n; i++)
        end[i] = used += tok_decode(tok, &stream, ids[i], false, text + used);
    text[used] = 0;
    const char *at = strstr(text, answer);
    if (!at) {
        fail(err, "the needle '%.200s' does not spell its answer '%.100s'", text, answer);
        goto done;
    }
    const size_t to = (size_t)(at - text) + strlen(answer),
                 from = (size_t)(at - text) - (at > text && at[-1] == ' ');
    for (int i = 0; i < n; i++) {
        const size_t begin = i ? end[i - 1] : 0;
        if (end[i] <= from || begin >= to) continue;
        if (*first < 0) *first = i;
        *count = i + 1 - *first;
    }
    rc = 0;
done:
    free(text);
    free(end);
    return rc;
}

int heads_sample_make(struct heads_sample *out, struct haystack *hay, const struct tokenizer *tok,
                      const struct planting *want, const char *answer, struct err *err) {
    struct heads_sample s = { 0 };
    struct planting w = *want;
    int32_t *needle;
    int first, count;
    const int n = tok_encode(tok, w.needle, strlen(w.needle), 0, &needle, err);
    if (n < 0) return -1;
    free(needle);
    if (n >= w.n_tokens)
        return fail(err, "%d tokens do not hold a needle of %d and its question", w.n_tokens, n);
    w.n_tokens -= n;                                       /* no answer is longer than its needle */
    struct prompt p = { 0 };
    if (haystack_plant(hay, &w, &p, err)) return -1;
    s.ids = realloc(p.ids, ((size_t)p.n + (size_t)p.n_needle) * sizeof *p.ids);
    if (!s.ids) {
        free(p.ids);
        return fail(err, "no memory for %d tokens", p.n + p.n_needle);
    }
    s.needle = p.needle_at, s.n_needle = p.n_needle;
    s.prompt = p.n, s.tail = p.n - p.n_question;
    if (find_answer(tok, s.ids + s.needle, s.n_needle, answer, &first, &count, err)) {
        free(s.ids);
        return -1;
    }
    s.answer = s.needle + first, s.n_answer = count;
    memcpy(s.ids + s.prompt, s.ids + s.answer, ((size_t)count - 1) * sizeof *s.ids);
    s.n = s.prompt + count - 1;
    *out = s;
    return 0;
}

int heads_sample_text(struct heads_sample *out, const int32_t *ids, int n, int n_answer,
                      struct err *err) {
    *out = (struct heads_sample){ .n = n - 1, .prompt = n - n_answer, .tail = n - n_answer - 1,
                                  .answer = n - n_answer, .n_answer = n_answer,
                                  .ids = malloc((size_t)n * sizeof *ids) };
    if (!out->ids) return fail(err, "no memory for %d tokens", n);
    memcpy(out->ids, ids, (size_t)n * sizeof *ids);
    return 0;
}

void heads_sample_free(struct heads_sample *s) {
    free(s->ids);
    *s = (struct heads_sample){ 0 };
}
