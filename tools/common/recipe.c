/* recipe.c - the names, and the rules behind them. */
#include "tools/common/recipe.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum file_type {               /* general.file_type */
    ALL_F32 = 0, MOSTLY_F16 = 1, MOSTLY_Q4_0 = 2, MOSTLY_Q4_1 = 3, MOSTLY_Q8_0 = 7, MOSTLY_Q5_0 = 8,
    MOSTLY_Q5_1 = 9, Q2_K = 10, Q3_K_S = 11, Q3_K_M = 12, Q3_K_L = 13, Q4_K_S = 14, Q4_K_M = 15,
    Q5_K_S = 16, Q5_K_M = 17, Q6_K = 18, Q2_K_S = 21, IQ4_NL = 25, IQ4_XS = 30, MOSTLY_BF16 = 32,
};

static const struct recipe recipes[] = {
    { "F32", ALL_F32, DT_F32, "every matrix F32" },
    { "F16", MOSTLY_F16, DT_F16, "every matrix F16" },
    { "BF16", MOSTLY_BF16, DT_BF16, "every matrix BF16" },
    { "Q8_0", MOSTLY_Q8_0, DT_Q8_0, "8.5 bits a weight, as good as F16" },
    { "Q6_K", Q6_K, DT_Q6_K, "6.6 bits, hardly any loss" },
    { "Q5_K_M", Q5_K_M, DT_Q5_K, "5.7 bits" },
    { "Q5_K_S", Q5_K_S, DT_Q5_K, "5.5 bits" },
    { "Q5_1", MOSTLY_Q5_1, DT_Q5_1, "6 bits, 32-value blocks" },
    { "Q5_0", MOSTLY_Q5_0, DT_Q5_0, "5.5 bits, 32-value blocks" },
    { "Q4_K_M", Q4_K_M, DT_Q4_K, "4.8 bits, the usual choice" },
    { "Q4_K_S", Q4_K_S, DT_Q4_K, "4.6 bits" },
    { "Q4_1", MOSTLY_Q4_1, DT_Q4_1, "5 bits, 32-value blocks" },
    { "Q4_0", MOSTLY_Q4_0, DT_Q4_0, "4.5 bits, 32-value blocks" },
    { "IQ4_NL", IQ4_NL, DT_IQ4_NL, "4.5 bits, uneven levels" },
    { "IQ4_XS", IQ4_XS, DT_IQ4_XS, "4.3 bits, uneven levels" },
    { "Q3_K_L", Q3_K_L, DT_Q3_K, "4.2 bits" },
    { "Q3_K_M", Q3_K_M, DT_Q3_K, "3.9 bits" },
    { "Q3_K_S", Q3_K_S, DT_Q3_K, "3.5 bits" },
    { "Q2_K", Q2_K, DT_Q2_K, "3.0 bits, a visible loss" },
    { "Q2_K_S", Q2_K_S, DT_Q2_K, "2.8 bits" },
};
enum { N_RECIPES = sizeof recipes / sizeof *recipes };

const struct recipe *recipe_by_name(const char *name) {
    static const char *const short_for[][2] = {
        { "Q3_K", "Q3_K_M" }, { "Q4_K", "Q4_K_M" }, { "Q5_K", "Q5_K_M" },
    };
    for (int i = 0; i < 3; i++) if (!strcasecmp(name, short_for[i][0])) name = short_for[i][1];
    for (int i = 0; i < N_RECIPES; i++) if (!strcasecmp(name, recipes[i].name)) return &recipes[i];
    return NULL;
}

void recipe_list(FILE *f) {
    for (int i = 0; i < N_RECIPES; i++)
        fprintf(f, "  %-8s %s\n", recipes[i].name, recipes[i].about);
}

int recipe_model(struct recipe_model *m, const struct gguf *g, struct err *err) {
    char arch[64], key[128];
    int64_t layers = 0, heads = 1, kv_heads;
    int got = gguf_get_string(g, "general.architecture", arch, sizeof arch, err);
    if (got < 0) return -1;
    if (!got) return fail(err, "%s: no key general.architecture: not a model", gguf_path(g));
    snprintf(key, sizeof key, "%s.block_count", arch);
    if (gguf_get_int(g, key, 0, 100000, &layers, err) < 0) return -1;
    snprintf(key, sizeof key, "%s.attention.head_count", arch);
    if (gguf_get_int(g, key, 1, 100000, &heads, err) < 0) return -1;
    kv_heads = heads;
    snprintf(key, sizeof key, "%s.attention.head_count_kv", arch);
    if (gguf_get_int(g, key, 1, 100000, &kv_heads, err) < 0) return -1;
    *m = (struct recipe_model){ (int)layers, (int)(heads / kv_heads),
                                !gguf_tensor(g, "output.weight") };
    return 0;
}

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), k = strlen(end);
    return n >= k && !strcmp(s + n - k, end);
}

