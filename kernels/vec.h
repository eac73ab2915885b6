/* vec.h - loops over rows of floats. All arrays f32; in-place (y == x) is allowed everywhere. */
#ifndef KERNELS_VEC_H
#define KERNELS_VEC_H

struct vec_kernels {
    /* y[i] = x[i] / sqrt(mean(x^2) + eps) * w[i] */
    void (*rmsnorm)(float *y, const float *x, const float *w, int n, float eps);
    /* y[i] += x[i] */
    void (*add)(float *y, const float *x, int n);
    /* y[i] = gate[i] / (1 + exp(-gate[i])) * up[i] */
    void (*swiglu)(float *y, const float *gate, const float *up, int n);
    /* Rotates n_pairs pairs of one head by (cos, sin) interleaved in cs[2 * n_pairs]:
     * interleaved form: pair p is x[2p], x[2p+1]; split-half form: x[p], x[p + n_pairs]. */
    void (*rope)(float *x, const float *cs, int n_pairs);
    void (*rope_split)(float *x, const float *cs, int n_pairs);
};

extern const struct vec_kernels vec_scalar, vec_avx2, vec_avx512;

#endif
