#include "tools/common/type_mix.h"
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const struct type_mix mixes[] = {
    { "F32", DT_F32, 0, MIX_PLAIN }, { "F16", DT_F16, 1, MIX_PLAIN }, { "BF16", DT_BF16, 32, MIX_PLAIN },
    { "Q8_0", DT_Q8_0, 7, MIX_PLAIN }, { "Q4_0", DT_Q4_0, 2, MIX_PLAIN }, { "Q4_1", DT_Q4_1, 3, MIX_PLAIN },
    { "Q5_0", DT_Q5_0, 8, MIX_PLAIN }, { "Q5_1", DT_Q5_1, 9, MIX_PLAIN }, { "Q2_K", DT_Q2_K, 10, MIX_PLAIN },
    { "Q3_K", DT_Q3_K, 11, MIX_PLAIN }, { "Q3_K_S", DT_Q3_K, 11, MIX_S }, { "Q3_K_M", DT_Q3_K, 12, MIX_M },
    { "Q4_K", DT_Q4_K, 14, MIX_PLAIN }, { "Q4_K_S", DT_Q4_K, 14, MIX_S }, { "Q4_K_M", DT_Q4_K, 15, MIX_M },
    { "Q5_K", DT_Q5_K, 16, MIX_PLAIN }, { "Q5_K_S", DT_Q5_K, 16, MIX_S }, { "Q5_K_M", DT_Q5_K, 17, MIX_M },
    { "Q6_K", DT_Q6_K, 18, MIX_PLAIN }, { "IQ4_NL", DT_IQ4_NL, 25, MIX_PLAIN }, { "IQ4_XS", DT_IQ4_XS, 30, MIX_PLAIN },
};
enum { N_MIXES = sizeof mixes / sizeof *mixes };

const struct type_mix *type_mix_find(const char *name) {
    for (int i = 0; i < N_MIXES; i++)
        if (!strcasecmp(mixes[i].name, name)) return &mixes[i];
    return NULL;
}

const char *type_mix_names(void) {
    static char names[256];
    size_t n = 0;
    for (int i = 0; i < N_MIXES && n < sizeof names; i++)
        n += (size_t)snprintf(names + n, sizeof names - n, "%s%s", i ? ", " : "", mixes[i].name);
    return names;
}

/* The layers where a few more bits help most: the first and last eighth, and every third between. */
static bool more_bits(int layer, int n) {
    return layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2;
}

static enum dtype value_type(const struct type_mix *m, int layer, int n_layers) {      /* attn_v */
    if (m->base == DT_Q2_K) return DT_Q4_K;
    if (m->base == DT_Q3_K && m->more == MIX_M) return layer < 2 ? DT_Q5_K : DT_Q4_K;
    if (m->more == MIX_M && more_bits(layer, n_layers)) return DT_Q6_K;
    if (m->base == DT_Q4_K && m->more == MIX_S && layer < 4) return DT_Q5_K;
    return m->base;
}

static enum dtype down_type(const struct type_mix *m, int layer, int n_layers) {       /* ffn_down */
    if (m->base == DT_Q2_K) return DT_Q3_K;
    if (m->base == DT_Q3_K && m->more == MIX_M)
        return layer < n_layers / 16 ? DT_Q5_K : more_bits(layer, n_layers) ? DT_Q4_K : DT_Q3_K;
    if (m->more == MIX_M && more_bits(layer, n_layers)) return DT_Q6_K;
    if (m->base == DT_Q4_K && m->more == MIX_S && layer < n_layers / 8) return DT_Q5_K;
    return m->base;
}

static enum dtype output_type(const struct type_mix *m) {
    const struct dtype_info *d = dtype_info(m->base), *six = dtype_info(DT_Q6_K);
    return d->bytes * six->block < six->bytes * d->block ? DT_Q6_K : m->base;
}

/* The nearest type with blocks of 32. */
static enum dtype with_small_blocks(enum dtype t) {
    switch (t) {
    case DT_Q2_K: case DT_Q3_K: case DT_IQ4_XS: return DT_IQ4_NL;
    case DT_Q4_K: return DT_Q5_0;
    case DT_Q5_K: return DT_Q5_1;
    default: return DT_Q8_0;
    }
}

enum dtype type_mix_pick(const struct type_mix *m, const char *name, int n_dims, uint64_t cols, int n_layers, bool tied) {
    int layer = 0;
    char part[32] = "";
    enum dtype t = m->base;
    if (n_dims < 2 || strstr(name, "_norm.") || strstr(name, ".bias")) return DT_F32;
    if (!strcmp(name, "output.weight") || (tied && !strcmp(name, "token_embd.weight"))) t = output_type(m);
    else if (sscanf(name, "blk.%d.%31[a-z_]", &layer, part) == 2) {
        if (!strcmp(part, "attn_v")) t = value_type(m, layer, n_layers);
        else if (!strcmp(part, "ffn_down")) t = down_type(m, layer, n_layers);
        else if (!strcmp(part, "attn_output") && m->base == DT_Q2_K) t = DT_Q3_K;
        else if (!strcmp(part, "attn_output") && m->base == DT_Q3_K && m->more == MIX_M) t = DT_Q4_K;
    }
    if (cols % (uint64_t)dtype_info(t)->block) t = with_small_blocks(t);
    return cols % (uint64_t)dtype_info(t)->block ? DT_F16 : t;
}
