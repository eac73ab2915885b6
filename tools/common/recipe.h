/* recipe.h - which type every tensor of a model gets when it is quantised to, say, Q4_K_M.
 *
 * A recipe names one base type and gives some tensors more bits: the output matrix, attn_v and
 * ffn_down of certain layers, which cost quality out of proportion to their size. The choices are
 * those users know from files called NAME-Q4_K_M.gguf, for dense models of the llama family. */
#ifndef TOOLS_COMMON_RECIPE_H
#define TOOLS_COMMON_RECIPE_H
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include "kernels/dtype.h"
#include "model/gguf.h"

struct recipe {
    const char *name;          /* "Q4_K_M", "F16", ... */
    int file_type;             /* the value of general.file_type */
    enum dtype base;
    const char *about;
};

const struct recipe *recipe_by_name(const char *name);     /* case-blind; NULL: unknown */
void recipe_list(FILE *);                                  /* a line for each */

/* What the choices depend on, read from the file. */
struct recipe_model {
    int n_layers, n_gqa;       /* query heads per key head */
    bool tied;                 /* no output.weight: token_embd.weight serves as such */
};
int recipe_model(struct recipe_model *, const struct gguf *, struct err *);

/* Is this a matrix that quantisation is meant for? Norms, biases, tables of frequencies are not. */
bool recipe_wants(const struct gguf_tensor *);

/* The type for a tensor that recipe_wants(); may not suit its columns yet. */
enum dtype recipe_type(const struct recipe *, const struct recipe_model *, const char *name,
                       uint64_t columns);

/* type, or the nearest one whose blocks divide rows of that many columns. */
enum dtype recipe_fallback(enum dtype type, uint64_t columns);

#endif
