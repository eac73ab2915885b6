/* heads_picture.h - a picture of all heads: layers down, heads to the
 * right, the darker the stronger. */
#ifndef TOOLS_COMMON_HEADS_PICTURE_H
#define TOOLS_COMMON_HEADS_PICTURE_H
#include "base/err.h"

struct heads_panel {
    const char *title, *across;        /* across: what runs to the right, "query head" */
    int n_heads;
    const float *value;                /* [n_layers][n_heads] 0..1; NAN: left blank */
};

/* n panels side by side. */
int heads_draw(const char *path, const char *title, int n_layers, const struct heads_panel *, int n,
               struct err *);

#endif
