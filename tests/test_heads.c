/* Looking into heads: ranks and files, narrowed heads against mode duo, what an observer is told,
 * samples, the probe against the weights of a constructed model, the copy score against its
 * definition in double. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "attention/heads.h"
#include "tests/common/heads_world.h"
#include "tests/common/temp.h"
#include "tools/common/heads_copy.h"
#include "tools/common/heads_local.h"
#include "tools/common/heads_picture.h"
#include "tools/common/heads_probe.h"
#include "tools/common/heads_table.h"
#include "tools/common/synth_induction.h"
#include "tests/common/check.h"

static struct err err;

/* ---- ranks ---- */

static void test_ranks(void **state) {
    (void)state;
    const float x[] = { 0.5f, 0, 2e-11f, 7, 0.5f }, want[] = { 0.625f, 0.125f, 0.125f, 1, 0.625f };
    float rank[5];
    heads_rank(rank, x, 5);                                /* 2e-11 is rounding: as good as 0 */
    for (int i = 0; i < 5; i++) assert_true(rank[i] == want[i]);
    const float up[] = { 1, 2, 3, 4 }, curved[] = { 1, 10, 11, 900 },
                down[] = { 4, 3, 2, 1 }, flat[] = { 2, 2, 2, 2 };
    const float swapped[] = { 1, 3, 2, 4 };
    assert_true(fabs(heads_agree(up, curved, 4) - 1) < 1e-12);
    assert_true(fabs(heads_agree(up, down, 4) + 1) < 1e-12);
    assert_true(fabs(heads_agree(up, swapped, 4) - 0.8) < 1e-12);         /* 1 - 6 * 2 / (4 * 15) */
    assert_true(isnan(heads_agree(up, flat, 4)));
    assert_int_equal(heads_shared(up, curved, 4, 2), 2);
    assert_int_equal(heads_shared(up, down, 4, 2), 0);
    assert_int_equal(heads_shared(up, down, 4, 3), 2);
    assert_int_equal(heads_shared(flat, down, 4, 1), 1);                  /* the first of equals */
}

/* Two layers of four query heads on two KV heads, two runs. */
static struct heads_table two_runs(void) {
    static const float copy[2][8] = { { 0, 0.5f, 1, 0.25f, 0, 0, 0.75f, 0 },
                                      { 0, 0.5f, 0, 0.25f, 0, 0, 0.25f, 1 } };
    static const float harm[2][4] = { { 4, 3, 2, 1 }, { 4, 2, 3, 0 } };
    struct heads_table t = { .n_layers = 2, .n_heads = 4, .n_kv_heads = 2 };
    for (int r = 0; r < 2; r++) {
        struct heads_run run;
        assert_int_equal(heads_table_add(&t, &run, &err), 0);
        for (int i = 0; i < 8; i++)
            assert_true(run.copy[i] == 0 && run.harm[i / 2] == 0 && run.local[i / 2] == 0);
        memcpy(run.copy, copy[r], sizeof copy[r]);
        memcpy(run.harm, harm[r], sizeof harm[r]);
        for (int i = 0; i < 4; i++) run.local[i] = (float)i;
    }
    return t;
}

static void test_table(void **state) {
    (void)state;
    struct heads_table t = two_runs();
    float x[4];
    heads_table_copy(&t, x);
    const float copy[] = { 0.5f, 0.5f, 0, 0.5f };      /* the best mean, not the mean of the best */
    assert_memory_equal(x, copy, sizeof x);
    heads_table_mean(&t, t.harm, x);
    const float harm[] = { 4, 2.5f, 2.5f, 0.5f };
    assert_memory_equal(x, harm, sizeof x);
    heads_table_rank(&t, t.harm, x);
    const float rank[] = { 1, 0.5f, 0.5f, 0 };
    assert_memory_equal(x, rank, sizeof x);
    heads_table_mean(&t, t.local, x);
    for (int i = 0; i < 4; i++) assert_true(x[i] == (float)i);
    assert_true(fabs(heads_table_split_half(&t, t.harm) - 0.8) < 1e-7);
    assert_true(fabs(heads_table_split_half(&t, t.local) - 1) < 1e-7);
    t.n_runs = 1;
    assert_true(isnan(heads_table_split_half(&t, t.harm)));
    t.n_runs = 2;
    for (int i = 0; i < 100; i++) {                        /* it grows, and keeps what it has */
        struct heads_run run;
        assert_int_equal(heads_table_add(&t, &run, &err), 0);
    }
    assert_true(t.copy[2] == 1 && t.harm[7] == 0 && t.local[7] == 3);
    heads_table_free(&t);
}

