#include "tools/common/task_facts.h"
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

bool held_out(const char *subject) {
    return crc32(0, (const unsigned char *)subject, (unsigned)strlen(subject)) % 8 == 0;
}

/* ---- wordings -------------------------------------------------------------------------------- */

void blank(struct blanks *b, const char *what, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(b->at[b->n].text, BLANK_SIZE, fmt, ap);
    va_end(ap);
    b->at[b->n++].what = what;
}

void fill_in(char *out, size_t size, const char *wording, const struct blanks *b) {
    size_t n = 0;
    for (const char *p = wording; *p && n + 1 < size;) {
        int i = 0;
        while (i < b->n && strncmp(p, b->at[i].what, strlen(b->at[i].what))) i++;
        if (i < b->n) {
            const int put = snprintf(out + n, size - n, "%s", b->at[i].text);
            n += (size_t)put < size - n ? (size_t)put : size - n - 1;
            p += strlen(b->at[i].what);
        } else if (strchr("()[]", *p)) p++;
        else out[n++] = *p++;
    }
    out[n] = 0;
}

int wordings(const char *const list[WORDINGS_MAX]) {
    int n = 0;
    while (n < WORDINGS_MAX && list[n]) n++;
    return n;
}

/* ---- dice ------------------------------------------------------------------------------------ */

const char *pick(struct rand *r, const struct words *w) {
    return w->at[rand_below(r, (uint32_t)w->n)];
}

static void invented(struct rand *r, char out[BLANK_SIZE]) {
    int n = 0;
    for (int left = 2 + (int)rand_below(r, 2); left; left--)
        n += snprintf(out + n, (size_t)(BLANK_SIZE - n), "%s", pick(r, &words_syllables));
    out[0] = (char)toupper((unsigned char)out[0]);
}

void draw_name(struct rand *r, char out[BLANK_SIZE]) {
    if (rand_below(r, 2)) snprintf(out, BLANK_SIZE, "%s", pick(r, &words_names));
    else invented(r, out);
}

void draw_thing(struct rand *r, char out[BLANK_SIZE]) {
    const char *adjective = pick(r, &words_adjectives);
    snprintf(out, BLANK_SIZE, "%s %s", adjective, pick(r, &words_objects));
}

void draw_place(struct rand *r, char out[BLANK_SIZE]) {
    const char *adjective = rand_below(r, 2) ? pick(r, &words_adjectives) : NULL;
    snprintf(out, BLANK_SIZE, "%s%s%s", adjective ? adjective : "", adjective ? " " : "",
             pick(r, &words_places));
}

void draw_digits(struct rand *r, int shortest, int longest, char out[BLANK_SIZE]) {
    int n = shortest + (int)rand_below(r, (uint32_t)(longest - shortest + 1));
    while (n--) *out++ = (char)('0' + rand_below(r, 10));
    *out = 0;
}

void draw_word(struct rand *r, char out[BLANK_SIZE]) {
    static const struct words *const lists[] = { &words_adjectives, &words_objects, &words_places,
                                                 &words_animals, &words_foods };
    const struct words *list = lists[rand_below(r, 5)];
    snprintf(out, BLANK_SIZE, "%s", pick(r, list));
}

/* What a secret may be. */
static void any_value(struct rand *r, char out[BLANK_SIZE]) {
    char first[BLANK_SIZE], second[BLANK_SIZE];
    const uint32_t kind = rand_below(r, 100);
    if (kind < 25) {
        draw_digits(r, 4, 4, first);
        draw_thing(r, second);
        snprintf(out, BLANK_SIZE, "%.8s %.80s", first, second);
    } else if (kind < 55) draw_digits(r, 3, 7, out);
    else if (kind < 75) draw_thing(r, out);
    else if (kind < 85) {
        draw_name(r, first);
        snprintf(out, BLANK_SIZE, "%.40s %s", first, pick(r, &words_animals));
    } else {
        int n = 0;
        for (int left = 1 + (int)rand_below(r, 4); left; left--) {
            draw_word(r, first);
            n += snprintf(out + n, (size_t)(BLANK_SIZE - n), "%s%.20s", n ? " " : "", first);
        }
    }
}

static void seven_digits(struct rand *r, char out[BLANK_SIZE]) { draw_digits(r, 7, 7, out); }
static void phone_number(struct rand *r, char out[BLANK_SIZE]) { draw_digits(r, 4, 6, out); }

static void hiding_place(struct rand *r, char out[BLANK_SIZE]) {
    const char *adjective = pick(r, &words_adjectives);
    snprintf(out, BLANK_SIZE, "%s %s", adjective, pick(r, &words_places));
}

static void two_activities(struct rand *r, char out[BLANK_SIZE]) {
    const char *a = pick(r, &words_activities), *b;
    while ((b = pick(r, &words_activities)) == a) {}
    snprintf(out, BLANK_SIZE, "%s and %s", a, b);
}

/* ---- subjects -------------------------------------------------------------------------------- */

static void kind_of_place(struct rand *r, struct blanks *b) {
    char p[BLANK_SIZE];
    draw_place(r, p);
    blank(b, "{k}", "%s", pick(r, &words_kinds)), blank(b, "{p}", "%s", p);
}

static void kind_of_name(struct rand *r, struct blanks *b) {
    char n[BLANK_SIZE];
    draw_name(r, n);
    blank(b, "{k}", "%s", pick(r, &words_kinds)), blank(b, "{n}", "%s", n);
}

