/* limits_amx.c - the matrix unit: tiles 0..3 are sums of 16 x 16, 4 and 5 hold the operands. */
#include <immintrin.h>
#include "tools/common/limits_loop.h"

struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes_per_row[16];
    uint8_t rows[16];
};

static void prepare(uint32_t word) {
    struct tile_config c = { .palette = 1 };
    uint32_t ones[16][16];
    for (int i = 0; i < 6; i++) c.rows[i] = 16, c.bytes_per_row[i] = 64;
    for (int i = 0; i < 256; i++) ones[i / 16][i % 16] = word;
    /* The intrinsics do not say that they read all of it. */
    __asm__ volatile("" : : "r"(&c), "r"(ones) : "memory");
    _tile_loadconfig(&c);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, ones, 64);
    _tile_loadd(5, ones, 64);
}

void limits_int8_amx(long n, uint32_t word) {
    prepare(word);
    while (n--)
        __asm__ volatile("tdpbssd %tmm5, %tmm4, %tmm0\n tdpbssd %tmm5, %tmm4, %tmm1\n"
                         "tdpbssd %tmm5, %tmm4, %tmm2\n tdpbssd %tmm5, %tmm4, %tmm3");
    _tile_release();
}

void limits_bf16_amx(long n, uint32_t word) {
    prepare(word);
    while (n--)
        __asm__ volatile("tdpbf16ps %tmm5, %tmm4, %tmm0\n tdpbf16ps %tmm5, %tmm4, %tmm1\n"
                         "tdpbf16ps %tmm5, %tmm4, %tmm2\n tdpbf16ps %tmm5, %tmm4, %tmm3");
    _tile_release();
}
