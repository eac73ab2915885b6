/* Tasks as tools/train/ tells them: the same words and wordings,
 * subjects kept out of training, scores of whole words. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "tools/common/needle_haystack.h"
#include "tools/common/task.h"
#include "tools/common/task_facts.h"
#include "tests/common/tok_check.h"
#include "tests/common/check.h"

static struct err err;

static char *read_text(const char *path) {
    char *text;
    size_t n;
    if (file_read(path, &text, &n, &err)) fail_msg("%s", err.msg);
    char *copy = strndup(text, n);
    free(text);
    return copy;
}

/* ---- the same world as tools/train/ ---------------------------------------------------------- */

static bool alike(const char *word, const char *p, size_t n) {  /* but for a capital in front */
    return strlen(word) == n && tolower((unsigned char)*word) == tolower((unsigned char)*p) &&
           !memcmp(word + 1, p + 1, n - 1);
}

/* Whether the Python list NAME holds these words. Lists are written """a b""".split(), """a|b""" or
 * ["a", "b"]; the words of a list of pairs are every second one, from the first or the second. */
static void same_list(const char *py, const char *name, const struct words *w, int from,
                      int every) {
    char key[32];
    snprintf(key, sizeof key, "\n%s = ", name);
    const char *p = strstr(py, key), *end;
    if (!p) fail_msg("words.py has no %s", name);
    p += strlen(key);
    int n = 0;
    if (*p == '[') {
        end = strchr(p, ']');
        for (int i = 0; (p = strchr(p, '"')) && p < end; i++) {
            const size_t len = strcspn(++p, "\"");
            if (i % every == from && (n >= w->n || !alike(w->at[n++], p, len)))
                fail_msg("%s: '%.*s'", name, (int)len, p);
            p += len + 1;
        }
    } else {
        const bool bars = !strcmp(name, "ACTIVITIES");
        p += !strncmp(p, "\"\"\"", 3) ? 3 : 1;
        end = strchr(p, '"');
        while (p < end) {
            const size_t len = strcspn(p, bars ? "|\n\"" : " \n\"");
            if (len && (n >= w->n || !alike(w->at[n++], p, len)))
                fail_msg("%s: '%.*s'", name, (int)len, p);
            p += len + 1;
        }
    }
    if (n != w->n) fail_msg("%s: %d words in words.py, %d here", name, n, w->n);
}

