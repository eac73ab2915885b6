/* quant_fit.c - the searches for the scale, or the line, of one group of values. */
#include "kernels/quant.h"
#include <math.h>
#include <string.h>

enum { GROUP = 32, GROUPS = 16 };                  /* the most there are of each */

/* The scales tried first, relative to the one that just spans the group: cutting off an extreme
 * value pays when that makes the steps for all others smaller. A line can lose either end, so its
 * widths come in three places. Then a few rounds of refinement. */
static const float spans[] = { 0.7f, 0.75f, 0.8f, 0.85f, 0.9f, 0.95f, 1, 1.05f, 1.1f };
static const float widths[] = { 0.8f, 0.9f, 1, 1.05f };
enum {
    N_SPANS = sizeof spans / sizeof *spans,
    N_WIDTHS = sizeof widths / sizeof *widths,
    REFINE = 4, REFINE_BLOCK = 2,
};

/* t + ROUND - ROUND: the nearest integer of a small float, without leaving the vector unit. */
#define ROUND 0x1.8p23f

/* Sums run in four chains, added up in a fixed order: fast, and the same bits on every machine. */
typedef float four __attribute__((vector_size(16)));

static four load(const float *x) {
    four v;
    memcpy(&v, x, sizeof v);
    return v;
}

static float add_up(four v) { return (v[0] + v[2]) + (v[1] + v[3]); }

static float clamp(float x, float lo, float hi) { return x < lo ? lo : x > hi ? hi : x; }

uint16_t half_up(float d) {
    uint16_t h = f32_to_f16(d);
    return (uint16_t)(h + (fabsf(f16_to_f32(h)) < fabsf(d)));
}

/* ---- one scale ---- */

/* Levels are kept as floats: small integers, so sums of their products are exact. */
struct scale_sums { float xl, ll; };               /* of x * level and level * level */

/* Replaces each v[i] by the nearest entry of the book. */
static void to_book(const int8_t *book, float *v, int n) {
    typedef int32_t mask __attribute__((vector_size(16)));
    float middle[15], step[15];
    for (int k = 0; k < 15; k++) {
        middle[k] = 0.5f * (float)(book[k] + book[k + 1]);
        step[k] = (float)(book[k + 1] - book[k]);
    }
    for (int i = 0; i < n; i += 4) {
        four t = load(v + i), near = { 0 };
        near += (float)book[0];
        for (int k = 0; k < 15; k++) {
            four up = { step[k], step[k], step[k], step[k] };
            near += (four)((mask)up & (t > middle[k]));
        }
        memcpy(v + i, &near, sizeof near);
    }
}

static void to_levels(const struct grid *g, const float *x, int n, float d, float *level) {
    float inv = d != 0 ? 1 / d : 0, lo = (float)g->lo, hi = (float)g->hi;
    for (int i = 0; i < n; i++) {
        float t = x[i] * inv;
        t = t < lo ? lo : t;
        t = t > hi ? hi : t;
        level[i] = g->book ? t : t + ROUND - ROUND;
    }
    if (g->book) to_book(g->book, level, n);
}

static struct scale_sums scale_sums(const struct grid *g, const float *x, int n, float d) {
    float level[GROUP];
    four xl = { 0 }, ll = { 0 };
    to_levels(g, x, n, d, level);
    for (int i = 0; i < n; i += 4) {
        four l = load(level + i);
        xl += load(x + i) * l;
        ll += l * l;
    }
    return (struct scale_sums){ add_up(xl), add_up(ll) };
}

void grid_round(const struct grid *g, const float *x, int n, float d, uint8_t *q) {
    float level[GROUP];
    to_levels(g, x, n, d, level);
    for (int i = 0; i < n; i++) {
        int l = (int)level[i], place = 0;
        if (g->book) while (g->book[place] < l) place++;
        q[i] = (uint8_t)(g->book ? place : l - g->lo);
    }
}

/* With the best scale for given levels, xl / ll, the squared error is sum(x^2) - xl^2 / ll: the
 * levels that make the last term largest win. */
float fit_scale(const struct grid *g, const float *x, int n) {
    float extreme = 0, best = 0, best_gain = 0;
    for (int i = 0; i < n; i++) if (fabsf(x[i]) > fabsf(extreme)) extreme = x[i];
    if (extreme == 0) return 0;
    for (int k = 0; k < 2 * N_SPANS; k++) {        /* the extreme value may sit at either end */
        float end = (float)(k % 2 ? g->hi : g->lo);
        struct scale_sums s = scale_sums(g, x, n, spans[k / 2] * extreme / end);
        if (s.ll > 0 && s.xl * s.xl > best_gain * s.ll)
            best_gain = s.xl * s.xl / s.ll, best = s.xl / s.ll;
    }
    for (int round = 0; round < REFINE; round++) {
        struct scale_sums s = scale_sums(g, x, n, best);
        if (!(s.ll > 0 && s.xl * s.xl > best_gain * s.ll)) break;
        best_gain = s.xl * s.xl / s.ll, best = s.xl / s.ll;
    }
    return best;
}

