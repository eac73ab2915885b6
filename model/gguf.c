/* gguf.c - opens the file or files of a model, joins the parts of a split and finds things by
 * name. */
#include "model/gguf_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Anonymous memory rather than the page cache: huge pages, and no surprise when the file changes
 * under us. */
static int read_whole(struct gguf_part *p, int fd, struct err *err) {
    void *mem = mmap(NULL, p->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mem == MAP_FAILED)
        return fail(err, "%s: no memory for %zu bytes: %s", p->path, p->size, strerror(errno));
    p->base = mem;
#ifdef MADV_HUGEPAGE
    madvise(mem, p->size, MADV_HUGEPAGE);          /* only a wish */
#endif
    for (size_t at = 0; at < p->size; ) {
        ssize_t n = pread(fd, p->base + at, p->size - at, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail(err, "%s: reading at %zu: %s", p->path, at, strerror(errno));
        if (!n)
            return fail(err, "%s: ends at %zu, it had %zu bytes when opened", p->path, at, p->size);
        at += (size_t)n;
    }
    return 0;
}

static int map_whole(struct gguf_part *p, int fd, struct err *err) {
    void *mem = mmap(NULL, p->size, PROT_READ, MAP_SHARED, fd, 0);
    if (mem == MAP_FAILED)
        return fail(err, "%s: mapping %zu bytes: %s", p->path, p->size, strerror(errno));
    p->base = mem;
    return 0;
}

static int load_part(struct gguf_part *p, const char *path, const struct gguf_options *o,
                     struct err *err) {
    int rc = -1, fd = -1;
    struct stat st;
    if (!(p->path = strdup(path))) return fail(err, "%s: no memory", path);
    if ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0 || fstat(fd, &st)) {
        fail(err, "%s: %s", path, strerror(errno));
        goto done;
    }
    if (!S_ISREG(st.st_mode)) {
        fail(err, "%s: %s, want a file", path,
             S_ISDIR(st.st_mode) ? "a directory" : "not a regular file");
        goto done;
    }
    if (!st.st_size) { fail(err, "%s: the file is empty", path); goto done; }
    p->size = (size_t)st.st_size;
    if (o->no_mmap ? read_whole(p, fd, err) : map_whole(p, fd, err)) goto done;
    if (o->mlock && mlock(p->base, p->size)) {
        fail(err, "%s: locking %zu bytes into memory: %s (see ulimit -l)", path, p->size,
             strerror(errno));
        goto done;
    }
    p->can_release = !o->no_mmap && !o->mlock;
    rc = gguf_parse(p, err);
done:
    if (fd >= 0) close(fd);
    return rc;
}

void gguf_release(const struct gguf *g, const void *data, size_t bytes) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)data;
    for (int i = 0; i < g->n_parts; i++) {
        const uintptr_t base = (uintptr_t)g->parts[i].base;
        if (!g->parts[i].can_release || at < base || at >= base + g->parts[i].size) continue;
        const uintptr_t from = (at + page - 1) / page * page, to = (at + bytes) / page * page;
        /* Advice: a refusal changes nothing. */
        if (from < to) madvise((void *)from, to - from, MADV_DONTNEED);
    }
}

void gguf_part_free(struct gguf_part *p) {
    if (p->base) munmap(p->base, p->size);
    free(p->tensors);
    free(p->kv_by_key);
    free(p->kv);
    free(p->path);
}

/* split.no, split.count and split.tensors.count of a part; a file without them is the only part
 * of one. */
struct split { int64_t no, count, tensors; };

static int read_split(const struct gguf_part *p, struct split *s, struct err *err) {
    *s = (struct split){ 0, 1, -1 };
    if (gguf_kv_int(gguf_part_find(p, "split.count"), p->path, 0, 99999, &s->count, err) < 0)
        return -1;
    if (!s->count) s->count = 1;
    if (gguf_kv_int(gguf_part_find(p, "split.no"), p->path, 0, s->count - 1, &s->no, err) < 0)
        return -1;
    return gguf_kv_int(gguf_part_find(p, "split.tensors.count"), p->path, 0, INT_MAX,
                       &s->tensors, err) < 0 ? -1 : 0;
}

/* The name of part `no` of a split whose other part is called path: malloc'd, or NULL if path has
 * no such name. */
static char *part_path(const char *path, int64_t no, int64_t count) {
    char tail[32];
    size_t n = strlen(path), digits = strlen("00001");
    size_t tail_n = (size_t)snprintf(tail, sizeof tail, "-of-%05" PRId64 ".gguf", count);
    if (n < tail_n + digits + 1 || strcmp(path + n - tail_n, tail)) return NULL;
    char *name = strdup(path), number[24];
    size_t at = n - tail_n - digits;
    if (name && name[at - 1] == '-' && strspn(name + at, "0123456789") == digits) {
        snprintf(number, sizeof number, "%05" PRId64, no + 1);
        memcpy(name + at, number, digits);
        return name;
    }
    free(name);
    return NULL;
}

