/* What the writer writes, the reader reads: every type, splits, both ways of loading; and the
 * refusals of getters, writer and split files. Files broken on purpose are in
 * test_gguf_hostile.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "model/gguf.h"
#include "model/gguf_write.h"
#include "tests/common/gguf_bytes.h"
#include "tests/common/temp.h"
#include <cmocka.h>           /* last: it has a macro called fail */

#define assert_has(text, part) do { \
        if (!strstr((text), (part))) fail_msg("message \"%s\" lacks \"%s\"", (text), (part)); \
    } while (0)

static struct gguf *open_ok(const char *path, const struct gguf_options *o) {
    struct gguf *g = NULL;
    struct err err = { 0 };
    if (gguf_open(&g, path, o, &err)) fail_msg("%s", err.msg);
    return g;
}

static void open_fails(const char *path, const char *want) {
    struct gguf *g = NULL;
    struct err err = { 0 };
    assert_int_equal(gguf_open(&g, path, NULL, &err), -1);
    assert_null(g);
    assert_has(err.msg, want);
}

static int64_t int_of(const struct gguf *g, const char *key) {
    int64_t v = 12345;
    struct err err = { 0 };
    if (gguf_get_int(g, key, INT64_MIN, INT64_MAX, &v, &err) != 1) fail_msg("%s: %s", key, err.msg);
    return v;
}

static const struct { const char *key; enum gguf_type type; int64_t v; } ints[] = {
    { "u8", GGUF_U8, 255 }, { "i8", GGUF_I8, -128 }, { "u16", GGUF_U16, 65535 },
    { "i16", GGUF_I16, -32768 }, { "u32", GGUF_U32, 4294967295 }, { "i32", GGUF_I32, INT32_MIN },
    { "u64", GGUF_U64, INT64_MAX }, { "i64", GGUF_I64, INT64_MIN },
};
enum { N_INTS = sizeof ints / sizeof *ints };

static void put_everything(struct gguf_writer *w) {
    static const float floats[] = { 0.5f, -1e30f, 3 };
    static const int32_t small[] = { 1, 2, 127 };
    static const struct gguf_str words[] = { { "one", 3 }, { "", 0 }, { "t\0o", 3 } };
    char key[16];
    gguf_put_string(w, "general.name", "to be replaced");
    for (int i = 0; i < N_INTS; i++) {
        gguf_put_int(w, ints[i].key, ints[i].type, ints[i].v);
        snprintf(key, sizeof key, "%s.array", ints[i].key);
        gguf_put_ints(w, key, ints[i].type, small, 3);
    }
    gguf_put_float(w, "f32", 0.1);
    gguf_put_bool(w, "yes", true);
    gguf_put_bool(w, "no", false);
    gguf_put_floats(w, "floats", floats, 3);
    gguf_put_strings(w, "words", words, 3);
    gguf_put_strings(w, "nothing", NULL, 0);
    gguf_put_string(w, "general.name", "round trip");
}

static void check_everything(const struct gguf *g) {
    struct err err = { 0 };
    char text[32];
    double d;
    bool yes = false, no = true;
    int64_t v;
    for (int i = 0; i < N_INTS; i++) {
        assert_int_equal(int_of(g, ints[i].key), ints[i].v);
        char key[16];
        snprintf(key, sizeof key, "%s.array", ints[i].key);
        const struct gguf_kv *kv = gguf_find(g, key);
        assert_non_null(kv);
        assert_int_equal(kv->type, GGUF_ARRAY);
        assert_int_equal(kv->item, ints[i].type);
        assert_int_equal(kv->count, 3);
        assert_int_equal(gguf_array_int(kv, 2, &v), 0);
        assert_int_equal(v, 127);
        assert_int_equal(gguf_array_int(kv, 3, &v), -1);
        assert_int_equal(gguf_array_float(kv, 0, &d), -1);
    }
    assert_int_equal(gguf_get_float(g, "f32", &d, &err), 1);
    assert_true(d == 0.1f);
    assert_int_equal(gguf_get_bool(g, "yes", &yes, &err), 1);
    assert_int_equal(gguf_get_bool(g, "no", &no, &err), 1);
    assert_true(yes && !no);
    assert_int_equal(gguf_get_string(g, "general.name", text, sizeof text, &err), 1);
    assert_string_equal(text, "round trip");
    assert_int_equal(gguf_array_float(gguf_find(g, "floats"), 1, &d), 0);
    assert_true(d == -1e30f);
    const uint8_t *cursor = NULL;
    const struct gguf_kv *words = gguf_find(g, "words");
    assert_int_equal(words->count, 3);
    struct gguf_str s = gguf_next_string(words, &cursor);
    assert_true(s.n == 3 && !memcmp(s.p, "one", 3));
    assert_int_equal(gguf_next_string(words, &cursor).n, 0);
    s = gguf_next_string(words, &cursor);
    assert_true(s.n == 3 && !memcmp(s.p, "t\0o", 3));
    assert_int_equal(gguf_find(g, "nothing")->count, 0);
    assert_null(gguf_find(g, "word"));
    assert_null(gguf_find(g, "wordss"));
    assert_int_equal(gguf_get_int(g, "absent", 0, 1, &v, &err), 0);
    for (int i = 0; i < gguf_n_kv(g); i++) {               /* the index finds every key */
        const struct gguf_kv *kv = gguf_kv_at(g, i);
        snprintf(text, sizeof text, "%.*s", (int)kv->key.n, kv->key.p);
        assert_ptr_equal(gguf_find(g, text), kv);
    }
}

