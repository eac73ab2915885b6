/* heads_layers.h - which layers of DELTA should read everything, given what lists are
 * worth to the layers that read them. */
#ifndef TOOLS_COMMON_HEADS_LAYERS_H
#define TOOLS_COMMON_HEADS_LAYERS_H
#include <stddef.h>
#include "attention/delta_pages.h"
#include "base/err.h"

/* A full layer keeps its whole weight[layer]; another one, weight[layer] * recall[from][layer]
 * where from is the last full layer below it. Layer 0 is full. For every number n = 1..n_layers of
 * full layers, marks in full[n - 1][n_layers] those that together keep most, and writes to
 * kept[n - 1] their share of all weight, 0..1 (1 if nothing has weight). Among equals lower layers
 * win. -1 when memory lacks. */
int heads_layers(unsigned char *full, double *kept, const double *recall, const double *weight,
                 int n_layers, struct err *err);

/* "delta,full=0,2,budget=64,recent=8,sink=0", as --attn takes it. */
void heads_layers_setting(char *buf, size_t size, const unsigned char *full, int n_layers,
                          const struct delta_share *);

#endif
