/* tile.h - one page of keys or values of one KV head, and the loops that multiply queries with it.
 *
 * A page is KV_PAGE = 16 consecutive tokens. Inside a page
 *   K is transposed:  [head_dim][16 tokens]   one vector holds one dimension of 16 keys: scores need no horizontal sums
 *   V is row-major:   [16 tokens][head_dim]   out += p * V row
 * for f32, f16 and bf16. For q8_0 and q4_0 the blocks of 32 run along head_dim (head_dim % 32 == 0) and the page keeps
 * the scales apart from the quants; tile.c says how. */
#ifndef KERNELS_TILE_H
#define KERNELS_TILE_H
#include <stddef.h>
#include "kernels/dtype.h"

enum { KV_PAGE = 16 };

#endif
