/* The local harm: what the heads of the embedded model gather from far away, against its definition
 * in double. */
#include "tools/common/heads_local.h"
#include "tests/common/heads_world.h"
#include "tools/common/heads_probe.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "tests/common/check.h"

static struct err err;

struct gathering {
    struct session *s;
    const struct heads_sample *x;
    int sink, recent;
    double local[8];
};

static void gather_again(void *ctx, const struct attn_call *c) {
    struct gathering *t = ctx;
    const struct model_config *m = &world.model->c;
    const int group = m->n_heads / m->n_kv_heads, wide = m->n_heads * m->v_dim;
    double *all = malloc(sizeof *all * 1024), *near = malloc(sizeof *near * 1024),
           *apart = malloc(sizeof *apart * (size_t)wide);
    float v[256], *row = malloc(sizeof *row * (size_t)wide);
    for (int i = 0; i < t->x->n_answer; i++) {
        const int p = t->x->prompt - 1 + i;
        const float *x = session_hidden(t->s, p - c->pos);
        double size = 0;
        for (int d = 0; d < m->n_embd; d++) size += (double)x[d] * x[d];
        memset(apart, 0, sizeof *apart * (size_t)wide);
        for (int h = 0; h < m->n_heads; h++) {
            world_weights(c, m, h, p, false, 0, 0, all);
            world_weights(c, m, h, p, true, t->sink, t->recent, near);
            for (int j = 0; j <= p; j++) {
                kv_read(c->kv, c->layer, h / group, j, NULL, v);
                for (int d = 0; d < m->v_dim; d++)
                    apart[h * m->v_dim + d] += (all[j] - near[j]) * v[d];
            }
        }
        /* A row of Wo meets what each KV head's group gathered. */
        for (int r = 0; r < m->n_embd; r++) {
            matrix_row(&world.model->layers[c->layer].wo, r, row);
            for (int g = 0; g < m->n_kv_heads; g++) {
                double sum = 0;
                for (int d = g * group * m->v_dim; d < (g + 1) * group * m->v_dim; d++)
                    sum += row[d] * apart[d];
                t->local[c->layer * m->n_kv_heads + g] += sum * sum / size / t->x->n_answer;
            }
        }
    }
    free(all), free(near), free(apart), free(row);
}

static void test_local(void **state) {
    (void)state;
    struct session *s = world_session(&world, "full");
    struct heads_probe *p = NULL;
    const struct heads_probe_options o = { .sink = 16, .recent = 64 };
    struct heads_tail tail;
    struct fact fact;
    float local[8];
    struct heads_sample x = world_sample(&world, STYLE_STORY, 420, 20, 3, &fact);
    struct gathering want = { .s = s, .x = &x, .sink = o.sink, .recent = o.recent };
    if (heads_probe_open(&p, world.model, s, &o, &err) || heads_probe_read(p, &x, &tail, &err) ||
        heads_local(p, world.model, s, &x, o.sink, o.recent, local, &err) ||
        heads_probe_watch(p, gather_again, &want, &err))
        fail_msg("%s", err.msg);
    for (int i = 0; i < 8; i++)
        if (fabs(local[i] - want.local[i]) > 1e-4 * want.local[i] + 1e-9)
            fail_msg("KV head %d-%d: %g, not %g", i / 2, i % 2, local[i], want.local[i]);
    assert_true(local[4] + local[5] > 10 * (local[0] + local[1]));         /* layer 2 fetches */
    heads_probe_close(p);
    session_close(s);
    heads_sample_free(&x);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_local) };
    return cmocka_run_group_tests(tests, world_up, world_down);
}
