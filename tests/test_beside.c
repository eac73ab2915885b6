/* test_beside.c - modes pick up what lies beside a model's file,
 * and only what their text does not say. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "attention/args.h"
#include "model/beside.h"
#include "tests/common/temp.h"
#include "tests/common/check.h"

static void put(const char *path, const char *text) { temp_write(path, text, strlen(text)); }

static void same(const char *attn, const char *model, const char *wanted) {
    char buf[ATTN_ARGS_MAX];
    assert_string_equal(beside_attn(buf, sizeof buf, attn, model), wanted);
}

static void test_beside(void **state) {
    (void)state;
    char model[512], heads[600], delta[600], moa[600], wanted[1200];
    snprintf(model, sizeof model, "%s", temp_path("some.gguf"));
    snprintf(heads, sizeof heads, "%s", temp_path("some.heads.tsv"));
    snprintf(delta, sizeof delta, "%s", temp_path("some.delta.txt"));
    snprintf(moa, sizeof moa, "%s", temp_path("some.moa.json"));

    same("duo", model, "duo");                          /* nothing lies there */
    same("delta", model, "delta");
    put(heads, "1\t0\n"), put(delta, "delta,full=0,2,budget=64,recent=8\n"), put(moa, "{}");

    snprintf(wanted, sizeof wanted, "duo,heads=%s", heads);
    same("duo", model, wanted);
    snprintf(wanted, sizeof wanted, "duo,ratio=0.2,heads=%s", heads);
    same("duo,ratio=0.2", model, wanted);
    same("duo,heads=mine,ratio=0.2", model, "duo,heads=mine,ratio=0.2");
    same("delta", model, "delta,full=0,2");
    same("delta,budget=16", model, "delta,budget=16,full=0,2");
    same("delta,full=0", model, "delta,full=0");
    snprintf(wanted, sizeof wanted, "moa,plan=%s", moa);
    same("moa", model, wanted);
    same("moa,beta=0.25", model, "moa,beta=0.25");
    same("full", model, "full"), same("stream,sink=4", model, "stream,sink=4"),
        same("duos", model, "duos");

    char buf[24];                                       /* what does not fit is left out, whole */
    const char *text = "duo";
    assert_ptr_equal(beside_attn(buf, sizeof buf, text, model), text);
    put(delta, "delta,full=,budget=64\n");
    same("delta", model, "delta");
    put(delta, "");
    same("delta", model, "delta");
    unlink(heads), unlink(delta), unlink(moa);
    same("duo", model, "duo");
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_beside) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
