/* err.h - errors travel: a function that can fail takes a struct err *, returns 0, or -1 with
 * one line filled in. Only run.c and tools/ print or exit. Messages say what was found and what
 * was wanted, without a final newline. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

struct err {
    char msg[1024];
    int usage;   /* set by the caller of what failed: the command line is to blame, exit status 2 */
};

/* Fills *e (NULL is fine) and returns -1, so callers write: return fail(err, "%s: ...", path); */
int fail(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
