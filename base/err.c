#include "base/err.h"
#include <stdarg.h>
#include <stdio.h>

int fail(struct err *e, const char *fmt, ...) {
    if (!e) return -1;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    /* Names out of files end up in messages, and messages on terminals: nothing
     * in them may steer one. */
    for (char *p = e->msg; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 127) *p = '?';
    return -1;
}
