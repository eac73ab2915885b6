/* gguf_bytes.h - GGUF files written byte by byte, so that tests can also write the wrong ones.
 *
 * Nothing is checked here but memory. mark() names the next byte; tests patch the field there
 * afterwards. */
#ifndef TESTS_COMMON_GGUF_BYTES_H
#define TESTS_COMMON_GGUF_BYTES_H
#include <stddef.h>
#include <stdint.h>

enum { BYTES_MAX = 1 << 16, MARKS_MAX = 64 };

struct gguf_bytes {
    uint8_t p[BYTES_MAX];
    size_t n;
    struct { const char *name; size_t at; } mark[MARKS_MAX];
    int n_marks;
};

void bytes_uint(struct gguf_bytes *, uint64_t value, int width);
void bytes_string(struct gguf_bytes *, const char *);
void bytes_pad(struct gguf_bytes *, size_t alignment);
void bytes_mark(struct gguf_bytes *, const char *name);
size_t bytes_at(const struct gguf_bytes *, const char *name);      /* no such mark fails the test */
void bytes_patch(struct gguf_bytes *, const char *name, uint64_t value, int width);

/* A small valid file with every kind of value and three tensors (F32, Q8_0, and type 99, which
 * nobody knows); its fields are marked as the table in test_gguf_hostile.c names them. */
void bytes_sample(struct gguf_bytes *);

#endif