/* Tensors of every type the engine computes with, rows of 256 values, named in no order. */
static const enum dtype all_types[] = { DT_F32, DT_F16, DT_Q4_0, DT_Q4_1, DT_Q5_0, DT_Q5_1,
                                        DT_Q8_0, DT_Q2_K, DT_Q3_K, DT_Q4_K, DT_Q5_K,
                                        DT_Q6_K, DT_IQ4_NL, DT_IQ4_XS, DT_BF16 };
enum { N_TYPES = sizeof all_types / sizeof *all_types };

static uint8_t tensor_byte(int tensor, size_t i) { return (uint8_t)(i * 31 + (size_t)tensor * 7); }

static void write_tensors(struct gguf_writer *w, struct err *err) {
    uint8_t data[2 * 256 * 4];
    for (int t = 0; t < N_TYPES; t++) {
        size_t n = 2 * dtype_row_bytes(all_types[t], 256);
        for (size_t i = 0; i < n; i++) data[i] = tensor_byte(t, i);
        size_t first = n / 3;                              /* in two pieces */
        assert_int_equal(gguf_write_data(w, data, first, err), 0);
        assert_int_equal(gguf_write_data(w, data + first, n - first, err), 0);
    }
}

static void declare_tensors(struct gguf_writer *w) {
    const uint64_t ne[2] = { 256, 2 };
    for (int t = 0; t < N_TYPES; t++) {
        char name[32];
        snprintf(name, sizeof name, "%c.%s.weight", 'a' + (t * 7) % 15, dtype_name(all_types[t]));
        gguf_declare(w, name, all_types[t], 2, ne);
    }
}

static void check_tensors(const struct gguf *g, size_t alignment) {
    uint64_t sum = 0;
    assert_int_equal(gguf_n_tensors(g), N_TYPES);
    for (int t = 0; t < N_TYPES; t++) {
        const struct gguf_tensor *x = gguf_tensor_at(g, t);
        assert_ptr_equal(gguf_tensor(g, x->name), x);
        assert_int_equal(x->type, all_types[t]);
        assert_int_equal(x->n_dims, 2);
        assert_true(x->ne[0] == 256 && x->ne[1] == 2 && x->ne[2] == 1 && x->ne[3] == 1);
        assert_int_equal(x->bytes, 2 * dtype_row_bytes(all_types[t], 256));
        assert_int_equal((uintptr_t)x->data % alignment, 0);
        for (size_t i = 0; i < x->bytes; i++)
            assert_int_equal(((const uint8_t *)x->data)[i], tensor_byte(t, i));
        sum += x->bytes;
    }
    assert_int_equal(gguf_tensor_bytes(g), sum);
    assert_null(gguf_tensor(g, "zzz"));
    assert_null(gguf_tensor(g, ""));
}

static void write_all(const char *path, uint32_t alignment) {
    struct gguf_writer *w = NULL;
    struct err err = { 0 };
    assert_int_equal(gguf_write_open(&w, path, &err), 0);
    put_everything(w);
    if (alignment) gguf_put_int(w, "general.alignment", GGUF_U32, alignment);
    declare_tensors(w);
    if (gguf_write_begin(w, &err)) fail_msg("%s", err.msg);
    assert_int_equal(access(path, F_OK), -1);              /* not there before it is whole */
    write_tensors(w, &err);
    if (gguf_write_close(w, &err)) fail_msg("%s", err.msg);
}

