#include "tools/common/limits.h"
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/cpu.h"
#include "kernels/mat.h"
#include "tools/common/bench_run.h"
#include "tools/common/limits_loop.h"

/* Runs are short, so that on a shared machine some of them go undisturbed. */
enum { RUN_MS = 4, WINDOW = 64 << 20, HUGE_PAGE = 2 << 20, SUMS = 12 };

/* Any CPU that GCC knows: vectors of four floats, as wide as the compiler's default makes them. */
typedef float float4 __attribute__((vector_size(16), may_alias));
typedef uint32_t word4 __attribute__((vector_size(16), may_alias));
LIMITS_READ(limits_read_any, word4)

static void limits_f32_any(long n, uint32_t word) {
    float one;
    memcpy(&one, &word, sizeof one);
    float4 a = { one, one, one, one }, sum[SUMS];
    for (int i = 0; i < SUMS; i++) sum[i] = a;
    while (n--) {
        #pragma GCC unroll 16
        for (int i = 0; i < SUMS; i++) sum[i] = sum[i] * a + a;
    }
    for (int i = 1; i < SUMS; i++) sum[0] += sum[i];
    __asm__ volatile("" : : "m"(sum[0]));
}

struct steps {
    const char *what, *isa, *unit;
    limits_steps run;
    double ops;                        /* of one step */
    uint32_t word;                     /* 1.0, or small integers */
    bool here;                         /* does this CPU have it */
};

struct reader { const char *isa; limits_read run; bool here; };

struct work {                          /* what each thread does between two looks at the clock */
    const struct steps *steps;
    long n;
    const struct reader *reader;
    const char *buffer;
    size_t size;                       /* what one thread reads */
};

static double run_ms(const struct work *w, int threads) {
    const double start = clock_ms();
    #pragma omp parallel for schedule(static, 1) num_threads(threads)
    for (int t = 0; t < threads; t++) {
        if (w->steps) w->steps->run(w->n, w->steps->word);
        else w->reader->run(w->buffer + (size_t)t * w->size, w->size);
    }
    return clock_ms() - start;
}

static void summarise(struct limit *l, const double *rate) {
    for (int r = 0; r < LIMITS_REPS; r++) if (rate[r] > l->best) l->best = rate[r];
    l->median = bench_median(rate, LIMITS_REPS);
}

/* How many steps one thread does in RUN_MS: a run that was disturbed is not believed. */
static long calibrate(const struct steps *s) {
    struct work w = { .steps = s, .n = 512 };
    for (double least = 0; least < RUN_MS;) {
        w.n *= 2;
        least = run_ms(&w, 1);
        for (int i = 0; i < 2 && least >= RUN_MS; i++) least = fmin(least, run_ms(&w, 1));
    }
    return w.n;
}

static struct limit measure_steps(const struct steps *s, int threads) {
    struct limit l = { .what = s->what, .isa = s->isa, .unit = s->unit, .threads = threads };
    const struct work w = { .steps = s, .n = calibrate(s) };
    double rate[LIMITS_REPS];
    for (int r = 0; r < LIMITS_REPS; r++)
        rate[r] = s->ops * (double)w.n * threads / run_ms(&w, threads) / 1e6;
    summarise(&l, rate);
    return l;
}

static struct limit measure_read(const struct reader *r, const char *buffer, size_t size,
                                 int threads) {
    struct limit l = { .what = "memory read", .isa = r->isa, .unit = "GB/s", .threads = threads };
    double rate[LIMITS_REPS];
    size_t at = 0;
    struct work w = { .reader = r, .size = WINDOW };
    if (w.size > size / (size_t)threads) w.size = size / (size_t)threads / HUGE_PAGE * HUGE_PAGE;
    const size_t run = w.size * (size_t)threads;
    /* Around the buffer: what comes next was read long ago. */
    for (int i = 0; i < LIMITS_REPS; i++, at += run) {
        if (at + run > size) at = 0;
        w.buffer = buffer + at;
        rate[i] = (double)run / run_ms(&w, threads) / 1e6;
    }
    summarise(&l, rate);
    return l;
}

