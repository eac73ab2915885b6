/* limits.h - what this machine can do at most: bytes read from memory and multiply-adds
 * of each instruction set. They are the yardstick for the GB/s and GFLOP/s that a
 * benchmark of the engine reports. */
#ifndef TOOLS_COMMON_LIMITS_H
#define TOOLS_COMMON_LIMITS_H
#include "base/err.h"

struct limit {
    const char *what, *isa, *unit;     /* "f32 multiply-add", "avx512f", "GFLOP/s" */
    int threads;
    double best, median;               /* of LIMITS_REPS runs, in units per second */
};
enum { LIMITS_REPS = 40 };

/* Measures with one thread and with all of `threads`, everything this CPU has;
 * about 3 s. -1 when memory lacks. */
int limits_run(int threads, void (*emit)(void *ctx, const struct limit *), void *ctx, struct err *);

#endif
