/* tile_amx.c - tile_matrix.h with AMX: F16, BF16 as products of bfloat16; Q8_0, Q4_0 of bytes. */
#include "kernels/tile_amx_unit.h"

static int quantised(enum dtype type) { return type == DT_Q8_0 || type == DT_Q4_0; }
static const struct tile_matrix *of(enum dtype type) {
    return quantised(type) ? &tile_bytes : &tile_halves;
}

struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes_per_row[16];
    uint8_t rows[16];
};

static void shape(int rows, enum dtype type) {
    struct tile_config c = { .palette = 1 };
    if (!rows) {
        _tile_release();
        return;
    }
    if (quantised(type))                     /* of both parts; half of many at a time */
        rows = 2 * rows < MATRIX_ROWS ? 2 * rows : MATRIX_ROWS;
    for (int i = 0; i < 8; i++) c.rows[i] = (uint8_t)(i < 6 ? rows : 16), c.bytes_per_row[i] = 64;
    __asm__ volatile("" ::"r"(&c) : "memory");
    _tile_loadconfig(&c);
}

static size_t more(size_t a, size_t b) { return a > b ? a : b; }
static size_t room_k(int dim) { return more(tile_halves.room_k(dim), tile_bytes.room_k(dim)); }
static size_t room_v(int dim) { return more(tile_halves.room_v(dim), tile_bytes.room_v(dim)); }

static void load_q(void *dst, const float *q, int rows, int dim, enum dtype type) {
    of(type)->load_q(dst, q, rows, dim, type);
}

static void load_k(void *dst, const void *const page[TILE_PAGES], enum dtype type, int dim,
                   ptrdiff_t ahead) {
    of(type)->load_k(dst, page, type, dim, ahead);
}

static void load_v(void *dst, const void *const page[TILE_PAGES], enum dtype type, int dim,
                   uint64_t keys, ptrdiff_t ahead) {
    of(type)->load_v(dst, page, type, dim, keys, ahead);
}

static void scores(float *s, const void *q, int first, int rows, int dim, const void *k,
                   enum dtype type, unsigned pages) {
    of(type)->scores(s, q, first, rows, dim, k, type, pages);
}

static void peaks(float peak[TILE_PAGES], const void *q, int blocks, int dim, const void *k,
                  enum dtype type, unsigned pages) {
    _Alignas(64) float s[2][MATRIX_ROWS * TILE];   /* in turns: one is read, the other written */
    __m512 top[TILE_PAGES];
    UNROLL for (int p = 0; p < TILE_PAGES; p++) top[p] = _mm512_set1_ps(-__builtin_inff());
    for (int b = 0; b < blocks; b++) {
        scores(s[b % 2], q, b * MATRIX_ROWS, MATRIX_ROWS, dim, k, type, pages);
        for (int r = 0; r < MATRIX_ROWS; r++)
            UNROLL for (int p = 0; p < TILE_PAGES; p++)    /* of a NaN the second is taken */
                if (pages >> p & 1)
                    top[p] = _mm512_max_ps(_mm512_load_ps(s[b % 2] + r * TILE + p * KV_PAGE),
                                           top[p]);
    }
    UNROLL for (int p = 0; p < TILE_PAGES; p++) peak[p] = _mm512_reduce_max_ps(top[p]);
}

static void gather(float *out, const float *p, int rows, int dim, const void *v, enum dtype type,
                   uint64_t keys) {
    of(type)->gather(out, p, rows, dim, v, type, keys);
}

static void scores_run(const struct matrix_tile *t, int n, void *room, const void *q, int first,
                       int rows, int dim, enum dtype type) {
    of(type)->scores_run(t, n, room, q, first, rows, dim, type);
}

static void gather_run(float *out, const struct matrix_tile *t, int n, void *room, int rows,
                       int dim, enum dtype type) {
    of(type)->gather_run(out, t, n, room, rows, dim, type);
}

const struct tile_matrix tile_amx = {
    room_k, room_v, load_q, load_k, load_v, shape, scores, peaks, gather, scores_run, gather_run
};