/* parts[0] is loaded; loads the others its metadata promises. */
static int load_rest(struct gguf *g, const struct gguf_options *o, struct err *err) {
    const char *path = g->parts[0].path;
    struct split first, s;
    if (read_split(&g->parts[0], &first, err)) return -1;
    if (first.count == 1) return 0;
    char *name = part_path(path, 0, first.count);
    if (first.no) {
        fail(err, "%s: part %" PRId64 " of %" PRId64 ", open the first one: %s", path, first.no + 1,
             first.count, name ? name : "NAME-00001-of-0000N.gguf");
        free(name);
        return -1;
    }
    if (!name || strcmp(name, path)) {
        free(name);
        return fail(err, "%s: the first of %" PRId64 " parts, its name wants to end in "
                    "-00001-of-%05" PRId64 ".gguf so that the others can be found",
                    path, first.count, first.count);
    }
    free(name);
    int64_t tensors = g->parts[0].n_tensors;
    for (int64_t i = 1; i < first.count; i++) {
        struct gguf_part *parts = realloc(g->parts, (size_t)(i + 1) * sizeof *parts);
        if (parts) g->parts = parts;
        if (!parts || !(name = part_path(g->parts[0].path, i, first.count)))
            return fail(err, "%s: no memory for part %" PRId64, g->parts[0].path, i + 1);
        struct gguf_part *p = &parts[i];
        *p = (struct gguf_part){0};
        g->n_parts = (int)i + 1;
        int rc = load_part(p, name, o, err);
        free(name);
        if (rc || read_split(p, &s, err)) return -1;
        if (s.no != i || s.count != first.count)
            return fail(err, "%s: says it is part %" PRId64 " of %" PRId64 ", want %" PRId64
                        " of %" PRId64, p->path, s.no + 1, s.count, i + 1, first.count);
        tensors += p->n_tensors;
    }
    if (first.tensors >= 0 && tensors != first.tensors)
        return fail(err, "%s: %" PRId64 " tensors in %" PRId64 " parts, "
                    "key 'split.tensors.count' promises %" PRId64,
                    g->parts[0].path, tensors, first.count, first.tensors);
    return 0;
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(const struct gguf_tensor *const *)a)->name,
                  (*(const struct gguf_tensor *const *)b)->name);
}

static int join_tensors(struct gguf *g, struct err *err) {
    int64_t n = 0;
    for (int i = 0; i < g->n_parts; i++) n += g->parts[i].n_tensors;
    if (n > INT_MAX)
        return fail(err, "%s: %" PRId64 " tensors in all parts, want at most %d", gguf_path(g), n,
                    INT_MAX);
    g->tensors = malloc((size_t)(n + 1) * sizeof *g->tensors);
    g->by_name = malloc((size_t)(n + 1) * sizeof *g->by_name);
    if (!g->tensors || !g->by_name)
        return fail(err, "%s: no memory for %" PRId64 " tensors", gguf_path(g), n);
    for (int i = 0; i < g->n_parts; i++) {
        const struct gguf_part *p = &g->parts[i];
        for (int j = 0; j < p->n_tensors; j++) {
            g->tensors[g->n_tensors] = p->tensors[j];
            g->by_name[g->n_tensors] = &g->tensors[g->n_tensors];
            g->tensor_bytes += p->tensors[j].bytes;        /* each lies in its file: no overflow */
            g->n_tensors++;
        }
    }
    qsort(g->by_name, (size_t)n, sizeof *g->by_name, by_name);
    char shown[GGUF_SHOWN];
    for (int64_t i = 1; i < n; i++)
        if (!strcmp(g->by_name[i - 1]->name, g->by_name[i]->name))
            return fail(err, "%s: tensor '%s' appears twice", g->by_name[i]->file,
                        gguf_show(shown, g->by_name[i]->name, strlen(g->by_name[i]->name)));
    return 0;
}

int gguf_open(struct gguf **out, const char *path, const struct gguf_options *options,
              struct err *err) {
    static const struct gguf_options defaults;
    if (!options) options = &defaults;
    struct gguf *g = calloc(1, sizeof *g);
    if (!g || !(g->parts = calloc(1, sizeof *g->parts))) {
        free(g);
        return fail(err, "%s: no memory", path);
    }
    g->n_parts = 1;
    if (load_part(&g->parts[0], path, options, err) || load_rest(g, options, err) ||
        join_tensors(g, err)) {
        gguf_close(g);
        return -1;
    }
    *out = g;
    return 0;
}

void gguf_close(struct gguf *g) {
    if (!g) return;
    for (int i = 0; i < g->n_parts; i++) gguf_part_free(&g->parts[i]);
    gguf_sets_free(g->sets);
    free(g->parts);
    free(g->by_name);
    free(g->tensors);
    free(g);
}

const char *gguf_path(const struct gguf *g) { return g->parts[0].path; }
int gguf_n_kv(const struct gguf *g) { return g->parts[0].n_kv; }
const struct gguf_kv *gguf_kv_at(const struct gguf *g, int i) { return &g->parts[0].kv[i]; }
const struct gguf_kv *gguf_find(const struct gguf *g, const char *key) {
    const struct gguf_kv *set = gguf_set_find(g, key);
    return set ? set : gguf_part_find(&g->parts[0], key);
}
int gguf_n_tensors(const struct gguf *g) { return g->n_tensors; }
const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, int i) { return &g->tensors[i]; }
uint64_t gguf_tensor_bytes(const struct gguf *g) { return g->tensor_bytes; }

const struct gguf_tensor *gguf_tensor(const struct gguf *g, const char *name) {
    for (int lo = 0, hi = g->n_tensors; lo < hi; ) {
        int mid = lo + (hi - lo) / 2;
        int order = strcmp(name, g->by_name[mid]->name);
        if (!order) return g->by_name[mid];
        if (order < 0) hi = mid; else lo = mid + 1;
    }
    return NULL;
}
