/* synth_induction.h - a model whose weights are constructed, not trained: it copies what followed the last three tokens
 * earlier in the text. Plain llama architecture, so every engine runs it, and it is known which head does what:
 *
 *   layer 0        query heads 0, 1, 2 look exactly 1, 2, 3 tokens back and write those tokens' key codes beside the
 *                  current token's own (head 3 looks one back and writes nothing).
 *   layers 1..N    the look-ups. KV head 0 (query heads 0 and 1) compares [current, previous, one before] with every
 *                  position's [previous, one before, two before] and copies one part of the code of the token found
 *                  there: layer n writes part n of N. KV head 1 looks 1 and 2 tokens back and writes nothing.
 *   output         finds the token whose N parts were written. A part alone leaves dozens of tokens possible, so that
 *                  every look-up layer has to find the place.
 *
 * Ground truth: needle.induction.retrieval_heads in the file is an i32 array of (layer, KV head) pairs: (1,0), (2,0) ..
 * (N,0). They look at the same positions, so one layer's selection serves the next. All other heads have all their
 * weight (but for less than 1e-8) on one token at most needle.induction.local_reach back.
 * At three matching tokens the match scores 45, at two 30, at one 15, elsewhere 0 (+- about 4): log(128k) is 11.8. A
 * small score of the distance (+- about 1) makes all look-ups prefer the same one of several equal matches.
 *
 * The vocabulary is vocab_words(): English words, letters, bytes. D 512 floats hold, from 0: key codes of the current
 * token and of the three before it (36 floats each), the answer code (32 a part), the answer being written, a constant. */
#ifndef TOOLS_COMMON_SYNTH_INDUCTION_H
#define TOOLS_COMMON_SYNTH_INDUCTION_H
#include <stdint.h>
#include "base/err.h"
#include "tools/common/type_mix.h"

enum { INDUCTION_LOOKUPS_MIN = 2, INDUCTION_LOOKUPS_MAX = 4 };

struct induction_options {
    int n_ctx;                     /* written into the file; the construction holds up to 128k at least */
    int n_lookups;                 /* INDUCTION_LOOKUPS_MIN..MAX */
    uint64_t seed;                 /* of the codes */
};

int synth_induction(const char *path, const struct induction_options *, const struct type_mix *, struct err *);

#endif
