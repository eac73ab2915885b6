/* mat_pack.c - from rows of the file to panels (mat_pack.h). */
#include "kernels/mat_pack.h"
#include <string.h>

static size_t group_bytes(const struct mat_format *f) {
    return mat_group_head(f) + (size_t)(f->block / 32) * mat_codes_bytes(f);
}

size_t mat_panel_bytes(enum dtype type, int cols) {
    const struct mat_format *f = mat_format(type);
    if (!f) return dtype_row_bytes(type, (size_t)cols) * PANEL;
    return (size_t)(cols / f->block) * group_bytes(f);
}

/* Puts `bits` bits of every code, starting at bit `from`, into a plane of bits * 64 bytes (zero before). */
static void put_plane(uint8_t *plane, const uint8_t *code, int row, int from, int bits) {
    int vectors = bits;                                  /* 8 vectors of 8 bits become this many */
    for (int c = 0; c < 32; c++) {
        int v = c / 4, value = code[c] >> from & ((1 << bits) - 1);
        plane[v % vectors * 64 + row * 4 + c % 4] |= (uint8_t)(value << v / vectors * bits);
    }
}

static void put_codes(uint8_t *out, const uint8_t *code, int row, int bits) {
    int low = bits == 8 ? 8 : bits >= 4 ? 4 : 2;
    put_plane(out, code, row, 0, low);
    if (bits > low) put_plane(out + low * 64, code, row, low, bits - low);
}

static void put_block(const struct mat_format *f, uint8_t *group, const struct mat_codes *b, int row) {
    int subs = f->block / f->sub;
    memcpy(group + 2 * row, &b->d, 2);
    if (f->has_min) memcpy(group + 32 + 2 * row, &b->dmin, 2);
    if (f->block != 32) {
        uint8_t *scale = group + (f->has_min ? 64 : 32) + row, *min = scale + subs * PANEL;
        for (int s = 0; s < subs; s++) {
            scale[s * PANEL] = (uint8_t)b->scale[s];
            if (f->type == DT_Q2_K) scale[s * PANEL] |= (uint8_t)(b->min[s] << 4);
            else if (f->has_min) min[s * PANEL] = b->min[s];
        }
    }
    uint8_t *codes = group + mat_group_head(f);
    for (int c = 0; c < f->block; c += 32, codes += mat_codes_bytes(f))
        put_codes(codes, b->code + c, row, f->bits);
}

static void pack_codes(const struct mat_format *f, const char *rows, int n, int cols, uint8_t *panel) {
    size_t block_bytes = dtype_row_bytes(f->type, (size_t)f->block);
    size_t blocks = (size_t)(cols / f->block), bytes = group_bytes(f);
    struct mat_codes b;
    memset(panel, 0, blocks * bytes);
    for (size_t k = 0; k < blocks; k++)
        for (int r = 0; r < n; r++) {
            mat_take_apart(f->type, rows + ((size_t)r * blocks + k) * block_bytes, &b);
            put_block(f, panel + k * bytes, &b, r);
        }
}

void mat_pack_panel(enum dtype type, const void *rows, int n, int cols, void *panel) {
    const struct mat_format *f = mat_format(type);
    if (f) { pack_codes(f, rows, n, cols, panel); return; }
    if (n < PANEL) memset(panel, 0, mat_panel_bytes(type, cols));
    if (type == DT_F32) {
        const char *from = rows;
        uint32_t *to = panel;
        for (int r = 0; r < n; r++)
            for (int c = 0; c < cols; c++) memcpy(to + (size_t)c * PANEL + r, from + ((size_t)r * cols + c) * 4, 4);
    } else {
        const char *from = rows;
        uint16_t *to = panel;
        for (int r = 0; r < n; r++)
            for (int c = 0; c < cols; c++) memcpy(to + (size_t)c * PANEL + r, from + ((size_t)r * cols + c) * 2, 2);
    }
}
