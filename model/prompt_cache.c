#include "model/prompt_cache.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/file.h"
#include "model/session_internal.h"

static const char magic[8] = "needle3";
enum { MADE_BY = 1024 };

struct header {
    char magic[8];
    char made_by[MADE_BY];      /* model, mode, types, kernels: must be equal */
    uint64_t weights;           /* a hash of the weights */
    uint64_t numbers;           /* and of what may be set besides: rotation, scales */
    int32_t n_tokens, n_vocab;
};                              /* then ids, logits, keys and values, and a checksum of all that */

#define FNV_START 0xcbf29ce484222325u
#define FNV_PRIME 0x100000001b3u

/* FNV-1a, going on from h. */
static uint64_t hash(uint64_t h, const void *p, size_t n) {
    for (size_t i = 0; i < n; i++) h = (h ^ ((const unsigned char *)p)[i]) * FNV_PRIME;
    return h;
}

/* Over the name, shape and first bytes of every tensor: tells models apart without reading all of
 * them. */
static uint64_t hash_weights(const struct gguf *g) {
    uint64_t h = FNV_START;
    for (int i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        const struct { const void *p; size_t n; } part[] = {
            { t->name, strlen(t->name) }, { t->ne, sizeof t->ne }, { &t->type, sizeof t->type },
            { t->data, t->data ? (t->bytes < 256 ? t->bytes : 256) : 0 } };
        for (size_t k = 0; k < sizeof part / sizeof *part; k++)
            h = hash(h, part[k].p, part[k].n);
    }
    return h;
}

/* Over what keys and values depend on apart from the weights: flags may change it. */
static uint64_t hash_numbers(const struct session *s) {
    const struct model_config *c = &s->m->c;
    const struct rope_config *r = &c->rope;
    const double numbers[] = { r->n_rot, r->base, r->scaling, r->factor, r->orig_ctx,
                               r->ext_factor, r->attn_factor, r->beta_fast, r->beta_slow,
                               c->rms_eps, c->attn_scale };
    return hash(FNV_START, numbers, sizeof numbers);
}

static struct header header_of(const struct session *s) {
    struct header h = { .weights = hash_weights(s->m->file), .numbers = hash_numbers(s),
                        .n_tokens = s->pos, .n_vocab = s->m->c.n_vocab };
    memcpy(h.magic, magic, sizeof magic);
    snprintf(h.made_by, sizeof h.made_by, "%s %s, attention %s%s%s, KV %s/%s, %s kernels",
             s->m->c.arch->name, s->m->c.name, attn_name(s->attn), *attn_params(s->attn) ? "," : "",
             attn_params(s->attn), dtype_name(s->o.type_k), dtype_name(s->o.type_v),
             s->m->kernels->name);
    return h;
}

int prompt_cache_check(const char *path, struct err *err) {
    struct stat there;                              /* a rename would replace /dev/null */
    if (!stat(path, &there) && !S_ISREG(there.st_mode))
        return fail(err, "%s: not a regular file", path);
    return file_folder_writable(path, err);
}

/* Of the next n bytes of f. Each step is a bijection of h, so that no change of one word goes
 * unnoticed, and spreads its upper bits, so that changes do not cancel. -1: there are fewer. */
static int checksum(FILE *f, uint64_t n, uint64_t *sum) {
    enum { CHUNK = 1 << 15 };
    uint64_t *buf = malloc(CHUNK * sizeof *buf), h = FNV_START, left = n;
    while (buf && left) {
        const size_t now = left < CHUNK * sizeof *buf ? (size_t)left : CHUNK * sizeof *buf,
                     words = (now + 7) / 8;
        buf[words - 1] = 0;
        if (fread(buf, 1, now, f) != now) break;
        for (size_t i = 0; i < words; i++) h = (h ^ buf[i]) * FNV_PRIME, h ^= h >> 32;
        left -= now;
    }
    const int rc = buf && !left ? 0 : -1;
    free(buf);
    *sum = h;
    return rc;
}

