#include "tools/common/heatmap.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tools/common/png_canvas.h"

enum { MARGIN = 24, CELL_W = 52, LEFT = 58, FOOT = 58, LINE = 20, BAR_W = 18, BAR_ROOM = 84,
       GAP = 36, PER_ROW = 4, LINES = 16 };
static const double TITLE = 12, LABEL = 9;
static const struct colour BLACK = { 20, 20, 20 }, GREY = { 85, 85, 85 },
                           EMPTY = { 226, 226, 226 }, WHITE = { 255, 255, 255 };

/* From lost to found, ever lighter, so that it reads without colours too. */
static struct colour shade(double score) {
    static const struct { double at; int r, g, b; } stop[] = {
        { 0, 74, 14, 44 }, { 0.25, 160, 40, 50 }, { 0.5, 226, 118, 62 }, { 0.75, 244, 200, 112 },
        { 1, 172, 226, 158 },
    };
    int i = 0;
    while (i < 3 && score > stop[i + 1].at) i++;
    const double t = fmin(1, fmax(0, (score - stop[i].at) / (stop[i + 1].at - stop[i].at)));
    return (struct colour){ (uint8_t)lround(stop[i].r + t * (stop[i + 1].r - stop[i].r)),
                            (uint8_t)lround(stop[i].g + t * (stop[i + 1].g - stop[i].g)),
                            (uint8_t)lround(stop[i].b + t * (stop[i + 1].b - stop[i].b)) };
}

const char *length_label(char buf[16], int tokens) {
    if (tokens >= 1024 && tokens % 1024 == 0) snprintf(buf, 16, "%dk", tokens / 1024);
    else snprintf(buf, 16, "%d", tokens);
    return buf;
}

static int cell_height(const struct heatmap *m) {
    const int h = 400 / m->n_depths;
    return h > 36 ? 36 : h < 12 ? 12 : h;
}

static int grid_width(const struct heatmap *m) {
    return m->n_lengths * CELL_W > 180 ? m->n_lengths * CELL_W : 180;
}

/* Breaks text into lines no wider than `width`, after a comma or a space where
 * there is one. Returns their number. */
static int wrap(const char *text, double size, double width, char line[LINES][128]) {
    int n = 0;
    while (*text && n < LINES) {
        size_t len = 0, cut = 0;
        char try[128];
        while (text[len] && len + 1 < sizeof try) {
            snprintf(try, sizeof try, "%.*s", (int)len + 1, text);
            if (len && canvas_text_width(size, try) > width) break;
            len++;
            if (text[len - 1] == ',' || text[len - 1] == ' ') cut = len;
        }
        if (!text[len] || !cut) cut = len;
        snprintf(line[n++], 128, "%.*s", (int)cut, text);
        text += cut;
    }
    return n;
}

static int head_height(const struct heatmap *m) {
    char line[LINES][128];
    const double w = LEFT + grid_width(m);
    return (wrap(m->title, TITLE, w, line) + wrap(m->subtitle, LABEL, w, line)) * LINE + LINE + 10;
}

static int panel_height(const struct heatmap *m, int head) {
    return head + m->n_depths * cell_height(m) + FOOT;
}

static void centred(struct canvas *c, double x, double y, double size, struct colour k,
                    const char *text) {
    canvas_text(c, x - canvas_text_width(size, text) / 2, y, size, k, text);
}

static void draw_cells(struct canvas *c, const struct heatmap *m, int x, int y) {
    const int h = cell_height(m);
    char text[16];
    for (int d = 0; d < m->n_depths; d++)
        for (int l = 0; l < m->n_lengths; l++) {
            const double s = m->score[(size_t)d * (size_t)m->n_lengths + (size_t)l];
            const int cx = x + l * CELL_W, cy = y + d * h;
            canvas_rect(c, cx, cy, CELL_W - 1, h - 1, isnan(s) ? EMPTY : shade(s));
            if (isnan(s)) continue;
            snprintf(text, sizeof text, s > 0 && s < 1 ? "%.2f" : "%.0f", s);
            const double size = h >= 20 ? LABEL : h - 6;
            centred(c, cx + CELL_W / 2.0, cy + (h - 1 - size) / 2, size, s < 0.4 ? WHITE : BLACK,
                    text);
        }
}

