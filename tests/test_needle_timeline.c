/* A session that keeps what two prompts share: the same answers as
 * from scratch, at the price of the difference. */
#include <stdlib.h>
#include <string.h>
#include "tools/common/needle_haystack.h"
#include "tools/common/needle_timeline.h"
#include "tests/common/check.h"

static struct err err;
static struct engine e;

static int engine_up(void **state) {
    (void)state;
    struct engine_args a = ENGINE_ARGS;
    a.model = "models/needle-proto.gguf";
    if (engine_check(&e, &a, &err) || engine_open(&e, &err) || engine_load(&e, &err))
        fail_msg("%s", err.msg);
    return 0;
}

static int engine_down(void **state) {
    (void)state;
    engine_close(&e);
    return 0;
}

static struct timeline *opened(int n_ctx) {
    struct session_options so = engine_session_options(&e, n_ctx);
    struct timeline *l = NULL;
    if (timeline_open(&l, &e, &so, &err)) fail_msg("%s", err.msg);
    return l;
}

static struct prompt planted(struct haystack *h, double depth) {
    const struct planting w = {
        .n_tokens = 480, .depth = depth,
        .needle = "The secret word of the mill is 7391 red kettle.",
        .question = "Question: What is the secret word of the mill? Answer:"
    };
    struct prompt p;
    if (haystack_plant(h, &w, &p, &err)) fail_msg("%s", err.msg);
    return p;
}

static void test_reuse(void **state) {
    (void)state;
    static const double depths[] = { 0, 50, 100, 30, 30 };
    struct haystack *h;
    assert_int_equal(haystack_open(&h, e.tok, NULL, 0, 1, &err), 0);
    struct timeline *kept = opened(512);
    int before = 0;                                 /* where the needle of the prompt before lies */
    for (int i = 0; i < 5; i++) {
        struct prompt p = planted(h, depths[i]);
        struct timeline_cost cost, whole, decode, again;
        char *text, *want;
        int n, n_want;
        struct timeline *fresh = opened(512);
        if (timeline_prompt(kept, p.ids, p.n, true, &cost, &err) ||
            timeline_prompt(fresh, p.ids, p.n, true, &whole, &err))
            fail_msg("%s", err.msg);
        assert_int_equal(whole.tokens, 480);
        const int shared = i == 4 ? 479 : p.needle_at < before ? p.needle_at : before;
        if (i && (cost.tokens > 480 - shared || cost.tokens < 480 - shared - (i == 4 ? 0 : 6)))
            fail_msg("depth %g: %d tokens evaluated, %d are shared",
                     depths[i], cost.tokens, shared);
        assert_int_equal(session_pos(timeline_session(kept)), 480);
        assert_memory_equal(session_logits(timeline_session(kept)),
                            session_logits(timeline_session(fresh)),
                            (size_t)e.model->c.n_vocab * sizeof(float));
        if (timeline_answer(kept, 16, &text, &n, &decode, &err) ||
            timeline_answer(fresh, 16, &want, &n_want, &again, &err))
            fail_msg("%s", err.msg);
        assert_string_equal(text, want);
        assert_int_equal(n, n_want);
        assert_non_null(strstr(text, "7391 red kettle"));
        assert_true(decode.tokens == n - 1 && n <= 16 && decode.keys_read > 480 &&
                    decode.keys_read < 496);
        before = p.needle_at;
        free(text);
        free(want);
        free(p.ids);
        timeline_close(fresh);
    }
    struct prompt p = planted(h, 30);
    struct timeline_cost cost;
    assert_int_equal(timeline_prompt(kept, p.ids, p.n, false, &cost, &err), 0);
    assert_int_equal(cost.tokens, 480);                     /* asked not to reuse */
    free(p.ids);
    timeline_close(kept);
    haystack_close(h);
}

/* A cache of rings that went round cannot go back: the prompt is evaluated
 * afresh, and the answer is that of a fresh one. */
static void test_rings(void **state) {
    (void)state;
    static const double depths[] = { 100, 0, 50, 100 };
    struct session_options so = engine_session_options(&e, 512);
    so.attn = "stream,sink=4,recent=60", so.batch = 32;
    struct haystack *h;
    struct timeline *kept = NULL, *fresh;
    assert_int_equal(haystack_open(&h, e.tok, NULL, 0, 1, &err), 0);
    if (timeline_open(&kept, &e, &so, &err)) fail_msg("%s", err.msg);
    for (int i = 0; i < 4; i++) {
        struct prompt p = planted(h, depths[i]);
        struct timeline_cost cost, whole;
        if (timeline_open(&fresh, &e, &so, &err) ||
            timeline_prompt(kept, p.ids, p.n, true, &cost, &err) ||
            timeline_prompt(fresh, p.ids, p.n, true, &whole, &err))
            fail_msg("%s", err.msg);
        /* they share BOS only, and a first token that stays; then half the prompt, which is gone */
        if (i < 3) assert_in_range(cost.tokens, 479, 480);
        else assert_int_equal(cost.tokens, 480);
        assert_int_equal(session_pos(timeline_session(kept)), 480);
        assert_memory_equal(session_logits(timeline_session(kept)),
                            session_logits(timeline_session(fresh)),
                            (size_t)e.model->c.n_vocab * sizeof(float));
        timeline_close(fresh);
        free(p.ids);
    }
    timeline_close(kept);
    haystack_close(h);
}

static void test_limits(void **state) {
    (void)state;
    struct timeline *l = opened(40);
    struct timeline_cost cost;
    int32_t ids[41] = { 1 };
    char *text;
    int n;
    for (int i = 1; i < 41; i++) ids[i] = 300 + i;
    assert_int_equal(timeline_prompt(l, ids, 41, true, &cost, &err), -1);
    assert_int_equal(timeline_prompt(l, ids, 40, true, &cost, &err), 0);
    /* one token needs no more room */
    assert_int_equal(timeline_answer(l, 1, &text, &n, &cost, &err), 0);
    assert_true(n == 1 && cost.tokens == 0 && cost.keys_read == -1);
    free(text);
    assert_int_equal(timeline_answer(l, 2, &text, &n, &cost, &err), -1);
    assert_non_null(strstr(err.msg, "context full"));
    timeline_close(l);
    timeline_close(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_reuse), cmocka_unit_test(test_rings),
                                        cmocka_unit_test(test_limits) };
    return cmocka_run_group_tests(tests, engine_up, engine_down);
}
