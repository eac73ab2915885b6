/* mat_shape.h - a block format as constants for the compiler: what the AVX2 and AVX-512
 * kernels of block formats are specialised by. A function takes it by value and is
 * inlined where every member is known. */
#ifndef KERNELS_MAT_SHAPE_H
#define KERNELS_MAT_SHAPE_H
#include "kernels/mat_pack.h"

struct shape { int type, block, sub, bits, centre, min, book; };   /* the columns of MAT_FORMATS */

#define MAT_SHAPE(type, ...) ((struct shape){ DT_##type, __VA_ARGS__ })

/* Where things lie in a panel (mat_pack.h): the bytes of one head, and of all
 * of them, where the codes begin. */
static inline __attribute__((always_inline)) struct mat_format shape_format(struct shape f) {
    return (struct mat_format){ .type = (enum dtype)f.type, .block = f.block, .sub = f.sub,
                                .has_min = f.min };
}
static inline __attribute__((always_inline)) size_t head_bytes(struct shape f) {
    struct mat_format format = shape_format(f);
    return mat_head_bytes(&format);
}
static inline __attribute__((always_inline)) size_t heads_bytes(struct shape f, size_t cols) {
    struct mat_format format = shape_format(f);
    return mat_heads_bytes(&format, (int)cols);
}

#endif
