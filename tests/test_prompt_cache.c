/* Prompt caches, whole and damaged. A whole one gives the very logits that the prompt gives;
 * any other is refused with one line and leaves the session as empty as it was.
 * `make MODE=debug` watches the memory meanwhile. */
#include "model/prompt_cache.h"
#include "tests/common/check.h"
#include "tests/common/temp.h"
#include "tests/common/tiny_file.h"
#include "base/rand.h"
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PROMPT = 180, STEPS = 6, N_CTX = 256, HEADER = 1056 };

static const char *const modes[] = { "delta,full=0,1,3,budget=6,recent=2",
                                     "hip,dense=0,until=0,k=32,bk=16,window=64",
                                     "stream,sink=4,recent=32", "full" };
static struct tiny_file tiny;
static int32_t ids[PROMPT + STEPS];
static char path[256];
static struct { uint8_t *p; size_t n; } whole;

static int set_up(void **state) {
    (void)state;
    omp_set_num_threads(1);
    tiny = tiny_file_open("cached.gguf", 5, 5);
    tiny_ids(ids, PROMPT + STEPS, 101, 3);
    snprintf(path, sizeof path, "%s", temp_path("prompt.cache"));
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    free(whole.p);
    tiny_file_close(&tiny);
    return 0;
}

static struct session *talk(const char *mode) { return tiny_talk(&tiny, mode, N_CTX, 64); }

static void say(struct session *s, const int32_t *id, int n) {
    struct err err;
    if (session_eval(s, id, n, &err)) fail_msg("%s", err.msg);
}

/* A prompt and a few steps of its answer, in a file and in whole. */
static void save(const char *mode) {
    struct err err;
    struct session *s = talk(mode);
    say(s, ids, PROMPT);
    if (prompt_cache_save(s, path, &err)) fail_msg("%s", err.msg);
    session_close(s);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    whole.n = (size_t)ftell(f);
    rewind(f);
    free(whole.p);
    assert_non_null(whole.p = malloc(whole.n + 64));
    assert_int_equal(fread(whole.p, 1, whole.n, f), whole.n);
    fclose(f);
}

/* A new file each time: some file systems wait for the disk when an old one is replaced. */
static void put(const uint8_t *p, size_t n) {
    unlink(path);
    temp_write(path, p, n);
}

static int load(struct session *s, struct err *err) {
    *err = (struct err){ .msg = "" };
    return prompt_cache_load(s, path, ids, PROMPT, err);
}

static void refused(struct session *s, const char *what, const char *word) {
    struct err err;
    if (load(s, &err) != -1) fail_msg("%s is taken", what);
    if (!strstr(err.msg, path) || !strstr(err.msg, word))
        fail_msg("%s: \"%s\" lacks '%s'", what, err.msg, word);
    for (const char *p = err.msg; *p; p++)
        if ((unsigned char)*p < ' ')
            fail_msg("%s: control character %d in \"%s\"", what, *p, err.msg);
    assert_int_equal(session_pos(s), 0);
    assert_null(session_logits(s));
}

/* Loading is as good as reading the prompt, for the steps after it too. */
static void test_whole(void **state) {
    (void)state;
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
        struct err err;
        save(modes[m]);
        struct session *a = talk(modes[m]), *b = talk(modes[m]);
        say(a, ids, PROMPT);
        if (load(b, &err) != PROMPT) fail_msg("%s: %s", modes[m], err.msg);
        assert_memory_equal(session_logits(a), session_logits(b), tiny_logit_bytes(&tiny));
        for (int i = 0; i < STEPS; i++) {
            say(a, ids + PROMPT + i, 1), say(b, ids + PROMPT + i, 1);
            assert_memory_equal(session_logits(a), session_logits(b), tiny_logit_bytes(&tiny));
        }
        session_close(a);
        session_close(b);
    }
}

