/* haystack.c - a long text of little stories with one hidden fact, a question about it at the end.
 *
 * The length is counted in the model's own tokens, BOS included. Other facts of the same kind lie
 * around as distractors. The text goes to stdout, what was hidden where to stderr, the bare answer
 * to --answer FILE. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/flags.h"
#include "model/gguf.h"
#include "tokenizer/tokenizer.h"
#include "tools/common/needle_haystack.h"
#include "tools/common/needle_style.h"

static const char usage[] =
    "usage: bin/haystack MODEL [-n TOKENS] [--depth PERCENT] [--distractors N] [--seed N] "
    "[--answer FILE]\n"
    "Prints stories of TOKENS tokens with a secret at that depth, and a question about it.\n";

struct options { int tokens, depth, distractors, seed; const char *answer; bool help; };

/* The tokens as text: what the model would read. 0, or -1 with *err. */
static int print(const struct tokenizer *tok, const struct prompt *p, struct err *err) {
    struct tok_stream stream = { 0 };
    char *text = malloc(tok_max_piece(tok) + 16);
    if (!text) return fail(err, "no memory for a piece of text");
    bool ok = true;
    for (int i = 0; i < p->n; i++) {
        const size_t n = tok_decode(tok, &stream, p->ids[i], false, text);
        ok = ok && fwrite(text, 1, n, stdout) == n;
    }
    const size_t n = tok_flush(&stream, text);
    ok = ok && fwrite(text, 1, n, stdout) == n && !fflush(stdout);
    free(text);
    return ok ? 0 : fail(err, "stdout: %s", strerror(errno));
}

int main(int argc, char **argv) {
    struct options o = { .tokens = 4096, .depth = 50, .distractors = 4, .seed = 1 };
    const struct flag table[] = {
        { "-n --tokens", FLAG_INT, &o.tokens, "N",
          "length in the model's tokens (4096)", 1, 1 << 24 },
        { "--depth", FLAG_INT, &o.depth, "PERCENT",
          "where the fact lies, 0 the beginning (50)", 0, 100 },
        { "--distractors", FLAG_INT, &o.distractors, "N",
          "other facts of the same kind (4)", 0, STYLE_FACTS_MAX - 1 },
        { "-s --seed", FLAG_INT, &o.seed, "N", "another seed, another text (1)", 0, 1 << 30 },
        { "--answer", FLAG_STR, &o.answer, "FILE", "write the answer there", 0, 0 },
        { "-h --help", FLAG_ON, &o.help, NULL, "print this", 0, 0 },
        { 0 },
    };
    struct err err = { .msg = "" };
    const char *path;
    int n, rc = 1;
    struct gguf *file = NULL;
    struct tokenizer *tok = NULL;
    struct haystack *hay = NULL;
    struct prompt prompt = { 0 };
    struct fact fact[STYLE_FACTS_MAX];
    const char *other[STYLE_FACTS_MAX];
    if (flags_parse(table, argc, argv, &path, 1, &n, &err) ||
        (!o.help && !n && fail(&err, "no MODEL given"))) {
        fprintf(stderr, "haystack: %s\n", err.msg);
        return 2;
    }
    if (o.help) {
        fputs(usage, stdout);
        flags_help(table, stdout);
        return 0;
    }
    style_facts(STYLE_STORY, (uint64_t)o.seed, fact, o.distractors + 1);
    for (int i = 0; i < o.distractors; i++) other[i] = fact[i + 1].statement;
    const struct planting want = { .n_tokens = o.tokens, .depth = o.depth,
                                   .needle = fact[0].statement, .question = fact[0].question,
                                   .distractors = other, .n_distractors = o.distractors };
    if (gguf_open(&file, path, NULL, &err) || tok_open(&tok, file, NULL, &err) ||
        haystack_open(&hay, tok, NULL, 0, (uint64_t)o.seed, &err) ||
        haystack_plant(hay, &want, &prompt, &err))
        goto done;
    if (o.answer) {
        FILE *f = fopen(o.answer, "w");
        if (!f || fprintf(f, "%s\n", fact[0].answer) < 0 || fclose(f)) {
            fail(&err, "%s: %s", o.answer, strerror(errno));
            goto done;
        }
    }
    if (print(tok, &prompt, &err)) goto done;
    fprintf(stderr, "at %d %%: %s\n", o.depth, fact[0].statement);
    rc = 0;
done:
    if (rc) fprintf(stderr, "haystack: %s\n", err.msg);
    free(prompt.ids);
    haystack_close(hay);
    tok_close(tok);
    gguf_close(file);
    return rc;
}