static void test_files(void **state) {
    (void)state;
    struct heads_table t = two_runs();
    const float value[] = { 1.5f, 0.1f, -2, 1.0f / 3 };
    float back[4];
    const char *path = temp_path("heads.tsv");
    assert_int_equal(heads_write_tsv(path, value, 2, 2, &err), 0);
    assert_int_equal(heads_read(back, path, 2, 4, 2, &err), 0);
    assert_true(back[0] == 1 && back[1] == value[1] && back[2] == 0 && back[3] == value[3]);
    char line[128];
    FILE *f = fopen(path, "r");
    assert_non_null(fgets(line, sizeof line, f));
    fclose(f);
    assert_string_equal(line, "1.000000000000000000e+00\t1.000000014901161194e-01\n");
    path = temp_path("heads.json");
    assert_int_equal(heads_write_json(path, &t, &err), 0);
    assert_int_equal(heads_read(back, path, 2, 4, 2, &err), 0);
    const float copy[] = { 0.5f, 0.5f, 0, 0.5f };
    assert_memory_equal(back, copy, sizeof back);
    const float queries[] = { 0.2f, 0, 0.09f, 0, 0, 0, 0, 1 };
    path = temp_path("plan.json");
    assert_int_equal(heads_write_plan(path, queries, 2, 4, 0.1, 320, &err), 0);
    f = fopen(path, "r");
    char plan[256];
    plan[fread(plan, 1, sizeof plan - 1, f)] = 0;
    fclose(f);
    assert_string_equal(plan, "{\"alphas\": [[0, 320, 320, 320], [320, 320, 320, 0]],\n"
                              " \"betas\": [[1, 0, 0, 0], [0, 0, 0, 1]]}\n");
    assert_int_equal(heads_write_plan("/no/such/folder/x", queries, 2, 4, 0.1, 320, &err), -1);
    assert_int_equal(heads_write_json("/no/such/folder/x", &t, &err), -1);
    assert_int_equal(heads_write_tsv("/no/such/folder/x", value, 2, 2, &err), -1);
    heads_table_free(&t);
}

static void test_picture(void **state) {                   /* from one head to 80 layers of 64 */
    (void)state;
    static const int shapes[][2] = { { 1, 1 }, { 4, 2 }, { 32, 32 }, { 80, 64 }, { 5, 128 } };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        float *v = calloc((size_t)shapes[i][0] * (size_t)shapes[i][1], sizeof *v);
        v[0] = 1;
        const struct heads_panel p[] = { { "left", "query head", shapes[i][1], v },
                                         { "right", "KV head", 1, v } };
        if (heads_draw(temp_path("p.png"), "a model", shapes[i][0], p, 2, &err))
            fail_msg("%s", err.msg);
        free(v);
    }
}

/* ---- sessions ---- */

static struct engine made;                                 /* a constructed model */

static int engines_up(void **state) {
    static char path[256];
    snprintf(path, sizeof path, "%s", temp_path("induction.gguf"));
    const struct recipe *recipe = recipe_by_name("F16");
    if (synth_induction(path, &(struct induction_options){ 4096, 3, 7 }, recipe, &err))
        fail_msg("%s", err.msg);
    world_engine(&made, path);
    return world_up(state);
}

static int engines_down(void **state) {
    engine_close(&made);
    return world_down(state);
}

