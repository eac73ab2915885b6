/* prompt_cache.h - a session on disk: its tokens, its cache, the logits of its last token.
 *
 * A file fits a session when it was made by the same model with the same rotation, attention mode
 * and parameters, KV types and kernel set; else it is refused with what it was made by. It is
 * written to FILE.tmp and renamed, so a file is whole or absent; a checksum over all of it finds
 * what happened to it later: such a file is refused, and the session stays empty. */
#ifndef MODEL_PROMPT_CACHE_H
#define MODEL_PROMPT_CACHE_H
#include "model/session.h"

/* Whether path can be written, asked before the work that is to be saved there. */
int prompt_cache_check(const char *path, struct err *);
int prompt_cache_save(const struct session *, const char *path, struct err *);
/* Takes over as many tokens as the file shares with ids from the beginning on; the session must
 * be empty and is left at that position, with logits when all n are there. Returns their number
 * (0: nothing shared, or no such file), or -1. */
int prompt_cache_load(struct session *, const char *path, const int32_t *ids, int n, struct err *);

#endif
