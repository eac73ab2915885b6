/* bench_run.h - measures prefill and decode at several depths, for
 * several attention modes side by side.
 *
 * Every mode has a session of its own (a lane). At each depth all lanes are filled, then each test
 * runs its repetitions round-robin over the lanes, A B A B, so that whatever else the machine does
 * meanwhile hits all modes alike. A probe ends by truncating back to the depth: one pass over
 * ascending depths serves every test. */
#ifndef TOOLS_COMMON_BENCH_RUN_H
#define TOOLS_COMMON_BENCH_RUN_H
#include "tools/common/engine.h"

enum { BENCH_LIST_MAX = 1024, BENCH_REPS_MAX = 1000 };

struct bench_list { int n, item[BENCH_LIST_MAX]; };

struct bench_options {
    /* Tokens of a prefill, of a decode (0: no such test), before the test. */
    struct bench_list prompt, gen, depth;
    int reps;
    bool fill_model;               /* fill by running the model; else synthetic keys and values */
    bool warmup;
    struct flag_list attn;         /* the lanes */
};

/* One test of one lane at one depth. */
struct bench_row {
    int lane, n_lanes;
    int n_prompt, n_gen, n_depth;          /* one of the first two is 0 */
    int n_threads, reps;
    const char *attn, *attn_params;
    const char *test_time;                 /* when it began, UTC, ISO 8601 */
    const double *ns;                      /* [reps] */
    double avg_ns, stddev_ns, median_ns;   /* stddev: of the sample, 0 for one repetition */
    double avg_ts, stddev_ts, median_ts;   /* tokens per second */
    size_t kv_bytes, peak_rss;
    double keys_read;                      /* keys per token, layer and query head */
    double keys_searched;                  /* keys scored to find them: per token, layer, KV head */
    /* Decode: weights as the kernels read them, and cached keys and values; else NAN. */
    double gb_per_s;
    double gflop_per_s;                    /* products and sums of the matrices and of attention */
};

typedef void (*bench_emit)(void *ctx, const struct engine *, const struct bench_options *,
                           const struct bench_row *);

/* Emits every row when it is ready; the rows of one test follow each other, one for each lane. */
int bench_run(const struct engine *, const struct bench_options *, bench_emit, void *ctx,
              struct err *);

/* The middle of n numbers (the mean of the two there); sorts a copy. n <= BENCH_REPS_MAX. */
double bench_median(const double *x, int n);
double bench_mean(const double *x, int n);
double bench_stddev(const double *x, int n);

#endif
