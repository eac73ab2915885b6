/* Mode hip through the cache: which keys each query reads, against the method written down plainly.
 * What must not change a bit: test_hip_same.c.
 *
 * Not here, because the mode has no such thing: packing the selected keys into new positions (RoPE
 * beyond the trained length; stream,rope=cache and s2 test turned queries), and attending the end
 * of a prompt in full, which the authors' correction does and ours leaves to --attn-decode full.
 * What is lost on a real text: test_story.c. */
#include "tests/common/attend.h"
#include "tests/common/check.h"
#include "tests/common/tiny.h"
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void each_set(void (*f)(const struct kernels *)) {
    char names[64];
    snprintf(names, sizeof names, "%s", kernels_names());
    for (char *name = strtok(names, " "); name; name = strtok(NULL, " ")) f(kernels_pick(name));
}

/* A problem whose output shows what was read: value j is the j-th unit vector. Small whole numbers
 * for q and k, so that scores are exact in any order of summation. */
static struct problem probe_new(int n, int n_heads, int n_kv_heads, int k_dim, enum dtype type,
                                uint64_t seed) {
    struct problem p = problem_new(n, n_heads, n_kv_heads, k_dim, n, type, DT_F32);
    for (size_t i = 0; i < (size_t)n * n_heads * k_dim; i++) p.q[i] = (float)(noise(&seed) % 5) - 2;
    for (size_t i = 0; i < (size_t)n * n_kv_heads * k_dim; i++)
        p.k[i] = (float)(noise(&seed) % 7) - 3;
    for (int t = 0; t < n; t++)
        for (int g = 0; g < n_kv_heads; g++)
            for (int i = 0; i < n; i++) p.v[((size_t)t * n_kv_heads + g) * n + i] = i == t;
    p.shape.scale = 0.25f;
    return p;
}

/* ---- The method, plainly ---- */

struct method {
    int stages, k, window, sink, bk, sk, bq, sq, refresh, until, chunk[3], keep[3], every[3];
    char owner;                                /* 'k', 'q', 'l' */
};

static const char *method_text(const struct method *m) {
    static char text[512];
    int n = snprintf(text, sizeof text, "hip,dense=0,until=%d,window=%d,sink=%d,bq=%d,owner=%s",
                     m->until, m->window, m->sink, m->bq,
                     m->owner == 'k' ? "kv" : m->owner == 'q' ? "q" : "layer");
    if (m->stages == 1)
        snprintf(text + n, sizeof text - (size_t)n, ",k=%d,bk=%d,sk=%d,sq=%d,refresh=%d", m->k,
                 m->bk, m->sk, m->sq, m->refresh);
    else
        snprintf(text + n, sizeof text - (size_t)n,
                 ",stages=3,chunk=%d:%d:%d,keep=%d:%d:%d,every=%d:%d:%d",
                 m->chunk[0], m->chunk[1], m->chunk[2], m->keep[0], m->keep[1], m->keep[2],
                 m->every[0], m->every[1], m->every[2]);
    return text;
}

static int owns(const struct problem *p, char owner, int asking, int head) {
    const int group = p->shape.n_heads / p->shape.n_kv_heads;
    return owner == 'l' || (owner == 'q' ? head == asking : head / group == asking / group);
}

/* Score of key j for the mean of the queries from..to of one head. */
static double dot(const struct problem *p, int from, int to, int head, int j) {
    const struct attn_shape *s = &p->shape;
    const float *k = p->k + ((size_t)j * s->n_kv_heads +
                             (size_t)head / (size_t)(s->n_heads / s->n_kv_heads)) * s->k_dim;
    double sum = 0;
    for (int t = from; t <= to; t++)
        for (int i = 0; i < s->k_dim; i++)
            sum += p->q[((size_t)t * s->n_heads + head) * s->k_dim + i] * k[i];
    return sum / (to - from + 1);
}

/* The best score any sample of the block p0..p1 gives key j:
 * of every stride queries the last, or their mean. */
static double worth(const struct problem *p, const struct method *m, int asking, int p0, int p1,
                    int stride, int pool, int j) {
    double best = -INFINITY;
    for (int h = 0; h < p->shape.n_heads; h++) {
        if (!owns(p, m->owner, asking, h)) continue;
        for (int t = p0; t <= p1; t += stride) {
            int last = t + stride - 1;
            if (last > p1) {
                if (!pool && t > p0) continue;
                last = p1;
            }
            if (!pool && j > last - m->window) continue;
            best = fmax(best, dot(p, pool ? t : last, last, h, j));
        }
    }
    return best;
}

struct branch { int start, count; double score; };

/* The keep best of n branches in order of position; ties go to the lower. */
static int prune(struct branch *b, int n, int keep) {
    for (; n > keep; n--) {
        int worst = 0;
        for (int i = 1; i < n; i++)
            if (b[i].score <= b[worst].score) worst = i;
        memmove(b + worst, b + worst + 1, (size_t)(n - worst - 1) * sizeof *b);
    }
    return n;
}

