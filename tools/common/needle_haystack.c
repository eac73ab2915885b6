#include "tools/common/needle_haystack.h"
#include <stdlib.h>
#include <string.h>
#include "tools/common/story.h"

enum {
    SENTENCE_MAX = 1024,               /* bytes; what runs on longer is cut at a space */
    EMPTY_MAX = 1000,
};

struct haystack {
    const struct tokenizer *tok;
    bool prefixes;                     /* the tokenizer itself puts a space in front of a text */
    struct story story;
    const char *text;                  /* NULL: stories */
    size_t n_text, at;                 /* at: where the next sentence of the text begins */
    int32_t *ids;                      /* every sentence so far */
    int *end;                          /* [n]: where each sentence ends in ids */
    int n, n_room, ids_room;
    int empty;                         /* sentences that became no token */
};

/* ---- filler ---------------------------------------------------------------------------------- */

static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

/* Bytes up to the end of the first sentence of p[0..n-1], which does not begin with white space. */
static size_t sentence_bytes(const char *p, size_t n) {
    size_t space = 0;
    for (size_t i = 1; i <= n; i++) {
        if (i == n) return n;
        if (!is_space(p[i])) {
            if (i < SENTENCE_MAX || ((unsigned char)p[i] & 0xc0) == 0x80) continue;
            return space ? space : i;                                    /* no end in sight */
        }
        space = i;
        size_t last = i - 1;
        while (last && strchr("\"')]", p[last])) last--;
        if (strchr(".!?", p[last]) || (p[i] == '\n' && i + 1 < n && p[i + 1] == '\n')) return i;
    }
    return n;
}

static bool more_text(struct haystack *h) {
    while (h->at < h->n_text && is_space(h->text[h->at])) h->at++;
    return h->at < h->n_text;
}

/* The next sentence of the text, round and round. */
static const char *next_of_text(struct haystack *h, size_t *n) {
    if (!more_text(h)) h->at = 0, more_text(h);
    const char *p = h->text + h->at;
    *n = sentence_bytes(p, h->n_text - h->at);
    h->at += *n;
    return p;
}

/* Text as it stands behind other text: with a space in front, unless it brings its own. */
static int encode_inside(const struct haystack *h, const char *p, size_t n, int32_t **ids,
                         struct err *err) {
    if (h->prefixes || (n && is_space(*p))) return tok_encode(h->tok, p, n, 0, ids, err);
    char *spaced = malloc(n + 1);
    if (!spaced) return fail(err, "no memory for %zu bytes of text", n);
    spaced[0] = ' ';
    memcpy(spaced + 1, p, n);
    const int rc = tok_encode(h->tok, spaced, n + 1, 0, ids, err);
    free(spaced);
    return rc;
}

static int grow(void **p, int *room, int want, size_t item, struct err *err) {
    if (want <= *room) return 0;
    void *bigger = realloc(*p, (size_t)want * 2 * item);
    if (!bigger) return fail(err, "no memory for a haystack of %d tokens", want);
    *p = bigger, *room = want * 2;
    return 0;
}

static int add_sentence(struct haystack *h, struct err *err) {
    char line[STORY_SENTENCE];
    const char *p = line;
    int32_t *ids;
    size_t bytes;
    if (h->text) p = next_of_text(h, &bytes);
    else {
        story_next(&h->story, line);
        bytes = strlen(line);
    }
    const int from = h->n ? h->end[h->n - 1] : 0, n = encode_inside(h, p, bytes, &ids, err);
    if (n < 0) return -1;
    if (!n && ++h->empty > EMPTY_MAX) {
        free(ids);
        return fail(err, "%d sentences of the haystack mean nothing to this tokenizer", h->empty);
    }
    const int rc = grow((void **)&h->ids, &h->ids_room, from + n, sizeof *h->ids, err) ||
                   grow((void **)&h->end, &h->n_room, h->n + 1, sizeof *h->end, err);
    if (!rc) {
        memcpy(h->ids + from, ids, (size_t)n * sizeof *ids);
        h->end[h->n++] = from + n;
    }
    free(ids);
    return rc ? -1 : 0;
}

static uint64_t count_sentences(struct haystack *h) {
    uint64_t n = 0;
    for (size_t bytes; more_text(h); n++) next_of_text(h, &bytes);
    h->at = 0;
    return n;
}

