/* Mode delta through a model: prompts, steps, going back, and what every step costs. */
#include "kernels/tile.h"
#include "model/session.h"
#include "tests/common/check.h"
#include "tests/common/tiny_file.h"
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

static const char mode[] = "delta,full=0,1,3,budget=6,recent=2";       /* of 6 layers */
static int32_t ids[400];
static struct tiny_file tiny;

static struct session *talk(const char *attn, int batch) {
    return tiny_talk(&tiny, attn, 400, batch);
}

static void say(struct session *s, const int32_t *id, int n) {
    struct err err = { .msg = "" };
    if (session_eval(s, id, n, &err)) fail_msg("%s", err.msg);
}

static int open_model(void **state) {
    (void)state;
    omp_set_num_threads(1);
    tiny = tiny_file_open("delta.gguf", 6, 5);
    tiny_ids(ids, 400, 101, 3);
    return 0;
}

static int close_model(void **state) { (void)state; tiny_file_close(&tiny); return 0; }

static size_t logit_bytes(void) { return tiny_logit_bytes(&tiny); }

/* Prompts in chunks of any size are full attention's; a step reads what the formula says. */
static void test_steps(void **state) {
    static const int batches[] = { 1, 7, 16, 512 };
    const size_t bytes = logit_bytes();
    float *after_prompt = malloc(bytes), *after_steps = malloc(bytes);
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct session *s = talk(mode, batches[i]), *dense = talk("full", batches[i]);
        say(dense, ids, 300);
        say(s, ids, 300);
        /* A prompt is attended in full. */
        assert_memory_equal(session_logits(s), session_logits(dense), bytes);
        assert_true(session_keys_read(s) == session_keys_read(dense));
        if (!i) memcpy(after_prompt, session_logits(s), bytes);
        assert_memory_equal(session_logits(s), after_prompt, bytes);

        session_keys_reset(s);
        for (int t = 300; t < 340; t++) say(s, ids + t, 1), say(dense, ids + t, 1);
        double keys = 0;
        for (int n = 301; n <= 340; n++)
            keys += (3.0 * n + 3 * (5 * KV_PAGE + (n - 1) % KV_PAGE + 1)) / 6 / 40;
        assert_true(fabs(session_keys_read(s) - keys) < 1e-9 * keys);
        assert_true(memcmp(session_logits(s), session_logits(dense), bytes) != 0);
        if (!i) memcpy(after_steps, session_logits(s), bytes);
        assert_memory_equal(session_logits(s), after_steps, bytes);

        session_truncate(s, 300);           /* back and again: nothing left of what was forgotten */
        for (int t = 300; t < 340; t++) say(s, ids + t, 1);
        assert_memory_equal(session_logits(s), after_steps, bytes);
        session_truncate(s, 280);
        say(s, ids + 280, 20);
        for (int t = 300; t < 340; t++) say(s, ids + t, 1);
        assert_memory_equal(session_logits(s), after_steps, bytes);
        session_close(s);
        session_close(dense);
    }
    free(after_prompt);
    free(after_steps);
}

/* Two sessions, token by token in turns, are as each alone. */
static void test_turns(void **state) {
    struct session *a = talk(mode, 64), *b = talk(mode, 64), *alone = talk(mode, 64);
    (void)state;
    say(a, ids, 300);
    say(alone, ids, 300);
    say(b, ids + 50, 200);
    for (int t = 300; t < 340; t++) say(b, ids + t - 50, 1), say(a, ids + t, 1);
    for (int t = 300; t < 340; t++) say(alone, ids + t, 1);
    assert_memory_equal(session_logits(a), session_logits(alone), logit_bytes());
    session_close(a);
    session_close(b);
    session_close(alone);
}

/* No bit differs from full attention while there are no more pages than the budget. */
static void test_short(void **state) {
    const size_t bytes = logit_bytes();
    (void)state;
    struct session *a = talk(mode, 64), *b = talk("full", 64);
    say(a, ids, 60);
    say(b, ids, 60);
    for (int t = 60; t < 96; t++) {
        say(a, ids + t, 1), say(b, ids + t, 1);
        assert_memory_equal(session_logits(a), session_logits(b), bytes);
    }
    say(a, ids + 96, 1), say(b, ids + 96, 1);               /* the 97th token opens page 7 */
    assert_true(memcmp(session_logits(a), session_logits(b), bytes) != 0);
    session_close(a);
    session_close(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps), cmocka_unit_test(test_turns), cmocka_unit_test(test_short),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
