/* matmul.c - the only place in the matrix kernels that knows threads: rows are dealt out in runs of
 * MAT_ROWS, every thread computes its rows for all tokens. */
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

/* Large matrices lie in huge pages where the system has them, but for the rest past the last whole
 * one: decoding streams through all of it for every token. */
static void *packed_memory(size_t bytes) {
    const size_t huge = (size_t)2 << 20;
    void *p;
    /* not aligned_alloc, which takes whole huge pages only */
    if (posix_memalign(&p, bytes < huge ? 64 : huge, (bytes + 63) / 64 * 64)) return NULL;
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

/* What one thread does at a time: `step` rows from row r on. */
static void rows_of(const struct mat_kernels *mat, const struct product *p, int r, int step,
                    struct acts *x) {
    const struct matrix *w = p->w;
    const struct mat_format *f = mat_format(w->type);
    int n = w->rows - r < step ? w->rows - r : step;
    size_t panel_bytes = mat_panel_bytes(w->type, w->cols);
    char *scratch = acts_scratch(x, omp_get_thread_num());
    const void *rows = rows_from(w, r);
    if (mat->packed && w->packed) {
        rows = (const char *)w->packed + (size_t)(r / PANEL) * panel_bytes;
    } else if (mat->packed) {                /* never packed: a panel at a time, into scratch */
        mat_pack_panel(w->type, rows, n, w->cols, scratch);
        rows = scratch;
        scratch += (panel_bytes + 63) / 64 * 64;
    }
    if (f) mat->quant(p->y + r, p->ldy, f, rows, n, acts_encoded(x, mat, f), scratch);
    else mat->real(p->y + r, p->ldy, w->type, rows, n, w->cols, x->x, x->n_tokens, scratch);
}

void matmul_all(const struct kernels *k, const struct product *p, int n, struct acts *x) {
    const struct mat_kernels *mat = k->mat;
    int step[MATMUL_MOST], first[MATMUL_MOST + 1] = { 0 };   /* rows of a run; a product's first */
    double products = 0;
    assert(n <= MATMUL_MOST);
    for (int i = 0; i < n; i++) {
        const struct matrix *w = p[i].w;
        assert(w->cols == x->cols);
        first[i + 1] = first[i];
        if (mat->prefers_blas && matmul_blas(p[i].y, p[i].ldy, w, x)) continue;
        if (mat_format(w->type)) acts_encoded(x, mat, mat_format(w->type));
        step[i] = mat->packed && !w->packed ? PANEL : MAT_ROWS;
        first[i + 1] += (w->rows + step[i] - 1) / step[i];
        products += (double)w->rows * w->cols * x->n_tokens;
    }
    /* Few tokens wait for memory, which is fastest where each thread reads on and on: long
     * runs first, then shorter ones. */
    omp_set_schedule(x->n_tokens < 6 ? omp_sched_guided : omp_sched_dynamic, 1);
    /* Waking a team costs more than some 10 microseconds of work. */
    #pragma omp parallel for schedule(runtime) num_threads(acts_team(x)) if (products > 1e5)
    for (int run = 0; run < first[n]; run++) {
        int i = 0;
        while (run >= first[i + 1]) i++;
        rows_of(mat, &p[i], (run - first[i]) * step[i], step[i], x);
    }
}

void matmul(const struct kernels *k, float *y, size_t ldy, const struct matrix *w, struct acts *x) {
    matmul_all(k, &(struct product){ y, ldy, w }, 1, x);
}
