/* blocks.h - how the quantised formats of GGUF lie in memory; for kernels/ only, everybody else
 * uses dtype.h.
 *
 * A row is a run of blocks without padding, little-endian, aligned to nothing: the structs are
 * packed so that a pointer into a mapped file may be cast to them. Scales are IEEE half floats kept
 * as bits: read them with f16_to_f32().
 *
 * Two families. The 32-value blocks have one scale d (and in the _1 types a minimum m):
 *     value = d * (q - centre)          or          value = d * q + m
 * The 256-value blocks (K-quants, IQ4_XS) hold sub-blocks of 16 or 32 values with small integer
 * scales of their own:
 *     value = (d * scale) * q - (dmin * min)        Q2_K (16)  Q4_K Q5_K (32)
 *     value = (d * scale) * (q - centre)            Q3_K Q6_K (16)
 *     value = (d * scale) * iq4_values[q]           IQ4_XS (32)
 * In every format the two nibbles (or four bit pairs) of one byte are far apart in the row, so that
 * a vector unpacks with one mask or one shift: the layouts below say how far. */
#ifndef KERNELS_BLOCKS_H
#define KERNELS_BLOCKS_H
#include <stdint.h>

enum { QK = 32, QK_K = 256 };      /* values per block of the two families */

#define PACKED struct __attribute__((packed))

/* ---- 32 values ----
 * Nibbles: qs[j] holds value j in its low half and value j + 16 in its high half.
 * Fifth bits (Q5): bit i of the 32-bit little-endian word qh belongs to value i. */
PACKED block_q8_0 { uint16_t d; int8_t qs[QK]; };                    /* d * q,        q -128..127 */
PACKED block_q4_0 { uint16_t d; uint8_t qs[QK / 2]; };               /* d * (q - 8),  q 0..15 */
PACKED block_q4_1 { uint16_t d, m; uint8_t qs[QK / 2]; };            /* d * q + m */
PACKED block_q5_0 { uint16_t d; uint8_t qh[4], qs[QK / 2]; };        /* d * (q - 16), q 0..31 */
PACKED block_q5_1 { uint16_t d, m; uint8_t qh[4], qs[QK / 2]; };     /* d * q + m */
PACKED block_iq4_nl { uint16_t d; uint8_t qs[QK / 2]; };             /* d * iq4_values[q] */

/* ---- 256 values ---- */

/* Q2_K: 16 sub-blocks of 16. scales[s]: low nibble the scale, high nibble the minimum.
 * qs[32 h + j], bits 2k and 2k + 1: value 128 h + 32 k + j   (h 0..1, k 0..3, j 0..31). */
PACKED block_q2_k { uint8_t scales[QK_K / 16], qs[QK_K / 4]; uint16_t d, dmin; };

/* Q3_K: 16 sub-blocks of 16; q = low two bits (laid out as in Q2_K) + 4 * high bit, centre 4.
 * hmask[j], bit i: the high bit of value 32 i + j. scales: 16 times 6 bits, see q3_k_scales(). */
PACKED block_q3_k { uint8_t hmask[QK_K / 8], qs[QK_K / 4], scales[12]; uint16_t d; };

/* Q4_K: 8 sub-blocks of 32. qs[32 p + j], p 0..3, j 0..31: value 64 p + j low, 64 p + 32 + j high,
 * so byte group p holds sub-blocks 2p and 2p + 1. scales: 8 scales and 8 minima of 6 bits, see
 * q4_k_scale(). */
PACKED block_q4_k { uint16_t d, dmin; uint8_t scales[12], qs[QK_K / 2]; };

/* Q5_K: as Q4_K, plus the fifth bits: qh[j], bit s: value j of sub-block s. */
PACKED block_q5_k {
    uint16_t d, dmin;
    uint8_t scales[12], qh[QK_K / 8], qs[QK_K / 2];
};

/* Q6_K: 16 sub-blocks of 16, signed 8-bit scales, centre 32. For each half h of 128 values and
 * j 0..31:
 *     ql[64 h + j]       low: value j         high: value j + 64
 *     ql[64 h + 32 + j]  low: value j + 32    high: value j + 96
 *     qh[32 h + j]       two bits each for values j, j + 32, j + 64, j + 96, lowest first. */
