#include "tests/common/temp.h"
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[64];

static void remove_dir(void) {
    DIR *d = opendir(dir);
    if (!d) return;
    char path[512];
    for (struct dirent *e; (e = readdir(d)); ) {
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        unlink(path);                                       /* "." and ".." refuse */
    }
    closedir(d);
    rmdir(dir);
}

const char *temp_path(const char *name) {
    static char path[8][512];
    static int next;
    if (!dir[0]) {
        const char *base = getenv("TMPDIR");
        snprintf(dir, sizeof dir, "%.40s/needle-XXXXXX", base ? base : "/tmp");
        assert_non_null(mkdtemp(dir));
        atexit(remove_dir);
    }
    char *p = path[next++ % 8];
    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

void temp_write(const char *path, const void *p, size_t n) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}
