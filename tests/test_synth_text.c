/* bin/synth's models through the whole engine: their tokenizers encode and decode any text,
 * random ones give sane logits, the retrieval model finds its needle at every depth. */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "model/gguf.h"
#include "model/model.h"
#include "model/session.h"
#include "tests/common/temp.h"
#include "tokenizer/tokenizer.h"
#include "tools/common/synth_induction.h"
#include "base/rand.h"
#include "tools/common/synth_random.h"
#include <cmocka.h>           /* last: it has a macro called fail */

struct engine { struct gguf *g; struct model *m; struct tokenizer *t; };

static struct engine load(const char *path) {
    struct engine e = {0};
    struct err err = { 0 };
    if (gguf_open(&e.g, path, NULL, &err) || model_open(&e.m, e.g, NULL, &err) ||
        tok_open(&e.t, e.g, NULL, &err))
        fail_msg("%s", err.msg);
    return e;
}

static void unload(struct engine *e) {
    tok_close(e->t);
    model_close(e->m);
    gguf_close(e->g);
}

static int encode(const struct tokenizer *t, const char *text, int flags, int32_t **ids) {
    struct err err = { 0 };
    int n = tok_encode(t, text, strlen(text), flags, ids, &err);
    if (n < 0) fail_msg("%s", err.msg);
    return n;
}

static void decode(const struct tokenizer *t, const int32_t *ids, int n, char *out, size_t size) {
    struct tok_stream s = {0};
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        assert_true(at + tok_max_piece(t) + 16 < size);
        at += tok_decode(t, &s, ids[i], false, out + at);
    }
    at += tok_flush(&s, out + at);
    out[at] = 0;
}

static const char *const texts[] = {
    "The secret code is 7391 orange kettle.", "Hello, world! 1234567890",
    "caf\xc3\xa9 \xe2\x80\x94 \xe6\x97\xa5\xe6\x9c\xac",
    "two\nlines\n\n\tand a tab", "  spaces   in  a row", "aaaaaaaaaaaaaaaaaaaa", "<s> [INST] \\ ~`",
};

static void check_texts(const struct tokenizer *t, const char *what) {
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        int32_t *ids;
        char back[512];
        int n = encode(t, texts[i], 0, &ids);
        for (int j = 0; j < n; j++) assert_in_range(ids[j], 0, tok_n(t) - 1);
        decode(t, ids, n, back, sizeof back);
        if (strcmp(back, texts[i]))
            fail_msg("%s: \"%s\" came back as \"%s\"", what, texts[i], back);
        free(ids);
    }
}

static void vocabularies_of_every_family(void **state) {
    (void)state;
    static const struct { const char *shape; int vocab, bos, adds_bos; } list[] = {
        { "tinyllama-1.1b", 32000, 1, 1 }, { "llama-3.2-1b", 128256, 128000, 1 },
        { "qwen2.5-1.5b", 151936, 151643, 0 }, { "smollm2-135m", 49152, 0, 0 },
    };
    struct err err = { 0 };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        struct synth_shape s = *shape_find(list[i].shape);
        assert_int_equal(s.n_vocab, list[i].vocab);
        s.n_embd = 32, s.n_ff = 32, s.n_heads = s.n_kv_heads = 1, s.head_dim = 32, s.n_layers = 1;
        s.llama3_factor = 0;
        const char *path = temp_path("vocab.gguf");
        if (synth_random(path, &s, recipe_by_name("Q4_0"), 1, &err)) fail_msg("%s", err.msg);
        struct gguf *g;
        struct tokenizer *t;
        if (gguf_open(&g, path, NULL, &err) || tok_open(&t, g, NULL, &err)) fail_msg("%s", err.msg);
        assert_int_equal(tok_n(t), list[i].vocab);
        assert_int_equal(tok_bos(t), list[i].bos);
        assert_int_equal(tok_adds_bos(t), list[i].adds_bos);
        check_texts(t, list[i].shape);
        int32_t *ids;
        int n = encode(t, "somewhere over there was another place where words were written",
                       0, &ids);
        if (n > 32) fail_msg("%s: 54 letters took %d tokens", list[i].shape, n);
        free(ids);
        tok_close(t);
        gguf_close(g);
    }
}

static void random_models_give_sane_logits(void **state) {
    (void)state;
    static const char *const shapes[] = { "smollm2-135m", "tinyllama-1.1b" };
    for (int i = 0; i < 2; i++) {
        struct err err = { 0 };
        struct synth_shape s = *shape_find(shapes[i]);
        s.n_layers = 2, s.n_vocab = 2048;
        const char *path = temp_path("sane.gguf");
        if (synth_random(path, &s, recipe_by_name("Q4_0"), 3, &err)) fail_msg("%s", err.msg);
        struct engine e = load(path);
        struct session *session;
        const struct session_options o = { .n_ctx = 16, .type_k = DT_F16, .type_v = DT_F16 };
        const int32_t ids[] = { 1, 500, 7, 1999, 30, 1024, 8, 9 };
        if (session_open(&session, e.m, &o, &err) || session_eval(session, ids, 8, &err))
            fail_msg("%s", err.msg);
        const float *l = session_logits(session);
        double sum = 0, squares = 0;
        for (int j = 0; j < 2048; j++) sum += l[j], squares += (double)l[j] * l[j];
        double deviation = sqrt(squares / 2048 - sum / 2048 * sum / 2048);
        if (!(deviation > 1 && deviation < 3))
            fail_msg("%s: logits deviate by %g, want 1 to 3", shapes[i], deviation);
        session_close(session);
        unload(&e);
    }
}