static void test_words(void **state) {
    (void)state;
    char *py = read_text("tools/train/words.py");
    const struct words colours = { words_adjectives.at, WORDS_COLOURS };
    const struct words qualities = { words_adjectives.at + WORDS_COLOURS,
                                     words_adjectives.n - WORDS_COLOURS };
    const struct { const char *name; const struct words *w; } all[] = {
        { "NAMES", &words_names }, { "SYLLABLES", &words_syllables }, { "COLOURS", &colours },
        { "QUALITIES", &qualities }, { "OBJECTS", &words_objects }, { "PLACES", &words_places },
        { "ANIMALS", &words_animals }, { "FOODS", &words_foods }, { "MOODS", &words_moods },
        { "KINDS", &words_kinds }, { "THINGS", &words_things }, { "TIMES", &words_times },
        { "KEY_FIRST", &words_key_first }, { "KEY_SECOND", &words_key_second },
        { "ACTIVITIES", &words_activities },
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        same_list(py, all[i].name, all[i].w, 0, 1);
    same_list(py, "DEEDS", &words_told, 0, 2);
    same_list(py, "DEEDS", &words_asked, 1, 2);
    free(py);
}

/* The f"..." of a function of tasks.py that hold %s and those that end in
 * '?', in order, are what the relation says and asks. */
static void test_relations(void **state) {
    (void)state;
    char *py = read_text("tools/train/tasks.py");
    for (int r = 0; r < n_relations; r++) {
        const struct relation *rel = &relations[r];
        char key[32];
        snprintf(key, sizeof key, "\ndef %s(", rel->name);
        const char *p = strstr(py, key);
        if (!p) fail_msg("tasks.py has no %s", rel->name);
        const char *end = strstr(p, "\n\n\n");
        int says = 0, asks = 0;
        while ((p = strstr(p, "f\"")) && p < end) {
            const size_t n = strcspn(p += 2, "\"");
            const char *value = strstr(p, "%s");
            const bool say = value && value < p + n, ask = p[n - 1] == '?';
            const char *ours = say ? rel->says[says++] : ask ? rel->asks[asks++] : NULL;
            if ((say || ask) && (!ours || strlen(ours) != n || memcmp(ours, p, n)))
                fail_msg("%s: '%.*s'", rel->name, (int)n, p);
            p += n + 1;
        }
        assert_int_equal(says, wordings(rel->says));
        assert_int_equal(asks, wordings(rel->asks));
        assert_true(says > 1 && asks > 1);
    }
    /* the other way round: what task.c tells, tasks.py tells */
    char *c = read_text("tools/common/task.c");
    int seen = 0;
    for (const char *p = c; (p = strchr(p, '"'));) {
        const size_t n = strcspn(++p, "\"");
        char *text = strndup(p, n);
        if (strchr(text, '{')) {
            seen++;
            /* a blank's name does not count */
            if (!strncmp(text, "{", 1) && text[n - 1] == '}' && !strchr(text, ' ')) seen--;
            else if (!strstr(py, text)) fail_msg("tasks.py does not say '%s'", text);
        }
        free(text);
        p += n + 1;
    }
    assert_int_equal(seen, 13);
    free(c);
    free(py);
}

/* Against zlib.crc32 of Python: "code mill" and the others are kept out or not as tasks.py says. */
static void test_held_out(void **state) {
    (void)state;
    int out = 0;
    for (int i = 0; i < 8000; i++) {
        char text[32];
        snprintf(text, sizeof text, "code %d", i);
        out += held_out(text);
    }
    assert_in_range(out, 900, 1100);
    uint32_t crc = 0xffffffff;                              /* CRC-32 as RFC 1952 has it, by hand */
    for (const char *p = "code old mill"; *p; p++) {
        crc ^= (unsigned char)*p;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    assert_int_equal(held_out("code old mill"), ~crc % 8 == 0);
}

/* ---- quests ---------------------------------------------------------------------------------- */

/* Whether text follows a wording, whose blanks stand for any words. */
static bool follows(const char *text, const char *wording) {
    while (*wording && *wording != '{' && *wording != '%') {
        if (strchr("()[]", *wording)) wording++;
        else if (*text++ != *wording++) return false;
    }
    if (!*wording) return !*text;
    wording += *wording == '{' ? strcspn(wording, "}") + 1 : 2;
    for (; *text; text++)
        if (follows(text, wording)) return true;
    return follows(text, wording);
}

static bool one_of(const char *text, const char *const *list, int from, int to) {
    for (int i = from; i < to; i++)
        if (follows(text, list[i])) return true;
    return false;
}

static bool relation_of(const struct quest *q, bool new_wording, bool seen[]) {
    char question[STORY_SENTENCE];
    const size_t n = strlen(q->question);
    snprintf(question, sizeof question, "%.*s",
             (int)(n - strlen("Question: ") - strlen(" Answer:")),
             q->question + strlen("Question: "));
    for (int r = 0; r < n_relations; r++) {
        const int says = wordings(relations[r].says), asks = wordings(relations[r].asks);
        if (!one_of(q->statement[0], relations[r].says,
                    new_wording ? says - 1 : 0, new_wording ? says : says - 1)) continue;
        if (!one_of(question, relations[r].asks,
                    new_wording ? asks - 1 : 0, new_wording ? asks : asks - 1)) continue;
        bool all = true;
        for (int i = 0; i < q->n_distractors; i++)
            all = all && one_of(q->distractor[i], relations[r].says, 0, says);
        if (all) return seen[r] = true;
    }
    return false;
}

static void test_quests(void **state) {
    (void)state;
    static struct quest q, again, fewer;
    bool seen[3][16] = { 0 };
    int lengths[N_TASKS][QUEST_PARTS + 1] = { 0 };
    for (int t = TASK_SINGLE; t < N_TASKS; t++)
        for (uint64_t seed = 1; seed <= 300; seed++) {
            quest_draw(&q, (enum task)t, seed, 16);
            quest_draw(&again, (enum task)t, seed, 16);
            quest_draw(&fewer, (enum task)t, seed, 3);
            assert_int_equal(q.n_distractors, 16);
            assert_string_equal(q.question, again.question);
            assert_string_equal(q.distractor[15], again.distractor[15]);
            assert_string_equal(q.statement[q.n_statements - 1],
                                fewer.statement[fewer.n_statements - 1]);
            assert_string_equal(q.distractor[2], fewer.distractor[2]);
            assert_true(!strncmp(q.question, "Question: ", 10) && strstr(q.question, "? Answer:"));
            lengths[t][q.n_statements]++;
            for (int i = 0; i < q.n_statements; i++)
                if (strpbrk(q.statement[i], "{}[]()%"))
                    fail_msg("'%s' is not filled in", q.statement[i]);
            for (int i = 0; i < q.n_distractors; i++)
                for (int j = 0; j < q.n_statements; j++)
                    assert_string_not_equal(q.distractor[i], q.statement[j]);
            if (t == TASK_COUNT) {
                assert_true(q.n_answers == 1 && atoi(q.answer[0]) == q.n_statements);
                for (int i = 1; i < q.n_statements; i++)        /* with somebody else each time */
                    for (int j = 0; j < i; j++)
                        assert_string_not_equal(q.statement[i], q.statement[j]);
                continue;
            }
            const int n_values = t == TASK_CHAIN || t == TASK_MULTIVALUE ? q.n_statements : 1;
            assert_int_equal(q.n_answers, n_values);
            for (int i = 0; i < q.n_answers; i++) {
                bool told = false;
                for (int j = 0; j < q.n_statements; j++)
                    told = told || strstr(q.statement[j], q.answer[i]);
                assert_true(told && !strstr(q.question, q.answer[i]));
                /* in the order they are told */
                if (n_values > 1) assert_non_null(strstr(q.statement[i], q.answer[i]));
            }
            if (t == TASK_SINGLE || t == TASK_MULTIKEY || t == TASK_WORDS)
                if (!relation_of(&q, t == TASK_WORDS,
                                 seen[t == TASK_SINGLE ? 0 : t == TASK_MULTIKEY ? 1 : 2]))
                    fail_msg("%s, seed %d: '%s' '%s'", task_name((enum task)t), (int)seed,
                             q.statement[0], q.question);
            if (t == TASK_CHAIN) {
                char last[STORY_SENTENCE];
                for (int i = 1; i < q.n_statements; i++) {
                    snprintf(last, sizeof last, "What is called %s is also called %s.",
                             q.answer[i - 1], q.answer[i]);
                    assert_string_equal(q.statement[i], last);
                }
            }
        }
    for (int k = 0; k < 3; k++)
        for (int r = 0; r < n_relations; r++)
            if (!seen[k][r]) fail_msg("no %s of 300", relations[r].name);
    assert_true(lengths[TASK_HOP][2] == 300 && lengths[TASK_SINGLE][1] == 300);
    for (int n = 1; n <= 5; n++) {
        assert_true(lengths[TASK_COUNT][n] > 30);
        if (n >= 2 && n <= 4) assert_true(lengths[TASK_MULTIVALUE][n] > 60);
        if (n >= 2) assert_true(lengths[TASK_CHAIN][n] > 40);
    }
}

/* Every relation's subject is one that training left out,
 * and a hop's can be read off its statements. */
static void test_subjects(void **state) {
    (void)state;
    struct rand r = { 1 };
    for (int i = 0; i < n_relations; i++)
        for (int k = 0; k < 50; k++) {
            struct blanks b;
            char key[2 * BLANK_SIZE], text[STORY_SENTENCE];
            relation_draw(&relations[i], &r, &b, key);
            if (!held_out(key)) fail_msg("'%s' is a subject of training", key);
            fill_in(text, sizeof text, relations[i].says[0], &b);
            assert_non_null(strstr(text, b.at[b.n - 1].text));
            for (char *word = strtok(key, " "); word; word = strtok(NULL, " "))
                assert_non_null(strstr(text, word));
        }
    static struct quest q;
    for (uint64_t seed = 1; seed < 100; seed++) {
        char subject[2 * STORY_SENTENCE] = "";
        quest_draw(&q, TASK_HOP, seed, 0);
        for (int i = 0; i < 2; i++) {
            char *place = q.statement[i], *thing = strstr(place, " holds the "),
                 *is = strstr(place, " is the ");
            const bool lies = !strncmp(place, "What lies in the ", 17);
            if (!thing && !lies) continue;
            place += lies ? 17 : 4;
            thing = lies ? is : thing;
            snprintf(subject, sizeof subject, "%.*s %.*s",
                     (int)(strlen(thing + (lies ? 8 : 11)) - 1), thing + (lies ? 8 : 11),
                     (int)(thing - place), place);
        }
        if (!held_out(subject))
            fail_msg("'%s' of '%s' '%s'", subject, q.statement[0], q.statement[1]);
    }
}

static void test_scores(void **state) {
    (void)state;
    const char *const three[] = { "3" }, *const names[] = { "Tari", "Ben" };
    static const struct { const char *response; double three, names; } all[] = {
        { " 3.", 1, 0 }, { " 13.", 0, 0 }, { " 31 times", 0, 0 }, { "(3)", 1, 0 },
        { " 2. Ben lost 3 keys.", 0, 0 }, { "3", 1, 0 }, { " tari, BEN.", 0, 1 },
        { " Tarimo and Ben", 0, 0.5 }, { "Uben, Tari? Ben", 0, 0.5 }, { "", 0, 0 }, { "x3", 0, 0 },
        { " 2.3 Ben", 1, 0.5 },
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (task_score(TASK_COUNT, all[i].response, three, 1) != all[i].three)
            fail_msg("'%s' for 3", all[i].response);
        if (task_score(TASK_CHAIN, all[i].response, names, 2) != all[i].names)
            fail_msg("'%s' for names", all[i].response);
    }
    assert_true(task_score(TASK_STORY, "No. It is 13", three, 1) == 1);     /* as in rows of old */
    struct task_list l;
    assert_int_equal(tasks_parse("hop,count,hop", &l, &err), 0);
    assert_true(l.n == 2 && l.at[0] == TASK_HOP && l.at[1] == TASK_COUNT);
    static const char *const wrong[] = { "", "hop,", ",hop", "hops", "ho", "hop;count" };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (!tasks_parse(wrong[i], &l, &err) || !strstr(err.msg, "--task"))
            fail_msg("'%s'", wrong[i]);
}

/* ---- several statements in a haystack -------------------------------------------------------- */

static struct vocab_file f;

static void test_spread(void **state) {
    (void)state;
    static const char *const more[] = { "Two is BB.", "Three is CCC." },
                      *const others[] = { "Other is x.", "Other is y." };
    vocab_file_init(&f, "llama", NULL);
    vocab_file_spm(&f);
    vocab_file_piece(&f, "\xe2\x96\x81", -1, TOK_NORMAL);
    f.add_space_prefix = 1, f.add_bos = 1, f.bos = 1;
    struct tokenizer *t = tok_must(&f);
    struct haystack *h;
    assert_int_equal(haystack_open(&h, t, NULL, 0, 1, &err), 0);
    for (int depth = 0; depth <= 100; depth += 10) {
        const struct planting w = { .n_tokens = 4000, .depth = depth, .needle = "One is A.",
                                    .question = "What?", .more = more, .n_more = 2,
                                    .distractors = others, .n_distractors = 2 };
        struct prompt p;
        if (haystack_plant(h, &w, &p, &err)) fail_msg("%s", err.msg);
        assert_int_equal(p.n, 4000);
        char *text = tok_text(t, p.ids, p.n, false, NULL), *one = strstr(text, "One is A.");
        const char *two = one ? strstr(one, more[0]) : NULL,
                   *three = two ? strstr(two, more[1]) : NULL;
        if (!three) fail_msg("depth %d: not in order", depth);
        const double all = (double)strlen(text),
                     at[] = { (double)(one - text), (double)(two - text), (double)(three - text) };
        for (int i = 0; i < 3; i++) {
            const double want = depth + (100 - depth) * i / 3.0, got = 100 * at[i] / all;
            if (got < want - 3 || got > want + 4)
                fail_msg("depth %d: statement %d lies at %.1f %%, wanted %.1f",
                         depth, i, got, want);
        }
        if (depth == 100) assert_string_equal(one, "One is A. Two is BB. Three is CCC. What?");
        assert_true(abs((int)(one - text) - p.needle_at) <= 2);
        free(text);
        free(p.ids);
    }
    haystack_close(h);
    tok_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words), cmocka_unit_test(test_relations),
        cmocka_unit_test(test_held_out), cmocka_unit_test(test_quests),
        cmocka_unit_test(test_subjects), cmocka_unit_test(test_scores),
        cmocka_unit_test(test_spread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
