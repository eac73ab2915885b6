/* bench_print.h - rows of a benchmark as a table, CSV or JSON, under the names
 * other benchmarks use for them. */
#ifndef TOOLS_COMMON_BENCH_PRINT_H
#define TOOLS_COMMON_BENCH_PRINT_H
#include <cjson/cJSON.h>
#include "tools/common/bench_run.h"

enum bench_format { BENCH_MD, BENCH_CSV, BENCH_JSON, BENCH_JSONL };

/* "md", "csv", "json" or "jsonl"; -1 with *err otherwise. */
int bench_format_parse(const char *name, enum bench_format *out, struct err *);

/* A stream of flat JSON objects with the same keys, printed as they come in
 * one of the three machine formats. */
struct bench_out {
    enum bench_format format;
    bool sweep;                        /* BENCH_MD: the columns of a sweep */
    int n_rows;
    bool failed;                       /* out of memory; a failed write shows in ferror(stdout) */
    double prefill_ms[FLAG_LIST_MAX];  /* sweep: the prefill of each lane waits for its decode */
};
/* Takes the object and frees it. */
void bench_out_object(struct bench_out *, cJSON *);
/* Closes what is open and flushes. 0, or -1 with *err. */
int bench_out_end(struct bench_out *, struct err *);

/* A bench_emit; ctx is the struct bench_out. */
void bench_print(void *ctx, const struct engine *, const struct bench_options *,
                 const struct bench_row *);

#endif
