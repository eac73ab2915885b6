/* mat_pack.c - from rows of the file to panels (mat_pack.h). Loading a model waits for this, so the
 * loops over bytes are such that the compiler makes vectors of them. */
#include "kernels/mat_pack.h"
#include <string.h>

size_t mat_panel_bytes(enum dtype type, int cols) {
    const struct mat_format *f = mat_format(type);
    if (!f) return dtype_row_bytes(type, (size_t)cols) * PANEL;
    return mat_heads_bytes(f, cols) + (size_t)(cols / 32) * mat_codes_bytes(f);
}

/* Bits from..from + bits - 1 of 8 vectors of bytes, packed into `bits` vectors. */
static inline __attribute__((always_inline))
void put_plane(uint8_t *out, uint8_t v[8][64], int from, int bits) {
    for (int i = 0; i < bits; i++)
        for (int j = 0; j < 64; j++) {
            uint8_t all = 0;
            for (int k = 0; k < 8 / bits; k++)
                all |= (uint8_t)((v[i + k * bits][j] >> from & ((1 << bits) - 1)) << k * bits);
            out[i * 64 + j] = all;
        }
}

static void put_codes(uint8_t *out, uint8_t v[8][64], int bits) {
    switch (bits) {
    case 2: put_plane(out, v, 0, 2); break;
    case 3: put_plane(out, v, 0, 2), put_plane(out + 128, v, 2, 1); break;
    case 4: put_plane(out, v, 0, 4); break;
    case 5: put_plane(out, v, 0, 4), put_plane(out + 256, v, 4, 1); break;
    case 6: put_plane(out, v, 0, 4), put_plane(out + 256, v, 4, 2); break;
    default: memcpy(out, v, 8 * 64); break;
    }
}

static void put_head(const struct mat_format *f, uint8_t *head, const struct mat_codes b[PANEL]) {
    int subs = f->block / f->sub;
    uint8_t *scale = head + (f->has_min ? 64 : 32), *min = scale + subs * PANEL;
    for (int r = 0; r < PANEL; r++) {
        memcpy(head + 2 * r, &b[r].d, 2);
        if (f->has_min) memcpy(head + 32 + 2 * r, &b[r].dmin, 2);
        for (int s = 0; s < subs && f->block != 32; s++) {
            scale[s * PANEL + r] = (uint8_t)b[r].scale[s];
            if (f->type == DT_Q2_K) scale[s * PANEL + r] |= (uint8_t)(b[r].min[s] << 4);
            else if (f->has_min) min[s * PANEL + r] = b[r].min[s];
        }
    }
}

static void pack_codes(const struct mat_format *f, const char *rows, int n, int cols,
                       uint8_t *panel) {
    size_t block_bytes = dtype_row_bytes(f->type, (size_t)f->block),
           blocks = (size_t)(cols / f->block);
    uint8_t *codes = panel + mat_heads_bytes(f, cols), v[8][64];
    struct mat_codes b[PANEL];
    memset(b, 0, sizeof b);                              /* rows that are not there */
    for (size_t k = 0; k < blocks; k++) {
        for (int r = 0; r < n; r++)
            mat_take_apart(f->type, rows + ((size_t)r * blocks + k) * block_bytes, &b[r]);
        put_head(f, panel + k * mat_head_bytes(f), b);
        for (int c = 0; c < f->block; c += 32, codes += mat_codes_bytes(f)) {
            for (int r = 0; r < PANEL; r++)
                for (int i = 0; i < 8; i++) memcpy(v[i] + 4 * r, b[r].code + c + 4 * i, 4);
            put_codes(codes, v, f->bits);
        }
    }
}

/* Values of 2 or 4 bytes; 64 columns at a time, so that both sides stay in the cache. */
static inline __attribute__((always_inline))
void transpose(char *to, const char *from, int n, int cols, size_t size) {
    for (int from_col = 0; from_col < cols; from_col += 64) {
        int end = cols - from_col < 64 ? cols : from_col + 64;
        for (int r = 0; r < n; r++)
            for (int c = from_col; c < end; c++)
                memcpy(to + ((size_t)c * PANEL + (size_t)r) * size,
                       from + ((size_t)r * (size_t)cols + (size_t)c) * size, size);
    }
}

void mat_pack_panel(enum dtype type, const void *rows, int n, int cols, void *panel) {
    const struct mat_format *f = mat_format(type);
    if (f) { pack_codes(f, rows, n, cols, panel); return; }
    if (n < PANEL) memset(panel, 0, mat_panel_bytes(type, cols));
    if (type == DT_F32) transpose(panel, rows, n, cols, 4);
    else transpose(panel, rows, n, cols, 2);
}