static void two_words(struct rand *r, struct blanks *b) {
    blank(b, "{a}", "%s", pick(r, &words_key_first)),
    blank(b, "{b}", "%s", pick(r, &words_key_second));
}
static void with_a_hyphen(struct rand *r, struct blanks *b) {
    (void)r;
    blank(b, "{k}", "%.40s-%.40s", b->at[0].text, b->at[1].text);
}

static void name_and_thing(struct rand *r, struct blanks *b) {
    char n[BLANK_SIZE], t[BLANK_SIZE];
    draw_name(r, n), draw_thing(r, t);
    blank(b, "{n}", "%s", n), blank(b, "{t}", "%s", t);
}
static void his_or_her(struct rand *r, struct blanks *b) {
    blank(b, "{his}", "%s", rand_below(r, 2) ? "his" : "her");
}

static void some_thing(struct rand *r, struct blanks *b) {
    char t[BLANK_SIZE];
    draw_thing(r, t);
    blank(b, "{t}", "%s", t);
}

static void name_and_sort(struct rand *r, struct blanks *b) {
    char n[BLANK_SIZE];
    draw_name(r, n);
    blank(b, "{n}", "%s", n), blank(b, "{k}", "%s", pick(r, &words_things));
}

static void some_name(struct rand *r, struct blanks *b) {
    char n[BLANK_SIZE];
    draw_name(r, n);
    blank(b, "{n}", "%s", n);
}

static void somewhere(struct rand *r, struct blanks *b) {
    char p[BLANK_SIZE];
    if (rand_below(r, 2)) draw_place(r, p);
    else invented(r, p);
    blank(b, "{p}", "%s", p);
}
static void in_somewhere(struct rand *r, struct blanks *b) {
    (void)r;
    const char *p = b->at[0].text, *the = isupper((unsigned char)*p) ? "" : "the ";
    blank(b, "{where}", "in %s%.80s", the, p), blank(b, "{where[3:]}", "%s%.80s", the, p);
}

const struct relation relations[] = {
    { "secret", kind_of_place, NULL, any_value,
      { "The secret {k} of the {p} is %s.", "Remember that the secret {k} of the {p} is %s.",
        "The {p} has a secret {k}: %s.", "Nobody but you knows the secret {k} of the {p}, %s.",
        "In the {p} the secret {k} is %s." },
      { "What is the secret {k} of the {p}?", "Which secret {k} does the {p} have?",
        "Can you tell me the secret {k} of the {p}?",
        "What was said about the secret {k} of the {p}?" } },
    { "magic", kind_of_name, NULL, any_value,
      { "The special magic {k} for {n} is %s.", "A special magic {k} for {n} is: %s.",
        "For {n} the special magic {k} is %s.", "{n} has a special magic {k}, which is %s." },
      { "What is the special magic {k} for {n}?",
        "What is the special magic {k} for {n} in the text above?",
        "Which special magic {k} does {n} have?" } },
    { "access", two_words, with_a_hyphen, seven_digits,
      { "The access number of {k} is %s.", "Note that the access number of {k} is %s.",
        "To enter {k} you need the number %s." },
      { "What is the access number of {k}?",
        "What does the text above say is the access number of {k}?", "Which number opens {k}?" } },
    { "keeps", name_and_thing, his_or_her, hiding_place,
      { "{n} keeps {his} {t} in the %s.", "{n} has hidden {his} {t} in the %s.",
        "The {t} of {n} is in the %s." },
      { "Where does {n} keep {his} {t}?", "Where is the {t} of {n}?",
        "In which place has {n} hidden {his} {t}?" } },
    { "owner", some_thing, NULL, draw_name,
      { "The {t} belongs to %s.", "The owner of the {t} is %s.",
        "Everyone knows that the {t} belongs to %s." },
      { "Who owns the {t}?", "To whom does the {t} belong?", "Who is the owner of the {t}?" } },
    { "favourite", name_and_sort, NULL, any_value,
      { "The favourite {k} of {n} is %s.", "{n} says that the favourite {k} is %s.",
        "The {k} that {n} loves most is %s." },
      { "What is the favourite {k} of {n}?", "Which {k} does {n} love most?",
        "What does {n} say is the favourite {k}?" } },
    { "phone", some_name, NULL, phone_number,
      { "The phone number of {n} is %s.", "You can call {n} at the number %s.",
        "{n} has the phone number %s." },
      { "What is the phone number of {n}?", "At which number can you call {n}?",
        "Which phone number does {n} have?" } },
    { "best_thing", somewhere, in_somewhere, two_activities,
      { "The best thing to do {where} is to %s.",
        "If you come to {where[3:]}, the best thing to do is to %s.",
        "People say the best thing to do {where} is to %s." },
      { "What is the best thing to do {where}?", "What should you do {where}?",
        "What do people say is best to do {where}?" } },
};
const int n_relations = (int)(sizeof relations / sizeof *relations);

void relation_draw(const struct relation *rel, struct rand *r, struct blanks *b,
                   char key[2 * BLANK_SIZE]) {
    char value[BLANK_SIZE];
    do {
        b->n = 0;
        rel->subject(r, b);
        snprintf(key, 2 * BLANK_SIZE, "%s%s%s", b->at[0].text, b->n > 1 ? " " : "",
                 b->n > 1 ? b->at[1].text : "");
    } while (!held_out(key));
    if (rel->rest) rel->rest(r, b);
    rel->value(r, value);
    blank(b, "%s", "%s", value);
}
