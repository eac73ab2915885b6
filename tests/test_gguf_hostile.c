/* Files broken on purpose: each field on its own, every truncation, and thousands of flipped
 * bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "model/gguf.h"
#include "tests/common/gguf_bytes.h"
#include <cmocka.h>           /* last: it has a macro called fail */

/* One file in memory for all cases, so that thousands of them take no time. */
static int fd = -1;
static char path[64];

static int set_up(void **state) {
    (void)state;
    fd = memfd_create("hostile", MFD_CLOEXEC);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return fd < 0;
}

static int tear_down(void **state) { (void)state; return close(fd); }

static int open_bytes(struct gguf **g, const uint8_t *p, size_t n, struct err *err) {
    assert_int_equal(ftruncate(fd, (off_t)n), 0);
    assert_int_equal(pwrite(fd, p, n, 0), n);
    *g = NULL;
    err->msg[0] = 0;
    return gguf_open(g, path, NULL, err);
}

/* Reads all that a model loader could read. */
static unsigned touch(const struct gguf *g) {
    unsigned sum = 0;
    struct err err;
    for (int i = 0; i < gguf_n_kv(g); i++) {
        const struct gguf_kv *kv = gguf_kv_at(g, i);
        char key[64], text[64];
        int64_t v = 0;
        double d = 0;
        bool b = false;
        for (size_t j = 0; j < kv->key.n; j++) sum += (unsigned char)kv->key.p[j];
        if (kv->key.n < sizeof key && !memchr(kv->key.p, 0, kv->key.n)) {
            memcpy(key, kv->key.p, kv->key.n);
            key[kv->key.n] = 0;
            assert_ptr_equal(gguf_find(g, key), kv);
            gguf_get_int(g, key, 0, 1000, &v, &err);
            gguf_get_float(g, key, &d, &err);
            gguf_get_bool(g, key, &b, &err);
            gguf_get_string(g, key, text, sizeof text, &err);
        }
        const uint8_t *cursor = NULL;
        for (uint64_t j = 0; j < kv->count; j++) {
            if (kv->item == GGUF_STRING) {
                struct gguf_str s = gguf_next_string(kv, &cursor);
                for (size_t k = 0; k < s.n; k++) sum += (unsigned char)s.p[k];
            } else if (kv->type == GGUF_ARRAY) {
                gguf_array_int(kv, j, &v);
                gguf_array_float(kv, j, &d);
            }
        }
        sum += (unsigned)v + b;
    }
    for (int i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        assert_ptr_equal(gguf_tensor(g, t->name), t);
        for (uint64_t j = 0; j < t->bytes; j++) sum += ((const uint8_t *)t->data)[j];
    }
    return sum;
}