static void round_trip(void **state) {
    (void)state;
    static const uint32_t alignments[] = { 0, 8, 64, 4096 };
    for (int i = 0; i < 4; i++) {
        char name[32];
        snprintf(name, sizeof name, "all%d.gguf", i);
        const char *path = temp_path(name);
        write_all(path, alignments[i]);
        struct gguf *g = open_ok(path, NULL);
        assert_string_equal(gguf_path(g), path);
        check_everything(g);
        check_tensors(g, alignments[i] ? alignments[i] : 32);
        gguf_close(g);
    }
}

static void without_mmap_and_locked(void **state) {
    (void)state;
    const char *path = temp_path("plain.gguf");
    write_all(path, 0);
    struct gguf *g = open_ok(path, &(struct gguf_options){ .no_mmap = true, .mlock = true });
    unlink(path);
    temp_write(path, "gone", 4);                           /* what was read stays */
    check_everything(g);
    check_tensors(g, 32);
    gguf_close(g);
}

static void copied_keys_are_equal(void **state) {
    (void)state;
    const char *from = temp_path("from.gguf"), *to = temp_path("to.gguf");
    struct gguf_writer *w = NULL;
    struct err err = { 0 };
    write_all(from, 64);
    struct gguf *g = open_ok(from, NULL);
    assert_int_equal(gguf_write_open(&w, to, &err), 0);
    for (int i = 0; i < gguf_n_kv(g); i++) gguf_put_kv(w, g, gguf_kv_at(g, i));
    declare_tensors(w);
    assert_int_equal(gguf_write_begin(w, &err), 0);
    write_tensors(w, &err);
    assert_int_equal(gguf_write_close(w, &err), 0);
    gguf_close(g);
    FILE *a = fopen(from, "rb"), *b = fopen(to, "rb");
    assert_non_null(a);
    assert_non_null(b);
    int ca, cb;
    do assert_int_equal(ca = getc(a), cb = getc(b)); while (ca != EOF && cb != EOF);
    fclose(a);
    fclose(b);
}

static void version_2_and_unknown_types(void **state) {
    (void)state;
    static struct gguf_bytes b;
    const char *path = temp_path("v2.gguf");
    for (int version = 2; version <= 3; version++) {
        bytes_sample(&b);
        bytes_patch(&b, "version", (uint64_t)version, 4);
        temp_write(path, b.p, b.n);
        struct gguf *g = open_ok(path, NULL);
        assert_int_equal(int_of(g, "twin.b"), -7);
        const struct gguf_tensor *c = gguf_tensor(g, "c.weight");
        assert_non_null(c);
        assert_int_equal(c->type, 99);
        assert_null(c->data);
        assert_int_equal(c->bytes, 0);
        assert_int_equal(gguf_tensor(g, "b.weight")->bytes, 3 * 34);
        gguf_close(g);
    }
}

static void getters_refuse(void **state) {
    (void)state;
    const char *path = temp_path("getters.gguf");
    write_all(path, 0);
    struct gguf *g = open_ok(path, NULL);
    struct err err = { 0 };
    int64_t v = 77;
    double d = 77;
    bool b = true;
    char text[8] = "same";
    assert_int_equal(gguf_get_int(g, "u16", 0, 100, &v, &err), -1);
    assert_has(err.msg, "key 'u16': 65535, want 0 to 100");
    assert_int_equal(gguf_get_int(g, "i8", 0, 100, &v, &err), -1);
    assert_has(err.msg, "key 'i8': -128, want 0 to 100");
    assert_int_equal(gguf_get_int(g, "f32", 0, 100, &v, &err), -1);
    assert_has(err.msg, "key 'f32': type f32, want an integer");
    assert_int_equal(gguf_get_float(g, "u8", &d, &err), -1);
    assert_has(err.msg, "key 'u8': type u8, want a float");
    assert_int_equal(gguf_get_bool(g, "words", &b, &err), -1);
    assert_has(err.msg, "key 'words': an array of 3 x string, want a bool");
    assert_int_equal(gguf_get_string(g, "general.name", text, sizeof text, &err), -1);
    assert_has(err.msg, "a string of 10 bytes, want fewer than 8");
    assert_int_equal(gguf_get_string(g, "u8", text, sizeof text, &err), -1);
    assert_has(err.msg, path);
    assert_true(v == 77 && d == 77 && b && !strcmp(text, "same"));
    gguf_close(g);
}

