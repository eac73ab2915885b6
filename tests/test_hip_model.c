/* Mode hip through a model: with room for everything it is full attention; chunks cut at blocks do
 * not matter; and the trained model finds a needle with it. */
#include "model/session.h"
#include "tests/common/check.h"
#include "tests/common/tiny_file.h"
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { PROMPT = 448, STEPS = 12 };

static int32_t ids[PROMPT + STEPS];
static struct tiny_file tiny;

static int open_model(void **state) {
    (void)state;
    omp_set_num_threads(1);
    tiny = tiny_file_open("hip.gguf", 5, 5);
    tiny_ids(ids, PROMPT + STEPS, 101, 3);
    return 0;
}

static int close_model(void **state) { (void)state; tiny_file_close(&tiny); return 0; }

static size_t logit_bytes(void) { return tiny_logit_bytes(&tiny); }

static struct session *talk(const char *attn, int batch) {
    return tiny_talk(&tiny, attn, PROMPT + STEPS, batch);
}

/* The logits after the prompt and after each step: [STEPS + 1][n_vocab]. */
static float *answers(struct session *s) {
    struct err err = { .msg = "" };
    float *all = malloc((STEPS + 1) * logit_bytes());
    for (int i = 0; i <= STEPS; i++) {
        if (i ? session_eval(s, ids + PROMPT + i - 1, 1, &err) : session_eval(s, ids, PROMPT, &err))
            fail_msg("%s", err.msg);
        memcpy((char *)all + (size_t)i * logit_bytes(), session_logits(s), logit_bytes());
    }
    return all;
}

static float *answers_of(const char *attn, int batch) {
    struct session *s = talk(attn, batch);
    float *all = answers(s);
    session_close(s);
    return all;
}

static void test_room_for_everything(void **state) {
    static const char *const enough[] = { "hip", "hip,until=0,dense=5", "hip,dense=0,until=0,k=512",
                                          "hip,dense=0,until=0,window=460",
                                          "hip,dense=0,until=0,k=512,delta=64" };
    (void)state;
    float *full = answers_of("full", 512);
    for (int i = 0; i < 5; i++) {
        float *got = answers_of(enough[i], 128);
        if (memcmp(got, full, (STEPS + 1) * logit_bytes())) fail_msg("%s is not full", enough[i]);
        free(got);
    }
    free(full);
}

static void test_sparse(void **state) {
    static const char *const modes[] = { "hip,dense=1,until=0,k=64,window=64",
                                         "hip,dense=0,until=0,k=32,bk=2,window=64,delta=64" };
    (void)state;
    float *full = answers_of("full", 512);
    for (int i = 0; i < 2; i++) {
        struct session *s = talk(modes[i], 512);
        float *whole = answers(s), *parts = answers_of(modes[i], 128);
        assert_memory_equal(whole, parts, (STEPS + 1) * logit_bytes());
        assert_true(memcmp(whole, full, (STEPS + 1) * logit_bytes()));
        assert_true(session_keys_read(s) < 0.8 * PROMPT / 2);

        /* Going back and taking the same road again ends at the same place. */
        session_truncate(s, 0);
        float *again = answers(s);
        assert_memory_equal(again, whole, (STEPS + 1) * logit_bytes());
        free(again);
        free(whole);
        free(parts);
        session_close(s);
    }
    free(full);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_room_for_everything),
                                        cmocka_unit_test(test_sparse) };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