static const struct hostile {
    const char *field;             /* a mark of bytes_sample() */
    int shift;                     /* bytes from the mark */
    uint64_t value;
    int width;
    const char *want;              /* part of the message */
} table[] = {
    { "magic", 0, 0x46554748, 4, "not a GGUF file: it starts with 'HGUF'" },
    { "magic", 1, 0x1b, 1, "starts with 'G\\x1bUF'" },
    { "version", 0, 1, 4, "GGUF version 1, want 2 or 3" },
    { "version", 0, 4, 4, "GGUF version 4, want 2 or 3" },
    { "version", 0, 0, 4, "GGUF version 0, want 2 or 3" },
    { "version", 0, 0x03000000, 4, "big-endian GGUF (version 3), want little-endian" },
    { "tensors", 0, (uint64_t)1 << 60, 8, "1152921504606846976 tensors, more than" },
    { "tensors", 0, UINT64_MAX, 8, "18446744073709551615 tensors, more than" },
    { "tensors", 0, 4, 8, "tensor 3" },
    { "keys", 0, (uint64_t)1 << 60, 8, "1152921504606846976 keys, more than" },
    { "keys", 0, UINT64_MAX, 8, "18446744073709551615 keys, more than" },
    { "key0 name length", 0, UINT64_MAX, 8,
      "key 0: the name needs 18446744073709551615 bytes at 32, but" },
    { "key0 name length", 0, 1 << 16, 8, "key 0: the name needs 65536 bytes" },
    { "key0 name length", 0, 0, 8, "key 0: the name is empty" },
    { "alignment", -4, 13, 4, "key 'general.alignment': type 13, want 0 to 12" },
    { "alignment", -4, UINT32_MAX, 4, "key 'general.alignment': type 4294967295" },
    { "alignment", -4, GGUF_F32, 4, "key 'general.alignment': type f32, want an integer" },
    { "alignment", 0, 0, 4, "key 'general.alignment': 0, want a power of two of at least 8" },
    { "alignment", 0, 33, 4, "key 'general.alignment': 33, want a power of two" },
    { "alignment", 0, 4, 4, "key 'general.alignment': 4, want a power of two of at least 8" },
    { "alignment", 0, 0x80000000, 4, "data section has 0" },
    { "string length", 0, UINT64_MAX, 8,
      "key 1: the string value needs 18446744073709551615 bytes" },
    { "after twin.b", -5, 'a', 1, "key 'twin.a' appears twice" },
    { "after twin.b", -6, '\n', 1, NULL },                  /* a strange name is no error */
    { "bool", 0, 2, 1, "key 'is': bool 2, want 0 or 1" },
    { "after numbers count", -12, GGUF_ARRAY, 4, "key 'numbers': an array of arrays" },
    { "after numbers count", -12, 77, 4, "key 'numbers': items of type 77, want 0 to 12" },
    { "after numbers count", -8, (uint64_t)1 << 62, 8,
      "key 'numbers': 4611686018427387904 values of type i32, but" },
    { "after numbers count", -8, 100000, 8, "key 'numbers': 100000 values of type i32, but only" },
    { "word length", -8, (uint64_t)1 << 61, 8,
      "key 'words': 2305843009213693952 values of type string, but" },
    { "word length", 0, (uint64_t)1 << 63, 8,
      "key 6: the string value needs 9223372036854775808 bytes" },
    { "a name", 0, 0, 8, "tensor 0 (''): a name of 0 bytes, want 1 to 64" },
    { "a name", 0, 65, 8, "a name of 65 bytes, want 1 to 64" },
    { "a name", 0, UINT64_MAX, 8, "tensor 0: the name needs 18446744073709551615 bytes" },
    { "a name", 9, 0, 1, "holds a NUL byte" },
    { "a name", 8, 'b', 1, "tensor 'b.weight' appears twice" },
    { "a dims", 0, 0, 4, "tensor 'a.weight': 0 dimensions, want 1 to 4" },
    { "a dims", 0, 5, 4, "tensor 'a.weight': 5 dimensions, want 1 to 4" },
    { "a dims", 0, UINT32_MAX, 4, "4294967295 dimensions" },
    { "a shape", 0, 0, 8, "tensor 'a.weight': dimension 0 is 0, want at least 1" },
    { "a shape", 8, 0, 8, "tensor 'a.weight': dimension 1 is 0, want at least 1" },
    { "a shape", 8, (uint64_t)1 << 61, 8, "more than 64 bits can count" },
    { "a shape", 8, (uint64_t)1 << 59, 8, "more bytes than 64 bits" },
    { "a shape", 8, UINT64_MAX, 8, "more than 64 bits can count" },
    { "a shape", 8, 3, 8, "tensors 'a.weight' and 'b.weight' overlap" },
    { "a shape", 8, 9, 8,
      "tensor 'a.weight': 288 bytes at offset 0, but the data section has 256" },
    { "b shape", 0, 33, 8, "tensor 'b.weight': rows of 33 values, Q8_0 wants a multiple of 32" },
    { "b shape", 8, 6, 8,
      "tensor 'b.weight': 204 bytes at offset 64, but the data section has 256" },
    { "b shape", 16, 0x80000000, 4, "tensor 'b.weight': type 2147483648, no such type" },
    { "b offset", 0, 65, 8, "tensor 'b.weight': offset 65, want a multiple of 32" },
    { "b offset", 0, 32, 8, "tensors 'a.weight' and 'b.weight' overlap" },
    { "b offset", 0, 0xffffffffffffffe0, 8,
      "at offset 18446744073709551584, but the data section has 256" },
    { "c offset", 0, 256, 8,
      "tensor 'c.weight': 0 bytes at offset 256, but the data section has 256" },
    { "c offset", 0, 1, 8, "tensor 'c.weight': offset 1, want a multiple of 32" },
    { "c shape", 0, 0, 8, "tensor 'c.weight': dimension 0 is 0" },
};

static void each_field_broken(void **state) {
    (void)state;
    static struct gguf_bytes b;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const struct hostile *h = &table[i];
        bytes_sample(&b);
        size_t n = b.n;
        b.n = bytes_at(&b, h->field) + (size_t)h->shift;
        bytes_uint(&b, h->value, h->width);
        struct gguf *g;
        struct err err;
        int rc = open_bytes(&g, b.p, n, &err);
        if (rc != (h->want ? -1 : 0)) fail_msg("%s %+d: %d (%s)", h->field, h->shift, rc, err.msg);
        if (h->want && !strstr(err.msg, h->want))
            fail_msg("%s %+d: \"%s\" lacks \"%s\"", h->field, h->shift, err.msg, h->want);
        if (h->want && !strstr(err.msg, path))
            fail_msg("%s %+d: \"%s\" names no file", h->field, h->shift, err.msg);
        for (const char *p = err.msg; *p; p++)
            if (*p < ' ' || *p > '~') fail_msg("%s: a control character in the message", h->field);
        gguf_close(g);
    }
}

