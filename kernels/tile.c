/* tile.c - how one token is written to a page and read back. The quantised types go through
 * quant_row, so that a cache holds the very numbers a Q8_0 or Q4_0 tensor would. */
#include "kernels/tile.h"
#include "kernels/blocks.h"
#include <assert.h>
#include <string.h>

enum { BLOCK = QK };

static size_t round64(size_t n) { return (n + 63) / 64 * 64; }

int tile_supports(enum dtype type, int dim) {
    switch (type) {
    case DT_F32: case DT_F16: case DT_BF16: return dim > 0;
    case DT_Q8_0: case DT_Q4_0: return dim > 0 && dim % BLOCK == 0;
    default: return 0;
    }
}

/* Quants first, scales behind them: where the scales of a page start. */
static size_t quants_bytes(enum dtype type, int dim) {
    return (size_t)KV_PAGE * dim / (type == DT_Q4_0 ? 2 : 1);
}

size_t tile_k_bytes(enum dtype type, int dim) {
    return round64(KV_PAGE * dtype_row_bytes(type, dim));
}

size_t tile_v_bytes(enum dtype type, int dim) {
    return tile_k_bytes(type, dim);                        /* the same numbers, another order */
}

/* Where element i of token slot is stored in a page of elements of one size, in elements. */
static size_t k_at(int slot, int i) { return (size_t)i * KV_PAGE + slot; }
static size_t v_at(int slot, int i, int dim) { return (size_t)slot * dim + i; }
/* The same for the bytes of the quantised types: block b of the token, byte i of the block. */
static size_t k8_at(int slot, int b, int i) {
    return ((size_t)(b * BLOCK + i) / 4 * KV_PAGE + slot) * 4 + i % 4;
}
/* A byte of a Q4_0 block has values i (0..15) and i + 16, one of a page of keys i and i + 4. */
static size_t k4_at(int slot, int b, int i) {
    return ((size_t)(b * BLOCK + i) / 8 * KV_PAGE + slot) * 4 + i % 4;
}

static unsigned nibble(const struct block_q4_0 *x, int i) {
    return i < BLOCK / 2 ? x->qs[i] & 15u : x->qs[i - BLOCK / 2] >> 4;
}

void tile_put_k(void *page, enum dtype type, int dim, int slot, const float *x) {
    assert(tile_supports(type, dim) && slot >= 0 && slot < KV_PAGE);
    uint16_t *half = page, *scale = (uint16_t *)((char *)page + quants_bytes(type, dim));
    float *full = page;
    int8_t *bytes = page;
    uint8_t *nibbles = page;
    switch (type) {
    case DT_F32: for (int i = 0; i < dim; i++) full[k_at(slot, i)] = x[i]; break;
    case DT_F16: for (int i = 0; i < dim; i++) half[k_at(slot, i)] = f32_to_f16(x[i]); break;
    case DT_BF16: for (int i = 0; i < dim; i++) half[k_at(slot, i)] = f32_to_bf16(x[i]); break;
    case DT_Q8_0:
        for (int b = 0; b < dim / BLOCK; b++) {
            struct block_q8_0 block;
            quant_row(type, x + (size_t)b * BLOCK, &block, BLOCK);
            for (int i = 0; i < BLOCK; i++) bytes[k8_at(slot, b, i)] = block.qs[i];
            scale[k_at(slot, b)] = block.d;
        }
        break;
    default:
        for (int b = 0; b < dim / BLOCK; b++) {
            struct block_q4_0 block;
            quant_row(type, x + (size_t)b * BLOCK, &block, BLOCK);
            for (int j = 0; j < BLOCK / 2; j++) {
                int i = j / 4 * 8 + j % 4;
                nibbles[k4_at(slot, b, i)] =
                    (uint8_t)(nibble(&block, i) | nibble(&block, i + 4) << 4);
            }
            scale[k_at(slot, b)] = block.d;
        }
    }
}

