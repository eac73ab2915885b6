#include "tools/common/needle_style.h"
#include <stdio.h>
#include <string.h>
#include "tools/common/words.h"

static const char *const names[] = { "story", "ruler", "copy" };

const char *style_name(enum style s) { return names[s]; }
const char *style_list(void) { return "story, ruler or copy"; }

bool style_find(const char *name, enum style *out) {
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++)
        if (!strcmp(name, names[i])) { *out = (enum style)i; return true; }
    return false;
}

enum style style_of_model(const struct gguf *file) {
    char name[128] = "";
    if (gguf_find(file, "needle.induction.retrieval_heads")) return STYLE_COPY;
    const bool named = gguf_get_string(file, "general.name", name, sizeof name, NULL) == 1;
    return named && !strncmp(name, "needle-", 7) ? STYLE_STORY : STYLE_RULER;
}

static uint32_t draw(uint64_t *state, uint32_t n) {            /* an LCG's upper half, below n */
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((*state >> 32) * n >> 32);
}

static void ruler_fact(uint64_t *rng, struct fact *f) {
    char key[48];
    snprintf(key, sizeof key, "%s-%s", words_key_first.at[draw(rng, (uint32_t)words_key_first.n)],
             words_key_second.at[draw(rng, (uint32_t)words_key_second.n)]);
    snprintf(f->answer, sizeof f->answer, "%u", (unsigned)(1000000 + draw(rng, 9000000)));
    snprintf(f->statement, sizeof f->statement, "The access number of %s is %s.", key, f->answer);
    snprintf(f->question, sizeof f->question,
             "\n\nQuestion: What does the text above say is the access number of %s?\n"
             "Answer: The access number of %s is", key, key);
}

/* The question becomes the sentence's beginning; what follows is the answer. */
static void ask_by_beginning(struct fact *f) {
    const char *is = strstr(f->statement, " is ");
    snprintf(f->question, sizeof f->question, "%.*s", (int)(is - f->statement) + 3, f->statement);
}

/* The last word before " is": a model that looks back three tokens
 * hardly sees more of the question. */
static bool same_last_word(const struct fact *a, const struct fact *b) {
    const char *p = strstr(a->statement, " is "), *q = strstr(b->statement, " is ");
    while (p[-1] != ' ' && p[-1] == q[-1]) p--, q--;
    return p[-1] == ' ' && q[-1] == ' ';
}

void style_facts(enum style style, uint64_t seed, struct fact *fact, int n) {
    struct story s;
    uint64_t rng = seed * 0x9e3779b97f4a7c15u + 0x1d;
    story_begin(&s, seed ^ 0x6e6565646c65);                    /* not the dice of the filler */
    for (int i = 0; i < n;) {
        if (style == STYLE_RULER) ruler_fact(&rng, &fact[i]);
        else story_fact(&s, &fact[i]);
        if (style == STYLE_COPY) ask_by_beginning(&fact[i]);
        bool fresh = true;
        for (int j = 0; j < i && fresh; j++)
            fresh = strcmp(fact[i].question, fact[j].question) &&
                    strcmp(fact[i].answer, fact[j].answer) &&
                    !(style == STYLE_COPY && same_last_word(&fact[i], &fact[j]));
        i += fresh;
    }
}

static bool contains(const char *text, const char *what) {
    for (; ; text++) {
        if (!strncasecmp(text, what, strlen(what))) return true;
        if (!*text) return false;
    }
}

double style_score(const char *response, const char *const *reference, int n) {
    int found = 0;
    for (int i = 0; i < n; i++) found += contains(response, reference[i]);
    return n ? (double)found / n : 0;
}
