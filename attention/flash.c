#include "attention/flash.h"
#include "attention/band.h"
#include "attention/sweep.h"
#include <assert.h>
#include <stdlib.h>
#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_max_threads(void) { return 1; }
static int omp_get_thread_num(void) { return 0; }
#endif

enum {
    ROWS = 256,            /* query rows of one sweep: tokens x heads of the group */
    IN_FLIGHT = 64,        /* of split keys: results per token and KV head that wait for a merge */
    SMALL = 300000,
    BAND_SPANS = 2,        /* of a narrowed head */
};

struct worker {                                 /* of one thread */
    struct sweep_scratch scratch;
    struct partial segment, total;
    struct attn_span *spans;                    /* [max_spans] */
    int *pages;                                 /* [max_pages] */
    void *memory;
};

/* One segment of one KV head that a split call still has to attend. */
struct piece { int segment, first_span; };

struct flash {
    struct sweep sweep;
    int group;                     /* query heads per KV head */
    int max_spans, max_pages, block;
    int n_workers;
    struct worker *workers;
    /* For calls that split the keys of each KV head over threads: */
    struct attn_span *spans;       /* [n_kv_heads][max_spans] */
    int *pages;                    /* [n_kv_heads][max_pages] */
    struct walk *walks;            /* [n_kv_heads] */
    struct piece *pieces;          /* [n_kv_heads][IN_FLIGHT] */
    int *n_pieces;                 /* [n_kv_heads] */
    struct partial parts, totals;  /* [n_kv_heads][IN_FLIGHT * group], [n_kv_heads][rows] */
    void *memory;
    size_t bytes;
    uint64_t rows_done;
    const unsigned char *narrow;   /* [n_layers][n_kv_heads] whose keys the band chooses; or NULL */
    struct band band;
    struct masses *masses;         /* NULL: the mode never asks for any */
};

/* ---- Memory: one allocation for what is shared, one per thread ---- */

static size_t carve_worker(struct worker *w, char *memory, const struct flash *f) {
    struct carve c = { memory, 0 };
    w->memory = memory;
    sweep_carve(&w->scratch, &c, &f->sweep);
    w->segment = carve_partial(&c, (size_t)f->sweep.rows, f->sweep.shape.v_dim);
    w->total = carve_partial(&c, (size_t)f->sweep.rows, f->sweep.shape.v_dim);
    w->spans = carve(&c, (size_t)f->max_spans, sizeof *w->spans);
    w->pages = carve(&c, (size_t)f->max_pages, sizeof *w->pages);
    return c.used;
}

static size_t carve_shared(struct flash *f, char *memory) {
    struct carve c = { memory, 0 };
    const struct attn_shape *shape = &f->sweep.shape;
    size_t heads = shape->n_kv_heads;
    f->memory = memory;
    if (f->sweep.turns) f->sweep.freq = carve(&c, (size_t)shape->n_rot / 2, sizeof *f->sweep.freq);
    f->spans = carve(&c, heads * f->max_spans, sizeof *f->spans);
    f->pages = carve(&c, heads * f->max_pages, sizeof *f->pages);
    f->walks = carve(&c, heads, sizeof *f->walks);
    f->pieces = carve(&c, heads * IN_FLIGHT, sizeof *f->pieces);
    f->n_pieces = carve(&c, heads, sizeof *f->n_pieces);
    f->parts = carve_partial(&c, heads * IN_FLIGHT * f->group, shape->v_dim);
    f->totals = carve_partial(&c, heads * f->sweep.rows, shape->v_dim);
    return c.used;
}

/* Zeroed, because the scores of a page that is skipped are read (and ignored). */
static char *memory_new(size_t bytes) {
    char *p = aligned_alloc(64, bytes);
    if (p) memset(p, 0, bytes);
    return p;
}