/* Cut anywhere, or with something behind. */
static void test_length(void **state) {
    struct rand r = { 1 };
    (void)state;
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
        save(modes[m]);
        struct session *s = talk(modes[m]);
        for (int round = 0; round < 150; round++) {
            const size_t edge[] = { 0, 1, 8, HEADER - 1, HEADER, HEADER + 4 * PROMPT, whole.n - 9,
                                    whole.n - 8, whole.n - 1 };
            const size_t n = round < 9 ? edge[round] : rand_below(&r, (uint32_t)whole.n);
            put(whole.p, n);
            refused(s, "a file cut short", n < HEADER ? "not a prompt cache" : "ends early");
        }
        memset(whole.p + whole.n, 0, 64);
        put(whole.p, whole.n + 1);
        refused(s, "a file with a byte more", "too long");
        session_close(s);
    }
}

/* One to four flipped bits, anywhere; and the extremes in every number of the header.
 * A file whose first tokens are others is damaged as well. */
static void test_flips(void **state) {
    static const uint32_t extremes[] = { 0, 1, PROMPT - 1, PROMPT + 1, 101 * 4, INT32_MAX,
                                         0x80000000u, UINT32_MAX };
    struct rand r = { 2 };
    (void)state;
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
        save(modes[m]);
        struct session *s = talk(modes[m]);
        uint8_t *copy = malloc(whole.n);
        for (int round = 0; round < 400; round++) {
            memcpy(copy, whole.p, whole.n);
            size_t last = whole.n;
            for (int i = 0, n = 1 + round % 4; i < n; i++) {
                const size_t at =
                    rand_below(&r, (uint32_t)(round % 3 ? whole.n : HEADER + 4 * PROMPT));
                if (at == last) continue;
                copy[last = at] ^= (uint8_t)(1 << rand_below(&r, 8));
            }
            if (!memcmp(copy, whole.p, whole.n)) continue;
            /* Behind its end the name of the maker is padding,
             * which the checksum knows all the same. */
            put(copy, whole.n);
            refused(s, "a file with a flipped bit", "");
        }
        for (size_t at = HEADER - 24; at < HEADER; at += 4)
            for (size_t e = 0; e < sizeof extremes / sizeof *extremes; e++) {
                memcpy(copy, whole.p, whole.n);
                memcpy(copy + at, &extremes[e], 4);
                if (!memcmp(copy, whole.p, whole.n)) continue;
                put(copy, whole.n);
                refused(s, "an extreme header", "");
            }
        /* the same bit of two words that follow each other */
        for (size_t b = 0; b + 15 < whole.n; b += 1 + whole.n / 50) {
            memcpy(copy, whole.p, whole.n);
            copy[b] ^= 0x80, copy[b + 8] ^= 0x80;
            put(copy, whole.n);
            refused(s, "a file with two flipped bits", "");
        }
        put(whole.p, whole.n);
        struct err err;
        assert_int_equal(load(s, &err), PROMPT);
        free(copy);
        session_close(s);
    }
}

/* Another mode, other parameters of it, other weights, other types. */
static void test_others(void **state) {
    static const char *const other[] = { "full", "delta,full=0,1,3,budget=7,recent=2",
                                         "hip,dense=0,until=0,k=48,bk=16,window=64" };
    struct tiny_file twin = tiny_file_open("twin.gguf", 5, 6),
                     deeper = tiny_file_open("deeper.gguf", 6, 5);
    (void)state;
    for (int m = 0; m < 2; m++) {
        save(modes[m]);
        for (int i = 0; i < 3; i++) {
            struct session *s = talk(other[i]);
            refused(s, other[i],
                    m ? "made by llama tiny, attention hip,k=32"
                      : "made by llama tiny, attention delta,full=0,1,3,budget=6");
            session_close(s);
        }
        struct session *s = tiny_talk(&twin, modes[m], N_CTX, 64),
                       *d = tiny_talk(&deeper, modes[m], N_CTX, 64);
        refused(s, "another model", "another model");
        refused(d, "a deeper model", "another model");
        session_close(s);
        session_close(d);
    }
    tiny_file_close(&twin);
    tiny_file_close(&deeper);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole), cmocka_unit_test(test_length), cmocka_unit_test(test_flips),
        cmocka_unit_test(test_others),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
