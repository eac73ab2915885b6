#include <string.h>
#include "base/flags.h"
#include "tests/common/check.h"

static int n, many;
static bool on, fa;
static double x;
static const char *text;
static struct flag_list list;
static const struct flag table[] = {
    { "-n --predict", FLAG_INT, &n, "N", "tokens", -2, 100000 },
    { "-c", FLAG_INT, &many, "N", "context", 0, 0 },
    { "-x", FLAG_FLOAT, &x, "X", "a number", 0, 1 },
    { "-q --quiet", FLAG_ON, &on, NULL, "quiet", 0, 0 },
    { "-fa", FLAG_SWITCH, &fa, NULL, NULL, 0, 0 },
    { "-f", FLAG_STR, &text, "FILE", "a file", 0, 0 },
    { "--attn", FLAG_LIST, &list, "MODE", "modes", 0, 0 },
    { 0 },
};
static const char *pos[2];
static int n_pos;
static struct err err;

static int parse(const char *line) {            /* words separated by single spaces */
    static char copy[256];
    char *argv[32] = { "prog" };
    int argc = 1;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *w = strtok(copy, " "); w; w = strtok(NULL, " ")) argv[argc++] = w;
    n = many = 0, on = fa = false, x = 0, text = NULL, list.n = 0, err.msg[0] = 0;
    return flags_parse(table, argc, argv, pos, 2, &n_pos, &err);
}

static void test_values(void **state) {
    (void)state;
    assert_int_equal(parse("model -n 5 --quiet -x 0.25 -f - --attn a --attn b -"), 0);
    assert_int_equal(n, 5);
    assert_true(on);
    assert_true(x == 0.25);
    assert_string_equal(text, "-");
    assert_int_equal(list.n, 2);
    assert_string_equal(list.item[1], "b");
    assert_int_equal(n_pos, 2);
    assert_string_equal(pos[0], "model");
    assert_string_equal(pos[1], "-");
}

static void test_forms(void **state) {
    (void)state;
    assert_int_equal(parse("--predict=-2"), 0);
    assert_int_equal(n, -2);
    assert_int_equal(parse("-c 16k"), 0);
    assert_int_equal(many, 16384);
    assert_int_equal(parse("-c 2m"), 0);
    assert_int_equal(many, 2 << 20);
    assert_int_equal(parse("-- -n"), 0);
    assert_string_equal(pos[0], "-n");
    assert_int_equal(parse("-fa model"), 0);
    assert_true(fa && n_pos == 1);
    assert_int_equal(parse("-fa off model"), 0);
    assert_true(!fa && n_pos == 1);
}

static void test_refusals(void **state) {
    (void)state;
    const struct { const char *line, *says; } bad[] = {
        { "--nope", "unknown flag '--nope'" }, { "-n", "wanted N" },
        { "-n five", "got 'five', wanted an integer" }, { "-n 5x", "wanted an integer" },
        { "-n 200000", "wanted -2 to 100000" }, { "-n 99999999999999999999", "wanted an integer" },
        { "-c 9999999m", "wanted an integer" }, { "-x 2", "wanted 0 to 1" },
        { "-x nan", "wanted a number" }, { "-x 0.5z", "wanted a number" },
        { "--quiet=1", "takes no value" }, { "a b c", "unexpected argument 'c'" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(parse(bad[i].line), -1);
        if (!strstr(err.msg, bad[i].says)) fail_msg("'%s' said: %s", bad[i].line, err.msg);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_values), cmocka_unit_test(test_forms),
                                        cmocka_unit_test(test_refusals) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
