#include "tests/common/reference.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "kernels/dtype.h"

static const struct gguf *file;
static char arch[32];

static int key_int(const char *key, int fallback) {
    char name[96];
    int64_t v = fallback;
    snprintf(name, sizeof name, "%s.%s", arch, key);
    gguf_get_int(file, name, 0, 1 << 30, &v, NULL);
    return (int)v;
}

static double key_float(const char *key, double fallback) {
    char name[96];
    snprintf(name, sizeof name, "%s.%s", arch, key);
    gguf_get_float(file, name, &fallback, NULL);
    return fallback;
}

/* A tensor as doubles, malloc'd; NULL when absent. */
static double *load(int layer, const char *name) {
    char full[80];
    if (layer < 0) snprintf(full, sizeof full, "%s", name);
    else snprintf(full, sizeof full, "blk.%d.%s", layer, name);
    const struct gguf_tensor *t = gguf_tensor(file, full);
    if (!t || !t->data) return NULL;
    const size_t cols = t->ne[0], rows = t->ne[1],
                 row_bytes = dtype_row_bytes((enum dtype)t->type, cols);
    double *out = malloc(rows * cols * sizeof *out);
    float *row = malloc(cols * sizeof *row);
    for (size_t r = 0; r < rows; r++) {
        dequant_row((enum dtype)t->type, (const char *)t->data + r * row_bytes, row, cols);
        for (size_t c = 0; c < cols; c++) out[r * cols + c] = (double)row[c];
    }
    free(row);
    return out;
}

/* y[n][rows] = x[n][cols] W^T (+ bias); frees W and bias. */
static double *product(double *w, double *bias, const double *x, int n, int rows, int cols) {
    double *y = malloc((size_t)n * rows * sizeof *y);
    for (int t = 0; t < n; t++)
        for (int r = 0; r < rows; r++) {
            double sum = bias ? bias[r] : 0;
            for (int c = 0; c < cols; c++) sum += w[(size_t)r * cols + c] * x[(size_t)t * cols + c];
            y[(size_t)t * rows + r] = sum;
        }
    free(w);
    free(bias);
    return y;
}

static double *normed(double *w, const double *x, int n, int d, double eps) {
    double *y = malloc((size_t)n * d * sizeof *y);
    for (int t = 0; t < n; t++) {
        double sum = 0;
        for (int i = 0; i < d; i++) sum += x[(size_t)t * d + i] * x[(size_t)t * d + i];
        const double scale = 1 / sqrt(sum / d + eps);
        for (int i = 0; i < d; i++) y[(size_t)t * d + i] = x[(size_t)t * d + i] * scale * w[i];
    }
    free(w);
    return y;
}

static void rotate(double *x, int n, int heads, int hd, int n_rot) {
    const double base = key_float("rope.freq_base", 10000),
                 factor = key_float("rope.scaling.factor", 1);
    const double orig = key_int("rope.scaling.original_context_length", 4096);
    char scaling[16] = "none", name[96];
    const bool split = !strcmp(arch, "qwen2");      /* pairs (p, p + n/2) instead of (2p, 2p + 1) */
    snprintf(name, sizeof name, "%s.rope.scaling.type", arch);
    gguf_get_string(file, name, scaling, sizeof scaling, NULL);
    const bool yarn = !strcmp(scaling, "yarn");
    double *factors = load(-1, "rope_freqs.weight");
    for (int t = 0; t < n; t++)
        for (int p = 0; p < n_rot / 2; p++) {
            double theta = pow(base, -2.0 * p / n_rot) / (factors ? factors[p] : 1), size = 1;
            if (!strcmp(scaling, "linear")) theta /= factor;
            /* Pairs that turn > 32 times keep their angle, < 1 time take the stretched one. */
            if (yarn) {
                const double fast = floor(n_rot * log(orig / (32 * 2 * M_PI)) / (2 * log(base)));
                const double slow = ceil(n_rot * log(orig / (1 * 2 * M_PI)) / (2 * log(base)));
                const double lo = fmax(fast, 0), hi = fmin(slow, n_rot - 1);
                const double ramp = fmin(1, fmax(0, (p - lo) / fmax(0.001, hi - lo)));
                theta = theta / factor * ramp + theta * (1 - ramp);
                size = 1 + 0.1 * log(factor);
            }
            const double c = cos(t * theta) * size, s = sin(t * theta) * size;
            for (int h = 0; h < heads; h++) {
                double *a = x + ((size_t)t * heads + h) * hd + (split ? p : 2 * p),
                       *b = a + (split ? n_rot / 2 : 1), u = *a, v = *b;
                *a = u * c - v * s;
                *b = u * s + v * c;
            }
        }
    free(factors);
}

