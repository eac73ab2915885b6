/* kernels.h - the instruction-set variants of the inner loops, picked once at
 * start and passed down as a pointer.
 *
 * A set has four groups, each in its own files NAME_scalar.c, NAME_avx2.c, NAME_avx512.c:
 *   vec   rows of floats: norms, SwiGLU, RoPE, sums          (vec.h)
 *   mat   weight rows times activations                       (matmul.h)
 *   tile  query rows against one page of keys or values       (tile.h)
 *   peak  the best score in a page of keys                    (peak.h)
 * The scalar group is the definition; every variant equals it (bit for bit where integers are
 * summed, else to rounding) for every tail length. No kernel knows threads. */
#ifndef KERNELS_KERNELS_H
#define KERNELS_KERNELS_H

struct vec_kernels;
struct mat_kernels;
struct tile_kernels;
struct peak_kernels;
struct tile_matrix;

struct kernels {
    /* "scalar", "avx2", "avx512", "amx" (avx512, and AMX for prefill and attention) */
    const char *name;
    const struct vec_kernels *vec;
    const struct mat_kernels *mat;
    const struct tile_kernels *tile;
    const struct peak_kernels *peak;
    const struct tile_matrix *matrix;  /* NULL: no matrix unit that attends (tile_matrix.h) */
};

/* NULL: the widest set this CPU runs. A name this CPU cannot run, or unknown: NULL is returned. */
const struct kernels *kernels_pick(const char *name);
/* The names kernels_pick takes on this CPU, space-separated, narrowest first ("scalar avx2"). */
const char *kernels_names(void);

#endif
