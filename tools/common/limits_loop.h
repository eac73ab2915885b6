/* limits_loop.h - the loops that limits_*.c measure, and the macros
 * that make one for each instruction.
 *
 * Sums live in registers: each step is one asm statement on a local that the unrolled loop never
 * indexes by a variable, with enough independent sums to hide the latency. Look at the assembly
 * after changing anything: a spilled sum costs three quarters of the rate. */
#ifndef TOOLS_COMMON_LIMITS_LOOP_H
#define TOOLS_COMMON_LIMITS_LOOP_H
#include <stddef.h>
#include <stdint.h>

/* n steps; each multiplies operands whose 32-bit words all hold `word` (1.0 in the given type). */
typedef void (*limits_steps)(long n, uint32_t word);
/* Reads every byte; size is a multiple of 4096. */
typedef void (*limits_read)(const void *p, size_t size);

#define LIMITS_STEPS(name, vector, sums, instruction) \
    void name(long n, uint32_t word) { \
        vector a, sum[sums]; \
        for (size_t i = 0; i < sizeof a / 4; i++) ((uint32_t *)&a)[i] = word; \
        _Pragma("GCC unroll 16") for (int i = 0; i < sums; i++) sum[i] = (vector){ 0 }; \
        while (n--) { \
            _Pragma("GCC unroll 16") \
            for (int i = 0; i < sums; i++) \
                __asm__ volatile(instruction : "+v"(sum[i]) : "v"(a)); \
        } \
        _Pragma("GCC unroll 16") \
        for (int i = 0; i < sums; i++) __asm__ volatile("" : : "v"(sum[i])); \
    }

#define LIMITS_READ(name, vector) \
    void name(const void *p, size_t size) { \
        vector any[4] = { { 0 } }; \
        const vector *v = p, *end = (const vector *)((const char *)p + size); \
        for (; v < end; v += 4) { \
            __builtin_prefetch((const char *)v + 4096); \
            __builtin_prefetch((const char *)(v + 2) + 4096); \
            _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++) any[i] |= v[i]; \
        } \
        any[0] |= any[1] | any[2] | any[3]; \
        __asm__ volatile("" : : "m"(any[0])); \
    }

enum { LIMITS_SUMS_AVX2 = 12, LIMITS_SUMS_AVX512 = 16, LIMITS_SUMS_AMX = 4 };
void limits_f32_avx2(long, uint32_t);
void limits_f32_avx512(long, uint32_t);
void limits_f16_avx512(long, uint32_t);
void limits_bf16_avx512(long, uint32_t);
void limits_int8_avx512(long, uint32_t);
void limits_int8_amx(long, uint32_t);
void limits_bf16_amx(long, uint32_t);
void limits_read_avx2(const void *, size_t);
void limits_read_avx512(const void *, size_t);

#endif
