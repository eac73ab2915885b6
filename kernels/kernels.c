/* kernels.c - the sets this CPU runs, narrowest first. */
#include "kernels/kernels.h"
#include <stddef.h>
#include <string.h>
#include "kernels/mat.h"
#include "kernels/peak.h"
#include "kernels/tile.h"
#include "kernels/tile_matrix.h"
#include "kernels/vec.h"

static const struct kernels sets[] = {
    { "scalar", &vec_scalar, &mat_scalar, &tile_scalar, &peak_scalar, NULL },
#ifdef __x86_64__
    { "avx2", &vec_avx2, &mat_avx2, &tile_avx2, &peak_avx2, NULL },
    { "avx512", &vec_avx512, &mat_avx512, &tile_avx512, &peak_avx512, NULL },
    { "amx", &vec_avx512, &mat_amx, &tile_avx512, &peak_avx512, &tile_amx },
#endif
};

/* How many of the sets, narrowest first, run here. __builtin_cpu_supports asks the OS too. */
static int n_runnable(void) {
#ifdef __x86_64__
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
        !__builtin_cpu_supports("f16c"))
        return 1;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl") ||
        !__builtin_cpu_supports("avx512vnni") || !__builtin_cpu_supports("avx512vbmi"))
        return 2;
    return __builtin_cpu_supports("amx-int8") && __builtin_cpu_supports("amx-bf16") &&
           __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512fp16") &&
           mat_amx_usable() ? 4 : 3;
#else
    return 1;
#endif
}

const struct kernels *kernels_pick(const char *name) {
    int n = n_runnable();
    if (!name) return &sets[n - 1];
    while (n--) if (!strcmp(name, sets[n].name)) return &sets[n];
    return NULL;
}

const char *kernels_names(void) {
    static const char *const names[] = {
        "scalar", "scalar avx2", "scalar avx2 avx512", "scalar avx2 avx512 amx"
    };
    return names[n_runnable() - 1];
}
