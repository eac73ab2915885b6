#include "tools/common/task.h"
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include "tools/common/task_facts.h"

static const char *const names[N_TASKS] = { "story", "ruler", "copy", "single", "multikey",
                                            "multivalue", "hop", "chain", "count", "words" };

const char *task_name(enum task t) { return names[t]; }
int task_distractors(enum task t) { return t == TASK_MULTIKEY ? 16 : 4; }

int tasks_parse(const char *text, struct task_list *l, struct err *err) {
    l->n = 0;
    for (const char *p = text;; p++) {
        const size_t len = strcspn(p, ",");
        int t = 0, i = 0;
        while (t < N_TASKS && (strlen(names[t]) != len || memcmp(names[t], p, len))) t++;
        if (t == N_TASKS)
            return fail(err, "--task: got '%.*s', wanted some of story, ruler, copy, single, "
                             "multikey, multivalue, hop, chain, count, words",
                        len > 40 ? 40 : (int)len, p);
        while (i < l->n && l->at[i] != (enum task)t) i++;
        if (i == l->n) l->at[l->n++] = (enum task)t;
        if (!*(p += len)) return 0;
    }
}

/* ---- scores ---------------------------------------------------------------------------------- */

static bool in_word(char c) { return isalnum((unsigned char)c) || (unsigned char)c >= 0x80; }

/* Whether text[0..n-1] contains `what` with no letter or digit against its ends. */
static bool says(const char *text, size_t n, const char *what) {
    const size_t len = strlen(what);
    for (size_t i = 0; i + len <= n; i++)
        if (!strncasecmp(text + i, what, len) && !(i && in_word(text[i - 1])) &&
            !(i + len < n && in_word(text[i + len])))
            return true;
    return false;
}

static size_t first_sentence(const char *text) {
    size_t i = 0;
    while (text[i] &&
           !(strchr(".!?", text[i]) && (!text[i + 1] || isspace((unsigned char)text[i + 1]))))
        i++;
    return i;
}

double task_score(enum task t, const char *response, const char *const *answer, int n) {
    if (t <= TASK_COPY) return style_score(response, answer, n);
    const size_t end = first_sentence(response);
    int found = 0;
    for (int i = 0; i < n; i++) found += says(response, end, answer[i]);
    return n ? (double)found / n : 0;
}

/* ---- one of each kind ------------------------------------------------------------------------ */

/* A quest without its distractors, and what no other quest of the text may share with it, or the
 * two could be taken for each other: subjects, and most values. */
struct draft {
    struct quest *q;
    int n_apart;
    char apart[QUEST_PARTS + 2][2 * BLANK_SIZE];
};

static void keep_apart(struct draft *d, const char *text) {
    snprintf(d->apart[d->n_apart++], sizeof d->apart[0], "%s", text);
}

static void state(struct draft *d, const char *wording, const struct blanks *b) {
    fill_in(d->q->statement[d->q->n_statements++], STORY_SENTENCE, wording, b);
}

static void want(struct draft *d, const char *answer) {
    snprintf(d->q->answer[d->q->n_answers++], QUEST_ANSWER, "%.95s", answer);
}

static void ask(struct draft *d, const char *wording, const struct blanks *b) {
    char question[STORY_SENTENCE - 24];
    fill_in(question, sizeof question, wording, b);
    snprintf(d->q->question, STORY_SENTENCE, "Question: %s Answer:", question);
}

static const char *either(struct rand *r, const char *a, const char *b) {
    return rand_below(r, 2) ? a : b;
}

static void fact(struct draft *d, struct rand *r, const struct relation *rel, bool new_wording) {
    struct blanks b;
    char key[2 * BLANK_SIZE];
    const int last_say = wordings(rel->says) - 1, last_ask = wordings(rel->asks) - 1;
    relation_draw(rel, r, &b, key);
    state(d, rel->says[new_wording ? last_say : (int)rand_below(r, (uint32_t)last_say)], &b);
    ask(d, rel->asks[new_wording ? last_ask : (int)rand_below(r, (uint32_t)last_ask)], &b);
    want(d, b.at[b.n - 1].text);
    keep_apart(d, key), keep_apart(d, b.at[b.n - 1].text);
}

