/* matmul_blas.c - runs of rows, widened to f32, times all tokens by cblas_sgemm. */
#include "kernels/matmul_blas.h"
#ifdef HAVE_OPENBLAS
#include <cblas.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { MIN_TOKENS = 32, RUN = 512 };    /* RUN rows are widened at a time, a multiple of PANEL */

/* Row r of w as f32; raw: room for a row as the file has it. A packed matrix is
 * not asked for its file's pages. */
static void widen(float *out, const struct matrix *w, int r, char *raw) {
    size_t cols = (size_t)w->cols, size = dtype_row_bytes(w->type, 1);
    const char *row = (const char *)w->data + (size_t)r * cols * size;
    if (w->packed) {
        const char *panel = (const char *)w->packed + (size_t)(r / PANEL) * PANEL * cols * size;
        for (size_t c = 0; c < cols; c++)
            memcpy(raw + c * size, panel + (c * PANEL + r % PANEL) * size, size);
        row = raw;
    }
    dequant_row(w->type, row, out, cols);
}

int matmul_blas(float *y, size_t ldy, const struct matrix *w, struct acts *x) {
    if (x->n_tokens < MIN_TOKENS || mat_format(w->type)) return 0;
    size_t cols = (size_t)w->cols;
    int as_it_is = w->type == DT_F32 && !w->packed && (uintptr_t)w->data % sizeof(float) == 0;
    if (!as_it_is && !x->widened) {
        x->widened = malloc((size_t)RUN * (size_t)x->max_cols * sizeof(float));
        if (!x->widened) return 0;
        x->bytes += (size_t)RUN * (size_t)x->max_cols * sizeof(float);
    }
    openblas_set_num_threads(omp_get_max_threads());
    for (int r = 0; r < w->rows; r += RUN) {
        int n = w->rows - r < RUN ? w->rows - r : RUN;
        const float *rows = x->widened;
        if (as_it_is) rows = (const float *)w->data + (size_t)r * cols;
        else {
            #pragma omp parallel for num_threads(acts_team(x))
            for (int i = 0; i < n; i++)
                widen(x->widened + (size_t)i * cols, w, r + i,
                      acts_scratch(x, omp_get_thread_num()));
        }
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, x->n_tokens, n, w->cols, 1,
                    x->x, w->cols, rows, w->cols, 0, y + r, (int)ldy);
    }
    return 1;
}
#else
int matmul_blas(float *y, size_t ldy, const struct matrix *w, struct acts *x) {
    (void)y, (void)ldy, (void)w, (void)x;
    return 0;
}
#endif