/* x, y: the panel's top left corner; head: room for its titles, alike for all panels of a row. */
static void draw_panel(struct canvas *c, const struct heatmap *m, int x, int y, int head) {
    char line[LINES][128], text[32];
    const int h = cell_height(m), top = y + head, bottom = top + m->n_depths * h;
    const double w = LEFT + grid_width(m);
    int n = wrap(m->title, TITLE, w, line), at = y;
    for (int i = 0; i < n; i++, at += LINE) canvas_text(c, x, at, TITLE, BLACK, line[i]);
    at += 4;
    n = wrap(m->subtitle, LABEL, w, line);
    for (int i = 0; i < n; i++, at += LINE) canvas_text(c, x, at, LABEL, GREY, line[i]);
    canvas_text(c, x, top - LINE, LABEL, GREY, "depth");
    for (int d = 0; d < m->n_depths; d++) {
        snprintf(text, sizeof text, "%g%%", m->depth[d]);
        const double size = h >= 20 ? LABEL : h - 6;
        canvas_text(c, x + LEFT - 8 - canvas_text_width(size, text),
                    top + d * h + (h - 1 - size) / 2, size, BLACK, text);
    }
    for (int l = 0; l < m->n_lengths; l++)
        centred(c, x + LEFT + l * CELL_W + CELL_W / 2.0, bottom + 10, LABEL, BLACK,
                length_label(text, m->length[l]));
    centred(c, x + LEFT + m->n_lengths * CELL_W / 2.0, bottom + 34, LABEL, GREY, "context, tokens");
    draw_cells(c, m, x + LEFT, top);
}

static void draw_scale(struct canvas *c, int x, int y, int height) {
    char text[16];
    for (int i = 0; i < height; i++)
        canvas_rect(c, x, y + i, BAR_W, 1, shade(1 - i / (double)(height - 1)));
    for (int i = 0; i <= 4; i++) {
        const int at = y + (4 - i) * (height - 1) / 4;
        canvas_rect(c, x + BAR_W, at, 4, 1, BLACK);
        snprintf(text, sizeof text, "%g", i / 4.0);
        canvas_text(c, x + BAR_W + 8, at - LABEL / 2, LABEL, BLACK, text);
    }
    canvas_text(c, x, y - LINE, LABEL, GREY, "score");
}

int heatmap_draw(const char *path, const struct heatmap *m, int n, struct err *err) {
    int row_w = 0, width = 0, height = MARGIN, rc = -1;
    struct canvas c = { 0 };
    int *head = calloc((size_t)n / PER_ROW + 1, 2 * sizeof *head);     /* then the rows' heights */
    if (!head) return fail(err, "no memory for a picture of %d panels", n);
    int *tall = head + n / PER_ROW + 1;
    for (int i = 0; i < n; i++)
        if (head_height(&m[i]) > head[i / PER_ROW]) head[i / PER_ROW] = head_height(&m[i]);
    for (int i = 0; i < n; i++) {
        const int h = panel_height(&m[i], head[i / PER_ROW]);
        if (h > tall[i / PER_ROW]) height += h - tall[i / PER_ROW], tall[i / PER_ROW] = h;
        row_w = (i % PER_ROW ? row_w + GAP : 0) + LEFT + grid_width(&m[i]);
        if (row_w > width) width = row_w;
    }
    if (canvas_open(&c, 2 * MARGIN + width + BAR_ROOM, height + MARGIN, err)) goto done;
    for (int i = 0, x = MARGIN, y = MARGIN; i < n; i++) {
        if (i && i % PER_ROW == 0) x = MARGIN, y += tall[i / PER_ROW - 1];
        draw_panel(&c, &m[i], x, y, head[i / PER_ROW]);
        x += LEFT + grid_width(&m[i]) + GAP;
    }
    if (n)
        draw_scale(&c, MARGIN + width + 20, MARGIN + head[0],
                   tall[0] - head[0] - FOOT > 120 ? tall[0] - head[0] - FOOT : 120);
    rc = canvas_save(&c, path, err);
done:
    canvas_close(&c);
    free(head);
    return rc;
}