/* Marks in seen[] the keys a search for queries p0..p1 selects. */
static void beam(char *seen, const struct problem *p, const struct method *m, int asking,
                 int p0, int p1) {
    const int end = p1 - m->window + 1, all = end - m->sink,
              n = (all + m->bk - 1) / m->bk, width = m->k / m->bk;
    if (all <= 0) return;
    struct branch b[512], next[512];
    int count = n < width ? n : width, longest = 0;
    for (int i = 0; i < count; i++) {
        b[i] = (struct branch){ i * n / count, (i + 1) * n / count - i * n / count, 0 };
        if (b[i].count > longest) longest = b[i].count;
    }
    while (longest > 1) {
        int c = 0;
        for (int i = 0; i < count; i++) {
            const int half = b[i].count / 2;
            if (half) next[c++] = (struct branch){ b[i].start, half, 0 };
            next[c++] = (struct branch){ b[i].start + half, b[i].count - half, 0 };
        }
        for (int i = 0; i < c; i++) {
            const int from = m->sink + (next[i].start + next[i].count / 2) * m->bk;
            next[i].score = -INFINITY;
            for (int x = m->sk - 1; x < m->bk && from + x < end; x += m->sk)
                next[i].score = fmax(next[i].score,
                                     worth(p, m, asking, p0, p1, m->sq, 0, from + x));
        }
        count = prune(next, c, width);
        memcpy(b, next, (size_t)count * sizeof *b);
        longest = 0;
        for (int i = 0; i < count; i++) if (b[i].count > longest) longest = b[i].count;
    }
    for (int i = 0; i < count; i++)
        for (int j = m->sink + b[i].start * m->bk;
             j < m->sink + (b[i].start + 1) * m->bk && j < end; j++)
            seen[j] = 1;
}

/* Stages first.. of the chain; lefts[] holds what each stage kept. */
struct chain { int left[3][256], n[3]; };

static void chain_search(struct chain *c, const struct problem *p, const struct method *m,
                         int asking, int p0, int p1, int first) {
    static const int stride[3] = { 4, 4, 1 };
    for (int s = first; s < 3; s++) {
        static struct branch b[4096];
        int n = 0;
        if (!s)
            for (int l = m->sink; l <= p0 - (m->window - m->chunk[0]); l += m->chunk[0])
                b[n++].start = l;
        else
            for (int i = 0; i < c->n[s - 1]; i++)
                for (int l = 0; l < m->chunk[s - 1]; l += m->chunk[s])
                    b[n++].start = c->left[s - 1][i] + l;
        for (int i = 0; i < n; i++) {
            int lo = b[i].start, hi = lo + m->chunk[s];
            b[i].score = -INFINITY;
            while (hi - lo > 1) {
                const int mid = (lo + hi) / 2;
                const double x = worth(p, m, asking, p0, p1, stride[s], 1, (lo + mid) / 2);
                const double y = worth(p, m, asking, p0, p1, stride[s], 1, (mid + hi) / 2);
                if (x > y) hi = mid; else lo = mid;
                b[i].score = fmax(b[i].score, fmax(x, y));
            }
        }
        c->n[s] = prune(b, n, m->keep[s] / m->chunk[s]);
        for (int i = 0; i < c->n[s]; i++) c->left[s][i] = b[i].start;
    }
}

/* What of the decode path is remembered for one asking head. */
struct memory { char *seen; struct chain chain; int searched; };

/* Everything query t reads, if its block is p0..p1 (decoding:
 * p0 == p1 == t, and `due` says which stages search). */
static void reads(char *seen, struct memory *mem, const struct problem *p, const struct method *m,
                  int asking, int t, int p0, int p1, int due) {
    if (due < 3) {
        memset(mem->seen, 0, (size_t)p->n);
        mem->searched = p0;
        if (m->stages == 1) beam(mem->seen, p, m, asking, p0, p1);
        else {
            chain_search(&mem->chain, p, m, asking, p0, p1, due);
            for (int i = 0; i < mem->chain.n[2]; i++)
                memset(mem->seen + mem->chain.left[2][i], 1, (size_t)m->chunk[2]);
        }
    }
    for (int j = 0; j < p->n; j++)
        seen[j] = j <= t && (j < m->sink || j > t - m->window - (p0 - mem->searched) ||
                             mem->seen[j]);
}

/* Compares what the output shows to have been read with what should be.
 * Tokens below `prefill` come in chunks, the others one by one. */
