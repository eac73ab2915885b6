/* tokenize - text to token ids and back with the vocabulary of a GGUF (weights are not needed). */
#include "base/file.h"
#include "base/flags.h"
#include "model/gguf.h"
#include "tokenizer/tokenizer.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: bin/tokenize MODEL [-p TEXT | -f FILE | -] [--ids] [-0] [flags]\n"
    "       bin/tokenize MODEL --decode IDS-FILE [-0] [flags]\n"
    "Prints one line per token: id, type, piece; or, with --ids, the ids of a text on one line.\n";

static const char *model, *text_flag, *file_flag, *sp_model, *decode_flag;
static bool ids_only, no_bos, special, many, help;

static const struct flag table[] = {
    { "-m --model", FLAG_STR, &model, "FILE",
      "the GGUF file, instead of the positional MODEL", 0, 0 },
    { "-p --prompt", FLAG_STR, &text_flag, "TEXT", "the text", 0, 0 },
    { "-f --file", FLAG_STR, &file_flag, "FILE",
      "all of FILE, its last newline included (-: standard input)", 0, 0 },
    { "--ids", FLAG_ON, &ids_only, NULL, "print ids only, separated by spaces", 0, 0 },
    { "--no-bos", FLAG_ON, &no_bos, NULL,
      "do not add BOS or EOS, whatever the metadata says", 0, 0 },
    { "--special --parse-special", FLAG_ON, &special, NULL,
      "control tokens spelled in the text become those tokens", 0, 0 },
    { "-0 --null", FLAG_ON, &many, NULL,
      "the file holds texts separated by NUL: one line of ids for each", 0, 0 },
    { "--decode", FLAG_STR, &decode_flag, "FILE",
      "the way back: FILE holds ids (-0: a line for each text, texts end "
      "with NUL); --special spells control tokens too", 0, 0 },
    { "--tokenizer", FLAG_STR, &sp_model, "FILE",
      "a SentencePiece tokenizer.model in place of the file's own", 0, 0 },
    { "-h --help", FLAG_ON, &help, NULL, "this text", 0, 0 },
    { 0 },
};

static const char *type_name(enum tok_type t) {
    static const char *const name[] = { "", "normal", "unknown", "control", "user", "unused",
                                        "byte" };
    return name[t];
}

/* A piece on one line: what a terminal would not show as itself is escaped. */
static void print_piece(const char *p, size_t n) {
    putchar('\'');
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        if (c == '\\' || c == '\'') printf("\\%c", c);
        else if (c == '\n') fputs("\\n", stdout);
        else if (c == '\t') fputs("\\t", stdout);
        else if (c == '\r') fputs("\\r", stdout);
        else if (c < 0x20 || c == 0x7F) printf("\\x%02x", c);
        else putchar(c);
    }
    putchar('\'');
}

static int encode_one(const struct tokenizer *tok, const char *text, size_t n, struct err *err) {
    int32_t *ids;
    int flags = (no_bos ? 0 : TOK_BOS) | (special ? TOK_SPECIAL : 0);
    int count = tok_encode(tok, text, n, flags, &ids, err);
    if (count < 0) return -1;
    for (int i = 0; i < count; i++) {
        if (ids_only) {
            printf(i ? " %d" : "%d", ids[i]);
            continue;
        }
        size_t len;
        const char *piece = tok_piece(tok, ids[i], &len);
        printf("%8d  %-8s", ids[i], type_name(tok_type(tok, ids[i])));
        print_piece(piece, len);
        putchar('\n');
    }
    if (ids_only) putchar('\n');
    free(ids);
    return 0;
}

static int encode(const struct tokenizer *tok, struct err *err) {
    char *text = NULL;
    size_t n;
    int rc = 0;
    if (text_flag) return encode_one(tok, text_flag, strlen(text_flag), err);
    if (file_read(file_flag, &text, &n, err)) return -1;
    if (!many) rc = encode_one(tok, text, n, err);
    else for (size_t from = 0; from < n && !rc;) {
        const char *nul = memchr(text + from, 0, n - from);
        size_t end = nul ? (size_t)(nul - text) : n;
        rc = encode_one(tok, text + from, end - from, err);
        from = end + 1;
    }
    free(text);
    return rc;
}

