#include "tests/common/heads_world.h"
#include "tests/common/check.h"
#include <math.h>

void world_engine(struct engine *e, const char *path) {
    struct err err;
    struct engine_args a = ENGINE_ARGS;
    a.model = path;
    if (engine_check(e, &a, &err) || engine_open(e, &err) || engine_load(e, &err))
        fail_msg("%s", err.msg);
}

struct engine world;

int world_up(void **state) {
    (void)state;
    world_engine(&world, "models/needle-proto.gguf");
    return 0;
}

int world_down(void **state) {
    (void)state;
    engine_close(&world);
    return 0;
}

struct session *world_session(const struct engine *e, const char *mode) {
    struct err err;
    struct session_options so = engine_session_options(e, 1024);
    struct session *s = NULL;
    so.attn = mode, so.batch = 128;
    if (session_open(&s, e->model, &so, &err)) fail_msg("%s", err.msg);
    return s;
}

struct heads_sample world_sample(const struct engine *e, enum style style, int length,
                                 double depth, int seed, struct fact *fact) {
    struct err err;
    struct haystack *hay;
    struct heads_sample s;
    style_facts(style, (uint64_t)seed, fact, 1);
    const struct planting w = { .n_tokens = length, .depth = depth, .needle = fact->statement,
                                .question = fact->question };
    if (haystack_open(&hay, e->tok, NULL, 0, (uint64_t)seed, &err) ||
        heads_sample_make(&s, hay, e->tok, &w, fact->answer, &err))
        fail_msg("%s", err.msg);
    haystack_close(hay);
    return s;
}

void world_weights(const struct attn_call *c, const struct model_config *m, int h, int p, bool near,
                   int sink, int recent, double *w) {
    const float *q = c->q + ((size_t)(p - c->pos) * m->n_heads + (size_t)h) * (size_t)m->k_dim;
    float k[256];
    double sum = 0, top = -INFINITY;
    for (int j = 0; j <= p; j++) {
        w[j] = 0;
        kv_read(c->kv, c->layer, h / (m->n_heads / m->n_kv_heads), j, k, NULL);
        for (int d = 0; d < m->k_dim; d++) w[j] += (double)k[d] * q[d] * m->attn_scale;
        if (near && j >= sink && j < p - recent) w[j] = -INFINITY;
        if (w[j] > top) top = w[j];
    }
    for (int j = 0; j <= p; j++) sum += w[j] = exp(w[j] - top);
    for (int j = 0; j <= p; j++) w[j] /= sum;
}