bool recipe_wants(const struct gguf_tensor *t) {
    /* Routers, positions, convolutions: small, and everything hangs on them. */
    static const char *const precious[] = {
        "_norm.weight", "ffn_gate_inp.weight", "position_embd.weight", "token_types.weight",
        "ssm_conv1d.weight", "attn_rel_b.weight", "time_mix_",
    };
    if (t->n_dims < 2 || !ends_with(t->name, "weight")) return false;
    for (size_t i = 0; i < sizeof precious / sizeof *precious; i++)
        if (strstr(t->name, precious[i])) return false;
    return true;
}

/* The layers that get more bits in _M recipes: the first and last eighth, every third between. */
static bool more_bits(int layer, int n) {
    return layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2;
}

static enum dtype attn_v_type(int file_type, enum dtype type, const struct recipe_model *m,
                              int layer) {
    bool shared = m->n_gqa >= 4;   /* small next to attn_q, and read by many heads */
    switch (file_type) {
    case Q2_K: type = shared ? DT_Q4_K : DT_Q3_K; break;
    case Q2_K_S: if (shared) type = DT_Q4_K; break;
    case Q3_K_M: type = layer < 2 ? DT_Q5_K : DT_Q4_K; break;
    case Q3_K_L: type = DT_Q5_K; break;
    case Q4_K_S: if (layer < 4) type = DT_Q5_K; break;
    case Q4_K_M:
    case Q5_K_M: if (more_bits(layer, m->n_layers)) type = DT_Q6_K; break;
    case IQ4_NL:
    case IQ4_XS: if (shared) type = DT_Q5_K; break;
    default: break;
    }
    /* The 70B shape: eight query heads on each key head. */
    if (m->n_layers == 80 && m->n_gqa > 1 && (type == DT_Q3_K || type == DT_Q4_K)) type = DT_Q5_K;
    return type;
}

static enum dtype ffn_down_type(int file_type, enum dtype type, int layer, int n) {
    switch (file_type) {
    case Q2_K: return DT_Q3_K;
    case Q2_K_S: return layer < n / 8 ? DT_Q4_K : type;
    case Q3_K_M: return layer < n / 16 ? DT_Q5_K : DT_Q4_K;
    case Q3_K_L: return DT_Q5_K;
    case Q4_K_S:
    case IQ4_NL:
    case IQ4_XS: return layer < n / 8 ? DT_Q5_K : type;
    case Q4_K_M:
    case Q5_K_M: return more_bits(layer, n) ? DT_Q6_K : type;
    default: return type;
    }
}

static enum dtype attn_output_type(int file_type, enum dtype type) {
    switch (file_type) {
    case Q2_K: return DT_Q3_K;
    case Q3_K_M: return DT_Q4_K;
    case Q3_K_L: return DT_Q5_K;
    default: return type;
    }
}

/* Query, key and value in one matrix. */
static enum dtype attn_qkv_type(int file_type, enum dtype type) {
    switch (file_type) {
    case Q3_K_M:
    case Q3_K_L: return DT_Q4_K;
    case Q4_K_M: return DT_Q5_K;
    case Q5_K_M: return DT_Q6_K;
    default: return type;
    }
}

enum dtype recipe_type(const struct recipe *r, const struct recipe_model *m, const char *name,
                       uint64_t columns) {
    const enum dtype base = r->base;
    const int block = dtype_info((int)base)->block;
    if (block == 1) return base;                   /* F32, F16, BF16: all alike */
    if (!strcmp(name, "output.weight") || (m->tied && !strcmp(name, "token_embd.weight")))
        return columns % (uint64_t)block ? DT_Q8_0 : base == DT_Q8_0 ? DT_Q8_0 : DT_Q6_K;
    int layer = 0;
    sscanf(name, "blk.%d.", &layer);
    if (strstr(name, "attn_v.weight")) return attn_v_type(r->file_type, base, m, layer);
    if (strstr(name, "ffn_down")) return ffn_down_type(r->file_type, base, layer, m->n_layers);
    if (strstr(name, "attn_output.weight")) return attn_output_type(r->file_type, base);
    if (strstr(name, "attn_qkv.weight")) return attn_qkv_type(r->file_type, base);
    return base;
}

enum dtype recipe_fallback(enum dtype type, uint64_t columns) {
    if (columns % (uint64_t)dtype_info((int)type)->block == 0) return type;
    switch (type) {
    case DT_Q2_K:
    case DT_Q3_K:
    case DT_IQ4_XS: type = DT_IQ4_NL; break;
    case DT_Q4_K: type = DT_Q5_0; break;
    case DT_Q5_K: type = DT_Q5_1; break;
    case DT_Q6_K: type = DT_Q8_0; break;
    default: return DT_F16;
    }
    return columns % (uint64_t)dtype_info((int)type)->block ? DT_F16 : type;
}