/* out[n][H][vd]: causal softmax(q k / sqrt(kd)) v, the row of scores stored whole. */
static double *attend(const double *q, const double *k, const double *v, int n, int H, int G,
                      int kd, int vd) {
    double *out = calloc((size_t)n * H * vd, sizeof *out), *s = malloc((size_t)n * sizeof *s);
    for (int t = 0; t < n; t++)
        for (int h = 0; h < H; h++) {
            const int g = h / (H / G);
            double max = -INFINITY, sum = 0;
            for (int j = 0; j <= t; j++) {
                s[j] = 0;
                for (int i = 0; i < kd; i++)
                    s[j] += q[((size_t)t * H + h) * kd + i] * k[((size_t)j * G + g) * kd + i];
                s[j] /= sqrt(kd);
                max = fmax(max, s[j]);
            }
            for (int j = 0; j <= t; j++) sum += s[j] = exp(s[j] - max);
            for (int j = 0; j <= t; j++)
                for (int i = 0; i < vd; i++)
                    out[((size_t)t * H + h) * vd + i] +=
                        s[j] / sum * v[((size_t)j * G + g) * vd + i];
        }
    free(s);
    return out;
}

double *reference_logits(const struct gguf *g, const int32_t *ids, int n, int *n_vocab) {
    file = g;
    gguf_get_string(g, "general.architecture", arch, sizeof arch, NULL);
    const int L = key_int("block_count", 0), d = key_int("embedding_length", 0),
              ff = key_int("feed_forward_length", 0);
    const int H = key_int("attention.head_count", 0), G = key_int("attention.head_count_kv", H);
    const int kd = key_int("attention.key_length", d / H),
              vd = key_int("attention.value_length", d / H);
    const int n_rot = key_int("rope.dimension_count", kd),
              V = (int)gguf_tensor(g, "token_embd.weight")->ne[1];
    const double eps = key_float("attention.layer_norm_rms_epsilon", 1e-5);
    double *embd = load(-1, "token_embd.weight"), *x = malloc((size_t)n * d * sizeof *x);
    for (int t = 0; t < n; t++)
        memcpy(x + (size_t)t * d, embd + (size_t)ids[t] * d, (size_t)d * sizeof *x);
    for (int l = 0; l < L; l++) {
        double *h = normed(load(l, "attn_norm.weight"), x, n, d, eps);
        double *q = product(load(l, "attn_q.weight"), load(l, "attn_q.bias"), h, n, H * kd, d);
        double *k = product(load(l, "attn_k.weight"), load(l, "attn_k.bias"), h, n, G * kd, d);
        double *v = product(load(l, "attn_v.weight"), load(l, "attn_v.bias"), h, n, G * vd, d);
        rotate(q, n, H, kd, n_rot);
        rotate(k, n, G, kd, n_rot);
        double *a = attend(q, k, v, n, H, G, kd, vd);
        double *o = product(load(l, "attn_output.weight"), load(l, "attn_output.bias"), a, n, d,
                            H * vd);
        for (size_t i = 0; i < (size_t)n * d; i++) x[i] += o[i];
        free(h), free(q), free(k), free(v), free(a), free(o);

        h = normed(load(l, "ffn_norm.weight"), x, n, d, eps);
        double *gate = product(load(l, "ffn_gate.weight"), load(l, "ffn_gate.bias"), h, n, ff, d);
        double *up = product(load(l, "ffn_up.weight"), load(l, "ffn_up.bias"), h, n, ff, d);
        for (size_t i = 0; i < (size_t)n * ff; i++) gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
        o = product(load(l, "ffn_down.weight"), load(l, "ffn_down.bias"), gate, n, d, ff);
        for (size_t i = 0; i < (size_t)n * d; i++) x[i] += o[i];
        free(h), free(gate), free(up), free(o);
    }
    double *h = normed(load(-1, "output_norm.weight"), x, n, d, eps);
    double *out = load(-1, "output.weight");
    double *logits = product(out ? out : embd, NULL, h, n, V, d);
    if (out) free(embd);
    free(h), free(x);
    *n_vocab = V;
    return logits;
}

struct closeness compare_logits(const double *a, const float *b, int n, int n_vocab) {
    struct closeness c = { 0 };
    double sum = 0, squares = 0;
    int same = 0;
    for (int t = 0; t < n; t++) {
        const double *x = a + (size_t)t * n_vocab;
        const float *y = b + (size_t)t * n_vocab;
        int bx = 0, by = 0;
        double zx = 0, zy = 0, kl = 0;
        for (int i = 0; i < n_vocab; i++) {
            if (x[i] > x[bx]) bx = i;
            if (y[i] > y[by]) by = i;
            sum += x[i], squares += x[i] * x[i];
            c.max_delta = fmax(c.max_delta, fabs(x[i] - (double)y[i]));
            if (!isfinite(y[i])) c.max_delta = INFINITY;
        }
        for (int i = 0; i < n_vocab; i++)
            zx += exp(x[i] - x[bx]), zy += exp((double)y[i] - (double)y[by]);
        for (int i = 0; i < n_vocab; i++) {
            const double lx = x[i] - x[bx] - log(zx), ly = (double)y[i] - (double)y[by] - log(zy);
            kl += exp(lx) * (lx - ly);
        }
        c.mean_kl += kl / n;
        same += bx == by;
    }
    const double count = (double)n * n_vocab, mean = sum / count;
    c.std = sqrt(squares / count - mean * mean);
    c.argmax = (double)same / n;
    return c;
}
