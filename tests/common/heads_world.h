/* heads_world.h - what tests that look into heads begin with: a model loaded, a session of it, a
 * sample whose fact is known, and what a head attends to, in double. Any failure ends the test. */
#ifndef TESTS_COMMON_HEADS_WORLD_H
#define TESTS_COMMON_HEADS_WORLD_H
#include "attention/mode.h"
#include "tools/common/engine.h"
#include "tools/common/heads_sample.h"
#include "tools/common/needle_style.h"

void world_engine(struct engine *, const char *path);
/* The embedded model, between the two. */
extern struct engine world;
int world_up(void **state);
int world_down(void **state);
/* A session of 1024 tokens, 128 a batch. */
struct session *world_session(const struct engine *, const char *mode);
/* A sample of `length` tokens with its fact at `depth`. */
struct heads_sample world_sample(const struct engine *, enum style, int length, double depth,
                                 int seed, struct fact *);
/* The probability query head h, at position p of the call, gives each of the keys 0..p: w [p + 1].
 * near: only the keys of the sink and the recent ones count. */
void world_weights(const struct attn_call *, const struct model_config *, int h, int p, bool near,
                   int sink, int recent, double *w);

#endif
