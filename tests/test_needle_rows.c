/* Rows of needle tests in files, grids made of them, and the pictures drawn. */
#include <math.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/file.h"
#include "tests/common/temp.h"
#include "tools/common/heatmap.h"
#include "tools/common/needle_grid.h"
#include "tools/common/needle_pivot.h"
#include "tools/common/png_canvas.h"
#include "tests/common/check.h"

static struct err err;

static struct row sample(int length, double depth, int seed, double score) {
    static const char *const reference[] = { "7", "\"eight\"" };
    return (struct row){ .model = "m", .version = "story-d4-n32", .attn = "full", .attn_params = "",
                         .type_k = "F16", .type_v = "F16", .context_length = length, .seed = seed,
                         .depth_percent = depth, .needle = "a \"b\"\n", .response = "\xc3\xa4",
                         .timestamp = "2026-01-02 03:04:05+0000", .reference = reference,
                         .n_references = 2, .score = score, .seconds = 1.5, .kv_bytes = 5e9,
                         .prefill_tps = 100, .decode_tps = -1, .keys_read = 12.5,
                         .prefill_keys_read = INFINITY, .prompt_tokens = length - 32,
                         .prefill_tokens = 7, .predicted_tokens = 1 };
}

static struct rows opened(const char *path) {
    struct rows s = ROWS_NONE;
    if (rows_open(&s, path, &err)) fail_msg("%s", err.msg);
    return s;
}

static void add(struct rows *s, struct row r) {
    if (rows_add(s, &r, &err)) fail_msg("%s", err.msg);
}

static void append_text(const char *path, const char *text) {
    FILE *f = fopen(path, "a");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static long size_of(const char *path) {
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return (long)st.st_size;
}

static void test_round_trip(void **state) {
    (void)state;
    const char *path = temp_path("round.jsonl");
    struct rows s = opened(path);
    add(&s, sample(1024, 12.5, 3, 0.25));
    rows_close(&s);
    s = opened(path);
    assert_int_equal(s.n, 1);
    const struct row *r = &s.row[0];
    assert_string_equal(r->model, "m");
    assert_string_equal(r->needle, "a \"b\"\n");
    assert_string_equal(r->response, "\xc3\xa4");
    assert_string_equal(r->timestamp, "2026-01-02 03:04:05+0000");
    assert_true(r->context_length == 1024 && r->seed == 3 && r->depth_percent == 12.5 &&
                r->score == 0.25 && r->kv_bytes == 5e9);
    assert_true(r->prefill_tps == 100 && r->decode_tps == -1 && r->keys_read == 12.5 &&
                r->prefill_keys_read == -1);
    assert_true(r->prompt_tokens == 992 && r->prefill_tokens == 7 && r->predicted_tokens == 1);
    rows_close(&s);
}

/* A row is the same cell when everything that was tested agrees. */
static void test_find(void **state) {
    (void)state;
    struct rows s = ROWS_NONE;
    const struct row like = sample(1024, 50, 1, 1);
    struct row other[9];
    add(&s, like);
    assert_non_null(rows_find(&s, &like));
    for (int i = 0; i < 9; i++) other[i] = like;
    other[0].model = "n", other[1].version = "x", other[2].attn = "hip",
    other[3].attn_params = "k=1", other[4].type_k = "F32";
    other[5].type_v = "Q8_0", other[6].context_length = 2048,
    other[7].seed = 2, other[8].depth_percent = 50.5;
    for (int i = 0; i < 9; i++)
        if (rows_find(&s, &other[i])) fail_msg("difference %d is not seen", i);
    rows_close(&s);
}

/* However the last line is cut, the rows before it stay and the file is whole again. */
static void test_repair(void **state) {
    (void)state;
    const char *path = temp_path("repair.jsonl");
    struct rows s = opened(path);
    add(&s, sample(1024, 0, 1, 1));
    const long one = size_of(path);
    add(&s, sample(1024, 50, 1, 1));
    rows_close(&s);
    const long two = size_of(path);
    for (long cut = two; cut >= one; cut -= cut > two - 4 || cut < one + 4 ? 1 : 7) {
        assert_int_equal(truncate(path, cut), 0);
        struct rows look = ROWS_NONE;
        assert_int_equal(rows_load(&look, path, &err), 0);
        assert_int_equal(look.n, cut >= two - 1 ? 2 : 1);
        rows_close(&look);
        assert_int_equal(size_of(path), cut);               /* looking changes nothing */
        s = opened(path);
        assert_int_equal(s.n, cut >= two - 1 ? 2 : 1);
        assert_true(s.cut == (cut > one && cut < two - 1));
        assert_int_equal(size_of(path), cut >= two - 1 ? two : one);
        if (s.n == 1) add(&s, sample(1024, 50, 1, 1));
        rows_close(&s);
        assert_int_equal(size_of(path), two);
    }
}

static void test_foreign(void **state) {
    (void)state;
    static const char *const lines[] = {
        "hello\n", "{\"a\":1}\n", "[]\n", "{\"model\":\"m\"\n", "{\"model\":1}", "7",
        "{\"model\":\"m\",\"version\":\"v\",\"attn\":\"full\",\"attn_params\":\"\","
        "\"type_k\":\"F16\",\"type_v\":\"F16\",\"seed\":1,"
        "\"context_length\":1e300,\"depth_percent\":50,\"score\":1}\n",
        "{\"model\":\"m\",\"version\":\"v\",\"attn\":\"full\",\"attn_params\":\"\","
        "\"type_k\":\"F16\",\"type_v\":\"F16\",\"seed\":1,"
        "\"context_length\":100,\"depth_percent\":50,\"score\":2}\n"
    };
    const char *path = temp_path("foreign.jsonl");
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct rows s;
        remove(path);
        s = opened(path);
        add(&s, sample(1024, 0, 1, 1));
        rows_close(&s);
        append_text(path, lines[i]);
        const long before = size_of(path);
        s = (struct rows)ROWS_NONE;
        if (!rows_open(&s, path, &err)) fail_msg("line '%s' is taken for a row", lines[i]);
        assert_non_null(strstr(err.msg, "foreign.jsonl:2:"));
        rows_close(&s);
        assert_int_equal(size_of(path), before);
    }
}

