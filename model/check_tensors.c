#include "model/check_tensors.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include "model/gguf.h"

/* Values looked at together: whole blocks of every type. */
enum { CHUNK = 4096 };

/* The first value of the tensor that is no finite number, or UINT64_MAX. */
static uint64_t first_bad(const struct gguf_tensor *t, float *room) {
    const uint64_t row = t->ne[0], rows = t->ne[1] * t->ne[2] * t->ne[3];
    const size_t row_bytes = dtype_row_bytes((enum dtype)t->type, row);
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t at = 0; at < row; at += CHUNK) {
            const size_t n = row - at < CHUNK ? (size_t)(row - at) : CHUNK;
            const size_t skip = dtype_row_bytes((enum dtype)t->type, at);
            dequant_row((enum dtype)t->type, (const char *)t->data + r * row_bytes + skip, room, n);
            for (size_t i = 0; i < n; i++)
                if (!isfinite(room[i])) return r * row + at + i;
        }
    return UINT64_MAX;
}

int check_tensors(const struct gguf *g, struct err *err) {
    const int n = gguf_n_tensors(g);
    int bad = n, memory = 1;
    uint64_t where = 0;
    #pragma omp parallel
    {
        float *room = malloc(CHUNK * sizeof *room);
        #pragma omp for schedule(dynamic)
        for (int i = 0; i < n; i++) {
            const struct gguf_tensor *t = gguf_tensor_at(g, i);
            if (!room || !t->data) continue;
            const uint64_t at = first_bad(t, room);
            #pragma omp critical
            if (at != UINT64_MAX && i < bad) bad = i, where = at;
        }
        if (!room)
            #pragma omp atomic write
            memory = 0;
        free(room);
    }
    if (!memory) return fail(err, "%s: no memory to check tensors", gguf_path(g));
    if (bad == n) return 0;
    const struct gguf_tensor *t = gguf_tensor_at(g, bad);
    return fail(err, "%s: tensor '%s' (%s): value %" PRIu64 " of row %" PRIu64 " is not a finite "
                     "number", t->file, t->name, dtype_name(t->type), where % t->ne[0],
                where / t->ne[0]);
}