int flash_open(struct flash **out, const struct attn_shape *shape, const struct kernels *kernels,
               const struct attn_mode *mode, struct err *err) {
    struct flash *f = calloc(1, sizeof *f);
    int threads = omp_get_max_threads();
    struct worker *workers = calloc((size_t)threads, sizeof *workers);
    if (!f || !workers) {
        free(f);
        free(workers);
        return fail(err, "attention: no memory");
    }
    *f = (struct flash){
        .sweep = { .shape = *shape, .tile = kernels->tile, .matrix = kernels->matrix,
                   .turns = mode->turns },
        .workers = workers, .max_spans = mode->max_spans, .max_pages = mode->max_pages,
    };
    assert(!mode->turns || shape->rope_freq);
    if (f->max_spans < BAND_SPANS) f->max_spans = BAND_SPANS;
    f->group = shape->n_heads / shape->n_kv_heads;
    f->sweep.rows = f->group > ROWS ? f->group : ROWS;
    f->block = mode->block ? mode->block : f->sweep.rows / f->group;
    f->bytes = carve_shared(f, NULL);
    char *shared = memory_new(f->bytes);
    if (!shared) goto fail;
    carve_shared(f, shared);
    if (f->sweep.turns)
        memcpy(f->sweep.freq, shape->rope_freq, (size_t)shape->n_rot / 2 * sizeof *f->sweep.freq);
    f->sweep.shape.rope_freq = NULL;                             /* borrowed */
    for (; f->n_workers < threads; f->n_workers++) {
        struct worker *w = &workers[f->n_workers];
        size_t bytes = carve_worker(w, NULL, f);
        char *memory = memory_new(bytes);
        if (!memory) goto fail;
        carve_worker(w, memory, f);
        f->bytes += bytes;
    }
    if (mode->ops->take_masses) {
        if (masses_open(&f->masses, kernels->tile, shape->n_kv_heads, f->group, shape->max_tokens,
                        err)) {
            flash_close(f);
            return -1;
        }
        f->bytes += f->masses->bytes;
    }
    *out = f;
    return 0;
fail:
    fail(err, "attention: no memory for the scratch of %d threads", threads);
    flash_close(f);
    return -1;
}

void flash_close(struct flash *f) {
    if (!f) return;
    masses_close(f->masses);
    for (int i = 0; i < f->n_workers; i++) free(f->workers[i].memory);
    free(f->workers);
    free(f->memory);
    free(f);
}

void flash_narrow(struct flash *f, const unsigned char *narrow, int sink, int recent) {
    f->narrow = narrow, f->band = (struct band){ .sink = sink, .recent = recent };
}

size_t flash_bytes(const struct flash *f) { return f->bytes; }

void flash_counters(const struct flash *f, uint64_t *keys_read, uint64_t *rows) {
    *keys_read = 0;
    *rows = f->rows_done;
    for (int i = 0; i < f->n_workers; i++) *keys_read += f->workers[i].scratch.keys_read;
}

static void store(const struct flash *f, float *out, struct partial total, const struct rows *x,
                  int call_pos) {
    const int vd = f->sweep.shape.v_dim;
    for (int t = 0; t < x->n; t++)
        for (int h = 0; h < f->group; h++) {
            struct partial from = partial_at(total, (size_t)t * f->group + h, vd);
            size_t head = (size_t)x->kv_head * f->group + h, token = x->pos + t - call_pos;
            float *to = out + (token * f->sweep.shape.n_heads + head) * vd;
            for (int i = 0; i < vd; i++) to[i] = from.out[i] / *from.sum;
            if (f->sweep.keep)
                f->sweep.keep->top[head] = *from.m, f->sweep.keep->sum[head] = *from.sum;
        }
}

/* ---- Two ways to share the work; they give the same bits ---- */

/* What the rows read. spans and pages are room for it. */
static struct walk ask(const struct flash *f, struct attn_mode *mode, struct attn_span *spans,
                       int *pages, const float *q, const struct kvcache *kv, const struct rows *x) {
    struct walk walk = { .span = spans, .end = x->pos + x->n };
    const struct attn_block b = {
        .layer = x->layer, .kv_head = x->kv_head, .pos = x->pos, .n = x->n, .q = q,
        .q_stride = (size_t)f->sweep.shape.n_heads * f->sweep.shape.k_dim, .kv = kv,
    };
    if (f->narrow && f->narrow[(size_t)x->layer * f->sweep.shape.n_kv_heads + x->kv_head]) {
        walk.n_spans = band_select(&f->band, &b, spans);
        return walk;
    }
    walk.n_spans = mode->ops->select(mode, &b, spans);
    assert(walk.n_spans >= 1 && walk.n_spans <= mode->max_spans);
    if (!mode->scattered) return walk;
    walk.n_pages = walk_pages(pages, spans, walk.n_spans, walk.end);
    assert(walk.n_pages <= mode->max_pages);
    walk.page = pages;
    return walk;
}

