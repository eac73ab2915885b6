/* heatmap.h - score by context length and needle depth, as a picture: one panel
 * per attention mode, side by side.
 *
 * Lengths run to the right, depth runs down, as in the text. Dark is lost, light is found; every
 * cell also carries its number where there is room. A cell nobody measured stays grey. */
#ifndef TOOLS_COMMON_HEATMAP_H
#define TOOLS_COMMON_HEATMAP_H
#include "base/err.h"

struct heatmap {
    const char *title, *subtitle;      /* wrapped at commas and spaces to the width of the panel */
    int n_lengths, n_depths;
    const int *length;                 /* [n_lengths] tokens, ascending */
    const double *depth;               /* [n_depths] percent, ascending */
    const double *score;               /* [n_depths][n_lengths], 0..1; NAN: not measured */
};

/* Draws n panels into one PNG. */
int heatmap_draw(const char *path, const struct heatmap *, int n, struct err *);

/* "4k" for a multiple of 1024, else the number. */
const char *length_label(char buf[16], int tokens);

#endif
