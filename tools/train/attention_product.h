/* attention_product.h - products: C[m][n] (+)= A[m][k] B[k][n], m and n multiples of 32 and k taken
 * 32 at a time.
 *
 * A is rows of bf16, step s of them at a[s]; B is "words": two neighbours in k side by side,
 * [k / 2][n] of 32 bits. That is what the tiles of AMX want; C is f32. */
#ifndef ATTENTION_PRODUCT_H
#define ATTENTION_PRODUCT_H
#include "attention_vec.h"
#ifdef __AMX_BF16__
#include <sys/syscall.h>
#include <unistd.h>
#endif

struct product {
    float *c;
    const bf16 *a[MAX_STEPS];
    const uint32_t *b;
    size_t ldc, lda, ldb;         /* in elements of each */
    int m, n, steps, add;         /* add: to what C holds */
};

#ifdef __AVX512BF16__
/* 8 rows x 32 columns at a time, in registers. */
static void multiply_plain(const struct product *p) {
    for (int n = 0; n < p->n; n += 32)
        for (int m = 0; m < p->m; m += 8) {
            float *c = p->c + (size_t)m * p->ldc + n;
            __m512 sum[8][2];
            #pragma GCC unroll 8
            for (size_t i = 0; i < 8; i++) {
                sum[i][0] = p->add ? load(c + i * p->ldc) : all(0);
                sum[i][1] = p->add ? load(c + i * p->ldc + 16) : all(0);
            }
            for (int k = 0; k < p->steps * 16; k++) {
                const bf16 *a = p->a[k / 16] + (size_t)m * p->lda + k % 16 * 2;
                const uint32_t *b = p->b + (size_t)k * p->ldb + n;
                __m512bh left = (__m512bh)_mm512_loadu_si512(b),
                         right = (__m512bh)_mm512_loadu_si512(b + 16);
                #pragma GCC unroll 8
                for (size_t i = 0; i < 8; i++) {
                    int32_t word;
                    memcpy(&word, a + i * p->lda, sizeof word);
                    __m512bh both = (__m512bh)_mm512_set1_epi32(word);
                    sum[i][0] = _mm512_dpbf16_ps(sum[i][0], both, left);
                    sum[i][1] = _mm512_dpbf16_ps(sum[i][1], both, right);
                }
            }
            #pragma GCC unroll 8
            for (size_t i = 0; i < 8; i++)
                store(c + i * p->ldc, sum[i][0]), store(c + i * p->ldc + 16, sum[i][1]);
        }
}
#else
static void multiply_plain(const struct product *p) {
    for (int m = 0; m < p->m; m++) {
        float *c = p->c + (size_t)m * p->ldc;
        if (!p->add) memset(c, 0, (size_t)p->n * sizeof *c);
        for (int k = 0; k < p->steps * 16; k++) {
            const bf16 *a = p->a[k / 16] + (size_t)m * p->lda + k % 16 * 2;
            const uint32_t *b = p->b + (size_t)k * p->ldb;
            float even = to_float(a[0]), odd = to_float(a[1]);
            for (int n = 0; n < p->n; n++)
                c[n] += even * to_float((bf16)b[n]) + odd * to_float((bf16)(b[n] >> 16));
        }
    }
}
#endif

#ifdef __AMX_BF16__
/* Linux lends the tile registers to a process that asks: ARCH_REQ_XCOMP_PERM, feature 18. */
static int amx_usable(void) {
    return !syscall(SYS_arch_prctl, 0x1023, 18);
}

struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes_per_row[16];
    uint8_t rows[16];
};

static void amx_start(void) {
    struct tile_config c = { .palette = 1 };
    for (int i = 0; i < 8; i++) c.rows[i] = 16, c.bytes_per_row[i] = 64;
    __asm__ volatile("" ::"r"(&c) : "memory");   /* the intrinsic does not say it reads all of c */
    _tile_loadconfig(&c);
}

static void amx_stop(void) {
    _tile_release();
}

/* Tiles 0..3: 32 x 32 of C; 4, 5: A; 6, 7: B. The intrinsics do not say what memory they touch:
 * hence the barriers. */
static __attribute__((noinline)) void multiply_amx(const struct product *p) {
    size_t ldc = p->ldc * sizeof(float), lda = p->lda * sizeof(bf16),
           ldb = p->ldb * sizeof(uint32_t);
    __asm__ volatile("" ::: "memory");
    for (int n = 0; n < p->n; n += 32)
        for (int m = 0; m < p->m; m += 32) {
            float *c = p->c + (size_t)m * p->ldc + n, *below = c + 16 * p->ldc;
            if (p->add) {
                _tile_loadd(0, c, ldc);
                _tile_loadd(1, c + 16, ldc);
                _tile_loadd(2, below, ldc);
                _tile_loadd(3, below + 16, ldc);
            } else {
                _tile_zero(0);
                _tile_zero(1);
                _tile_zero(2);
                _tile_zero(3);
            }
            for (int s = 0; s < p->steps; s++) {
                const bf16 *a = p->a[s] + (size_t)m * p->lda;
                const uint32_t *b = p->b + (size_t)s * 16 * p->ldb + n;
                _tile_loadd(4, a, lda);
                _tile_loadd(6, b, ldb);
                _tile_loadd(7, b + 16, ldb);
                _tile_loadd(5, a + 16 * p->lda, lda);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
            _tile_stored(0, c, ldc);
            _tile_stored(1, c + 16, ldc);
            _tile_stored(2, below, ldc);
            _tile_stored(3, below + 16, ldc);
        }
    __asm__ volatile("" ::: "memory");
}
#else
static int amx_usable(void) { return 0; }
static void amx_start(void) {}
static void amx_stop(void) {}
static void multiply_amx(const struct product *p) { multiply_plain(p); }
#endif

#endif