/* Many queries: a task is one block of queries of one KV head, and walks all its segments. */
static void attend_block(struct flash *f, struct worker *w, struct attn_mode *mode, float *out,
                         const float *q, const struct kvcache *kv, const struct rows *block,
                         int call_pos) {
    const size_t q_token = (size_t)f->sweep.shape.n_heads * f->sweep.shape.k_dim;
    const float *q_head = q + (size_t)block->kv_head * f->group * f->sweep.shape.k_dim;
    const int most = f->sweep.rows / f->group;
    const struct walk walk = ask(f, mode, w->spans, w->pages,
                                 q_head + (block->pos - call_pos) * q_token, kv, block);
    for (int t = 0; t < block->n; t += most) {
        struct rows x = *block;
        x.pos += t;
        x.n = block->n - t < most ? block->n - t : most;
        sweep_load(&f->sweep, &w->scratch, q_head + (x.pos - call_pos) * q_token, &x,
                   kv_shape(kv)->type_k);
        partial_clear(w->total, x.n * f->group, f->sweep.shape.v_dim);
        int first = 0, segment = 0;
        while ((segment = walk_segment(&walk, segment, &first)) >= 0) {
            sweep_segment(&f->sweep, &w->scratch, w->segment, &x, kv, &walk, first, segment++);
            partial_merge(w->total, w->segment, x.n * f->group, f->sweep.shape.v_dim);
        }
        store(f, out, w->total, &x, call_pos);
    }
}

/* Threads may be fewer by now than at flash_open, never more than there is scratch for; and waking
 * them costs some microseconds, in which one of them does SMALL multiplications. */
static int threads(const struct flash *f, int pos, int n) {
    const double work = (double)n * f->sweep.shape.n_heads * (pos + n) *
                        (f->sweep.shape.k_dim + f->sweep.shape.v_dim);
    int most = omp_get_max_threads();
    if (work < SMALL) return 1;
    return most < f->n_workers ? most : f->n_workers;
}

static void run_blocks(struct flash *f, struct attn_mode *mode, float *out, const float *q,
                       const struct kvcache *kv, int layer, int pos, int n) {
    const int heads = f->sweep.shape.n_kv_heads, from = pos / f->block,
              blocks = (pos + n - 1) / f->block - from + 1;
    #pragma omp parallel for schedule(dynamic, 1) num_threads(threads(f, pos, n))
    for (int i = blocks * heads - 1; i >= 0; i--) {        /* last block first: it sees most keys */
        int begin = (from + i / heads) * f->block, end = begin + f->block;
        if (begin < pos) begin = pos;
        if (end > pos + n) end = pos + n;
        struct rows x = { layer, i % heads, begin, end - begin, f->group };
        attend_block(f, &f->workers[omp_get_thread_num()], mode, out, q, kv, &x, pos);
    }
}

/* Few queries, many keys: a task is one segment of one KV head. Segments go in waves of as many as
 * there is room for their results; neighbours go to one thread, as what it fetches ahead is then
 * its own. All tokens of the call must belong to one selection block. */
