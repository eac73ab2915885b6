#include "base/file.h"
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST = 1 << 30 };            /* no text is longer; /dev/zero is */

int file_read(const char *path, char **out, size_t *n, struct err *err) {
    int rc = -1;
    bool is_stdin = !strcmp(path, "-");
    FILE *f = is_stdin ? stdin : fopen(path, "rb");
    char *buf = NULL;
    size_t used = 0, size = 0;
    if (!f) return fail(err, "%s: %s", path, strerror(errno));
    for (;;) {
        if (used >= MOST) {
            fail(err, "%s: more than %d MiB, wanted a text", path, MOST >> 20);
            goto done;
        }
        if (size - used < 2) {
            size_t more = size ? size * 2 : 65536;
            char *bigger = realloc(buf, more);
            if (!bigger) { fail(err, "%s: no memory for %zu bytes", path, more); goto done; }
            buf = bigger, size = more;
        }
        size_t got = fread(buf + used, 1, size - used - 1, f);
        used += got;
        if (got == 0) break;
    }
    if (ferror(f)) { fail(err, "%s: %s", path, strerror(errno)); goto done; }
    buf[used] = 0;
    *out = buf, *n = used, buf = NULL, rc = 0;
done:
    free(buf);
    if (!is_stdin) fclose(f);
    return rc;
}

int file_folder_writable(const char *path, struct err *err) {
    const char *slash = strrchr(path, '/');
    const size_t n = slash ? (size_t)(slash - path) + 1 : 0;
    char *folder = malloc(n + 2);
    if (!folder) return fail(err, "%s: no memory", path);
    memcpy(folder, path, n);
    memcpy(folder + n, ".", 2);                     /* "folder/.": must be one */
    const int rc = access(folder, W_OK | X_OK);
    free(folder);
    return rc ? fail(err, "%s: %s", path, strerror(errno)) : 0;
}

int file_writable(const char *path, struct err *err) {
    struct stat there;
    if (stat(path, &there)) return file_folder_writable(path, err);
    if (S_ISDIR(there.st_mode)) return fail(err, "%s: %s", path, strerror(EISDIR));
    return access(path, W_OK) ? fail(err, "%s: %s", path, strerror(errno)) : 0;
}