static void check_reads(const struct problem *p, const struct method *m, const struct kernels *k,
                        int prefill, int chunk) {
    const int n = p->n, heads = p->shape.n_heads;
    float *out = malloc((size_t)n * heads * n * sizeof *out);
    char *seen = malloc((size_t)n);
    struct memory *mem = calloc((size_t)heads, sizeof *mem);
    uint64_t want_keys = 0, keys, rows;
    struct pair s = pair_open(p, method_text(m), k, chunk);
    for (int h = 0; h < heads; h++) mem[h].seen = calloc(1, (size_t)n + 4096);
    for (int pos = 0; pos < prefill; pos += chunk)
        pair_feed(s, p, pos, prefill - pos < chunk ? prefill - pos : chunk, out);
    for (int pos = prefill; pos < n; pos++) pair_feed(s, p, pos, 1, out);
    for (int t = 0; t < n; t++)
        for (int h = 0; h < heads; h++) {
            const int call = t / chunk * chunk,
                      next = call + chunk < prefill ? call + chunk : prefill;
            int p0 = t / m->bq * m->bq, p1 = p0 + m->bq - 1, due = 0;
            if (p0 < call) p0 = call;
            if (p1 >= next) p1 = next - 1;
            if (t >= prefill) {
                p0 = p1 = t;
                if (m->stages == 1) due = t > prefill && t % m->refresh ? 3 : 0;
                else for (due = 0; t > prefill && due < 3 && t % m->every[due]; ) due++;
            } else if (t > p0) due = 3;
            reads(seen, &mem[h], p, m, h, t, p0, p1, due);
            const int call_end = t < prefill ? next : t + 1;
            for (int j = 0; j < n; j++) {
                if (call_end <= m->until) seen[j] = j <= t;
                want_keys += (uint64_t)seen[j];
                if ((out[((size_t)t * heads + h) * n + j] > 0) != seen[j])
                    fail_msg("%s, %s, %d then one by one, by %d: query %d of head %d %s key %d",
                             k->name, method_text(m), prefill, chunk, t, h,
                             seen[j] ? "misses" : "reads", j);
            }
        }
    attn_counters(s.attn, &keys, &rows);
    assert_int_equal(keys, want_keys);
    assert_int_equal(rows, (uint64_t)n * heads);
    for (int h = 0; h < heads; h++) free(mem[h].seen);
    free(mem);
    free(seen);
    free(out);
    pair_close(s);
}

static void all_reads(const struct kernels *k) {
    static const struct method methods[] = {
        { 1, 16, 16, 4, 2, 1, 16, 2, 8, 0, .owner = 'k' },      /* the papers' proportions */
        { 1, 32, 48, 16, 16, 1, 16, 4, 4, 0, .owner = 'k' },    /* a block is a page of the cache */
        { 1, 12, 17, 3, 4, 2, 8, 3, 5, 0, .owner = 'q' },
        { 1, 15, 33, 0, 3, 2, 32, 32, 7, 0, .owner = 'l' },
        { 1, 8, 16, 8, 1, 1, 1, 1, 1, 100, .owner = 'k' },
        { 1, 64, 16, 1, 32, 3, 16, 5, 3, 0, .owner = 'q' },
        { .stages = 3, .window = 40, .sink = 8, .bq = 16, .chunk = { 16, 8, 4 },
          .keep = { 96, 40, 16 }, .every = { 8, 4, 2 }, .owner = 'k' },
        { .stages = 3, .window = 64, .sink = 5, .bq = 32, .chunk = { 32, 4, 2 },
          .keep = { 64, 64, 12 }, .every = { 12, 4, 3 }, .owner = 'q' },
        { .stages = 3, .window = 33, .sink = 0, .bq = 8, .chunk = { 8, 8, 8 },
          .keep = { 80, 40, 24 }, .every = { 8, 6, 1 }, .owner = 'l' },
    };
    const int few = !strcmp(k->name, "scalar");
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        const enum dtype type = i % 3 == 1 ? DT_F16 : i % 3 ? DT_BF16 : DT_F32;
        /* No block's rest is three queries long: a mean over three would not be exact. */
        struct problem p = probe_new(202, 4, 2, 8, type, i + 1),
                       one = probe_new(160, 3, 1, 12, DT_F32, i + 99);
        check_reads(&p, &methods[i], k, 202, methods[i].bq * 2);
        if (!few) check_reads(&p, &methods[i], k, 130, 202);
        check_reads(&p, &methods[i], k, 0, 1);
        if (!few) check_reads(&one, &methods[i], k, 101, 38);
        problem_free(&p);
        problem_free(&one);
    }
}

static void test_reads_what_the_method_says(void **state) { (void)state; each_set(all_reads); }

/* Keys all alike, keys that are no numbers: legal lists, and each row still reads its own token. */
static void test_strange_keys(void **state) {
    (void)state;
    struct method m = { 1, 16, 16, 4, 2, 1, 16, 2, 8, 0, .owner = 'k' };
    struct problem p = probe_new(150, 2, 1, 8, DT_F32, 4);
    for (int i = 0; i < 150 * 8; i++) p.k[i] = 1;
    check_reads(&p, &m, kernels_pick(NULL), 100, 100);
    for (int i = 0; i < 8; i++) p.k[60 * 8 + i] = NAN;
    float *out = problem_run(&p, method_text(&m), kernels_pick(NULL), 50);
    for (int t = 0; t < 60; t++) assert_true(out[(size_t)t * 300 + t] > 0);
    free(out);
    problem_free(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_what_the_method_says),
        cmocka_unit_test(test_strange_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
