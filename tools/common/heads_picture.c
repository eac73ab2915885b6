#include "tools/common/heads_picture.h"
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include "tools/common/png_canvas.h"

enum { MARGIN = 24, LEFT = 44, HEAD = 66, FOOT = 50, GAP = 36, PANEL_MIN = 200,
       TITLE = 12, LABEL = 9, NUMBERS = 34 };
static const struct colour BLACK = { 20, 20, 20 }, GREY = { 85, 85, 85 }, WHITE = { 255, 255, 255 };

static struct colour shade(double x) {                     /* paper to ink */
    static const int paper[3] = { 240, 242, 245 }, ink[3] = { 18, 52, 108 };
    uint8_t c[3];
    for (int i = 0; i < 3; i++)
        c[i] = (uint8_t)lround(paper[i] + fmax(0, fmin(1, x)) * (ink[i] - paper[i]));
    return (struct colour){ c[0], c[1], c[2] };
}

/* Cells shrink as heads grow many; those of NUMBERS pixels carry their number. */
static int cell_size(int n_layers, int n_heads) {
    const int most = n_layers > n_heads ? n_layers : n_heads, size = 640 / most;
    return size > 44 ? 44 : size < 8 ? 8 : size;
}

static int panel_width(const struct heads_panel *p, int cell) {
    const int cells = LEFT + p->n_heads * cell, title = (int)canvas_text_width(LABEL, p->title);
    const int w = cells > title ? cells : title;
    return w > PANEL_MIN ? w : PANEL_MIN;
}

static void number(struct canvas *c, double x, double y, int every, int i, bool across, int cell) {
    char text[16];
    if (i % every) return;
    snprintf(text, sizeof text, "%d", i);
    const double w = canvas_text_width(LABEL, text);
    if (across) canvas_text(c, x + (cell - w) / 2, y, LABEL, BLACK, text);
    else canvas_text(c, x - 8 - w, y + (cell - LABEL) / 2.0, LABEL, BLACK, text);
}

static void draw_panel(struct canvas *c, const struct heads_panel *p, int n_layers, int cell, int x,
                       int y) {
    const int every = cell >= 20 ? 1 : 4, left = x + LEFT;
    char text[16];
    canvas_text(c, x, y - 44, LABEL, BLACK, p->title);
    canvas_text(c, x, y - 20, LABEL, GREY, "layer");
    for (int l = 0; l < n_layers; l++) {
        number(c, left, y + l * cell, every, l, false, cell);
        for (int h = 0; h < p->n_heads; h++) {
            const double v = p->value[(size_t)l * p->n_heads + h];
            if (isnan(v)) continue;
            canvas_rect(c, left + h * cell, y + l * cell, cell - 1, cell - 1, shade(v));
            if (cell < NUMBERS) continue;
            snprintf(text, sizeof text, v > 0 && v < 1 ? "%.2f" : "%.0f", v);
            canvas_text(c, left + h * cell + (cell - 1 - canvas_text_width(LABEL, text)) / 2,
                        y + l * cell + (cell - 1 - LABEL) / 2.0, LABEL, v > 0.5 ? WHITE : BLACK,
                        text);
        }
    }
    for (int h = 0; h < p->n_heads; h++)
        number(c, left + h * cell, y + n_layers * cell + 8, every, h, true, cell);
    canvas_text(c, left, y + n_layers * cell + 30, LABEL, GREY, p->across);
}

int heads_draw(const char *path, const char *title, int n_layers, const struct heads_panel *p,
               int n, struct err *err) {
    struct canvas c;
    int most = 1, width = 0;
    for (int i = 0; i < n; i++) most = p[i].n_heads > most ? p[i].n_heads : most;
    const int cell = cell_size(n_layers, most);
    for (int i = 0; i < n; i++) width += panel_width(&p[i], cell) + (i ? GAP : 0);
    if ((int)canvas_text_width(TITLE, title) > width) width = (int)canvas_text_width(TITLE, title);
    if (canvas_open(&c, 2 * MARGIN + width, 2 * MARGIN + HEAD + n_layers * cell + FOOT, err))
        return -1;
    canvas_text(&c, MARGIN, MARGIN, TITLE, BLACK, title);
    for (int i = 0, x = MARGIN; i < n; x += panel_width(&p[i], cell) + GAP, i++)
        draw_panel(&c, &p[i], n_layers, cell, x, MARGIN + HEAD + 10);
    const int rc = canvas_save(&c, path, err);
    canvas_close(&c);
    return rc;
}
