/* check_tensors.h - reads every weight of a file, to find what a broken conversion or download left
 * in it. */
#ifndef MODEL_CHECK_TENSORS_H
#define MODEL_CHECK_TENSORS_H
#include "base/err.h"

struct gguf;

/* 0: every value of every tensor is finite. -1: *err names the first that is not, in file order.
 * Tensors of a type this engine does not know are passed over. Reads the whole file. */
int check_tensors(const struct gguf *, struct err *);

#endif
