#include "tools/common/story.h"
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "tools/common/words.h"

#define PICK(s, list) (words_##list.at[below(s, words_##list.n)])

static int below(struct story *s, int n) {
    return (int)((rand_u64(&s->rng) >> 33) * (uint64_t)n >> 31);
}

static void put(char out[STORY_SENTENCE], const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static void put(char out[STORY_SENTENCE], const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(out, STORY_SENTENCE, fmt, ap);
    va_end(ap);
}

static void name(struct story *s, char out[24]) {
    if (below(s, 2)) { snprintf(out, 24, "%s", PICK(s, names)); return; }
    out[0] = 0;
    for (int n = 2 + below(s, 2); n; n--) strncat(out, PICK(s, syllables), 23 - strlen(out));
    out[0] = (char)toupper((unsigned char)out[0]);
}

void story_begin(struct story *s, uint64_t seed) { *s = (struct story){ .rng.s = seed }; }

static void new_hero(struct story *s) {
    static const char *const pronouns[2][3] = { { "He", "his", "him" }, { "She", "her", "her" } };
    const char *const *p = pronouns[below(s, 2)];
    name(s, s->hero);
    name(s, s->friend_);
    snprintf(s->he, sizeof s->he, "%s", p[0]);
    snprintf(s->his, sizeof s->his, "%s", p[1]);
    snprintf(s->him, sizeof s->him, "%s", p[2]);
    s->animal = PICK(s, animals), s->animal2 = PICK(s, animals);
    s->place = PICK(s, places), s->place2 = PICK(s, places);
    s->thing = PICK(s, objects), s->thing_adj = PICK(s, adjectives);
    s->food = PICK(s, foods),
    s->mood = words_adjectives.at[WORDS_COLOURS + below(s, words_adjectives.n - WORDS_COLOURS)];
    s->left = 1 + below(s, 5);
}

static void home(struct story *s, char *out) {
    switch (below(s, 3)) {
    case 0:
        put(out, "%s lived near the %s with %s friend %s.", s->hero, s->place, s->his, s->friend_);
        break;
    case 1:
        put(out, "%s lived in a %s house by the %s.", s->he, PICK(s, adjectives), s->place);
        break;
    default: put(out, "%s loved to play in the %s.", s->hero, s->place);
    }
}

static void habit(struct story *s, char *out) {
    switch (below(s, 3)) {
    case 0:
        put(out, "Every day %s ate %s and walked to the %s.", strcmp(s->he, "He") ? "she" : "he",
            s->food, s->place);
        break;
    case 1: put(out, "%s was always %s and liked to sing.", s->hero, PICK(s, moods)); break;
    default:
        put(out, "%s best friend was a %s named %s.", strcmp(s->he, "He") ? "Her" : "His",
            s->animal2, s->friend_);
    }
}

static void finding(struct story *s, char *out) {
    const char *t = PICK(s, times);
    switch (below(s, 3)) {
    case 0:
        put(out, "%s %s found a %s %s near the %s.", t, s->hero, s->thing_adj, s->thing, s->place2);
        break;
    case 1:
        put(out, "%s %s lost %s %s %s in the %s.", t, s->hero, s->his, s->thing_adj, s->thing,
            s->place2);
        break;
    default: put(out, "%s %s gave %s a %s %s.", t, s->friend_, s->hero, s->thing_adj, s->thing);
    }
}

static void wonder(struct story *s, char *out) {
    switch (below(s, 3)) {
    case 0: put(out, "\"What a %s %s!\" said %s.", PICK(s, adjectives), s->thing, s->hero); break;
    case 1: put(out, "\"Look at this %s,\" said %s to %s.", s->thing, s->hero, s->friend_); break;
    default: put(out, "%s looked at the %s and felt %s.", s->hero, s->thing, PICK(s, moods));
    }
}

static void middle(struct story *s, char *out) {
    const char *a = PICK(s, adjectives), *b = PICK(s, adjectives), *o = PICK(s, objects),
               *p = PICK(s, places), *p2 = PICK(s, places);
    const char *m = PICK(s, moods), *m2 = PICK(s, moods), *an = PICK(s, animals);
    switch (below(s, 13)) {
    case 0: put(out, "%s it began to rain and they ran to the %s.", PICK(s, times), p); break;
    case 1: put(out, "%s the %s came to help %s.", s->friend_, s->animal2, s->him); break;
    case 2: put(out, "\"Can you help me?\" asked %s.", s->hero); break;
    case 3: put(out, "\"Yes, I can help you,\" said %s.", s->friend_); break;
    case 4: put(out, "They walked past the %s and over the %s.", p, p2); break;
    case 5:
        put(out, "%s they sat under a %s tree and ate %s.", PICK(s, times), a, PICK(s, foods));
        break;
    case 6: put(out, "%s put the %s in a %s %s.", s->hero, s->thing, a, o); break;
    case 7: put(out, "The %s in the %s was very %s.", an, p, m); break;
    case 8: put(out, "%s was %s, but %s was %s.", s->friend_, m, s->hero, m2); break;
    case 9: put(out, "%s took the %s and went to the %s.", s->he, o, p); break;
    case 10: put(out, "They saw a %s %s with a %s %s.", a, an, b, o); break;
    case 11: put(out, "A %s lost %d %ss in the %s.", an, 2 + below(s, 98), o, p); break;
    default: put(out, "The %s was %s and %s.", p, a, b);
    }
}

static void ending(struct story *s, char *out) {
    switch (below(s, 4)) {
    case 0: put(out, "%s was %s and went home.", s->hero, PICK(s, moods)); break;
    case 1: put(out, "In the end %s and %s were happy.", s->hero, s->friend_); break;
    case 2:
        put(out, "%s %s shared the %s with %s and they became friends.", PICK(s, times), s->hero,
            s->food, s->friend_);
        break;
    default:
        put(out, "%s kept the %s for a long time and never forgot that day.", s->hero, s->thing);
    }
}

void story_next(struct story *s, char out[STORY_SENTENCE]) {
    switch (s->part++) {
    case 0:
        new_hero(s);
        put(out, "Once upon a time there was a %s %s named %s.", s->mood, s->animal, s->hero);
        return;
    case 1: home(s, out); return;
    case 2: if (below(s, 10) < 6) { habit(s, out); return; } s->part++; /* fall through */
    case 3: finding(s, out); return;
    case 4: wonder(s, out); return;
    case 5:
        middle(s, out);
        if (--s->left) s->part--;
        return;
    default:
        ending(s, out);
        s->part = 0;
    }
}

static void number(struct story *s, int digits, char *out) {
    while (digits--) *out++ = (char)('0' + below(s, 10));
    *out = 0;
}

void story_fact(struct story *s, struct fact *f) {
    char subject[96], digits[8], who[24];
    const char *kind = PICK(s, kinds), *place = PICK(s, places);
    if (below(s, 2))
        snprintf(subject, sizeof subject, "%s of the %s %s", kind, PICK(s, adjectives), place);
    else snprintf(subject, sizeof subject, "%s of the %s", kind, place);
    switch (below(s, 4)) {
    case 0:
        number(s, 4, digits);
        snprintf(f->answer, sizeof f->answer, "%s %s %s", digits, PICK(s, adjectives),
                 PICK(s, objects));
        break;
    case 1:
        number(s, 3 + below(s, 3), digits);
        snprintf(f->answer, sizeof f->answer, "%s", digits);
        break;
    case 2:
        snprintf(f->answer, sizeof f->answer, "%s %s", PICK(s, adjectives), PICK(s, objects));
        break;
    default:
        name(s, who);
        snprintf(f->answer, sizeof f->answer, "%s %s", who, PICK(s, animals));
    }
    put(f->statement, "The secret %s is %s.", subject, f->answer);
    put(f->question, "Question: What is the secret %s? Answer:", subject);
}
