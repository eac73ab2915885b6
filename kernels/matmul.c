/* matmul.c - the only place in the matrix kernels that knows threads: rows are dealt out in runs of MAT_ROWS, every
 * thread computes its rows for all tokens. */
#include "kernels/matmul.h"
#include <assert.h>
#include <omp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "kernels/acts.h"
#include "kernels/mat.h"
#include "kernels/mat_pack.h"
#include "kernels/matmul_blas.h"

static size_t panels_of(const struct matrix *w) { return ((size_t)w->rows + PANEL - 1) / PANEL; }

static const void *rows_from(const struct matrix *w, int row) {
    return (const char *)w->data + (size_t)row * dtype_row_bytes(w->type, (size_t)w->cols);
}

/* Large matrices lie in huge pages where the system has them, but for the rest past the last whole one: decoding streams
 * through all of it for every token. */
static void *packed_memory(size_t bytes) {
    const size_t huge = (size_t)2 << 20;
    void *p;
    if (posix_memalign(&p, bytes < huge ? 64 : huge, (bytes + 63) / 64 * 64)) return NULL;    /* aligned_alloc: whole huge pages only */
    if (bytes >= huge) madvise(p, bytes / huge * huge, MADV_HUGEPAGE);
    return p;
}

int matrix_pack(const struct kernels *k, struct matrix *w, struct err *err) {
    if (!k->mat->packed || w->packed) return 0;
    size_t bytes = mat_panel_bytes(w->type, w->cols);
    char *packed = packed_memory(panels_of(w) * bytes);
    if (!packed)
        return fail(err, "%zu bytes for a repacked matrix: out of memory", panels_of(w) * bytes);
    #pragma omp parallel for schedule(dynamic, 4)
    for (int r = 0; r < w->rows; r += PANEL) {
        int n = w->rows - r < PANEL ? w->rows - r : PANEL;
        mat_pack_panel(w->type, rows_from(w, r), n, w->cols, packed + (size_t)(r / PANEL) * bytes);
    }
    w->packed = packed;
    return 0;
}

void matrix_unpack(struct matrix *w) {
    free(w->packed);
    w->packed = NULL;
}

size_t matrix_packed_bytes(const struct matrix *w) {
    return w->packed ? panels_of(w) * mat_panel_bytes(w->type, w->cols) : 0;
}

void matrix_row(const struct matrix *w, int row, float *out) {
    dequant_row(w->type, rows_from(w, row), out, (size_t)w->cols);
}

void matmul(const struct kernels *k, float *y, size_t ldy, const struct matrix *w, struct acts *x) {
    assert(w->cols == x->cols);
    const struct mat_kernels *mat = k->mat;
    if (mat->prefers_blas && matmul_blas(y, ldy, w, x)) return;
    const struct mat_format *f = mat_format(w->type);
    const struct qacts *q = f ? acts_encoded(x, mat, f) : NULL;
    size_t panel_bytes = mat_panel_bytes(w->type, w->cols);
    int pack_now = mat->packed && !w->packed;            /* never packed: a panel at a time, into scratch */
    int step = pack_now ? PANEL : MAT_ROWS;
    /* Waking a team costs more than some 10 microseconds of work. */
    double products = (double)w->rows * w->cols * x->n_tokens;
    #pragma omp parallel for schedule(dynamic) num_threads(acts_team(x)) if (products > 1e5)
    for (int r = 0; r < w->rows; r += step) {
        int n = w->rows - r < step ? w->rows - r : step;
        char *scratch = acts_scratch(x, omp_get_thread_num());
        const void *rows = rows_from(w, r);
        if (pack_now) {
            mat_pack_panel(w->type, rows, n, w->cols, scratch);
            rows = scratch;
            scratch += (panel_bytes + 63) / 64 * 64;
        } else if (w->packed && mat->packed) {
            rows = (const char *)w->packed + (size_t)(r / PANEL) * panel_bytes;
        }
        if (f) mat->quant(y + r, ldy, f, rows, n, q, scratch);
        else mat->real(y + r, ldy, w->type, rows, n, w->cols, x->x, x->n_tokens, scratch);
    }
}
