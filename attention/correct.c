#include "attention/correct.h"
#include <stdlib.h>
#include <string.h>

enum { NONE = -1 };

struct correct {
    struct attn_shape shape;
    size_t width;                      /* floats of one token's output */
    float *full;                       /* [width] */
    float *delta;                      /* [n_layers][width] */
    int *anchor;                       /* [n_layers] the token delta comes from */
    struct attn_mode all;
    uint64_t rows;
};

int correct_open(struct correct **out, const struct attn_shape *shape, struct err *err) {
    struct correct *c = calloc(1, sizeof *c);
    if (!c) return fail(err, "attention: no memory");
    c->shape = *shape;
    c->width = (size_t)shape->n_heads * shape->v_dim;
    c->all = (struct attn_mode){ .ops = &mode_full, .max_spans = 1 };
    c->full = malloc(c->width * sizeof *c->full);
    c->delta = malloc((size_t)shape->n_layers * c->width * sizeof *c->delta);
    c->anchor = malloc((size_t)shape->n_layers * sizeof *c->anchor);
    if (!c->full || !c->delta || !c->anchor) {
        correct_close(c);
        return fail(err, "attention: no memory for the corrections of %d layers", shape->n_layers);
    }
    for (int l = 0; l < shape->n_layers; l++) c->anchor[l] = NONE;
    *out = c;
    return 0;
}

void correct_close(struct correct *c) {
    if (!c) return;
    free(c->full);
    free(c->delta);
    free(c->anchor);
    free(c);
}

void correct_run(struct correct *c, struct flash *f, float *out, const float *q,
                 const struct kvcache *kv, int layer, int pos, int n, int g) {
    float *delta = c->delta + (size_t)layer * c->width;
    const size_t q_width = (size_t)c->shape.n_heads * c->shape.k_dim;
    if (c->anchor[layer] >= pos) c->anchor[layer] = NONE;  /* that token is gone */
    for (int t = 0; g && t < n; t++) {
        float *row = out + (size_t)t * c->width;
        if ((pos + t) % g == 0) {
            flash_run(f, &c->all, c->full, q + (size_t)t * q_width, kv, layer, pos + t, 1);
            for (size_t i = 0; i < c->width; i++) delta[i] = c->full[i] - row[i];
            memcpy(row, c->full, c->width * sizeof *row);
            c->anchor[layer] = pos + t;
            c->rows += (uint64_t)c->shape.n_heads;
        } else if (c->anchor[layer] == (pos + t) / g * g)
            for (size_t i = 0; i < c->width; i++) row[i] += delta[i];
    }
}

uint64_t correct_rows(const struct correct *c) { return c->rows; }
size_t correct_bytes(const struct correct *c) {
    return (c->width * (1 + (size_t)c->shape.n_layers)) * sizeof *c->full;
}
