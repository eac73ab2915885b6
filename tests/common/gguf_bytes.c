#include "tests/common/gguf_bytes.h"
#include <stdarg.h>
#include <setjmp.h>
#include <string.h>
#include "model/gguf.h"
#include <cmocka.h>           /* last: it has a macro called fail */

void bytes_uint(struct gguf_bytes *b, uint64_t value, int width) {
    assert_true(b->n + (size_t)width <= BYTES_MAX);
    for (int i = 0; i < width; i++) b->p[b->n++] = (uint8_t)(value >> 8 * i);
}

void bytes_string(struct gguf_bytes *b, const char *s) {
    size_t n = strlen(s);
    bytes_uint(b, n, 8);
    assert_true(b->n + n <= BYTES_MAX);
    memcpy(b->p + b->n, s, n);
    b->n += n;
}

void bytes_pad(struct gguf_bytes *b, size_t alignment) {
    while (b->n % alignment) bytes_uint(b, 0, 1);
}

void bytes_mark(struct gguf_bytes *b, const char *name) {
    assert_true(b->n_marks < MARKS_MAX);
    b->mark[b->n_marks].name = name;
    b->mark[b->n_marks++].at = b->n;
}

size_t bytes_at(const struct gguf_bytes *b, const char *name) {
    for (int i = 0; i < b->n_marks; i++)
        if (!strcmp(b->mark[i].name, name)) return b->mark[i].at;
    fail_msg("no mark called %s", name);
    return 0;
}

void bytes_patch(struct gguf_bytes *b, const char *name, uint64_t value, int width) {
    size_t at = bytes_at(b, name), n = b->n;
    b->n = at;
    bytes_uint(b, value, width);
    b->n = n;
}

static void key(struct gguf_bytes *b, const char *name, int type) {
    bytes_string(b, name);
    bytes_uint(b, (uint64_t)type, 4);
}

static void array(struct gguf_bytes *b, const char *name, int item, uint64_t n) {
    key(b, name, GGUF_ARRAY);
    bytes_uint(b, (uint64_t)item, 4);
    bytes_uint(b, n, 8);
}

static void tensor(struct gguf_bytes *b, const char *name, uint64_t rows, uint64_t cols, int type,
                   uint64_t offset, const char *const marks[4]) {
    bytes_mark(b, marks[0]);
    bytes_string(b, name);
    bytes_mark(b, marks[1]);
    bytes_uint(b, 2, 4);
    bytes_mark(b, marks[2]);
    bytes_uint(b, cols, 8);
    bytes_uint(b, rows, 8);
    bytes_uint(b, (uint64_t)type, 4);
    bytes_mark(b, marks[3]);
    bytes_uint(b, offset, 8);
}

void bytes_sample(struct gguf_bytes *b) {
    memset(b, 0, sizeof *b);
    bytes_mark(b, "magic");
    memcpy(b->p, "GGUF", 4);
    b->n = 4;
    bytes_mark(b, "version");
    bytes_uint(b, 3, 4);
    bytes_mark(b, "tensors");
    bytes_uint(b, 3, 8);
    bytes_mark(b, "keys");
    bytes_uint(b, 8, 8);

    bytes_mark(b, "key0 name length");
    key(b, "general.alignment", GGUF_U32);
    bytes_mark(b, "alignment");
    bytes_uint(b, 32, 4);
    key(b, "general.name", GGUF_STRING);
    bytes_mark(b, "string length");
    bytes_string(b, "sample");
    key(b, "twin.a", GGUF_U8);
    bytes_mark(b, "after twin.a");
    bytes_uint(b, 7, 1);
    key(b, "twin.b", GGUF_I64);
    bytes_mark(b, "after twin.b");
    bytes_uint(b, (uint64_t)-7, 8);
    key(b, "is", GGUF_BOOL);
    bytes_mark(b, "bool");
    bytes_uint(b, 1, 1);
    array(b, "numbers", GGUF_I32, 3);
    bytes_mark(b, "after numbers count");
    for (int i = 0; i < 3; i++) bytes_uint(b, (uint64_t)(i - 1), 4);
    array(b, "words", GGUF_STRING, 3);
    bytes_mark(b, "word length");
    bytes_string(b, "one");
    bytes_string(b, "");
    bytes_string(b, "three");
    key(b, "real", GGUF_F64);
    bytes_uint(b, 0x3ff8000000000000, 8);                   /* 1.5 */

    static const char *const m0[] = { "a name", "a dims", "a shape", "a offset" };
    static const char *const m1[] = { "b name", "b dims", "b shape", "b offset" };
    static const char *const m2[] = { "c name", "c dims", "c shape", "c offset" };
    tensor(b, "a.weight", 2, 8, DT_F32, 0, m0);
    tensor(b, "b.weight", 3, 32, DT_Q8_0, 64, m1);
    tensor(b, "c.weight", 1, 17, 99, 192, m2);
    bytes_pad(b, 32);
    bytes_mark(b, "data");
    for (int i = 0; i < 256; i++) bytes_uint(b, (uint64_t)i, 1);
}
