/* Metadata set by hand: it replaces what a file says, or stands beside it; what cannot be meant is
 * refused, and what nobody reads is told. */
#include "model/gguf.h"
#include "model/gguf_write.h"
#include "tests/common/check.h"
#include "tests/common/temp.h"
#include "tests/common/tiny_file.h"
#include "model/prompt_cache.h"
#include <string.h>

static struct gguf *g;

static int set_up(void **state) {
    (void)state;
    const char *path = temp_path("set.gguf");
    struct gguf_writer *w;
    struct err err;
    const float list[] = { 1, 2 };
    if (gguf_write_open(&w, path, &err)) return -1;
    gguf_put_int(w, "a.count", GGUF_U16, 7);
    gguf_put_float(w, "a.base", 10000);
    gguf_put_bool(w, "a.yes", true);
    gguf_put_string(w, "a.name", "as it is");
    gguf_put_floats(w, "a.list", list, 2);
    if (gguf_write_begin(w, &err) || gguf_write_close(w, &err)) return -1;
    return gguf_open(&g, path, NULL, &err);
}

static int tear_down(void **state) {
    (void)state;
    gguf_close(g);
    return 0;
}

static void set(const char *text) {
    struct err err;
    if (gguf_set_check(text, &err) || gguf_set(g, text, &err)) fail_msg("%s: %s", text, err.msg);
}

static void every_type_replaces_its_own(void **state) {
    (void)state;
    struct err err;
    int64_t count = 0;
    double base = 0;
    bool yes = true;
    char name[32];
    set("a.count=int:-12");
    set("a.base=float:5e5");
    set("a.yes=bool:false");
    set("a.name=str:x=y: z");
    assert_int_equal(gguf_get_int(g, "a.count", -100, 100, &count, &err), 1);
    assert_int_equal(count, -12);
    assert_int_equal(gguf_get_float(g, "a.base", &base, &err), 1);
    assert_true(base == 5e5);
    assert_int_equal(gguf_get_bool(g, "a.yes", &yes, &err), 1);
    assert_false(yes);
    assert_int_equal(gguf_get_string(g, "a.name", name, sizeof name, &err), 1);
    assert_string_equal(name, "x=y: z");
    assert_int_equal(gguf_get_int(g, "a.count", 0, 100, &count, &err), -1);     /* still judged */
    assert_non_null(strstr(err.msg, "'a.count': -12, want 0 to 100"));
}

static void the_last_word_counts(void **state) {
    (void)state;
    struct err err;
    int64_t v = 0;
    set("a.count=int:1");
    set("a.count=int:9223372036854775807");
    assert_int_equal(gguf_get_int(g, "a.count", 0, INT64_MAX, &v, &err), 1);
    assert_true(v == INT64_MAX);
    char name[8];
    set("a.name=str:");
    assert_int_equal(gguf_get_string(g, "a.name", name, sizeof name, &err), 1);
    assert_string_equal(name, "");
}

static void a_key_the_file_lacks_is_told_until_it_is_read(void **state) {
    (void)state;
    bool add = false;
    struct err err;
    set("a.base=float:1");                                  /* in the file: no typing mistake */
    set("tokenizer.a=int:1");                               /* may be read later */
    set("general.a=int:1");
    assert_null(gguf_set_unread(g));
    set("a.add=bool:true");
    assert_string_equal(gguf_set_unread(g), "a.add");
    assert_int_equal(gguf_get_bool(g, "a.add", &add, &err), 1);
    assert_true(add);
    assert_null(gguf_set_unread(g));
}

static void what_cannot_be_meant_is_refused(void **state) {
    (void)state;
    static const struct { const char *text, *why; } wrong[] = {
        { "", "wanted KEY=TYPE:VALUE" }, { "a.count", "wanted KEY=TYPE:VALUE" },
        { "a.count=7", "wanted KEY=TYPE:VALUE" }, { "=int:7", "wanted KEY=TYPE:VALUE" },
        { "a:count=int", "wanted KEY=TYPE:VALUE" },
        { "a.count=u32:7", "got type 'u32', wanted int, float, bool or str" },
        { "a.count=:7", "got type ''" }, { "a.count=in:7", "got type 'in'" },
        { "a.count=int:", "got '', wanted an integer" }, { "a.count=int:7x", "got '7x'" },
        { "a.count=int:1.5", "got '1.5', wanted an integer" },
        { "a.count=int:9223372036854775808", "wanted an integer" },
        { "a.base=float:", "wanted a number" }, { "a.base=float:nan", "wanted a number" },
        { "a.base=float:1e999", "wanted a number" }, { "a.yes=bool:1", "wanted true or false" },
    };
    struct err err;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        if (!gguf_set_check(wrong[i].text, &err)) fail_msg("'%s' is taken", wrong[i].text);
        if (!strstr(err.msg, wrong[i].why)) fail_msg("'%s': %s", wrong[i].text, err.msg);
        assert_int_equal(gguf_set(g, wrong[i].text, &err), -1);
    }
    assert_int_equal(gguf_set(g, "a.count=float:7", &err), -1);
    assert_non_null(strstr(err.msg, "a.count: got f64, the file has u16"));
    assert_int_equal(gguf_set(g, "a.list=float:7", &err), -1);
    assert_non_null(strstr(err.msg, "the file has array"));
    int64_t count = 0;
    assert_int_equal(gguf_get_int(g, "a.count", 0, 100, &count, &err), 1);
    assert_int_equal(count, 7);
}

/* A model reads what was set, and a prompt cache of the model as it was is not taken for it. */
static void a_model_reads_it(void **state) {
    (void)state;
    struct tiny_file was = tiny_file_open("was.gguf", 1, 3);
    struct gguf *file;
    struct model *model;
    struct err err;
    int32_t ids[20];
    const char *cache = temp_path("was.cache");
    tiny_ids(ids, 20, 101, 3);
    struct session *s = tiny_talk(&was, "full", 64, 0);
    assert_int_equal(session_eval(s, ids, 20, &err), 0);
    if (prompt_cache_save(s, cache, &err)) fail_msg("%s", err.msg);
    session_close(s);

    assert_int_equal(gguf_open(&file, gguf_path(was.file), NULL, &err), 0);
    if (gguf_set(file, "llama.rope.freq_base=float:777", &err)) fail_msg("%s", err.msg);
    if (model_open(&model, file, NULL, &err)) fail_msg("%s", err.msg);
    assert_true(model->c.rope.base == 777 && was.model->c.rope.base != 777);
    s = tiny_talk(&(struct tiny_file){ file, model }, "full", 64, 0);
    assert_int_equal(prompt_cache_load(s, cache, ids, 20, &err), -1);
    assert_non_null(strstr(err.msg, "rotat"));
    session_close(s);
    model_close(model);
    gguf_close(file);
    s = tiny_talk(&was, "full", 64, 0);
    assert_true(prompt_cache_load(s, cache, ids, 20, &err) > 0);
    session_close(s);
    tiny_file_close(&was);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_type_replaces_its_own, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_last_word_counts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_key_the_file_lacks_is_told_until_it_is_read, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(what_cannot_be_meant_is_refused, set_up, tear_down),
        cmocka_unit_test(a_model_reads_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
