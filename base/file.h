/* file.h - whole files in memory, and whether files could be written. */
#ifndef BASE_FILE_H
#define BASE_FILE_H
#include <stddef.h>
#include "base/err.h"

/* All bytes of path ("-": stdin), malloc'd, with a NUL after the last that *n does not count. */
int file_read(const char *path, char **out, size_t *n, struct err *);

/* Whether path can be written, found out without touching it: for asking before the work whose
 * result goes there. 0, or -1 with what opening it would say. */
int file_writable(const char *path, struct err *);
/* Whether a file can be made beside path. */
int file_folder_writable(const char *path, struct err *);

#endif