int haystack_open(struct haystack **out, const struct tokenizer *tok, const char *text, size_t n,
                  uint64_t seed, struct err *err) {
    static const char space[] = "\xe2\x96\x81";        /* how a llama vocabulary spells a space */
    int32_t *ids;
    size_t len;
    size_t blank = 0;
    while (text && blank < n && is_space(text[blank])) blank++;
    if (text && blank == n) return fail(err, "the haystack holds no text");
    const int one = tok_encode(tok, "a", 1, 0, &ids, err);
    if (one < 0) return -1;
    struct haystack *h = calloc(1, sizeof *h);
    if (!h) { free(ids); return fail(err, "no memory for a haystack"); }
    h->tok = tok, h->text = text, h->n_text = n;
    const char *piece = one ? tok_piece(tok, ids[0], &len) : NULL;
    h->prefixes = piece && len >= 3 && !memcmp(piece, space, 3);
    free(ids);
    if (!text) story_begin(&h->story, seed);
    else if (seed != 1) {
        struct story dice;
        char line[STORY_SENTENCE];
        story_begin(&dice, seed);
        story_next(&dice, line);                            /* its state is now as random as any */
        for (uint64_t skip = dice.rng.s % count_sentences(h); skip; skip--) next_of_text(h, &len);
    }
    *out = h;
    return 0;
}

void haystack_close(struct haystack *h) {
    if (!h) return;
    free(h->ids);
    free(h->end);
    free(h);
}

/* ---- planting -------------------------------------------------------------------------------- */

struct part { int32_t *ids; int n, at; };      /* at: filler tokens in front of it; -1: placed */

static void append(struct prompt *p, const int32_t *ids, int n) {
    memcpy(p->ids + p->n, ids, (size_t)n * sizeof *ids);
    p->n += n;
}

/* Writes BOS, the filler with the facts (part[0..n_facts-1], what is hidden last and in
 * order) in it, and the question. */
static void assemble(const struct haystack *h, struct part *part, int n_facts, int first_hidden,
                     int room, struct prompt *p) {
    int used = 0;
    if (tok_adds_bos(h->tok) && tok_bos(h->tok) >= 0) p->ids[p->n++] = tok_bos(h->tok);
    for (int s = 0;; s++) {
        /* Distractors first: at depth 100 nothing stands behind the needle. */
        for (int i = 0; i < n_facts; i++) {
            if (part[i].at < 0 || part[i].at > used) continue;
            if (i == first_hidden) p->needle_at = p->n;
            append(p, part[i].ids, part[i].n);
            part[i].at = -1;
        }
        if (used == room) break;
        const int whole = h->end[s] - used, now = whole <= room - used ? whole : room - used;
        /* Of the last sentence only the end, so that it ends like one. */
        append(p, h->ids + h->end[s] - now, now);
        used += now;
    }
    append(p, part[n_facts].ids, part[n_facts].n);
}

/* Text i of what is planted: distractors, needle, more, question. */
static const char *text_at(const struct planting *w, int i) {
    if (i < w->n_distractors) return w->distractors[i];
    i -= w->n_distractors;
    return i == 0 ? w->needle : i <= w->n_more ? w->more[i - 1] : w->question;
}

int haystack_plant(struct haystack *h, const struct planting *w, struct prompt *out,
                   struct err *err) {
    const int d = w->n_distractors, hidden = 1 + w->n_more, n = d + hidden,
              bos = tok_adds_bos(h->tok) && tok_bos(h->tok) >= 0;
    struct part *part = calloc((size_t)n + 1, sizeof *part);       /* part[n] is the question */
    struct prompt p = { 0 };
    int rc = -1;
    long long taken = bos;
    if (!part) return fail(err, "no memory for %d facts", n);
    for (int i = 0; i <= n; i++) {
        const char *text = text_at(w, i);
        if ((part[i].n = encode_inside(h, text, strlen(text), &part[i].ids, err)) < 0) goto done;
        taken += part[i].n;
    }
    if (taken > w->n_tokens) {
        fail(err, "a prompt of %d tokens does not hold the %lld of needle, question and "
                  "distractors", w->n_tokens, taken);
        goto done;
    }
    const int room = w->n_tokens - (int)taken;
    for (int i = 0; i < d; i++) part[i].at = (int)((long long)room * (2 * i + 1) / (2 * d));
    for (int i = 0; i < hidden; i++)
        part[d + i].at = (int)(room * (w->depth + (100 - w->depth) * i / hidden) / 100);
    while (!h->n || h->end[h->n - 1] < room)
        if (add_sentence(h, err)) goto done;
    if (!(p.ids = malloc((size_t)w->n_tokens * sizeof *p.ids))) {
        fail(err, "no memory for %d tokens", w->n_tokens);
        goto done;
    }
    assemble(h, part, n, d, room, &p);
    p.n_needle = part[d].n, p.n_question = part[n].n;
    *out = p;
    rc = 0;
done:
    for (int i = 0; i <= n; i++) free(part[i].ids);
    free(part);
    return rc;
}
