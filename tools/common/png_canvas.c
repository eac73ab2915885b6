#include "tools/common/png_canvas.h"
#include <errno.h>
#include <math.h>
#include <png.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tools/common/png_font.h"

/* In grid units of the font: a capital is 6 high and 4 wide. */
static const double CAPITAL = 6, ADVANCE = 5.6, PEN = 0.42;

int canvas_open(struct canvas *c, int w, int h, struct err *err) {
    *c = (struct canvas){ .w = w, .h = h };
    if (w < 1 || h < 1 || w > 1 << 15 || h > 1 << 15)
        return fail(err, "a picture of %d x %d pixels, wanted 1 to 32768 each", w, h);
    if (!(c->rgb = malloc((size_t)w * (size_t)h * 3)))
        return fail(err, "no memory for a picture of %d x %d pixels", w, h);
    memset(c->rgb, 255, (size_t)w * (size_t)h * 3);
    return 0;
}

void canvas_close(struct canvas *c) { free(c->rgb), c->rgb = NULL; }

static void blend(struct canvas *c, int x, int y, struct colour k, double share) {
    if (x < 0 || y < 0 || x >= c->w || y >= c->h) return;
    uint8_t *p = c->rgb + ((size_t)y * (size_t)c->w + (size_t)x) * 3;
    p[0] = (uint8_t)lround(p[0] + share * (k.r - p[0]));
    p[1] = (uint8_t)lround(p[1] + share * (k.g - p[1]));
    p[2] = (uint8_t)lround(p[2] + share * (k.b - p[2]));
}

void canvas_rect(struct canvas *c, int x, int y, int w, int h, struct colour k) {
    for (int j = y; j < y + h; j++)
        for (int i = x; i < x + w; i++) blend(c, i, j, k, 1);
}

/* Distance of a point from the segment a-b. */
static double from_segment(double x, double y, double ax, double ay, double bx, double by) {
    const double dx = bx - ax, dy = by - ay, length2 = dx * dx + dy * dy;
    const double t = length2 > 0 ? fmin(1, fmax(0, ((x - ax) * dx + (y - ay) * dy) / length2)) : 0;
    return hypot(x - ax - t * dx, y - ay - t * dy);
}

/* Distance of a point, in grid units, from the nearest stroke of a letter. */
static double from_letter(const char *s, double x, double y) {
    double best = INFINITY;
    for (; *s && s[1]; s += s[2] == ',' ? 3 : 2) {
        if (!s[2] || s[2] == ',') continue;
        best = fmin(best, from_segment(x, y, s[0] - '0', s[1] - '0', s[2] - '0', s[3] - '0'));
    }
    return best;
}

void canvas_text(struct canvas *c, double x, double y, double size, struct colour k,
                 const char *text) {
    const double unit = size / CAPITAL;
    for (; *text; text++, x += ADVANCE * unit) {
        const char *s = font_strokes((unsigned char)*text);
        if (!*s) continue;
        for (int j = (int)floor(y - unit); j <= (int)ceil(y + 9 * unit); j++)
            for (int i = (int)floor(x - unit); i <= (int)ceil(x + 5 * unit); i++) {
                const double d = from_letter(s, (i + 0.5 - x) / unit, (j + 0.5 - y) / unit) * unit;
                const double share = fmin(1, PEN * unit + 0.5 - d);  /* soft edge, one pixel wide */
                if (share > 0) blend(c, i, j, k, share);
            }
    }
}

double canvas_text_width(double size, const char *text) {
    const size_t n = strlen(text);
    return n ? size / CAPITAL * ((double)(n - 1) * ADVANCE + 4) : 0;
}

int canvas_save(const struct canvas *c, const char *path, struct err *err) {
    png_image image = { .version = PNG_IMAGE_VERSION, .width = (png_uint_32)c->w,
                        .height = (png_uint_32)c->h, .format = PNG_FORMAT_RGB };
    /* png_image_write_to_file removes what it could not write: even a device. */
    FILE *f = fopen(path, "wb");
    if (!f) return fail(err, "%s: %s", path, strerror(errno));
    const bool drawn = png_image_write_to_stdio(&image, f, 0, c->rgb, 0, NULL);
    if (fclose(f) || !drawn)
        return fail(err, "%s: %s", path, drawn ? strerror(errno) : image.message);
    return 0;
}
