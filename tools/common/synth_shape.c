#include "tools/common/synth_shape.h"
#include <stdio.h>
#include <string.h>

static const struct synth_shape shapes[] = {
    /* name             arch     tokens         vocab
     * L   embd  ff     H   G   D    ctx     base     l3  eps   tied */
    { "tinyllama-1.1b", "llama", TOKENS_SPM,    32000,
      22, 2048, 5632,  32, 4,  64,  2048,   10000,   0,  1e-5, false },
    { "llama-2-7b",     "llama", TOKENS_SPM,    32000,
      32, 4096, 11008, 32, 32, 128, 4096,   10000,   0,  1e-5, false },
    { "llama-2-13b",    "llama", TOKENS_SPM,    32000,
      40, 5120, 13824, 40, 40, 128, 4096,   10000,   0,  1e-5, false },
    { "llama-3-8b",     "llama", TOKENS_LLAMA3, 128256,
      32, 4096, 14336, 32, 8,  128, 8192,   500000,  0,  1e-5, false },
    { "llama-3.1-8b",   "llama", TOKENS_LLAMA3, 128256,
      32, 4096, 14336, 32, 8,  128, 131072, 500000,  8,  1e-5, false },
    { "llama-3.2-1b",   "llama", TOKENS_LLAMA3, 128256,
      16, 2048, 8192,  32, 8,  64,  131072, 500000,  32, 1e-5, true },
    { "llama-3.2-3b",   "llama", TOKENS_LLAMA3, 128256,
      28, 3072, 8192,  24, 8,  128, 131072, 500000,  32, 1e-5, true },
    { "mistral-7b",     "llama", TOKENS_SPM,    32768,
      32, 4096, 14336, 32, 8,  128, 32768,  1000000, 0,  1e-5, false },
    { "qwen2.5-0.5b",   "qwen2", TOKENS_QWEN2,  151936,
      24, 896,  4864,  14, 2,  64,  32768,  1000000, 0,  1e-6, true },
    { "qwen2.5-1.5b",   "qwen2", TOKENS_QWEN2,  151936,
      28, 1536, 8960,  12, 2,  128, 32768,  1000000, 0,  1e-6, true },
    { "qwen2.5-3b",     "qwen2", TOKENS_QWEN2,  151936,
      36, 2048, 11008, 16, 2,  128, 32768,  1000000, 0,  1e-6, true },
    { "qwen2.5-7b",     "qwen2", TOKENS_QWEN2,  152064,
      28, 3584, 18944, 28, 4,  128, 32768,  1000000, 0,  1e-6, false },
    { "smollm2-135m",   "llama", TOKENS_SMOLLM, 49152,
      30, 576,  1536,  9,  3,  64,  8192,   100000,  0,  1e-5, true },
    { "smollm2-360m",   "llama", TOKENS_SMOLLM, 49152,
      32, 960,  2560,  15, 5,  64,  8192,   100000,  0,  1e-5, true },
    { "smollm2-1.7b",   "llama", TOKENS_SMOLLM, 49152,
      24, 2048, 8192,  32, 32, 64,  8192,   130000,  0,  1e-5, true },
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

const struct synth_shape *shape_find(const char *name) {
    for (int i = 0; i < N_SHAPES; i++)
        if (!strcmp(shapes[i].name, name)) return &shapes[i];
    return NULL;
}

const char *shape_names(void) {
    static char names[512];
    size_t n = 0;
    for (int i = 0; i < N_SHAPES && n < sizeof names; i++)
        n += (size_t)snprintf(names + n, sizeof names - n, "%s%s", i ? ", " : "", shapes[i].name);
    return names;
}