static void test_narrowed_is_duo(void **state) {
    (void)state;
    static const float full[8] = { 1, 0, 0, 1, 1, 0, 1, 0 };
    unsigned char narrow[8];
    char mode[512];
    struct fact fact;
    struct heads_sample x = world_sample(&world, STYLE_STORY, 600, 30, 1, &fact);
    const size_t n = (size_t)world.model->c.n_vocab * sizeof(float);
    float *plain = malloc(n);
    const char *path = temp_path("half.tsv");
    for (int i = 0; i < 8; i++) narrow[i] = !full[i];
    if (heads_write_tsv(path, full, 4, 2, &err)) fail_msg("%s", err.msg);
    snprintf(mode, sizeof mode, "duo,heads=%s,ratio=0.5,sink=20,recent=100", path);
    struct session *duo = world_session(&world, mode), *s = world_session(&world, "full");
    assert_int_equal(session_eval(duo, x.ids, x.n, &err), 0);
    assert_int_equal(session_eval(s, x.ids, x.n, &err), 0);
    memcpy(plain, session_logits(s), n);
    session_truncate(s, 0);
    session_narrow(s, narrow, 20, 100);
    assert_int_equal(session_eval(s, x.ids, x.n, &err), 0);
    assert_memory_equal(session_logits(s), session_logits(duo), n);   /* same keys, same bits */
    assert_memory_not_equal(session_logits(s), plain, n);
    session_truncate(s, 0);
    session_narrow(s, NULL, 0, 0);
    assert_int_equal(session_eval(s, x.ids, x.n, &err), 0);
    assert_memory_equal(session_logits(s), plain, n);
    session_close(duo);
    session_close(s);
    heads_sample_free(&x);
    free(plain);
}

struct log { int n, layer[16], pos[16], tokens[16]; float q; };

static void write_log(void *ctx, const struct attn_call *c) {
    struct log *l = ctx;
    if (l->n < 16) l->layer[l->n] = c->layer, l->pos[l->n] = c->pos, l->tokens[l->n] = c->n;
    l->q += c->q[0];
    l->n++;
}

static void test_observer(void **state) {
    (void)state;
    struct session *s = world_session(&world, "full");
    struct log log = { 0 };
    int32_t ids[40];
    for (int i = 0; i < 40; i++) ids[i] = 100 + i;
    session_observe(s, write_log, &log);
    assert_int_equal(session_eval_rows(s, ids, 30, &err), 0);
    assert_int_equal(session_eval(s, ids + 30, 1, &err), 0);
    assert_int_equal(log.n, 8);
    for (int i = 0; i < 8; i++)
        if (log.layer[i] != i % 4 || log.pos[i] != (i < 4 ? 0 : 30) ||
            log.tokens[i] != (i < 4 ? 30 : 1))
            fail_msg("call %d: layer %d, %d tokens at %d", i, log.layer[i], log.tokens[i],
                     log.pos[i]);
    assert_true(log.q != 0);
    session_observe(s, NULL, NULL);
    assert_int_equal(session_eval(s, ids + 31, 1, &err), 0);
    assert_int_equal(log.n, 8);
    session_close(s);
}

static void test_sample(void **state) {
    (void)state;
    const struct { const struct engine *e; enum style style; } all[] = {
        { &world, STYLE_STORY }, { &world, STYLE_RULER },
        { &made, STYLE_COPY }, { &made, STYLE_RULER },
    };
    for (int i = 0; i < 4; i++)
        for (int seed = 1; seed <= 20; seed++) {
            struct fact fact;
            struct heads_sample s = world_sample(all[i].e, all[i].style, 400, seed * 5, seed,
                                                 &fact);
            struct tok_stream stream = { .started = true };
            char text[4096];
            size_t n = 0;
            for (int t = 0; t < s.n_answer; t++)
                n += tok_decode(all[i].e->tok, &stream, s.ids[s.answer + t], false, text + n);
            text[n] = 0;
            /* The answer, with its space in front and at most the full stop behind it. */
            const char *at = strstr(text, fact.answer);
            if (!at || at - text > 1 || strlen(at) > strlen(fact.answer) + 1)
                fail_msg("'%s' for '%s'", text, fact.answer);
            assert_true(s.n <= 400 && s.n == s.prompt + s.n_answer - 1);
            assert_true(s.answer >= s.needle && s.answer + s.n_answer <= s.needle + s.n_needle &&
                        s.needle + s.n_needle <= s.tail);
            assert_memory_equal(s.ids + s.prompt, s.ids + s.answer,
                                ((size_t)s.n_answer - 1) * sizeof *s.ids);
            heads_sample_free(&s);
        }
    struct haystack *hay;
    struct heads_sample s;
    struct planting w = { .n_tokens = 400, .needle = "The word is red.", .question = "What?" };
    assert_int_equal(haystack_open(&hay, world.tok, NULL, 0, 1, &err), 0);
    assert_int_equal(heads_sample_make(&s, hay, world.tok, &w, "blue", &err), -1);
    assert_non_null(strstr(err.msg, "does not spell its answer 'blue'"));
    w.n_tokens = 3;
    assert_int_equal(heads_sample_make(&s, hay, world.tok, &w, "red", &err), -1);
    haystack_close(hay);
}