/* Ids may be separated by anything but digits, so that "[1, 2]" does too. */
static int decode(const struct tokenizer *tok, struct err *err) {
    char *ids = NULL, *out = malloc(tok_max_piece(tok) + 16);
    size_t n;
    int rc = -1;
    if (!out) { fail(err, "out of memory"); goto done; }
    if (file_read(decode_flag, &ids, &n, err)) goto done;
    struct tok_stream s = { .n_held = 0 };
    for (size_t i = 0; i < n;) {
        if (many && ids[i] == '\n') {
            fwrite(out, 1, tok_flush(&s, out), stdout);
            putchar(0);
            s = (struct tok_stream){ .n_held = 0 };
        }
        if (!isdigit((unsigned char)ids[i])) {
            if (!isspace((unsigned char)ids[i]) && !strchr("[],", ids[i])) {
                fail(err, "%s: byte %zu is not part of a list of ids", decode_flag, i);
                goto done;
            }
            i++;
            continue;
        }
        long long id = 0;
        size_t at = i;
        for (; i < n && isdigit((unsigned char)ids[i]); i++)
            id = id > INT32_MAX ? id : id * 10 + (ids[i] - '0');
        if (id >= tok_n(tok)) {
            fail(err, "%s: id %lld at byte %zu, the vocabulary has %d pieces", decode_flag, id, at,
                 tok_n(tok));
            goto done;
        }
        fwrite(out, 1, tok_decode(tok, &s, (int)id, special, out), stdout);
    }
    fwrite(out, 1, tok_flush(&s, out), stdout);
    rc = 0;
done:
    free(ids);
    free(out);
    return rc;
}

static int command_line(int argc, char **argv, struct err *err) {
    const char *arg[2] = { NULL, NULL };
    int n = 0;
    if (flags_parse(table, argc, argv, arg, 2, &n, err)) return -1;
    if (help) return 0;
    int used = 0;
    if (!model && n) model = arg[used++];
    if (!model) return fail(err, "no MODEL given (--help shows the flags)");
    if (used < n) {
        if (strcmp(arg[used], "-"))
            return fail(err, "'%s' is not a flag; a text goes to -p, a file to -f", arg[used]);
        if (file_flag) return fail(err, "both -f and -");
        file_flag = "-";
    }
    if (!!text_flag + !!file_flag + !!decode_flag != 1)
        return fail(err, "wanted exactly one of -p, -f, - and --decode");
    if (many && text_flag) return fail(err, "-0 reads a file: -f FILE or -");
    if (decode_flag && (ids_only || no_bos))
        return fail(err, "--decode takes neither --ids nor --no-bos");
    ids_only = ids_only || many;
    return 0;
}

int main(int argc, char **argv) {
    struct err err = { .msg = "" };
    struct gguf *g = NULL;
    struct tokenizer *tok = NULL;
    int status = 1;
    if (command_line(argc, argv, &err)) {
        fprintf(stderr, "tokenize: %s\n", err.msg);
        return 2;
    }
    if (help) {
        fputs(usage, stdout);
        flags_help(table, stdout);
        return 0;
    }
    if (gguf_open(&g, model, NULL, &err) || tok_open(&tok, g, sp_model, &err)) goto done;
    if (tok_warning(tok)) fprintf(stderr, "tokenize: %s\n", tok_warning(tok));
    if (special && !no_bos && text_flag && tok_adds_bos(tok) &&
        tok_has_bos(tok, text_flag, strlen(text_flag)))
        fputs("tokenize: the text spells BOS itself, no second one is added\n", stderr);
    if (decode_flag ? decode(tok, &err) : encode(tok, &err)) goto done;
    if (fflush(stdout) || ferror(stdout)) fail(&err, "standard output could not be written");
    else status = 0;
done:
    if (status) {
        fflush(stdout);
        fprintf(stderr, "tokenize: %s\n", err.msg);
    }
    tok_close(tok);
    gguf_close(g);
    return status;
}