static void beyond_int64(void **state) {
    (void)state;
    static struct gguf_bytes b;
    const char *path = temp_path("u64.gguf");
    struct err err = { 0 };
    int64_t v;
    bytes_sample(&b);
    b.p[bytes_at(&b, "after twin.b") - 4] = GGUF_U64;      /* -7 becomes 2^64 - 7 */
    temp_write(path, b.p, b.n);
    struct gguf *g = open_ok(path, NULL);
    assert_int_equal(gguf_get_int(g, "twin.b", 0, INT64_MAX, &v, &err), -1);
    assert_has(err.msg, "18446744073709551609");
    gguf_close(g);
}

/* Writes parts of a split with one tensor each; what is asked of the numbers goes into part
 * `bad`. */
static void write_split(const char *stem, int n, int tensors, int bad, int bad_no,
                        const char *bad_name) {
    struct err err = { 0 };
    for (int i = 0; i < n; i++) {
        struct gguf_writer *w = NULL;
        char name[64];
        snprintf(name, sizeof name, "%s-%05d-of-%05d.gguf", stem, i + 1, n);
        assert_int_equal(gguf_write_open(&w, temp_path(name), &err), 0);
        gguf_put_int(w, "split.no", GGUF_U16, i == bad ? bad_no : i);
        gguf_put_int(w, "split.count", GGUF_U16, n);
        gguf_put_int(w, "split.tensors.count", GGUF_I32, tensors);
        if (!i) gguf_put_string(w, "general.name", "split");
        snprintf(name, sizeof name, "t%d", i);
        gguf_declare(w, i == bad && bad_name ? bad_name : name, DT_F32, 1, (uint64_t[]){ 4 });
        assert_int_equal(gguf_write_begin(w, &err), 0);
        assert_int_equal(gguf_write_data(w, (float[]){ (float)i, 0, 0, 0 }, 16, &err), 0);
        assert_int_equal(gguf_write_close(w, &err), 0);
    }
}

static void splits(void **state) {
    (void)state;
    write_split("s", 3, 3, -1, 0, NULL);
    struct gguf *g = open_ok(temp_path("s-00001-of-00003.gguf"), NULL);
    assert_int_equal(gguf_n_tensors(g), 3);
    assert_int_equal(gguf_tensor_bytes(g), 48);
    for (int i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "t%d", i);
        const struct gguf_tensor *t = gguf_tensor(g, name);
        assert_non_null(t);
        assert_true(*(const float *)t->data == (float)i);
        snprintf(name, sizeof name, "s-%05d-of-00003.gguf", i + 1);
        assert_string_equal(t->file, temp_path(name));
    }
    assert_non_null(gguf_find(g, "general.name"));
    gguf_close(g);
}

static void splits_refused(void **state) {
    (void)state;
    write_split("p", 3, 3, -1, 0, NULL);
    open_fails(temp_path("p-00002-of-00003.gguf"), "part 2 of 3, open the first one: ");
    open_fails(temp_path("p-00003-of-00003.gguf"), "p-00001-of-00003.gguf");
    unlink(temp_path("p-00002-of-00003.gguf"));
    open_fails(temp_path("p-00001-of-00003.gguf"), "p-00002-of-00003.gguf: No such file");
    assert_int_equal(rename(temp_path("p-00001-of-00003.gguf"), temp_path("renamed.gguf")), 0);
    open_fails(temp_path("renamed.gguf"), "wants to end in -00001-of-00003.gguf");
    write_split("n", 3, 3, 1, 2, NULL);
    open_fails(temp_path("n-00001-of-00003.gguf"), "says it is part 3 of 3, want 2 of 3");
    write_split("c", 2, 5, -1, 0, NULL);
    open_fails(temp_path("c-00001-of-00002.gguf"),
               "2 tensors in 2 parts, key 'split.tensors.count' promises 5");
    write_split("d", 2, 2, 1, 1, "t0");
    open_fails(temp_path("d-00001-of-00002.gguf"), "tensor 't0' appears twice");
    write_split("o", 2, 2, 1, 7, NULL);
    open_fails(temp_path("o-00001-of-00002.gguf"), "'split.no': 7, want 0 to 1");
}

