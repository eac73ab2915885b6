/* rope.c - angles of the rotary embedding: plain, linearly scaled, and YaRN
 * (Peng et al., arXiv 2309.00071), which leaves fast pairs as they are, slows the slow ones
 * down, and ramps between the two. */
#include <math.h>
#include "model/config.h"

/* The pair that turns `rotations` times over the original context. */
static double yarn_pair(const struct rope_config *r, double rotations) {
    return r->n_rot * log(r->orig_ctx / (rotations * 2 * M_PI)) / (2 * log(r->base));
}

void rope_freqs(const struct rope_config *r, double *freq, double *magnitude) {
    double low = 0, high = 0;
    *magnitude = r->attn_factor;
    if (r->ext_factor != 0) {
        low = fmax(0, floor(yarn_pair(r, r->beta_fast)));
        high = fmin(r->n_rot - 1, ceil(yarn_pair(r, r->beta_slow)));
        *magnitude *= 1 + 0.1 * log(r->factor);
    }
    for (int p = 0; p < r->n_rot / 2; p++) {
        double plain = pow(r->base, -2.0 * p / r->n_rot) /
                       (r->factors ? (double)r->factors[p] : 1.0);
        double stretched = plain / r->factor;
        double keep = 0;                                    /* share of the unscaled angle */
        if (r->ext_factor != 0)
            keep = r->ext_factor * (1 - fmin(1, fmax(0, (p - low) / fmax(0.001, high - low))));
        freq[p] = stretched * (1 - keep) + plain * keep;
    }
}

void rope_angles(const double *freq, double magnitude, int n_pairs, int pos, float *cs) {
    for (int p = 0; p < n_pairs; p++) {
        double angle = pos * freq[p];
        cs[2 * p] = (float)(cos(angle) * magnitude);
        cs[2 * p + 1] = (float)(sin(angle) * magnitude);
    }
}