PACKED block_q6_k {
    uint8_t ql[QK_K / 2], qh[QK_K / 4];
    int8_t scales[QK_K / 16];
    uint16_t d;
};

/* IQ4_XS: 8 sub-blocks of 32, each with nibbles as in a 32-value block. Scale s has 6 bits, centre
 * 32: the low four in nibble s of scales_l (low half first), the high two in bits 2s and 2s + 1 of
 * scales_h. */
PACKED block_iq4_xs { uint16_t d, scales_h; uint8_t scales_l[QK_K / 64], qs[QK_K / 2]; };

#undef PACKED

_Static_assert(sizeof(struct block_q8_0) == 34, "Q8_0");
_Static_assert(sizeof(struct block_q4_0) == 18, "Q4_0");
_Static_assert(sizeof(struct block_q4_1) == 20, "Q4_1");
_Static_assert(sizeof(struct block_q5_0) == 22, "Q5_0");
_Static_assert(sizeof(struct block_q5_1) == 24, "Q5_1");
_Static_assert(sizeof(struct block_iq4_nl) == 18, "IQ4_NL");
_Static_assert(sizeof(struct block_q2_k) == 84, "Q2_K");
_Static_assert(sizeof(struct block_q3_k) == 110, "Q3_K");
_Static_assert(sizeof(struct block_q4_k) == 144, "Q4_K");
_Static_assert(sizeof(struct block_q5_k) == 176, "Q5_K");
_Static_assert(sizeof(struct block_q6_k) == 210, "Q6_K");
_Static_assert(sizeof(struct block_iq4_xs) == 136, "IQ4_XS");

/* The code book of IQ4_NL and IQ4_XS: 16 levels, dense near zero, -127..113. */
extern const int8_t iq4_values[16];

/* The fifth bits of Q5_0 and Q5_1 as one word. */
static inline uint32_t q5_high_bits(const uint8_t qh[4]) {
    return (uint32_t)qh[0] | (uint32_t)qh[1] << 8 | (uint32_t)qh[2] << 16 | (uint32_t)qh[3] << 24;
}

/* Q4_K and Q5_K: scale and minimum of sub-block s (0..7), both 0..63. The twelve bytes, i 0..3:
 *     i       low 6 bits: scale i            top 2 bits: bits 4, 5 of scale i + 4
 *     4 + i   low 6 bits: minimum i          top 2 bits: bits 4, 5 of minimum i + 4
 *     8 + i   low nibble: of scale i + 4     high nibble: low nibble of minimum i + 4 */
static inline void q4_k_scale(const uint8_t scales[12], int s, uint8_t *scale, uint8_t *min) {
    if (s < 4) {
        *scale = scales[s] & 63;
        *min = scales[s + 4] & 63;
    } else {
        *scale = (uint8_t)((scales[s + 4] & 15) | (scales[s - 4] >> 6) << 4);
        *min = (uint8_t)((scales[s + 4] >> 4) | (scales[s] >> 6) << 4);
    }
}

/* Q3_K: all sixteen scales, centred: -32..31. Byte i < 8 holds the low nibbles of scales i and
 * i + 8; bits 2k and 2k + 1 of byte 8 + i (i 0..3) are the high bits of scale 4k + i. */
static inline void q3_k_scales(const uint8_t scales[12], int8_t out[16]) {
    for (int s = 0; s < 16; s++) {
        int low = s < 8 ? scales[s] & 15 : scales[s - 8] >> 4;
        int high = scales[8 + s % 4] >> 2 * (s / 4) & 3;
        out[s] = (int8_t)((low | high << 4) - 32);
    }
}

/* IQ4_XS: scale of sub-block s (0..7), centred: -32..31. */
static inline int iq4_xs_scale(const struct block_iq4_xs *b, int s) {
    int low = b->scales_l[s / 2] >> 4 * (s % 2) & 15;
    int high = b->scales_h >> 2 * s & 3;
    return (low | high << 4) - 32;
}

#endif
