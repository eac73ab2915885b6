#include "tools/common/heads_layers.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int heads_layers(unsigned char *full, double *kept, const double *recall, const double *weight,
                 int n_layers, struct err *err) {
    const size_t n = (size_t)n_layers;
    /* Of sets of f + 1 layers whose last is i: what they keep of layers 0..i at most,
     * and the last but one of them. */
    double *most = calloc(n * n, sizeof *most), *gap = calloc(n * (n + 1), sizeof *gap), all = 0;
    int *before = malloc(n * n * sizeof *before), rc = -1;
    if (!most || !gap || !before) {
        fail(err, "no memory to choose among %d layers", n_layers);
        goto done;
    }
    /* gap[p][i]: what layers p+1..i-1 keep with the list of p. */
    for (size_t i = 0; i < n; i++) {
        all += weight[i];
        for (size_t j = i + 1; j < n; j++)
            gap[i * (n + 1) + j + 1] = gap[i * (n + 1) + j] + weight[j] * recall[i * n + j];
    }
    memset(full, 0, n * n);
    for (size_t f = 0; f < n; f++) {
        double best = -1;
        size_t last = f;
        for (size_t i = f; i < n; i++) {
            double *here = &most[f * n + i];
            *here = f || i ? -1 : weight[0];
            for (size_t p = f - 1; f && p < i; p++) {
                const double sum = most[(f - 1) * n + p] < 0 ? -1 :
                                   most[(f - 1) * n + p] + gap[p * (n + 1) + i] + weight[i];
                if (sum > *here) *here = sum, before[f * n + i] = (int)p;
            }
            if (*here >= 0 && *here + gap[i * (n + 1) + n] > best)
                best = *here + gap[i * (n + 1) + n], last = i;
        }
        kept[f] = all > 0 ? best / all : 1;
        for (size_t g = f, i = last;; i = (size_t)before[g * n + i], g--) {
            full[f * n + i] = 1;
            if (!g) break;
        }
    }
    rc = 0;
done:
    free(most);
    free(gap);
    free(before);
    return rc;
}

void heads_layers_setting(char *buf, size_t size, const unsigned char *full, int n_layers,
                          const struct delta_share *s) {
    const char *apart = "full=";
    size_t used = (size_t)snprintf(buf, size, "delta,");
    for (int i = 0; i < n_layers && used < size; i++) {
        if (!full[i]) continue;
        used += (size_t)snprintf(buf + used, size - used, "%s%d", apart, i);
        apart = ",";
    }
    if (used < size)
        snprintf(buf + used, size - used, ",budget=%d,recent=%d,sink=%d", s->budget, s->recent,
                 s->sink);
}
