/* Which type a tensor gets: the choices behind names like Q4_K_M,
 * as files of that name have them. */
#include <string.h>
#include "tests/common/check.h"
#include "tools/common/recipe.h"

#define COUNT(a) ((int)(sizeof (a) / sizeof *(a)))

static const struct recipe_model llama_1b = { 22, 8, false };      /* TinyLlama's shape */
static const struct recipe_model llama_7b = { 32, 1, false };
static const struct recipe_model llama_70b = { 80, 8, false };
static const struct recipe_model tied = { 16, 4, true };

static enum dtype type_of(const char *recipe, const struct recipe_model *m, const char *tensor) {
    return recipe_type(recipe_by_name(recipe), m, tensor, 2048);
}

static void test_names(void **state) {
    (void)state;
    static const struct { const char *name; int file_type; enum dtype base; } want[] = {
        { "F32", 0, DT_F32 }, { "F16", 1, DT_F16 }, { "BF16", 32, DT_BF16 }, { "q8_0", 7, DT_Q8_0 },
        { "Q4_0", 2, DT_Q4_0 }, { "Q4_1", 3, DT_Q4_1 }, { "Q5_0", 8, DT_Q5_0 },
        { "Q5_1", 9, DT_Q5_1 }, { "Q2_K", 10, DT_Q2_K }, { "Q3_K_S", 11, DT_Q3_K },
        { "q3_k_m", 12, DT_Q3_K }, { "Q3_K", 12, DT_Q3_K }, { "Q3_K_L", 13, DT_Q3_K },
        { "Q4_K_S", 14, DT_Q4_K }, { "Q4_K_M", 15, DT_Q4_K }, { "Q4_K", 15, DT_Q4_K },
        { "Q5_K_S", 16, DT_Q5_K }, { "Q5_K_M", 17, DT_Q5_K }, { "Q5_K", 17, DT_Q5_K },
        { "Q6_K", 18, DT_Q6_K }, { "IQ4_NL", 25, DT_IQ4_NL }, { "IQ4_XS", 30, DT_IQ4_XS },
    };
    for (int i = 0; i < COUNT(want); i++) {
        const struct recipe *r = recipe_by_name(want[i].name);
        assert_non_null(r);
        assert_int_equal(r->file_type, want[i].file_type);
        assert_int_equal(r->base, want[i].base);
    }
    assert_null(recipe_by_name("Q4"));
    assert_null(recipe_by_name(""));
    assert_null(recipe_by_name("IQ2_XXS"));
}

/* Layers as a string of one letter per layer: '+' more bits, '.' the base type. */
static void check_layers(const char *recipe, const struct recipe_model *m, const char *tensor,
                         enum dtype more, const char *want) {
    char name[64];
    enum dtype base = recipe_by_name(recipe)->base;
    assert_int_equal(strlen(want), m->n_layers);
    for (int layer = 0; layer < m->n_layers; layer++) {
        snprintf(name, sizeof name, "blk.%d.%s.weight", layer, tensor);
        enum dtype got = type_of(recipe, m, name), expected = want[layer] == '+' ? more : base;
        if (got != expected)
            fail_msg("%s, %s: %s, wanted %s", recipe, name, dtype_name(got), dtype_name(expected));
    }
}

static void test_layers(void **state) {
    (void)state;
    check_layers("Q4_K_M", &llama_1b, "ffn_down", DT_Q6_K, "++..+..+..+..+..+..+++");
    check_layers("Q4_K_M", &llama_1b, "attn_v", DT_Q6_K, "++..+..+..+..+..+..+++");
    check_layers("Q5_K_M", &llama_7b, "ffn_down", DT_Q6_K, "++++..+..+..+..+..+..+..+..+++++");
    check_layers("Q4_K_S", &llama_7b, "ffn_down", DT_Q5_K, "++++............................");
    check_layers("Q4_K_S", &llama_1b, "attn_v", DT_Q5_K, "++++..................");
    check_layers("Q4_K_S", &llama_1b, "ffn_down", DT_Q5_K, "++....................");
    check_layers("IQ4_XS", &llama_1b, "ffn_down", DT_Q5_K, "++....................");
    check_layers("IQ4_XS", &llama_1b, "attn_v", DT_Q5_K, "++++++++++++++++++++++");
    check_layers("IQ4_XS", &llama_7b, "attn_v", DT_Q5_K, "................................");
    check_layers("Q4_K_M", &llama_1b, "ffn_up", DT_Q6_K, "......................");
    check_layers("Q5_K_S", &llama_1b, "ffn_down", DT_Q6_K, "......................");
}

