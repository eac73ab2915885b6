/* needle_rows.h - results of needle tests as JSON lines, one row for each cell, in
 * memory and in a file.
 *
 * The file is appended to, one whole line at a time under a lock, so that several processes of one
 * machine may share it. A last line that was cut short (the process died) is taken out again. */
#ifndef TOOLS_COMMON_NEEDLE_ROWS_H
#define TOOLS_COMMON_NEEDLE_ROWS_H
#include <stdbool.h>
#include "base/err.h"

struct cJSON;

struct row {
    /* What was tested: two rows that agree in all of this are the same cell. */
    const char *model, *version, *attn, *attn_params, *type_k, *type_v;
    int context_length, seed;                  /* context_length: prompt and room for the answer */
    double depth_percent;
    /* What came out. */
    const char *needle, *response, *timestamp;
    const char *const *reference;              /* [n_references]; only for writing */
    int n_references;
    double score, seconds, kv_bytes, prefill_tps, decode_tps;
    /* Per token, layer and query head: decode, prefill; < 0: none read. */
    double keys_read, prefill_keys_read;
    /* prefill_tokens: those not reused from the cell before. */
    int prompt_tokens, prefill_tokens, predicted_tokens;
    struct cJSON *json;                        /* holds the strings */
};

/* cut: a line was cut short */
struct rows { struct row *row; int n, room, fd; const char *path; bool cut; };
#define ROWS_NONE { .fd = -1 }

/* Adds the rows of a file to those in memory, and nothing more. */
int rows_load(struct rows *, const char *path, struct err *);
/* The same for a file that may not exist yet, and keeps it open for rows_add. path is borrowed. A
 * file with lines that are not rows is refused. */
int rows_open(struct rows *, const char *path, struct err *);
void rows_close(struct rows *);
/* Copies the row into memory and, after rows_open, into the file. */
int rows_add(struct rows *, const struct row *, struct err *);
/* The row of the same cell, or NULL. */
const struct row *rows_find(const struct rows *, const struct row *);

#endif
