/* gguf_write.h - writes GGUF version 3: metadata first, then tensor headers, then tensor data in
 * order.
 *
 * Use: open; put every key (gguf_put_*) or copy it (gguf_put_kv); declare every tensor; then
 * gguf_write_begin and one gguf_write_data per tensor in the same order (in as many pieces as the
 * caller likes); close. The file appears under its name only when gguf_write_close succeeds:
 * until then it is NAME.tmp, removed on failure. */
#ifndef MODEL_GGUF_WRITE_H
#define MODEL_GGUF_WRITE_H
#include "model/gguf.h"

struct gguf_writer;

int gguf_write_open(struct gguf_writer **out, const char *path, struct err *);
/* A key put twice keeps the last value. Memory failures are remembered and reported by
 * gguf_write_begin. */
void gguf_put_int(struct gguf_writer *, const char *key, enum gguf_type, int64_t value);
void gguf_put_float(struct gguf_writer *, const char *key, double value);             /* F32 */
void gguf_put_bool(struct gguf_writer *, const char *key, bool value);
void gguf_put_string(struct gguf_writer *, const char *key, const char *value);
void gguf_put_strings(struct gguf_writer *, const char *key, const struct gguf_str *, uint64_t n);
void gguf_put_floats(struct gguf_writer *, const char *key, const float *, uint64_t n);
void gguf_put_ints(struct gguf_writer *, const char *key, enum gguf_type, const int32_t *,
                   uint64_t n);
void gguf_put_kv(struct gguf_writer *, const struct gguf *, const struct gguf_kv *);  /* as it is */
void gguf_declare(struct gguf_writer *, const char *name, enum dtype, int n_dims,
                  const uint64_t *ne);
int gguf_write_begin(struct gguf_writer *, struct err *);
int gguf_write_data(struct gguf_writer *, const void *data, size_t bytes, struct err *);
int gguf_write_close(struct gguf_writer *, struct err *);   /* frees it in any case; -1: no file */
void gguf_write_abort(struct gguf_writer *);                /* NULL is fine; no file is left */

#endif