static void names_cannot_talk_to_terminals(void **state) {
    (void)state;
    static struct gguf_bytes b;
    static const char nasty[] = "\x1b[2J\x1b]0;gone\x07\r\n\\%s%n\xff";
    memset(&b, 0, sizeof b);
    memcpy(b.p, "GGUF", 4);
    b.n = 4;
    bytes_uint(&b, 3, 4);
    bytes_uint(&b, 0, 8);
    bytes_uint(&b, 2, 8);
    for (int i = 0; i < 2; i++) {                           /* the same long nasty key twice */
        size_t at = b.n;
        bytes_uint(&b, 0, 8);
        for (int j = 0; j < 40; j++) {
            memcpy(b.p + b.n, nasty, sizeof nasty - 1);
            b.n += sizeof nasty - 1;
        }
        size_t end = b.n;
        b.n = at;
        bytes_uint(&b, end - at - 8, 8);
        b.n = end;
        bytes_uint(&b, GGUF_U8, 4);
        bytes_uint(&b, 1, 1);
    }
    bytes_pad(&b, 32);
    struct gguf *g;
    struct err err;
    assert_int_equal(open_bytes(&g, b.p, b.n, &err), -1);
    assert_non_null(strstr(err.msg, "appears twice"));
    assert_non_null(strstr(err.msg, "\\x1b[2J"));
    assert_non_null(strstr(err.msg, "..."));
    for (const char *p = err.msg; *p; p++) assert_in_range(*p, ' ', '~');
}

static void every_truncation(void **state) {
    (void)state;
    static struct gguf_bytes b;
    struct gguf *g;
    struct err err;
    bytes_sample(&b);
    size_t whole = bytes_at(&b, "data") + 193;              /* the last tensor has a byte or more */
    for (size_t n = 1; n <= b.n; n++) {
        int rc = open_bytes(&g, b.p, n, &err);
        if (rc != (n < whole ? -1 : 0)) fail_msg("%zu of %zu bytes: %d (%s)", n, b.n, rc, err.msg);
        if (!rc) touch(g);
        gguf_close(g);
    }
}

static uint64_t next_random(uint64_t *s) {                  /* xorshift */
    *s ^= *s << 13;
    *s ^= *s >> 7;
    return *s ^= *s << 17;
}

static void flipped_bits(void **state) {
    (void)state;
    static struct gguf_bytes b;
    uint64_t seed = 20240229;
    unsigned sum = 0;
    int opened = 0, rounds = 20000;
    struct gguf *g;
    struct err err;
    for (int i = 0; i < rounds; i++) {
        bytes_sample(&b);
        size_t head = bytes_at(&b, "data");                 /* the data itself may be anything */
        for (uint64_t flips = 1 + next_random(&seed) % 4; flips--; )
            b.p[next_random(&seed) % head] ^= (uint8_t)(1 << next_random(&seed) % 8);
        size_t n = next_random(&seed) % 4 ? b.n : next_random(&seed) % b.n + 1;
        if (!open_bytes(&g, b.p, n, &err)) {
            sum += touch(g);
            opened++;
        } else if (!strstr(err.msg, path)) fail_msg("no file in \"%s\"", err.msg);
        gguf_close(g);
    }
    if (opened < 10 || opened > rounds * 9 / 10)
        fail_msg("%d of %d files opened (%u)", opened, rounds, sum);
}

/* Random bytes, not bits: extreme lengths and counts are commoner so. */
static void overwritten_fields(void **state) {
    (void)state;
    static struct gguf_bytes b;
    static const uint64_t extremes[] = { 0, 1, 7, 8, 31, 255, 65535, INT32_MAX, UINT32_MAX,
                                         INT64_MAX, UINT64_MAX, (uint64_t)1 << 60,
                                         (uint64_t)1 << 61, (uint64_t)1 << 63, UINT64_MAX - 31 };
    struct gguf *g;
    struct err err;
    bytes_sample(&b);
    size_t head = bytes_at(&b, "data");
    for (size_t at = 0; at + 8 <= head; at++)
        for (size_t i = 0; i < sizeof extremes / sizeof *extremes; i++)
            for (int width = 4; width <= 8; width += 4) {
                bytes_sample(&b);
                size_t n = b.n;
                b.n = at;
                bytes_uint(&b, extremes[i], width);
                if (!open_bytes(&g, b.p, n, &err)) touch(g);
                gguf_close(g);
            }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_field_broken), cmocka_unit_test(names_cannot_talk_to_terminals),
        cmocka_unit_test(every_truncation), cmocka_unit_test(flipped_bits),
        cmocka_unit_test(overwritten_fields),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
