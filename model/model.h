/* model.h - immutable weights and what the file says about them. Many sessions may share a model.
 *
 * Weights stay in the mapped file unless the kernels want them repacked. Matrices are [rows][cols]
 * with cols the input width; norms and biases are f32. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H
#include <stddef.h>
#include "base/err.h"
#include "kernels/kernels.h"
#include "kernels/matmul.h"
#include "model/config.h"
#include "model/gguf.h"

struct layer {
    const float *attn_norm, *ffn_norm;      /* [n_embd] */
    struct matrix wq, wk,                   /* [H*k_dim][n_embd] [G*k_dim][n_embd] */
                  wv, wo;                   /* [G*v_dim][n_embd] [n_embd][H*v_dim] */
    const float *bq, *bk, *bv, *bo;         /* NULL: no bias */
    struct matrix gate, up, down;           /* [n_ff][n_embd] [n_ff][n_embd] [n_embd][n_ff] */
    const float *bgate, *bup, *bdown;       /* likewise */
};

struct model {
    struct model_config c;
    const struct gguf *file;                /* borrowed; must outlive the model */
    const struct kernels *kernels;
    struct matrix embd;                     /* token_embd.weight [n_vocab][n_embd] */
    struct matrix out;                      /* output.weight, or the embedding again when tied */
    bool tied;
    const float *out_norm;
    struct layer *layers;
    float *f32;                             /* norms and biases not F32 in the file, converted */
    uint64_t n_params, weight_bytes;        /* of the tensors in use, as they lie in the file */
};

struct model_options {
    const struct kernels *kernels;                 /* NULL: the widest set of this CPU */
    const struct rope_override *rope;              /* NULL: as the file says */
};

/* Binds and checks every tensor by name and shape: cheap, no weight is read. 0, or -1
 * with *err and *out untouched. */
int model_open(struct model **out, const struct gguf *, const struct model_options *, struct err *);
/* Repacks the weights for the kernel set where that is faster: reads the whole file.
 * Optional; before the first eval. */
int model_repack(struct model *, struct err *);
void model_close(struct model *);                  /* NULL is fine */
/* "Q4_0", "Q4_K + Q6_K": the types of the matrices, commonest first. */
void model_type_name(const struct model *, char *buf, size_t size);

#endif