void tile_put_v(void *page, enum dtype type, int dim, int slot, const float *x) {
    assert(tile_supports(type, dim) && slot >= 0 && slot < KV_PAGE);
    uint16_t *half = page, *scale = (uint16_t *)((char *)page + quants_bytes(type, dim));
    float *full = page;
    switch (type) {
    case DT_F32: memcpy(full + v_at(slot, 0, dim), x, (size_t)dim * sizeof *x); break;
    case DT_F16: for (int i = 0; i < dim; i++) half[v_at(slot, i, dim)] = f32_to_f16(x[i]); break;
    case DT_BF16: for (int i = 0; i < dim; i++) half[v_at(slot, i, dim)] = f32_to_bf16(x[i]); break;
    case DT_Q8_0:
        for (int b = 0; b < dim / BLOCK; b++) {
            struct block_q8_0 block;
            quant_row(type, x + (size_t)b * BLOCK, &block, BLOCK);
            memcpy((int8_t *)page + v_at(slot, b * BLOCK, dim), block.qs, sizeof block.qs);
            scale[v_at(slot, b, dim / BLOCK)] = block.d;
        }
        break;
    default:
        for (int b = 0; b < dim / BLOCK; b++) {
            struct block_q4_0 block;
            quant_row(type, x + (size_t)b * BLOCK, &block, BLOCK);
            memcpy((uint8_t *)page + v_at(slot, b * BLOCK, dim) / 2, block.qs, sizeof block.qs);
            scale[v_at(slot, b, dim / BLOCK)] = block.d;
        }
    }
}

void tile_get_k(const void *page, enum dtype type, int dim, int slot, float *x, int stride) {
    assert(tile_supports(type, dim) && slot >= 0 && slot < KV_PAGE);
    const uint16_t *half = page,
                   *scale = (const uint16_t *)((const char *)page + quants_bytes(type, dim));
    const float *full = page;
    const int8_t *bytes = page;
    const uint8_t *nibbles = page;
    for (int i = 0; i < dim; i++) {
        int b = i / BLOCK, j = i % BLOCK;
        switch (type) {
        case DT_F32: x[(size_t)i * stride] = full[k_at(slot, i)]; break;
        case DT_F16: x[(size_t)i * stride] = f16_to_f32(half[k_at(slot, i)]); break;
        case DT_BF16: x[(size_t)i * stride] = bf16_to_f32(half[k_at(slot, i)]); break;
        case DT_Q8_0:
            x[(size_t)i * stride] = f16_to_f32(scale[k_at(slot, b)]) * bytes[k8_at(slot, b, j)];
            break;
        default: {
            int q = nibbles[k4_at(slot, b, j)] >> (j % 8 < 4 ? 0 : 4) & 15;
            x[(size_t)i * stride] = f16_to_f32(scale[k_at(slot, b)]) * (q - 8);
        }
        }
    }
}

void tile_get_v(const void *page, enum dtype type, int dim, int slot, float *x, int stride) {
    assert(tile_supports(type, dim) && slot >= 0 && slot < KV_PAGE);
    const uint16_t *half = page,
                   *scale = (const uint16_t *)((const char *)page + quants_bytes(type, dim));
    const float *full = page;
    const int8_t *bytes = page;
    const uint8_t *nibbles = page;
    for (int i = 0; i < dim; i++) {
        int b = i / BLOCK, j = i % BLOCK;
        switch (type) {
        case DT_F32: x[(size_t)i * stride] = full[v_at(slot, i, dim)]; break;
        case DT_F16: x[(size_t)i * stride] = f16_to_f32(half[v_at(slot, i, dim)]); break;
        case DT_BF16: x[(size_t)i * stride] = bf16_to_f32(half[v_at(slot, i, dim)]); break;
        case DT_Q8_0:
            x[(size_t)i * stride] = f16_to_f32(scale[v_at(slot, b, dim / BLOCK)]) *
                                    bytes[v_at(slot, i, dim)];
            break;
        default: {
            int q = nibbles[v_at(slot, b * BLOCK, dim) / 2 + j % 16] >> (j < 16 ? 0 : 4) & 15;
            x[(size_t)i * stride] = f16_to_f32(scale[v_at(slot, b, dim / BLOCK)]) * (q - 8);
        }
        }
    }
}
