/* Whole files in memory; whether a file could be written, which asking must not change. */
#include "base/file.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "tests/common/temp.h"
#include "tests/common/check.h"

static struct err err;

static void test_read(void **state) {
    (void)state;
    const char *path = temp_path("text");
    char *text;
    size_t n;
    FILE *f = fopen(path, "wb");
    for (int i = 0; i < 100000; i++) fputc(i % 251, f);
    fclose(f);
    assert_int_equal(file_read(path, &text, &n, &err), 0);
    assert_int_equal(n, 100000);
    for (int i = 0; i < 100000; i++) assert_int_equal((unsigned char)text[i], i % 251);
    assert_int_equal(text[n], 0);
    free(text);
    assert_int_equal(file_read("/no/such/file", &text, &n, &err), -1);
}

static void refused(int (*ask)(const char *, struct err *), const char *path, int why) {
    assert_int_equal(ask(path, &err), -1);
    assert_non_null(strstr(err.msg, path));
    assert_non_null(strstr(err.msg, strerror(why)));
}

static void test_writable(void **state) {
    (void)state;
    struct stat there;
    char path[512];
    snprintf(path, sizeof path, "%s", temp_path("new"));
    assert_int_equal(file_writable(path, &err), 0);
    assert_int_equal(file_folder_writable(path, &err), 0);
    assert_int_equal(stat(path, &there), -1);              /* asking makes no file */
    FILE *f = fopen(path, "wb");
    fputs("kept", f);
    fclose(f);
    assert_int_equal(file_writable(path, &err), 0);
    assert_int_equal(stat(path, &there), 0);
    assert_int_equal(there.st_size, 4);                    /* nor empties one */
    assert_int_equal(file_writable("no-folder-in-this-name", &err), 0);
    assert_int_equal(file_writable("/dev/null", &err), 0);
    refused(file_writable, "/", EISDIR);
    refused(file_writable, "/no/such/folder/x", ENOENT);
    refused(file_folder_writable, "/no/such/folder/x", ENOENT);
    strcat(path, "/x");
    refused(file_writable, path, ENOTDIR);                 /* beneath a file */
    if (getuid()) refused(file_writable, "/x", EACCES);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_read),
                                        cmocka_unit_test(test_writable) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
