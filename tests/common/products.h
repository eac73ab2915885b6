/* products.h - what tests of matrix products begin with: random matrices of every weight type,
 * tokens to multiply them with, and the result in double. */
#ifndef TESTS_COMMON_PRODUCTS_H
#define TESTS_COMMON_PRODUCTS_H
#include "kernels/mat.h"
#include "kernels/matmul.h"

enum { ROWS = 40, TOKENS = 40, MAX_COLS = 1280, PRODUCT_TYPES = 15 };

extern const enum dtype product_types[PRODUCT_TYPES];
/* Instruction set 0..3, the widest last; NULL: not on this machine. */
const struct kernels *product_kernels(int i);
#define EACH_SET(k) \
    for (int i_ = 0; i_ < 4; i_++) \
        for (const struct kernels *k = product_kernels(i_); k; k = NULL)
#define EACH_TYPE(t) \
    for (int t_ = 0, t = product_types[0]; t_ < PRODUCT_TYPES; \
         t_++, t = t_ < PRODUCT_TYPES ? product_types[t_] : 0)

uint32_t product_bits(void);                    /* random ones, the same in every run */
float product_uniform(float a);                 /* -a .. a */

int product_quantised(enum dtype);
/* Where the half floats of a block are; -1: none. */
void product_scales(enum dtype, int *d, int *m);

struct product_case {
    struct matrix w;                   /* ROWS rows, over `file` */
    uint8_t *file;
    float *x, *dequantised;            /* [TOKENS][cols], [ROWS][cols] */
    double want[TOKENS][ROWS];
};

/* exact: scales of one, integers that the 8-bit encoding of activations keeps. */
void product_setup(struct product_case *, enum dtype, int cols, int exact);
void product_free(struct product_case *);
struct acts *product_acts(void);
/* The first `rows` rows times n_tokens tokens. */
void product_run(const struct kernels *, const struct product_case *, struct acts *, int rows,
                 int first_token, int n_tokens, float *y, int ldy);

#endif