static void hop(struct draft *d, struct rand *r) {
    struct blanks b;
    char thing[BLANK_SIZE], place[BLANK_SIZE], name[BLANK_SIZE], key[2 * BLANK_SIZE];
    do {
        draw_thing(r, thing), draw_place(r, place);
        snprintf(key, sizeof key, "%s %s", thing, place);
    } while (!held_out(key));
    draw_name(r, name);
    b.n = 0;
    blank(&b, "{t}", "%s", thing), blank(&b, "{p}", "%s", place), blank(&b, "{n}", "%s", name);
    const char *lies = either(r, "The {p} holds the ({t}).", "What lies in the {p} is the ({t}).");
    const char *belongs = either(r, "The {t} belongs to ({n}).", "The owner of the {t} is ({n}).");
    const bool owner_first = rand_below(r, 2);
    state(d, owner_first ? belongs : lies, &b);
    state(d, owner_first ? lies : belongs, &b);
    ask(d, either(r, "Who owns what lies in the {p}?", "To whom does the thing in the {p} belong?"),
        &b);
    want(d, name);
    keep_apart(d, thing), keep_apart(d, place), keep_apart(d, name);
}

static bool told_before(const struct quest *q, const char *answer) {
    for (int i = 0; i < q->n_answers; i++)
        if (!strcmp(q->answer[i], answer)) return true;
    return false;
}

static void multivalue(struct draft *d, struct rand *r) {
    static const char *const sorts[] = { "lucky", "hidden", "golden" };
    const char *kind, *sort = sorts[rand_below(r, 3)];
    char name[BLANK_SIZE], key[2 * BLANK_SIZE], value[BLANK_SIZE];
    struct blanks b;
    do {
        kind = pick(r, &words_kinds), draw_name(r, name);
        snprintf(key, sizeof key, "%s %s", kind, name);
    } while (!held_out(key));
    const bool digits = !strcmp(kind, "number") || !strcmp(kind, "code");
    for (int left = 2 + (int)rand_below(r, 3); left;) {
        if (digits) draw_digits(r, 3, 4, value);
        else draw_word(r, value);
        if (told_before(d->q, value)) continue;
        b.n = 0;
        blank(&b, "{adj}", "%s", sort), blank(&b, "{k}", "%s", kind),
        blank(&b, "{n}", "%s", name), blank(&b, "{v}", "%s", value);
        state(d, "One of the {adj} {k}s of {n} is ({v}).", &b);
        want(d, value), keep_apart(d, value);
        left--;
    }
    ask(d, "What are all the {adj} {k}s of {n}?", &b);
    keep_apart(d, key);
}

static void chain(struct draft *d, struct rand *r) {
    char number[BLANK_SIZE], name[BLANK_SIZE], before[BLANK_SIZE] = "";
    struct blanks b;
    draw_digits(r, 5, 5, number);
    for (int left = 2 + (int)rand_below(r, 4); left;) {
        if (rand_below(r, 10) < 7) draw_name(r, name);
        else snprintf(name, sizeof name, "%s", pick(r, &words_names));
        if (told_before(d->q, name)) continue;
        b.n = 0;
        blank(&b, "{v}", "%s", number), blank(&b, "{names[0]}", "%s", name),
        blank(&b, "{a}", "%s", before), blank(&b, "{b}", "%s", name);
        state(d, *before ? "What is called {a} is also called ({b})."
                         : "The number {v} is called ({names[0]}).", &b);
        want(d, name), keep_apart(d, name);
        snprintf(before, sizeof before, "%s", name);
        left--;
    }
    ask(d, "What is the number {v} called?", &b);
    keep_apart(d, number);
}