/* Processes that share a file: every line whole. */
static void test_shared(void **state) {
    (void)state;
    enum { WRITERS = 4, EACH = 50 };
    const char *path = temp_path("shared.jsonl");
    pid_t child[WRITERS];
    for (int w = 0; w < WRITERS; w++)
        if (!(child[w] = fork())) {
            for (int i = 0; i < EACH; i++) {    /* open anew each time: repairing meets writing */
                struct rows s = ROWS_NONE;
                struct row r = sample(1024, i, w, 1);
                if (rows_open(&s, path, &err) || rows_add(&s, &r, &err)) _exit(1);
                rows_close(&s);
            }
            _exit(0);
        }
    for (int w = 0; w < WRITERS; w++) {
        int status;
        assert_true(waitpid(child[w], &status, 0) == child[w] && WIFEXITED(status) &&
                    !WEXITSTATUS(status));
    }
    struct rows s = opened(path);
    assert_false(s.cut);
    assert_int_equal(s.n, WRITERS * EACH);
    for (int w = 0; w < WRITERS; w++)
        for (int i = 0; i < EACH; i++) {
            const struct row want = sample(1024, i, w, 1);
            assert_non_null(rows_find(&s, &want));
        }
    rows_close(&s);
}

static void test_grid(void **state) {
    (void)state;
    struct rows s = ROWS_NONE;
    struct grids g;
    struct row q = sample(2048, 50, 1, 0.5);
    q.type_k = "Q8_0";
    add(&s, sample(4096, 100, 1, 1));
    add(&s, sample(1024, 0, 1, 1));
    add(&s, q);
    add(&s, sample(1024, 0, 2, 0.5));
    add(&s, sample(1024, 0, 3, 0));
    add(&s, sample(1024, 100, 1, 0));
    for (int i = 0; i < 4; i++) {   /* three sets of parameters, one of them for two cache types */
        struct row r = sample(1024, 0, 1, 0);
        static const char *const params[] = { "k=1", "k=2", "k=3", "k=2" };
        r.attn = "hip", r.attn_params = params[i], r.type_k = r.type_v = i == 3 ? "Q8_0" : "F16";
        add(&s, r);
    }
    assert_int_equal(grids_make(&g, &s, &err), 0);
    assert_int_equal(g.n, 6);
    const struct grid *a = &g.grid[0];
    assert_true(a->n_lengths == 2 && a->length[0] == 1024 && a->length[1] == 4096);
    assert_true(a->n_depths == 2 && a->depth[0] == 0 && a->depth[1] == 100);
    assert_true(a->score[0] == 0.5 && isnan(a->score[1]) && a->score[2] == 0 && a->score[3] == 1);
    assert_true(a->column[0].cells == 4 && a->column[0].score == 0.375 &&
                a->column[0].decode_tps == -1 && a->column[0].keys_read == 12.5);
    assert_string_equal(g.grid[1].first->type_k, "Q8_0");
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    grids_print(&g, f);
    fclose(f);
    assert_non_null(strstr(text, "| m | story-d4-n32 | full | F16 | 1k | 4 | 0.375 | 4768.37 | 12 "
                                 "| 100.0 | - |\n"));
    assert_non_null(strstr(text, "| m | story-d4-n32 | full | Q8_0/F16 | 2k | 1 | 0.500 |"));
    assert_non_null(strstr(text, "| hip | F16 | 1k | 1 | 0.000 |"));
    assert_non_null(strstr(text, "| hip-2 | F16 |"));
    assert_non_null(strstr(text, "| hip-3 | F16 |"));
    assert_non_null(strstr(text, "| hip-2 | Q8_0 |"));
    const char *legend = strstr(text, "\nhip: k=1\n\nhip-2: k=2\n\nhip-3: k=3\n");
    assert_true(legend && !strstr(legend + 1, "k=2\n\nhip-2"));
    free(text);
    const char *path = temp_path("grid.png");
    assert_int_equal(grids_draw(&g, path, &err), 0);
    assert_true(size_of(path) > 0 && size_of(temp_path("grid.full-F16.png")) > 0 &&
                size_of(temp_path("grid.full-Q8_0-F16.png")) > 0);
    assert_true(size_of(temp_path("grid.hip-3-F16.png")) > 0 &&
                size_of(temp_path("grid.hip-2-Q8_0.png")) > 0);
    assert_int_equal(grids_draw(&g, "/nowhere/at/all.png", &err), -1);
    assert_non_null(strstr(err.msg, "/nowhere/at/all.png"));
    grids_free(&g);
    rows_close(&s);
}

