/* synth_induction.h - a model whose weights are constructed, not trained: it copies what followed
 * the last four tokens earlier in the text. Plain llama architecture, so every engine runs it, and
 * it is known which head does what:
 *
 *   layer 0      query heads 0 to 3 look exactly 1, 2, 3, 4 tokens back and write those tokens' key
 *                codes beside the current token's own.
 *   layers 1..N  the look-ups. KV head 0 (query heads 0 and 1) compares the current token and the
 *                three before it with the four tokens before every position, and copies one part
 *                of the code of the token found there: layer n writes part n of N. KV head 1 looks
 *                1 and 2 tokens back and writes nothing.
 *   output       finds the token whose N parts were written. A part alone leaves dozens of tokens
 *                possible, so that every look-up layer has to find the place.
 *
 * Ground truth: needle.induction.retrieval_heads in the file is an i32 array of (layer, KV head)
 * pairs: (1,0), (2,0) .. (N,0). They look at the same positions, so one layer's selection serves
 * the next. All other heads have all their weight (but for less than 1e-8) on one token at most
 * needle.induction.local_reach back.
 *
 * Every matching token scores 20, all four 80, another token -7 to 7: log(128k) is 11.8. Equal
 * matches share the weight, but for a small score of the distance (+- about 2) that makes all
 * look-ups prefer the same one.
 *
 * The vocabulary is vocab_words(): English words, letters, digits in pairs, bytes. D 512 floats
 * hold, from 0: key codes of the current token and of the four before it (24 floats each, words of
 * the Golay code), the answer code (32 a part), the answer being written, a constant. */
#ifndef TOOLS_COMMON_SYNTH_INDUCTION_H
#define TOOLS_COMMON_SYNTH_INDUCTION_H
#include <stdint.h>
#include "base/err.h"
#include "tools/common/recipe.h"

enum { INDUCTION_LOOKUPS_MIN = 2, INDUCTION_LOOKUPS_MAX = 4 };

struct induction_options {
    int n_ctx;             /* written into the file; the construction holds up to 128k at least */
    int n_lookups;         /* INDUCTION_LOOKUPS_MIN..MAX */
    uint64_t seed;         /* of the codes */
};

int synth_induction(const char *path, const struct induction_options *, const struct recipe *,
                    struct err *);

#endif