static void files_that_are_none(void **state) {
    (void)state;
    open_fails(temp_path("nowhere.gguf"), "No such file");
    open_fails("/tmp", "a directory, want a file");
    open_fails("/dev/zero", "not a regular file");
    temp_write(temp_path("empty.gguf"), "", 0);
    open_fails(temp_path("empty.gguf"), "the file is empty");
}

static void begin_fails(struct gguf_writer *w, const char *want) {
    struct err err = { 0 };
    assert_int_equal(gguf_write_begin(w, &err), -1);
    assert_has(err.msg, want);
    assert_int_equal(gguf_write_data(w, "x", 1, &err), -1);
    err.msg[0] = 0;
    assert_int_equal(gguf_write_close(w, &err), -1);
    assert_has(err.msg, want);
    assert_int_equal(access(temp_path("bad.gguf"), F_OK), -1);
    assert_int_equal(access(temp_path("bad.gguf.tmp"), F_OK), -1);
}

static struct gguf_writer *new_writer(void) {
    struct gguf_writer *w = NULL;
    assert_int_equal(gguf_write_open(&w, temp_path("bad.gguf"), NULL), 0);
    return w;
}

static void writer_refuses(void **state) {
    (void)state;
    const uint64_t ne[4] = { 32, 1, 1, 1 };
    struct err err = { 0 };
    struct gguf_writer *w = new_writer();
    gguf_put_int(w, "k", GGUF_U8, 256);
    begin_fails(w, "key 'k': 256 does not fit into type u8");
    w = new_writer();
    gguf_put_int(w, "k", GGUF_U32, -1);
    begin_fails(w, "-1 does not fit into type u32");
    w = new_writer();
    gguf_put_int(w, "general.alignment", GGUF_U32, 48);
    begin_fails(w, "'general.alignment': 48");
    w = new_writer();
    gguf_declare(w, "t", DT_F32, 1, ne);
    gguf_declare(w, "t", DT_F32, 1, ne);
    begin_fails(w, "'t' declared twice");
    w = new_writer();
    gguf_declare(w, "t", DT_Q4_K, 1, ne);
    begin_fails(w, "shape 32 x 1 x 1 x 1 does not suit type Q4_K");
    w = new_writer();
    gguf_declare(w, "t", (enum dtype)99, 1, ne);
    begin_fails(w, "type ");
    w = new_writer();
    gguf_declare(w, "t", DT_F32, 2, (uint64_t[]){ (uint64_t)1 << 40, (uint64_t)1 << 40 });
    begin_fails(w, "does not suit");

    w = new_writer();                                      /* too much data, too little data */
    gguf_declare(w, "t", DT_F32, 1, ne);
    assert_int_equal(gguf_write_begin(w, &err), 0);
    char data[129] = {0};
    assert_int_equal(gguf_write_data(w, data, 129, &err), -1);
    assert_has(err.msg, "129 bytes of data for tensor 't', which has room for 128");
    assert_int_equal(gguf_write_close(w, &err), -1);
    w = new_writer();
    gguf_declare(w, "t", DT_F32, 1, ne);
    assert_int_equal(gguf_write_begin(w, &err), 0);
    assert_int_equal(gguf_write_data(w, data, 127, &err), 0);
    assert_int_equal(gguf_write_close(w, &err), -1);
    assert_has(err.msg, "closed after 0 of 1 tensors");
    gguf_write_abort(new_writer());
    gguf_write_abort(NULL);
    assert_int_equal(access(temp_path("bad.gguf.tmp"), F_OK), -1);
    assert_int_equal(gguf_write_open(&w, "/nowhere/x.gguf", &err), -1);
    assert_has(err.msg, "/nowhere/x.gguf.tmp: ");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip), cmocka_unit_test(without_mmap_and_locked),
        cmocka_unit_test(copied_keys_are_equal), cmocka_unit_test(version_2_and_unknown_types),
        cmocka_unit_test(getters_refuse), cmocka_unit_test(beyond_int64),
        cmocka_unit_test(splits), cmocka_unit_test(splits_refused),
        cmocka_unit_test(files_that_are_none), cmocka_unit_test(writer_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