static char *pivot(const struct grids *g, bool by_test, bool by_length) {
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    assert_int_equal(grids_pivot(g, by_test, by_length, f, &err), 0);
    fclose(f);
    return text;
}

/* Means over rows, not over means; what nobody measured is a dash;
 * tests in order of appearance, lengths in theirs. */
static void test_pivot(void **state) {
    (void)state;
    struct rows s = ROWS_NONE;
    struct grids g;
    struct row hop = sample(2048, 0, 1, 0), hop_long = sample(1024, 0, 1, 0.25),
               q = sample(1024, 0, 1, 0.5);
    hop.version = "hop-d4-n32", hop_long.version = "hop-d4-n32",
    hop_long.attn = "hip", hop_long.attn_params = "k=1";
    q.type_k = "Q8_0";
    add(&s, sample(4096, 0, 1, 1));
    add(&s, hop);
    add(&s, sample(1024, 0, 1, 1));
    add(&s, sample(1024, 50, 1, 0));
    add(&s, sample(1024, 100, 1, 0));
    add(&s, hop_long);
    add(&s, q);
    assert_int_equal(grids_make(&g, &s, &err), 0);
    char *text = pivot(&g, true, true);
    assert_string_equal(text, "| attn | KV | story 1k | story 4k | hop 1k | hop 2k |\n"
                              "|---|---|---:|---:|---:|---:|\n"
                              "| full | F16 | 0.33 | 1.00 | - | 0.00 |\n"
                              "| hip | F16 | - | - | 0.25 | - |\n"
                              "| full | Q8_0/F16 | 0.50 | - | - | - |\n\nhip: k=1\n");
    free(text);
    text = pivot(&g, true, false);
    assert_non_null(strstr(text, "| attn | KV | story | hop |\n"));
    assert_non_null(strstr(text, "| full | F16 | 0.50 | 0.00 |\n"));
    free(text);
    text = pivot(&g, false, true);
    assert_non_null(strstr(text, "| attn | KV | 1k | 2k | 4k |\n"));
    assert_non_null(strstr(text, "| full | F16 | 0.33 | 0.00 | 1.00 |\n"));
    free(text);
    grids_free(&g);
    struct row other = sample(1024, 0, 1, 1);   /* another model, another test that begins alike */
    other.model = "n", other.version = "story-d8-n32";
    add(&s, other);
    assert_int_equal(grids_make(&g, &s, &err), 0);
    text = pivot(&g, true, false);
    assert_non_null(strstr(text, "| model | attn | KV | story-d4-n32 | hop | story-d8-n32 |\n"));
    assert_non_null(strstr(text, "| n | full | F16 | - | - | 1.00 |\n"));
    free(text);
    grids_free(&g);
    rows_close(&s);
}