/* Bytes of a file that holds n tokens of the session's kind, before the checksum. */
static uint64_t file_bytes(const struct session *s, int n) {
    const struct kv_shape *kv = kv_shape(s->kv);
    return sizeof(struct header) + sizeof *s->ids * (uint64_t)n +
           sizeof *s->logits * (uint64_t)s->m->c.n_vocab +
           sizeof(int) * (uint64_t)kv->n_layers * (uint64_t)kv->n_kv_heads + kv_bytes_at(kv, n);
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
        if (s->ids[i] < 0) {
            fail(err, "%s: token %d of this session is made up", path, i);
            goto done;
        }
    if (!(f = fopen(tmp, "w+b"))) { fail(err, "%s: %s", tmp, strerror(errno)); goto done; }
    made = 1;
    if (fwrite(&h, sizeof h, 1, f) != 1 || fwrite(s->ids, sizeof *s->ids, n, f) != n ||
        fwrite(s->logits, sizeof *s->logits, v, f) != v) {
        fail(err, "%s: %s", tmp, strerror(errno));
        goto done;
    }
    if (kv_save(s->kv, s->pos, f, &why)) { fail(err, "%s: %s", tmp, why.msg); goto done; }
    const uint64_t bytes = file_bytes(s, s->pos);
    uint64_t sum;
    rewind(f);
    if (checksum(f, bytes, &sum) || fseeko(f, (off_t)bytes, SEEK_SET) ||
        fwrite(&sum, sizeof sum, 1, f) != 1) {
        fail(err, "%s: %s", tmp, strerror(errno));
        goto done;
    }
    rc = fclose(f);
    f = NULL;
    if (rc || (rc = rename(tmp, path))) fail(err, "%s: %s", path, strerror(errno));
done:
    if (f) fclose(f);
    if (rc && made) unlink(tmp);
    free(tmp);
    return rc ? -1 : 0;
}

static int check_whole(const struct session *s, FILE *f, const char *path, int n_tokens,
                       struct err *err) {
    struct stat st;
    uint64_t sum, noted, bytes;
    if (fstat(fileno(f), &st)) return fail(err, "%s: %s", path, strerror(errno));
    if (n_tokens < 1 || n_tokens > st.st_size / (off_t)sizeof *s->ids)
        return fail(err, "%s: damaged: %d tokens in %lld bytes", path, n_tokens,
                    (long long)st.st_size);
    bytes = file_bytes(s, n_tokens);
    if ((uint64_t)st.st_size != bytes + sizeof sum)
        return fail(err, "%s: the file %s: %lld bytes, %d tokens take %llu", path,
                    (uint64_t)st.st_size < bytes + sizeof sum ? "ends early" : "is too long",
                    (long long)st.st_size, n_tokens, (unsigned long long)(bytes + sizeof sum));
    rewind(f);
    if (checksum(f, bytes, &sum) || fread(&noted, sizeof noted, 1, f) != 1)
        return fail(err, "%s: the file ends early", path);
    if (sum != noted)
        return fail(err, "%s: damaged: its checksum is %016llx, noted was %016llx", path,
                    (unsigned long long)sum, (unsigned long long)noted);
    return fseeko(f, sizeof(struct header), SEEK_SET)
         ? fail(err, "%s: %s", path, strerror(errno)) : 0;
}

/* Reads the tokens and the cache of an open file; returns how many tokens are shared, or -1. */
static int take(struct session *s, FILE *f, const char *path, const struct header *h,
                const int32_t *ids, int n, struct err *err) {
    struct err why = { .msg = "" };
    const size_t tokens = (size_t)h->n_tokens, v = (size_t)h->n_vocab;
    int same = 0;
    if (session_grow(s, h->n_tokens, err)) return -1;
    if (fread(s->ids, sizeof *s->ids, tokens, f) != tokens ||
        fread(s->logits, sizeof *s->logits, v, f) != v)
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

int prompt_cache_load(struct session *s, const char *path, const int32_t *ids, int n,
                      struct err *err) {
    const struct header want = header_of(s);
    struct header h;
    struct stat st = { 0 };
    /* Opening a pipe would wait for its writer. */
    const bool special = !stat(path, &st) && !S_ISREG(st.st_mode);
    FILE *f = special ? NULL : fopen(path, "rb");
    int rc = -1;
    if (special) return fail(err, "%s: not a regular file", path);
    if (!f && errno == ENOENT) return 0;
    if (!f) return fail(err, "%s: %s", path, strerror(errno));
    if (fread(&h, sizeof h, 1, f) != 1 || memcmp(h.magic, magic, sizeof magic) ||
        h.made_by[MADE_BY - 1])
        fail(err, "%s: not a prompt cache", path);
    else if (strcmp(h.made_by, want.made_by))
        fail(err, "%s: made by %.400s, wanted %.400s", path, h.made_by, want.made_by);
    else if (h.weights != want.weights || h.n_vocab != want.n_vocab)
        fail(err, "%s: made by another model of the same name", path);
    else if (h.numbers != want.numbers)
        fail(err, "%s: made with another rotation or other scales", path);
    else if (!check_whole(s, f, path, h.n_tokens, err)) rc = take(s, f, path, &h, ids, n, err);
    fclose(f);
    return rc;
}