/* ---- the probe on a model of which it is known what every head does ---- */

static void test_constructed(void **state) {
    (void)state;
    struct session *s = world_session(&made, "full");
    struct heads_probe *p = NULL;
    const struct heads_probe_options o = { .sink = 16, .recent = 64 };
    float copy[4 * 4], first[4 * 4], harm[4 * 2], local[4 * 2], layers[4];
    struct heads_tail tail, moved;
    struct fact fact;
    assert_int_equal(made.model->c.n_layers, 4);
    if (heads_probe_open(&p, made.model, s, &o, &err)) fail_msg("%s", err.msg);
    for (int run = 0; run < 4; run++) {             /* the last is the first again, behind others */
        struct heads_sample x = world_sample(&made, STYLE_COPY, 400 + run % 3 * 100,
                                             30 + 10 * (run % 3), 1 + run % 3, &fact);
        if (heads_probe_read(p, &x, &tail, &err) || heads_copy(p, made.model, &x, copy, &err) ||
            heads_local(p, made.model, s, &x, o.sink, o.recent, local, &err) ||
            heads_probe_ablate(p, 1, harm, &err) || heads_probe_ablate(p, 2, layers, &err))
            fail_msg("%s", err.msg);
        assert_int_equal(tail.right, x.n_answer);
        assert_true(tail.log_prob > -0.01 && tail.log_prob <= 0);
        for (int l = 0; l < 4; l++)     /* query heads 0, 1 of layers 1 to 3 look up, nobody else */
            for (int h = 0; h < 4; h++)
                if (fabs(copy[l * 4 + h] - (l > 0 && h < 2)) > 1e-6)
                    fail_msg("run %d, head %d-%d copies %g", run, l, h, copy[l * 4 + h]);
        for (int i = 0; i < 8; i++)
            if (i >= 2 && i % 2 == 0 ? harm[i] < 1e-3 : harm[i] > 1e-6)
                fail_msg("run %d, KV head %d-%d: harm %g", run, i / 2, i % 2, harm[i]);
        for (int i = 0; i < 8; i++)
            if (i >= 2 && i % 2 == 0 ? local[i] < 1e-3 : local[i] > 1e-6)
                fail_msg("run %d, KV head %d-%d: local %g", run, i / 2, i % 2, local[i]);
        for (int l = 0; l < 4; l++)                 /* a layer's harm is that of its one look-up */
            if (fabsf(layers[l] - harm[2 * l]) > 1e-5f * harm[2 * l] + 1e-6f)
                fail_msg("layer %d: harm %g, its head %g", l, layers[l], harm[2 * l]);
        if (run == 0) memcpy(first, copy, sizeof first);
        /* Any one look-up that sees only the window loses the fact;
         * all the local heads together do not. */
        for (int i = 2; i < 8; i += 2) {
            unsigned char narrow[8] = { 0 };
            narrow[i] = 1;
            if (heads_probe_narrowed(p, narrow, &moved, &err)) fail_msg("%s", err.msg);
            assert_true(moved.right < x.n_answer && moved.log_prob < -1);
            assert_true(fabs(moved.moved - harm[i]) <= 1e-6 * harm[i]);
        }
        const unsigned char near[8] = { 1, 1, 0, 1, 0, 1, 0, 1 };
        if (heads_probe_narrowed(p, near, &moved, &err)) fail_msg("%s", err.msg);
        assert_int_equal(moved.right, x.n_answer);
        heads_sample_free(&x);
    }
    assert_memory_equal(copy, first, sizeof copy);
    heads_probe_close(p);
    session_close(s);
}