/* Far beyond the caches, as far as memory allows. */
static size_t buffer_size(void) {
    size_t size = (size_t)1 << 30;
#ifdef _SC_LEVEL3_CACHE_SIZE
    const long l3 = sysconf(_SC_LEVEL3_CACHE_SIZE);
    if (l3 > 0 && 2 * (size_t)l3 > size) size = 2 * (size_t)l3;
#endif
    const size_t most = mem_available() / 2;
    if (most && size > most) size = most;
    return size / HUGE_PAGE * HUGE_PAGE;
}

int limits_run(int threads, void (*emit)(void *ctx, const struct limit *), void *ctx,
               struct err *err) {
#ifdef __x86_64__
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = __builtin_cpu_supports("avx512f");
#endif
    const struct reader readers[] = {
#ifdef __x86_64__
        { "avx512f", limits_read_avx512, avx512 },
        { "avx2", limits_read_avx2, avx2 },
#endif
        { "any", limits_read_any, true },
    };
    const struct steps steps[] = {
        { "f32 multiply-add", "any", "GFLOP/s", limits_f32_any, 2.0 * 4 * SUMS, 0x3f800000, true },
#ifdef __x86_64__
        { "f32 multiply-add", "avx2", "GFLOP/s", limits_f32_avx2, 2.0 * 8 * LIMITS_SUMS_AVX2,
          0x3f800000, avx2 },
        { "f32 multiply-add", "avx512f", "GFLOP/s", limits_f32_avx512,
          2.0 * 16 * LIMITS_SUMS_AVX512, 0x3f800000, avx512 },
        { "f16 multiply-add", "avx512fp16", "GFLOP/s", limits_f16_avx512,
          2.0 * 32 * LIMITS_SUMS_AVX512, 0x3c003c00,
          avx512 && __builtin_cpu_supports("avx512fp16") },
        { "bf16 dot product", "avx512bf16", "GFLOP/s", limits_bf16_avx512,
          2.0 * 32 * LIMITS_SUMS_AVX512, 0x3f803f80,
          avx512 && __builtin_cpu_supports("avx512bf16") },
        { "int8 dot product", "avx512vnni", "GOP/s", limits_int8_avx512,
          2.0 * 64 * LIMITS_SUMS_AVX512, 0x01010101,
          avx512 && __builtin_cpu_supports("avx512vnni") },
        { "bf16 matrix product", "amx-bf16", "GFLOP/s", limits_bf16_amx,
          2.0 * 16 * 16 * 32 * LIMITS_SUMS_AMX, 0x3f803f80,
          avx512 && __builtin_cpu_supports("amx-bf16") && mat_amx_usable() },
        { "int8 matrix product", "amx-int8", "GOP/s", limits_int8_amx,
          2.0 * 16 * 16 * 64 * LIMITS_SUMS_AMX, 0x01010101,
          avx512 && __builtin_cpu_supports("amx-int8") && mat_amx_usable() },
#endif
    };
    const size_t size = buffer_size();
    char *buffer = size >= (size_t)threads * HUGE_PAGE ? aligned_alloc(HUGE_PAGE, size) : NULL;
    if (!buffer) return fail(err, "no memory: %zu MiB to read from", size >> 20);
    madvise(buffer, size, MADV_HUGEPAGE);
    #pragma omp parallel for schedule(static) num_threads(threads)
    for (size_t i = 0; i < size; i += HUGE_PAGE) memset(buffer + i, 1, HUGE_PAGE);
    const struct reader *r = readers;
    while (!r->here) r++;                                   /* the widest */
    for (int t = 1; t <= threads; t += threads > 1 ? threads - 1 : 1) {
        const struct limit l = measure_read(r, buffer, size, t);
        emit(ctx, &l);
    }
    free(buffer);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        for (int t = 1; steps[i].here && t <= threads; t += threads > 1 ? threads - 1 : 1) {
            const struct limit l = measure_steps(&steps[i], t);
            emit(ctx, &l);
        }
    return 0;
}