static void count(struct draft *d, struct rand *r) {
    char place[BLANK_SIZE], key[2 * BLANK_SIZE], number[8];
    const char *animal, *with[5];
    struct blanks b = { 0 };
    do {
        animal = pick(r, &words_animals), draw_place(r, place);
        snprintf(key, sizeof key, "%s %s", animal, place);
    } while (!held_out(key));
    const uint32_t deed = rand_below(r, (uint32_t)words_told.n), times = 1 + rand_below(r, 5);
    blank(&b, "{a}", "%s", animal), blank(&b, "{did}", "%s", words_told.at[deed]);
    blank(&b, "{do}", "%s", words_asked.at[deed]), blank(&b, "{p}", "%s", place);
    const int shared = b.n;
    for (uint32_t i = 0; i < times;) {
        with[i] = pick(r, &words_names);
        uint32_t j = 0;
        while (j < i && strcmp(with[j], with[i])) j++;
        if (j < i) continue;
        b.n = shared;
        blank(&b, "{n}", "%s", with[i++]);
        state(d, "The {a} {did} the {p} with ({n}).", &b);
    }
    ask(d, "How many times did the {a} {do} the {p}?", &b);
    snprintf(number, sizeof number, "%u", (unsigned)times);
    want(d, number);
    keep_apart(d, key);
}

static void draw_any(struct draft *d, enum task t, struct rand *r, const struct relation *rel) {
    d->n_apart = 0, *d->q = (struct quest){ 0 };
    switch (t) {
    case TASK_MULTIVALUE: multivalue(d, r); break;
    case TASK_HOP: hop(d, r); break;
    case TASK_CHAIN: chain(d, r); break;
    case TASK_COUNT: count(d, r); break;
    default: fact(d, r, rel, t == TASK_WORDS);
    }
}

/* One whose question does not give its answer away. */
static void draw(struct draft *d, enum task t, struct rand *r, const struct relation *rel) {
    bool given_away;
    do {
        draw_any(d, t, r, rel);
        given_away = false;
        for (int i = 0; i < d->q->n_answers; i++)
            given_away = given_away || strcasestr(d->q->question, d->q->answer[i]);
    } while (given_away);
}

/* ---- quests ---------------------------------------------------------------------------------- */

static bool collide(const struct draft *a, const struct draft *b) {
    for (int i = 0; i < a->n_apart; i++)
        for (int j = 0; j < b->n_apart; j++)
            if (says(a->apart[i], strlen(a->apart[i]), b->apart[j]) ||
                says(b->apart[j], strlen(b->apart[j]), a->apart[i]))
                return true;
    return false;
}

static void style_quest(struct quest *q, enum style s, uint64_t seed, int n_distractors) {
    struct fact f[STYLE_FACTS_MAX];
    style_facts(s, seed, f, n_distractors + 1);
    *q = (struct quest){ .n_statements = 1, .n_answers = 1, .n_distractors = n_distractors };
    memcpy(q->statement[0], f[0].statement, sizeof q->statement[0]);
    memcpy(q->question, f[0].question, sizeof q->question);
    memcpy(q->answer[0], f[0].answer, sizeof q->answer[0]);
    for (int i = 0; i < n_distractors; i++)
        memcpy(q->distractor[i], f[i + 1].statement, sizeof q->distractor[i]);
}

void quest_draw(struct quest *q, enum task t, uint64_t seed, int n_distractors) {
    if (t <= TASK_COPY) { style_quest(q, (enum style)t, seed, n_distractors); return; }
    struct quest scratch;
    struct draft all[QUEST_DISTRACTORS + 1];           /* the quest, then the others */
    struct rand r = { seed * 0x9e3779b97f4a7c15u ^ 0x7461736b };
    const struct relation *rel = &relations[rand_below(&r, (uint32_t)n_relations)];
    all[0].q = q;
    draw(&all[0], t, &r, rel);
    for (int n = 1; q->n_distractors < n_distractors;) {
        bool fresh = true;
        all[n].q = &scratch;
        draw(&all[n], t, &r, rel);
        for (int i = 0; i < n && fresh; i++) fresh = !collide(&all[i], &all[n]);
        if (!fresh) continue;
        for (int i = 0; i < scratch.n_statements && q->n_distractors < n_distractors; i++)
            memcpy(q->distractor[q->n_distractors++], scratch.statement[i], STORY_SENTENCE);
        n++;
    }
}