/* ---- the scales of a block ---- */

/* For a given d: the integer scale of each group, near its ideal one; the squared error (short of
 * sum(x^2), which is the same for all) and the d that would suit these choices best. */
static float choose_scales(const struct grid *g, const float *x, int n, int size, int lo, int hi,
                           const float *ideal, float d, int8_t *scale, float *next) {
    float total = 0, xl = 0, ll = 0;
    for (int s = 0; s < n; s++) {
        int around = (int)lrintf(clamp(ideal[s] / d, (float)lo, (float)hi));
        struct scale_sums kept = { 0, 0 };
        float best = INFINITY;
        for (int c = around - 1; c <= around + 1; c++) {
            if (c < lo || c > hi) continue;
            float ds = d * (float)c;
            struct scale_sums sum = scale_sums(g, x + s * size, size, ds);
            float err = ds * (ds * sum.ll - 2 * sum.xl);
            if (err < best) best = err, scale[s] = (int8_t)c, kept = sum;
        }
        total += best;
        xl += (float)scale[s] * kept.xl;
        ll += (float)scale[s] * (float)scale[s] * kept.ll;
    }
    *next = ll > 0 ? xl / ll : 0;
    return total;
}

uint16_t fit_scales(const struct grid *g, const float *x, int n, int size, int lo, int hi,
                    int8_t *scale) {
    float ideal[GROUPS], extreme = 0, best_err = INFINITY;
    for (int s = 0; s < n; s++) {
        ideal[s] = fit_scale(g, x + s * size, size);
        if (fabsf(ideal[s]) > fabsf(extreme)) extreme = ideal[s];
    }
    memset(scale, 0, (size_t)n);
    uint16_t best = 0;
    float d = extreme / (float)lo;
    for (int round = 0; round < REFINE_BLOCK; round++) {
        int8_t trial[GROUPS];
        uint16_t half = round == 0 ? half_up(d) : f32_to_f16(d);
        if (!(half & 0x7fff)) break;               /* all zero */
        float err = choose_scales(g, x, n, size, lo, hi, ideal, f16_to_f32(half), trial, &d);
        if (!(err < best_err)) break;
        best_err = err, best = half;
        memcpy(scale, trial, (size_t)n);
    }
    return best;
}

/* ---- one line ---- */

struct line { float d, m; };
struct line_sums { float x, q, xq, qq; };          /* of x, q and their products */

static void to_line(const float *x, int n, struct line at, int top, float *q) {
    float inv = at.d > 0 ? 1 / at.d : 0, end = (float)top;
    for (int i = 0; i < n; i++) {
        float t = (x[i] - at.m) * inv;
        t = t < 0 ? 0 : t;
        t = t > end ? end : t;
        q[i] = t + ROUND - ROUND;
    }
}

static struct line_sums line_sums(const float *x, int n, struct line at, int top) {
    float level[GROUP];
    four sx = { 0 }, sq = { 0 }, xq = { 0 }, qq = { 0 };
    to_line(x, n, at, top, level);
    for (int i = 0; i < n; i += 4) {
        four v = load(x + i), q = load(level + i);
        sx += v;
        sq += q;
        xq += v * q;
        qq += q * q;
    }
    return (struct line_sums){ add_up(sx), add_up(sq), add_up(xq), add_up(qq) };
}

/* The squared error of a line, short of sum(x^2). */
static float line_error(struct line_sums s, int n, struct line l) {
    return l.d * (l.d * s.qq - 2 * s.xq) + l.m * ((float)n * l.m - 2 * s.x) + 2 * l.d * l.m * s.q;
}

/* The least-squares line through (q, x). */
static struct line best_line(struct line_sums s, int n, bool below) {
    float all = (float)n, det = all * s.qq - s.q * s.q;
    struct line l = { 0, s.x / all };
    if (det > 0) {
        l.d = (all * s.xq - s.q * s.x) / det;
        l.m = (s.x - l.d * s.q) / all;
    }
    if (below && l.m > 0) l = (struct line){ s.qq > 0 ? s.xq / s.qq : 0, 0 };
    return l;
}

