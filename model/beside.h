/* beside.h - what was found out about a model and lies beside its file: bin/heads writes
 * it once, and the modes pick it up.
 *
 *     models/NAME.gguf
 *     models/NAME.heads.tsv    scores of heads, for --attn duo without heads=
 *     models/NAME.delta.txt    "delta,full=0,2,...", for --attn delta without full=
 *     models/NAME.moa.json     spans, for --attn moa without plan=, alpha= and beta= */
#ifndef MODEL_BESIDE_H
#define MODEL_BESIDE_H
#include <stddef.h>

/* attn, the text of a mode, with what lies beside the model `path` for a key it does
 * not give; it is written to buf then. attn itself where nothing is missing, nothing
 * lies there, or it does not fit. */
const char *beside_attn(char *buf, size_t size, const char *attn, const char *path);

#endif