/* Copy scores against attention rows worked out one by one in double precision. */
struct naive { const struct heads_sample *x; float *copy; };

static void look_again(void *ctx, const struct attn_call *c) {
    struct naive *w = ctx;
    const struct heads_sample *x = w->x;
    static double weight[1024];
    for (int i = 0; i < x->n_answer; i++)
        for (int h = 0; h < 4; h++) {
            const int p = x->prompt - 1 + i;
            int at = 0;
            world_weights(c, &world.model->c, h, p, false, 0, 0, weight);
            for (int j = 1; j <= p; j++)
                if (weight[j] > weight[at]) at = j;
            if (at >= x->needle && at < x->needle + x->n_needle &&
                x->ids[at] == x->ids[x->answer + i])
                w->copy[c->layer * 4 + h] += 1.0f / x->n_answer;
        }
}

static void test_copy_score(void **state) {
    (void)state;
    struct session *s = world_session(&world, "full");
    struct heads_probe *p = NULL;
    const struct heads_probe_options o = { .sink = 16, .recent = 64 };
    struct heads_tail tail;
    struct fact fact;
    if (heads_probe_open(&p, world.model, s, &o, &err)) fail_msg("%s", err.msg);
    for (int seed = 2; seed < 6; seed++) {
        struct heads_sample x = world_sample(&world, STYLE_STORY, 420, 20, seed, &fact);
        float copy[16], want[16] = { 0 };
        if (heads_probe_read(p, &x, &tail, &err) || heads_copy(p, world.model, &x, copy, &err))
            fail_msg("%s", err.msg);
        session_truncate(s, x.tail);
        session_observe(s, look_again, &(struct naive){ &x, want });
        assert_int_equal(session_eval_rows(s, x.ids + x.tail, x.n - x.tail, &err), 0);
        session_observe(s, NULL, NULL);
        for (int i = 0; i < 16; i++)
            if (fabsf(copy[i] - want[i]) > 1e-6)
                fail_msg("seed %d, head %d-%d: %g, not %g", seed, i / 4, i % 4, copy[i], want[i]);
        heads_sample_free(&x);
    }
    heads_probe_close(p);
    session_close(s);
}

static void test_stretch(void **state) {
    (void)state;
    int32_t ids[20];
    struct heads_sample s;
    for (int i = 0; i < 20; i++) ids[i] = 100 + i;
    assert_int_equal(heads_sample_text(&s, ids, 20, 6, &err), 0);
    assert_true(s.n == 19 && s.tail == 13 && s.prompt == 14 && s.n_answer == 6 && s.n_needle == 0);
    /* Token i of the answer stands where position prompt - 1 + i foretells it. */
    for (int i = 0; i < 6; i++) assert_int_equal(s.ids[s.answer + i], ids[s.prompt + i]);
    heads_sample_free(&s);
}

static volatile sig_atomic_t stop;
static void stop_soon(void *ctx, int done, int total) { (void)ctx, (void)total; stop = done == 3; }

static void test_interrupted(void **state) {
    (void)state;
    struct session *s = world_session(&world, "full");
    struct heads_probe *p = NULL;
    const struct heads_probe_options o = { .sink = 16, .recent = 64, .stop = &stop,
                                           .progress = stop_soon };
    struct heads_tail tail;
    struct fact fact;
    float harm[8];
    struct heads_sample x = world_sample(&world, STYLE_STORY, 420, 20, 1, &fact);
    if (heads_probe_open(&p, world.model, s, &o, &err) || heads_probe_read(p, &x, &tail, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(heads_probe_ablate(p, 1, harm, &err), -1);
    assert_string_equal(err.msg, "interrupted");
    heads_probe_close(p);
    session_close(s);
    heads_sample_free(&x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranks),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_picture),
        cmocka_unit_test(test_narrowed_is_duo),
        cmocka_unit_test(test_observer),
        cmocka_unit_test(test_sample),
        cmocka_unit_test(test_constructed),
        cmocka_unit_test(test_copy_score),
        cmocka_unit_test(test_stretch),
        cmocka_unit_test(test_interrupted),
    };
    return cmocka_run_group_tests(tests, engines_up, engines_down);
}