void line_round(const float *x, int n, float d, float m, int top, uint8_t *q) {
    float l[GROUP];
    to_line(x, n, (struct line){ d, m }, top, l);
    for (int i = 0; i < n; i++) q[i] = (uint8_t)l[i];
}

float fit_line(const float *x, int n, int top, bool below, float *m) {
    float min = x[0], max = x[0], best_err = INFINITY;
    for (int i = 1; i < n; i++) {
        min = x[i] < min ? x[i] : min;
        max = x[i] > max ? x[i] : max;
    }
    if (below && min > 0) min = 0;
    struct line best = { 0, min };
    if (max <= min) { *m = min; return 0; }

    for (int k = 0; k < 3 * N_WIDTHS; k++) {
        float range = widths[k / 3] * (max - min);
        float low = min + ((max - min) - range) * 0.5f * (float)(k % 3);
        struct line at = { range / (float)top, low };
        if (below && at.m > 0) at.m = 0;
        for (int round = 0; round < REFINE; round++) {
            struct line_sums s = line_sums(x, n, at, top);
            at = best_line(s, n, below);
            float err = line_error(s, n, at);
            if (!(err < best_err)) break;
            best_err = err, best = at;
        }
    }
    *m = best.m;
    return best.d;
}

/* ---- the lines of a block ---- */

/* As choose_scales(): unit.d and unit.m (>= 0) are what the integers multiply. */
static float choose_lines(const float *x, int n, int size, int top, int max,
                          const struct line *ideal, struct line unit, uint8_t *scale, uint8_t *min,
                          struct line *next) {
    float total = 0, aa = 0, ab = 0, bb = 0, xa = 0, xb = 0;
    for (int s = 0; s < n; s++) {
        float high = (float)max, best = INFINITY;
        int c0 = unit.d > 0 ? (int)lrintf(clamp(ideal[s].d / unit.d, 0, high)) : 0;
        int m0 = unit.m > 0 ? (int)lrintf(clamp(-ideal[s].m / unit.m, 0, high)) : 0;
        struct line_sums kept = { 0, 0, 0, 0 };
        for (int k = 0; k < 9; k++) {
            int c = c0 + k / 3 - 1, m = m0 + k % 3 - 1;
            if (c < 0 || c > max || m < 0 || m > max) continue;
            struct line at = { unit.d * (float)c, -unit.m * (float)m };
            struct line_sums sum = line_sums(x + s * size, size, at, top);
            float err = line_error(sum, size, at);
            if (err < best) best = err, kept = sum, scale[s] = (uint8_t)c, min[s] = (uint8_t)m;
        }
        float c = (float)scale[s], m = (float)min[s];
        total += best;
        aa += c * c * kept.qq;
        ab += c * m * kept.q;
        bb += m * m * (float)size;
        xa += c * kept.xq;
        xb += m * kept.x;
    }
    /* x = d a - dmin b in the least-squares sense, a = scale * q and b = min of each value. */
    float det = aa * bb - ab * ab;
    *next = det > 0 ? (struct line){ (xa * bb - ab * xb) / det, (xa * ab - aa * xb) / det }
                    : (struct line){ aa > 0 ? xa / aa : 0, 0 };
    return total;
}

void fit_lines(const float *x, int n, int size, int top, int max, uint16_t *d, uint16_t *dmin,
               uint8_t *scale, uint8_t *min) {
    struct line ideal[GROUPS], most = { 0, 0 };
    float best_err = INFINITY;
    for (int s = 0; s < n; s++) {
        ideal[s].d = fit_line(x + s * size, size, top, true, &ideal[s].m);
        if (ideal[s].d > most.d) most.d = ideal[s].d;
        if (-ideal[s].m > most.m) most.m = -ideal[s].m;
    }
    memset(scale, 0, (size_t)n);
    memset(min, 0, (size_t)n);
    *d = *dmin = 0;
    struct line unit = { most.d / (float)max, most.m / (float)max };
    for (int round = 0; round < REFINE_BLOCK; round++) {
        uint8_t c[GROUPS], m[GROUPS];
        uint16_t hd = round == 0 ? half_up(unit.d) : f32_to_f16(unit.d);
        uint16_t hm = round == 0 ? half_up(unit.m) : f32_to_f16(unit.m);
        if ((hd | hm) & 0x8000) break;             /* the fit wants a sign these formats lack */
        unit = (struct line){ f16_to_f32(hd), f16_to_f32(hm) };
        float err = choose_lines(x, n, size, top, max, ideal, unit, c, m, &unit);
        if (!(err < best_err)) break;
        best_err = err, *d = hd, *dmin = hm;
        memcpy(scale, c, (size_t)n);
        memcpy(min, m, (size_t)n);
    }
}