static void run_segments(struct flash *f, struct attn_mode *mode, float *out, const float *q,
                         const struct kvcache *kv, int layer, int pos, int n) {
    const int heads = f->sweep.shape.n_kv_heads, vd = f->sweep.shape.v_dim, rows = n * f->group,
              wave = IN_FLIGHT / n;
    const size_t room = (size_t)IN_FLIGHT * f->group;
    for (int g = 0; g < heads; g++) {
        struct rows x = { layer, g, pos, n, f->group };
        f->walks[g] = ask(f, mode, f->spans + (size_t)g * f->max_spans,
                          f->pages + (size_t)g * f->max_pages,
                          q + (size_t)g * f->group * f->sweep.shape.k_dim, kv, &x);
        partial_clear(partial_at(f->totals, (size_t)g * f->sweep.rows, vd), rows, vd);
        f->n_pieces[g] = -1;                               /* not begun */
    }
    for (;;) {
        int most = 0;
        for (int g = 0; g < heads; g++) {
            struct piece *piece = f->pieces + (size_t)g * IN_FLIGHT, next = { 0, 0 };
            if (f->n_pieces[g] == 0) continue;
            if (f->n_pieces[g] > 0) next = piece[f->n_pieces[g] - 1], next.segment++;
            int count = 0;
            while (count < wave) {
                next.segment = walk_segment(&f->walks[g], next.segment, &next.first_span);
                if (next.segment < 0) break;
                piece[count++] = next;
                next.segment++;
            }
            f->n_pieces[g] = count;
            if (count > most) most = count;
        }
        if (!most) break;
        #pragma omp parallel num_threads(threads(f, pos, n))
        {
            struct worker *w = &f->workers[omp_get_thread_num()];
            int loaded = -1;                               /* whose queries w has */
            #pragma omp for schedule(guided) collapse(2)
            for (int g = 0; g < heads; g++)
                for (int i = 0; i < most; i++) {
                    if (i >= f->n_pieces[g]) continue;
                    const struct piece *piece = f->pieces + (size_t)g * IN_FLIGHT + i;
                    struct rows x = { layer, g, pos, n, f->group };
                    if (loaded != g)
                        sweep_load(&f->sweep, &w->scratch,
                                   q + (size_t)g * f->group * f->sweep.shape.k_dim, &x,
                                   kv_shape(kv)->type_k);
                    loaded = g;
                    sweep_segment(&f->sweep, &w->scratch,
                                  partial_at(f->parts, g * room + (size_t)i * rows, vd), &x, kv,
                                  &f->walks[g], piece->first_span, piece->segment);
                }
            #pragma omp for schedule(static)
            for (int g = 0; g < heads; g++)
                for (int i = 0; i < f->n_pieces[g]; i++)
                    partial_merge(partial_at(f->totals, (size_t)g * f->sweep.rows, vd),
                          partial_at(f->parts, g * room + (size_t)i * rows, vd), rows, vd);
        }
    }
    for (int g = 0; g < heads; g++) {
        struct rows x = { layer, g, pos, n, f->group };
        store(f, out, partial_at(f->totals, (size_t)g * f->sweep.rows, vd), &x, pos);
    }
}

void flash_run(struct flash *f, struct attn_mode *mode, float *out, const float *q,
               const struct kvcache *kv, int layer, int pos, int n) {
    assert(n <= f->sweep.shape.max_batch);
    if (n < 1) return;
    f->sweep.keep = mode->want_masses ? f->masses : NULL;
    if (f->sweep.keep) {
        assert(n == 1 && pos < f->sweep.shape.max_tokens);
        masses_begin(f->sweep.keep, pos + 1);
    }
    const int one_block = pos / f->block == (pos + n - 1) / f->block;
    const int tasks = f->sweep.shape.n_kv_heads * ((n + f->block - 1) / f->block);
    if (one_block && 2 * n <= IN_FLIGHT && n * f->group <= f->sweep.rows &&
        tasks < 4 * threads(f, pos, n) && pos + n > SEGMENT)
        run_segments(f, mode, out, q, kv, layer, pos, n);
    else
        run_blocks(f, mode, out, q, kv, layer, pos, n);
    f->rows_done += (uint64_t)n * f->sweep.shape.n_heads;
    if (f->sweep.keep) {
        masses_finish(f->sweep.keep, threads(f, pos, n));
        mode->ops->take_masses(mode, &(struct attn_masses){
            layer, pos, pos / KV_PAGE + 1, f->sweep.keep->peak, f->sweep.keep->mean });
    }
}
