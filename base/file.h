/* file.h - whole files in memory. */
#ifndef BASE_FILE_H
#define BASE_FILE_H
#include <stddef.h>
#include "base/err.h"

/* All bytes of path ("-": standard input), malloc'd, with a NUL after the last byte that *n does not count. */
int file_read(const char *path, char **out, size_t *n, struct err *);

#endif