/* ---- pictures -------------------------------------------------------------------------------- */

struct picture { int w, h; uint8_t *rgb; };

static struct picture read_png(const char *path) {
    png_image image = { .version = PNG_IMAGE_VERSION };
    assert_true(png_image_begin_read_from_file(&image, path));
    image.format = PNG_FORMAT_RGB;
    struct picture p = { (int)image.width, (int)image.height, malloc(PNG_IMAGE_SIZE(image)) };
    assert_true(png_image_finish_read(&image, NULL, p.rgb, 0, NULL));
    return p;
}

static int count(const struct picture *p, int r, int g, int b) {
    int n = 0;
    for (const uint8_t *q = p->rgb; q < p->rgb + (size_t)p->w * (size_t)p->h * 3; q += 3)
        n += q[0] == r && q[1] == g && q[2] == b;
    return n;
}

/* Cells of one score have one colour: found light, lost dark, unknown grey. */
static void test_heatmap(void **state) {
    (void)state;
    const int length[] = { 1024, 2048, 3000 };
    const double depth[] = { 0, 50 }, score[] = { 1, 1, 0, 0, NAN, 1 };
    const struct heatmap m = { "full", "", 3, 2, length, depth, score };
    const struct heatmap two[] = {
        m, { "another,with=a,very=long,list=of,parameters=that,have=to,be=wrapped", "x y", 1, 1,
             length, depth, score }
    };
    const char *path = temp_path("heat.png");
    if (heatmap_draw(path, &m, 1, &err)) fail_msg("%s", err.msg);
    struct picture p = read_png(path);
    const int found = count(&p, 172, 226, 158), lost = count(&p, 74, 14, 44),
              unknown = count(&p, 226, 226, 226), w = p.w;
    if (found <= 2 * unknown || lost <= unknown || unknown < 500)
        fail_msg("found %d lost %d unknown %d pixels", found, lost, unknown);
    assert_true(found > lost && found < 4 * unknown && lost < 2 * unknown + 500);
    free(p.rgb);
    if (heatmap_draw(path, two, 2, &err)) fail_msg("%s", err.msg);
    p = read_png(path);
    assert_true(p.w > w + 150);                             /* side by side */
    assert_true(count(&p, 172, 226, 158) > found + 500);
    free(p.rgb);
    char label[16];
    assert_string_equal(length_label(label, 131072), "128k");
    assert_string_equal(length_label(label, 1000), "1000");
}

/* Text leaves ink inside its box and none outside; every printable letter looks different. */
static void test_letters(void **state) {
    (void)state;
    static uint8_t seen[127][40 * 30 * 3];
    struct canvas c;
    for (int ch = 33; ch < 127; ch++) {
        const char text[2] = { (char)ch, 0 };
        assert_int_equal(canvas_open(&c, 30, 40, &err), 0);
        canvas_text(&c, 8, 8, 18, (struct colour){ 0, 0, 0 }, text);
        for (int y = 0; y < 40; y++)
            for (int x = 0; x < 30; x++)
                if ((x < 5 || x > 23 || y < 5 || y > 36) && c.rgb[(y * 30 + x) * 3] != 255)
                    fail_msg("'%c' has ink at %d,%d", ch, x, y);
        memcpy(seen[ch], c.rgb, sizeof seen[ch]);
        canvas_close(&c);
        for (int other = 33; other < ch; other++)
            if (!memcmp(seen[ch], seen[other], sizeof seen[ch]) && !(ch == 'O' && other == '0'))
                fail_msg("'%c' looks like '%c'", ch, other);
    }
    assert_int_equal(canvas_open(&c, 20, 20, &err), 0);
    canvas_text(&c, -10, 15, 18, (struct colour){ 0, 0, 0 }, "clipped at every side \xc3\xa4");
    canvas_rect(&c, -5, -5, 100, 100, (struct colour){ 1, 2, 3 });
    assert_true(c.rgb[0] == 1 && c.rgb[20 * 20 * 3 - 1] == 3);
    canvas_close(&c);
    assert_int_equal(canvas_open(&c, 0, 5, &err), -1);
    assert_true(canvas_text_width(12, "ab") > canvas_text_width(12, "a") &&
                canvas_text_width(12, "") == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_find),
        cmocka_unit_test(test_repair), cmocka_unit_test(test_foreign),
        cmocka_unit_test(test_shared), cmocka_unit_test(test_grid), cmocka_unit_test(test_pivot),
        cmocka_unit_test(test_heatmap), cmocka_unit_test(test_letters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
