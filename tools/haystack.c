/* haystack.c - a long text of little stories with one fact hidden in it and a question about it at the end.
 *
 * The length is counted in the model's own tokens. Other facts of the same kind lie around as distractors. The text goes
 * to stdout, what was hidden where to stderr, the bare answer to --answer FILE. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/flags.h"
#include "model/gguf.h"
#include "tokenizer/tokenizer.h"
#include "tools/common/story.h"

static const char usage[] =
    "usage: bin/haystack MODEL [-n TOKENS] [--depth PERCENT] [--distractors N] [--seed N] [--answer FILE]\n"
    "Prints stories of about TOKENS tokens with a secret at that depth, and a question about it.\n";

struct options { int tokens, depth, distractors, seed; const char *answer; bool help; };
struct text { char *p; size_t n, size; };

static int append(struct text *t, const char *s, struct err *err) {
    const size_t n = strlen(s);
    if (t->n + n + 2 > t->size) {
        const size_t size = (t->n + n + 2) * 2;
        char *p = realloc(t->p, size);
        if (!p) return fail(err, "no memory for %zu bytes of text", size);
        t->p = p, t->size = size;
    }
    if (t->n) t->p[t->n++] = ' ';
    memcpy(t->p + t->n, s, n + 1);
    t->n += n;
    return 0;
}

/* Tokens of a sentence in the middle of a text. */
static int count(const struct tokenizer *tok, const char *s, struct err *err) {
    int32_t *ids;
    const int n = tok_encode(tok, s, strlen(s), 0, &ids, err);
    if (n >= 0) free(ids);
    return n;
}

/* Facts with pairwise different subjects: fact[0] is the needle. */
static void draw_facts(struct story *s, struct fact *fact, int n) {
    for (int i = 0; i < n;) {
        story_fact(s, &fact[i]);
        bool fresh = true;
        for (int j = 0; j < i; j++) fresh = fresh && strcmp(fact[i].question, fact[j].question);
        i += fresh;
    }
}

static int build(const struct tokenizer *tok, const struct options *o, struct text *t, struct fact *fact, struct err *err) {
    struct story s;
    char line[STORY_SENTENCE];
    int room = o->tokens - tok_adds_bos(tok), at[64];
    story_begin(&s, (uint64_t)o->seed);
    draw_facts(&s, fact, o->distractors + 1);
    for (int i = 0; i <= o->distractors; i++) {
        const int n = count(tok, fact[i].statement, err);
        if (n < 0) return -1;
        room -= n;
    }
    const int q = count(tok, fact[0].question, err);
    if (q < 0) return -1;
    if ((room -= q) < 0) return fail(err, "-n: %d tokens do not hold the facts and the question, wanted %d more", o->tokens, -room);
    at[0] = (int)((long long)room * o->depth / 100);
    for (int i = 1; i <= o->distractors; i++) at[i] = (int)((long long)room * (2 * i - 1) / (2 * o->distractors));
    for (int used = 0;;) {
        for (int i = 0; i <= o->distractors; i++)               /* a fact stands before the sentence that passes its place */
            if (at[i] >= 0 && at[i] <= used) { if (append(t, fact[i].statement, err)) return -1; at[i] = -1; }
        story_next(&s, line);
        const int n = count(tok, line, err);
        if (n < 0) return -1;
        if (used + n > room) break;
        if (append(t, line, err)) return -1;
        used += n;
    }
    for (int i = 0; i <= o->distractors; i++)
        if (at[i] >= 0 && append(t, fact[i].statement, err)) return -1;
    return append(t, fact[0].question, err);
}

int main(int argc, char **argv) {
    struct options o = { .tokens = 4096, .depth = 50, .distractors = 4, .seed = 1 };
    const struct flag table[] = {
        { "-n --tokens", FLAG_INT, &o.tokens, "N", "length in the model's tokens (4096)", 1, 1 << 24 },
        { "--depth", FLAG_INT, &o.depth, "PERCENT", "where the fact lies, 0 the beginning (50)", 0, 100 },
        { "--distractors", FLAG_INT, &o.distractors, "N", "other facts of the same kind (4)", 0, 63 },
        { "-s --seed", FLAG_INT, &o.seed, "N", "another seed, another text (1)", 0, 1 << 30 },
        { "--answer", FLAG_STR, &o.answer, "FILE", "write the answer there", 0, 0 },
        { "-h --help", FLAG_ON, &o.help, NULL, "print this", 0, 0 },
        { 0 },
    };
    struct err err = { "" };
    const char *path;
    int n, rc = 1;
    struct gguf *file = NULL;
    struct tokenizer *tok = NULL;
    struct text text = { 0 };
    struct fact *fact = NULL;
    if (flags_parse(table, argc, argv, &path, 1, &n, &err) || (!o.help && !n && fail(&err, "no MODEL given"))) {
        fprintf(stderr, "haystack: %s\n", err.msg);
        return 2;
    }
    if (o.help) {
        fputs(usage, stdout);
        flags_help(table, stdout);
        return 0;
    }
    if (!(fact = calloc((size_t)o.distractors + 1, sizeof *fact))) { fail(&err, "no memory"); goto done; }
    if (gguf_open(&file, path, NULL, &err) || tok_open(&tok, file, NULL, &err) || build(tok, &o, &text, fact, &err)) goto done;
    if (fwrite(text.p, 1, text.n, stdout) != text.n || fflush(stdout)) { fail(&err, "stdout: %s", strerror(errno)); goto done; }
    if (o.answer) {
        FILE *f = fopen(o.answer, "w");
        const bool ok = f && fprintf(f, "%s\n", fact[0].answer) > 0;
        if ((f && fclose(f)) || !ok) { fail(&err, "%s: %s", o.answer, strerror(errno)); goto done; }
    }
    fprintf(stderr, "at %d %%: %s\n", o.depth, fact[0].statement);
    rc = 0;
done:
    if (rc) fprintf(stderr, "haystack: %s\n", err.msg);
    free(text.p);
    free(fact);
    tok_close(tok);
    gguf_close(file);
    return rc;
}
