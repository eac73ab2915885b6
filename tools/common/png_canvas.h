/* png_canvas.h - a picture in memory: rectangles and text, saved as PNG. */
#ifndef TOOLS_COMMON_PNG_CANVAS_H
#define TOOLS_COMMON_PNG_CANVAS_H
#include <stdint.h>
#include "base/err.h"

struct colour { uint8_t r, g, b; };

struct canvas { int w, h; uint8_t *rgb; };         /* rgb [h][w][3] */

/* A white picture; 0, or -1 with *err (too large, no memory). */
int canvas_open(struct canvas *, int w, int h, struct err *);
void canvas_close(struct canvas *);
/* What lies outside the picture is cut off, here and in text. */
void canvas_rect(struct canvas *, int x, int y, int w, int h, struct colour);
/* Printable ASCII whose capitals are `size` pixels high, their top left corner at
 * x, y; other bytes become boxes. */
void canvas_text(struct canvas *, double x, double y, double size, struct colour, const char *);
double canvas_text_width(double size, const char *);
int canvas_save(const struct canvas *, const char *path, struct err *);

#endif
