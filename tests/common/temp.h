/* temp.h - a folder of its own for a test program, removed with what is in it when the program
 * ends. */
#ifndef TESTS_COMMON_TEMP_H
#define TESTS_COMMON_TEMP_H
#include <stddef.h>

const char *temp_path(const char *name);    /* one of a few static buffers; the folder is made */
void temp_write(const char *path, const void *p, size_t n);

#endif