/* ---- the retrieval model ---- */

static const char needle[] = " The secret code is 7391 orange kettle.";
static const char cue[] = "\nThe secret code is", answer[] = " 7391 orange kettle.";

/* Sentences that share words with the needle but never four in a row. */
static size_t tell(struct rand *r, char *out, size_t size, double depth) {
    static const char *const who[] = { "The fox", "My sister", "The old sailor", "A clever owl",
                                       "The secret garden" };
    static const char *const what[] = { "is happy", "found an orange lamp", "wrote 73 letters",
                                        "has a kettle", "code of law" };
    static const char *const when[] = { "before the rain.", "in the morning.", "at 9 o'clock.",
                                        "and went home." };
    size_t n = 0;
    bool planted = false;
    while (n + 200 < size) {
        if (!planted && (double)n >= depth * (double)(size - 300)) {
            n += (size_t)snprintf(out + n, size - n, "%s", needle);
            planted = true;
        }
        n += (size_t)snprintf(out + n, size - n, " %s %s %s", who[rand_below(r, 5)],
                              what[rand_below(r, 5)], when[rand_below(r, 4)]);
    }
    assert_true(planted);
    return n + (size_t)snprintf(out + n, size - n, "%s", cue);
}

static void recite(const struct engine *e, const char *text, const char *attn, int n_out, char *out,
                   size_t size) {
    struct err err = { 0 };
    struct session *s;
    int32_t *ids, said[64];
    int n = encode(e->t, text, TOK_BOS, &ids);
    const struct session_options o = { .n_ctx = n + n_out, .type_k = DT_F16, .type_v = DT_F16,
                                       .attn = attn };
    if (session_open(&s, e->m, &o, &err) || session_eval(s, ids, n, &err)) fail_msg("%s", err.msg);
    for (int i = 0; i < n_out; i++) {
        const float *l = session_logits(s);
        said[i] = 0;
        for (int j = 1; j < tok_n(e->t); j++)
            if (l[j] > l[said[i]]) said[i] = j;
        if (session_eval(s, &said[i], 1, &err)) fail_msg("%s", err.msg);
    }
    decode(e->t, said, n_out, out, size);
    session_close(s);
    free(ids);
}

static void needles_at_every_depth(void **state) {
    (void)state;
    struct err err = { 0 };
    struct rand r = { 17 };
    static char text[3000];
    for (int lookups = 2; lookups <= 4; lookups++) {
        struct induction_options o = { .n_ctx = 131072, .n_lookups = lookups,
                                       .seed = (uint64_t)lookups };
        const char *path = temp_path("induction.gguf");
        if (synth_induction(path, &o, recipe_by_name("Q8_0"), &err)) fail_msg("%s", err.msg);
        struct engine e = load(path);
        check_texts(e.t, "induction");
        for (int depth = 0; depth <= 100; depth += lookups == 2 ? 50 : 100) {
            char out[256];
            tell(&r, text, sizeof text, depth / 100.0);
            int32_t *ids;
            int n = encode(e.t, answer, 0, &ids);
            free(ids);
            recite(&e, text, NULL, n, out, sizeof out);
            if (!strstr(out, "7391 orange kettle."))
                fail_msg("%d look-ups, depth %d: \"%s\"", lookups, depth, out);
        }
        unload(&e);
    }
}

/* The file's word on which heads retrieve: they alone need the whole text, and all of them do. */
static void ground_truth_about_heads(void **state) {
    (void)state;
    static const struct { const char *scores; double ratio; bool finds; } list[] = {
        { "0\t0\n1\t0\n1\t0\n", 2 / 6.0, true },          /* layers x KV heads, as the file says */
        { "0\t0\n1\t0\n0\t0\n", 1 / 6.0, false },         /* one of the two is missing */
        { "1\t1\n0\t1\n0\t1\n", 4 / 6.0, false },         /* all the others */
    };
    struct err err = { 0 };
    struct rand r = { 4 };
    static char text[6000];
    struct induction_options o = { .n_ctx = 131072, .n_lookups = 2, .seed = 6 };
    const char *path = temp_path("induction.gguf"), *heads = temp_path("heads.tsv");
    if (synth_induction(path, &o, recipe_by_name("Q8_0"), &err)) fail_msg("%s", err.msg);
    struct engine e = load(path);
    tell(&r, text, sizeof text, 0.3);
    for (int i = 0; i < 3; i++) {
        char attn[600], out[256];
        snprintf(attn, sizeof attn, "duo,heads=%s,ratio=%.3f,sink=16,recent=32", heads,
                 list[i].ratio);
        temp_write(heads, list[i].scores, strlen(list[i].scores));
        recite(&e, text, attn, 8, out, sizeof out);
        if (!strstr(out, "7391 orange kettle.") == list[i].finds)
            fail_msg("heads %d: \"%s\"", i, out);
    }
    unload(&e);
}

int main(void) {
    omp_set_num_threads(1);                 /* small models: a busy machine makes barriers dear */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vocabularies_of_every_family),
        cmocka_unit_test(random_models_give_sane_logits), cmocka_unit_test(needles_at_every_depth),
        cmocka_unit_test(ground_truth_about_heads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
