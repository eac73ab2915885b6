#include "model/prompt_cache.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/file.h"
#include "model/session_internal.h"

static const char magic[8] = "needle1";
enum { MADE_BY = 1024 };

struct header {
    char magic[8];
    char made_by[MADE_BY];             /* model, mode, types, kernels: must be equal */
    uint64_t weights;                  /* a hash of the weights */
    int32_t n_tokens, n_vocab;
};

/* FNV-1a over the name, shape and first bytes of every tensor: tells models apart without reading all of them. */
static uint64_t hash_weights(const struct gguf *g) {
    uint64_t h = 0xcbf29ce484222325u;
    for (int i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        const struct { const void *p; size_t n; } part[] = {
            { t->name, strlen(t->name) }, { t->ne, sizeof t->ne }, { &t->type, sizeof t->type },
            { t->data, t->data ? (t->bytes < 256 ? t->bytes : 256) : 0 } };
        for (size_t k = 0; k < sizeof part / sizeof *part; k++)
            for (size_t b = 0; b < part[k].n; b++) h = (h ^ ((const unsigned char *)part[k].p)[b]) * 0x100000001b3u;
    }
    return h;
}

static struct header header_of(const struct session *s) {
    struct header h = { .weights = hash_weights(s->m->file), .n_tokens = s->pos, .n_vocab = s->m->c.n_vocab };
    memcpy(h.magic, magic, sizeof magic);
    snprintf(h.made_by, sizeof h.made_by, "%s %s, attention %s%s%s, KV %s/%s, %s kernels", s->m->c.arch->name, s->m->c.name,
             attn_name(s->attn), *attn_params(s->attn) ? "," : "", attn_params(s->attn), dtype_name(s->o.type_k), dtype_name(s->o.type_v), s->m->kernels->name);
    return h;
}

int prompt_cache_check(const char *path, struct err *err) {
    struct stat there;                              /* a rename would replace /dev/null */
    if (!stat(path, &there) && !S_ISREG(there.st_mode)) return fail(err, "%s: not a regular file", path);
    return file_folder_writable(path, err);
}

int prompt_cache_save(const struct session *s, const char *path, struct err *err) {
    const struct header h = header_of(s);
    struct err why = { .msg = "" };
    const size_t n = (size_t)s->pos, v = (size_t)h.n_vocab;
    char *tmp = malloc(strlen(path) + 5);
    FILE *f = NULL;
    int rc = -1, made = 0;
    if (!tmp) return fail(err, "%s: no memory", path);
    sprintf(tmp, "%s.tmp", path);
    if (prompt_cache_check(path, err)) goto done;
    if (!s->any || !n) { fail(err, "%s: an empty session cannot be saved", path); goto done; }
    for (int i = 0; i < s->pos; i++)
        if (s->ids[i] < 0) { fail(err, "%s: token %d of this session is made up", path, i); goto done; }
    if (!(f = fopen(tmp, "wb"))) { fail(err, "%s: %s", tmp, strerror(errno)); goto done; }
    made = 1;
    if (fwrite(&h, sizeof h, 1, f) != 1 || fwrite(s->ids, sizeof *s->ids, n, f) != n || fwrite(s->logits, sizeof *s->logits, v, f) != v)
        { fail(err, "%s: %s", tmp, strerror(errno)); goto done; }
    if (kv_save(s->kv, s->pos, f, &why)) { fail(err, "%s: %s", tmp, why.msg); goto done; }
    rc = fclose(f);
    f = NULL;
    if (rc || (rc = rename(tmp, path))) fail(err, "%s: %s", path, strerror(errno));
done:
    if (f) fclose(f);
    if (rc && made) unlink(tmp);
    free(tmp);
    return rc ? -1 : 0;
}

/* Reads the tokens and the cache of an open file; returns how many tokens are shared, or -1. */
static int take(struct session *s, FILE *f, const char *path, const struct header *h, const int32_t *ids, int n, struct err *err) {
    struct err why = { .msg = "" };
    const size_t tokens = (size_t)h->n_tokens, v = (size_t)h->n_vocab;
    int same = 0;
    if (session_grow(s, h->n_tokens, err)) return -1;
    if (fread(s->ids, sizeof *s->ids, tokens, f) != tokens || fread(s->logits, sizeof *s->logits, v, f) != v)
        return fail(err, "%s: the file ends early", path);
    while (same < n && same < h->n_tokens && s->ids[same] == ids[same]) same++;
    if (!same) return 0;
    if (kv_load(s->kv, h->n_tokens, f, &why)) {
        kv_truncate(s->kv, 0);
        return fail(err, "%s: %s", path, why.msg);
    }
    s->pos = h->n_tokens;
    if (same == n && same == h->n_tokens) { s->any = true; return same; }
    if (same == n) same--;                          /* the last token once more, for its logits */
    return session_truncate(s, same);
}

int prompt_cache_load(struct session *s, const char *path, const int32_t *ids, int n, struct err *err) {
    const struct header want = header_of(s);
    struct header h;
    struct stat st = { 0 };
    const bool special = !stat(path, &st) && !S_ISREG(st.st_mode);      /* opening a pipe would wait for its writer */
    FILE *f = special ? NULL : fopen(path, "rb");
    int rc = -1;
    if (special) return fail(err, "%s: not a regular file", path);
    if (!f && errno == ENOENT) return 0;
    if (!f) return fail(err, "%s: %s", path, strerror(errno));
    if (fread(&h, sizeof h, 1, f) != 1 || memcmp(h.magic, magic, sizeof magic) || h.made_by[MADE_BY - 1])
        fail(err, "%s: not a prompt cache", path);
    else if (strcmp(h.made_by, want.made_by))
        fail(err, "%s: made by %.400s, wanted %.400s", path, h.made_by, want.made_by);
    else if (h.weights != want.weights || h.n_vocab != want.n_vocab)
        fail(err, "%s: made by another model of the same name", path);
    else if (h.n_tokens < 1 || fstat(fileno(f), &st) || st.st_size / (off_t)sizeof *ids < h.n_tokens)
        fail(err, "%s: the file ends early: %d tokens in %lld bytes", path, (int)h.n_tokens, (long long)st.st_size);
    else rc = take(s, f, path, &h, ids, n, err);
    fclose(f);
    return rc;
}