static void test_choices(void **state) {
    (void)state;
    static const struct {
        const char *recipe; const struct recipe_model *m; const char *tensor; enum dtype want;
    } c[] = {
        { "Q4_K_M", &llama_1b, "output.weight", DT_Q6_K },
        { "Q4_0", &llama_1b, "output.weight", DT_Q6_K },
        { "Q8_0", &llama_1b, "output.weight", DT_Q8_0 },
        { "F16", &llama_1b, "output.weight", DT_F16 },
        { "Q4_K_M", &llama_1b, "token_embd.weight", DT_Q4_K },
        { "Q4_K_M", &tied, "token_embd.weight", DT_Q6_K },
        { "Q8_0", &tied, "token_embd.weight", DT_Q8_0 },
        { "F32", &tied, "token_embd.weight", DT_F32 },
        { "Q2_K", &llama_1b, "blk.3.attn_v.weight", DT_Q4_K },
        { "Q2_K", &llama_7b, "blk.3.attn_v.weight", DT_Q3_K },
        { "Q2_K", &llama_1b, "blk.3.ffn_down.weight", DT_Q3_K },
        { "Q2_K", &llama_1b, "blk.3.attn_output.weight", DT_Q3_K },
        { "Q2_K", &llama_1b, "blk.3.attn_q.weight", DT_Q2_K },
        { "Q3_K_M", &llama_7b, "blk.1.attn_v.weight", DT_Q5_K },
        { "Q3_K_M", &llama_7b, "blk.2.attn_v.weight", DT_Q4_K },
        { "Q3_K_M", &llama_7b, "blk.1.ffn_down.weight", DT_Q5_K },
        { "Q3_K_M", &llama_7b, "blk.2.ffn_down.weight", DT_Q4_K },
        { "Q3_K_M", &llama_7b, "blk.9.attn_output.weight", DT_Q4_K },
        { "Q3_K_L", &llama_7b, "blk.9.attn_output.weight", DT_Q5_K },
        { "Q3_K_L", &llama_7b, "blk.9.ffn_down.weight", DT_Q5_K },
        { "Q3_K_S", &llama_7b, "blk.9.ffn_down.weight", DT_Q3_K },
        { "Q4_K_M", &llama_70b, "blk.12.attn_v.weight", DT_Q6_K },
        { "Q4_K_M", &llama_70b, "blk.13.attn_v.weight", DT_Q5_K },
        { "Q3_K_S", &llama_70b, "blk.13.attn_v.weight", DT_Q5_K },
        { "Q4_K_M", &llama_7b, "blk.9.attn_qkv.weight", DT_Q5_K },
        { "Q5_K_M", &llama_7b, "blk.9.attn_qkv.weight", DT_Q6_K },
    };
    for (int i = 0; i < COUNT(c); i++)
        if (type_of(c[i].recipe, c[i].m, c[i].tensor) != c[i].want)
            fail_msg("%s, %s: %s, wanted %s", c[i].recipe, c[i].tensor,
                     dtype_name(type_of(c[i].recipe, c[i].m, c[i].tensor)), dtype_name(c[i].want));
    assert_int_equal(recipe_type(recipe_by_name("Q4_K_M"), &llama_1b, "output.weight", 288),
                     DT_Q8_0);
}

static void test_fallback(void **state) {
    (void)state;
    static const struct { enum dtype type; uint64_t columns; enum dtype want; } c[] = {
        { DT_Q4_K, 512, DT_Q4_K }, { DT_Q4_K, 288, DT_Q5_0 }, { DT_Q5_K, 288, DT_Q5_1 },
        { DT_Q6_K, 288, DT_Q8_0 }, { DT_Q3_K, 288, DT_IQ4_NL }, { DT_Q2_K, 288, DT_IQ4_NL },
        { DT_IQ4_XS, 288, DT_IQ4_NL }, { DT_Q4_0, 288, DT_Q4_0 }, { DT_Q4_0, 100, DT_F16 },
        { DT_Q6_K, 100, DT_F16 }, { DT_BF16, 100, DT_BF16 }, { DT_F32, 1, DT_F32 },
    };
    for (int i = 0; i < COUNT(c); i++)
        assert_int_equal(recipe_fallback(c[i].type, c[i].columns), c[i].want);
}

static void test_wanted(void **state) {
    (void)state;
    static const struct { const char *name; int n_dims; bool want; } c[] = {
        { "token_embd.weight", 2, true }, { "output.weight", 2, true },
        { "blk.0.attn_q.weight", 2, true }, { "blk.0.attn_norm.weight", 1, false },
        { "blk.0.attn_q_norm.weight", 2, false }, { "blk.0.attn_q.bias", 1, false },
        { "blk.0.attn_q.bias", 2, false }, { "rope_freqs.weight", 1, false },
        { "blk.0.ffn_gate_inp.weight", 2, false }, { "blk.0.ffn_down_exps.weight", 3, true },
        { "weight", 2, true }, { "w", 2, false },
    };
    for (int i = 0; i < COUNT(c); i++) {
        struct gguf_tensor t = { .n_dims = c[i].n_dims };
        strcpy(t.name, c[i].name);
        if (recipe_wants(&t) != c[i].want) fail_msg("%s, %d dimensions", c[i].name, c[i].n_dims);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names), cmocka_unit_test(test_layers), cmocka_unit_test(test_choices),
        cmocka_unit_test(test_fallback), cmocka_unit_test(test_wanted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
