/* flags.h - the command line of run.c and the tools, described in one table that prints --help too.
 *
 *     static int n = 128; static bool quiet; static const char *file;
 *     static const struct flag flags[] = {
 *         { "-n --predict", FLAG_INT, &n, "N", "tokens to generate", -2, 1 << 30 },
 *         { "-q --quiet",   FLAG_ON, &quiet, NULL, "say nothing" },
 *         { "-f --file",    FLAG_STR, &file, "FILE", "read the prompt from FILE" },
 *         { 0 } };
 *
 * A flag is written "-n 5", "--predict 5" or "--predict=5". Integers take the suffixes k
 * (1024) and m (1024 k). Everything that does not start with '-' is positional, and so are
 * "-" alone and all that follows "--". */
#ifndef BASE_FLAGS_H
#define BASE_FLAGS_H
#include <stdbool.h>
#include <stdio.h>
#include "base/err.h"

enum flag_kind {
    FLAG_ON,        /* bool *to = true */
    FLAG_OFF,       /* bool *to = false */
    FLAG_INT,       /* int *to, within min..max (both 0: any) */
    FLAG_FLOAT,     /* double *to, within min..max (both 0: any) */
    FLAG_STR,       /* const char **to, borrowed from argv */
    FLAG_LIST,      /* struct flag_list *to: may repeat */
    FLAG_SWITCH,    /* bool *to: alone or with on, auto, 1: true; with off, 0: false */
    FLAG_IGNORED,   /* takes a value if arg is set; to NULL: no effect, else *(bool *)to = true */
    FLAG_HEADING,   /* help only: `help` is printed as a heading */
};

struct flag {
    const char *names;              /* every spelling, separated by single spaces */
    enum flag_kind kind;
    void *to;
    const char *arg;                /* what the value is called in --help; NULL: no value */
    const char *help;               /* NULL: accepted but not listed */
    double min, max;
};

enum { FLAG_LIST_MAX = 64 };
struct flag_list { int n; const char *item[FLAG_LIST_MAX]; };

/* Positional arguments go to positional[0..*n_positional-1], at most max_positional of them.
 * -1 with *err for an unknown flag, a missing or bad value, too many arguments. `table`
 * ends with an entry without names. */
int flags_parse(const struct flag *table, int argc, char **argv, const char **positional,
                int max_positional, int *n_positional, struct err *);
void flags_help(const struct flag *table, FILE *);
/* "16k" -> 16384. The whole text must be a number; 0, or -1 with *err naming `what`. */
int flags_int(const char *text, const char *what, double min, double max, int *out, struct err *);
int flags_float(const char *text, const char *what, double min, double max, double *out,
                struct err *);

#endif
