#include "tools/common/synth_induction.h"
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/rand.h"
#include "tools/common/synth_type.h"
#include "tools/common/synth_vocab.h"

enum {
    D = 512, H = 4, G = 2, HEAD = 128, FF = 32,
    BACK = 4,                  /* tokens that must match */
    KEY = 24, N_KEYS = 4096,   /* floats of a key code, and how many there are */
    PART = 32,                 /* floats of a part of an answer code, which has 2 * PART values */
    /* Where things lie in the residual stream; the rest is zero. */
    AT_KEY = 0, AT_ANSWER = (1 + BACK) * KEY,
    AT_OUT = 288, AT_CONST = 416, N_CONST = 32,
};

/* Pairs of a head that rotate (base 10000). Found by search: over offsets up to 140000 only the
 * wanted one adds up. */
static const int rotating[] = { 0, 1, 2, 3, 4, 8, 23, 29, 33, 38 };
enum { N_ROTATING = sizeof rotating / sizeof *rotating };
_Static_assert(BACK == H, "layer 0 has a head for every token back");
_Static_assert(BACK * KEY <= HEAD - 2 * N_ROTATING, "keys and rotation share a head");

static const double ROPE_BASE = 10000;
static const double LOCAL_SCORE = 16;  /* per pair: less than 1e-8 of the weight goes elsewhere */
static const double MATCH_SCORE = 20;  /* per token that matches */
static const double TIE_SCORE = 1;     /* per pair: breaks ties of matches, alike in all look-ups */
/* CONST makes all tokens equally long; a right part adds 24 to a logit. */
static const float CONST = 16, OUTPUT = 3;

struct maker {
    const struct induction_options *o;
    const struct recipe *recipe;
    struct recipe_model model;  /* what the recipe wants to know */
    struct gguf_writer *w;
    struct synth_vocab vocab;
    int n_layers, symbols;      /* symbols: values of a part, symbols^n_lookups >= vocabulary */
    int *key;                   /* [N_KEYS]: KEY bits each, of which a token uses its own */
    int *order;                 /* [vocabulary]: the number whose digits are the parts */
    float *m;                   /* the matrix being made */
    uint8_t *packed;
    int content[BACK * KEY];    /* dimensions of a head that do not rotate */
};

/* ---- codes ---- */

/* 0 .. n - 1 in random order. */
static void shuffle(int *list, int n, struct rand *r) {
    for (int i = 0; i < n; i++) list[i] = i;
    for (int i = n - 1; i > 0; i--) {
        int j = (int)rand_below(r, (uint32_t)i + 1), t = list[i];
        list[i] = list[j];
        list[j] = t;
    }
}

/* The extended Golay code: 4096 words of 24 bits, no two of which agree in more than 16 places. */
static int golay(int message) {
    int word = message << 11, rest = word;
    /* 0xc75: x^11 + x^10 + x^6 + x^5 + x^4 + x^2 + 1 */
    for (int bit = 22; bit >= 11; bit--)
        if (rest >> bit & 1) rest ^= 0xc75 << (bit - 11);
    word |= rest;
    return word << 1 | __builtin_parity((unsigned)word);
}

static float key_of(const struct maker *s, int token, int i) {
    return s->key[token] >> i & 1 ? 1 : -1;
}

/* Rows of a Hadamard matrix and their negatives: different symbols have product 0 or less. */
static float answer_of(const struct maker *s, int token, int part, int i) {
    int symbol = s->order[token];
    while (part--) symbol /= s->symbols;
    symbol %= s->symbols;
    int sign = __builtin_popcount((unsigned)(symbol % PART) & (unsigned)i) & 1;
    return sign ^ (symbol >= PART) ? -1 : 1;
}

/* ---- matrices: rows are outputs, columns inputs ---- */

static float *row(struct maker *s, int r, int cols) { return s->m + (size_t)r * (size_t)cols; }

static void clear(struct maker *s, int rows, int cols) {
    memset(s->m, 0, (size_t)rows * (size_t)cols * sizeof *s->m);
}

static int write_matrix(struct maker *s, const char *name, int rows, int cols, struct err *err) {
    enum dtype t = synth_type(s->recipe, &s->model, name, (uint64_t)cols, (uint64_t)rows);
    size_t bytes = dtype_row_bytes(t, (size_t)cols);
    for (int r = 0; r < rows; r++)
        quant_row(t, row(s, r, cols), s->packed + (size_t)r * bytes, (size_t)cols);
    return gguf_write_data(s->w, s->packed, (size_t)rows * bytes, err);
}

static int write_part(struct maker *s, int layer, const char *part, int rows, int cols,
                      struct err *err) {
    char name[65];
    snprintf(name, sizeof name, "blk.%d.%s.weight", layer, part);
    return write_matrix(s, name, rows, cols, err);
}

/* What RMSNorm divides by in front of a layer; the constant makes it nearly the same at every
 * token. */
static double rms_before(const struct maker *s, int layer) {
    int n = s->o->n_lookups, written = layer < 1 ? 0 : layer - 1;
    double sum = KEY + PART * n + N_CONST * CONST * CONST + (layer ? BACK * KEY : 0) +
                 PART * written;
    return sqrt(sum / D);
}

/* Output r of the matrix becomes v at every token, taken from the constant. */
static void set_constant(struct maker *s, int r, double v, double rms) {
    for (int i = 0; i < N_CONST; i++)
        row(s, r, D)[AT_CONST + i] = (float)(v * rms / (N_CONST * CONST));
}

/* A score that depends on the distance alone and is highest `back` tokens back: queries turned by
 * so much, keys alike. */
static void set_turned_query(struct maker *s, int head, int back, double score, double rms) {
    double g = sqrt(score * sqrt(HEAD));
    for (int i = 0; i < N_ROTATING; i++) {
        double turn = -back * pow(ROPE_BASE, -2.0 * rotating[i] / HEAD);
        set_constant(s, head * HEAD + 2 * rotating[i], g * cos(turn), rms);
        set_constant(s, head * HEAD + 2 * rotating[i] + 1, g * sin(turn), rms);
    }
}

static void set_turned_key(struct maker *s, int kv_head, double score, double rms) {
    double g = sqrt(score * sqrt(HEAD));
    for (int i = 0; i < N_ROTATING; i++) set_constant(s, kv_head * HEAD + 2 * rotating[i], g, rms);
}

/* A head that compares: key code `first + b` of the stream goes to place b of the head. */
static void set_codes(struct maker *s, int head, int first, double rms) {
    double g = sqrt(MATCH_SCORE * sqrt(HEAD) / KEY);
    for (int b = 0; b < BACK; b++)
        for (int i = 0; i < KEY; i++)
            row(s, head * HEAD + s->content[b * KEY + i], D)[AT_KEY + (first + b) * KEY + i] =
                (float)(g * rms);
}

static int write_layer(struct maker *s, int l, struct err *err) {
    double rms = rms_before(s, l);
    for (int i = 0; i < D; i++) s->m[i] = 1;
    if (write_part(s, l, "attn_norm", 1, D, err)) return -1;

    clear(s, H * HEAD, D);
    for (int h = 0; h < H; h++) {
        bool retrieves = l && h < H / G;
        if (retrieves) set_codes(s, h, 0, rms);
        set_turned_query(s, h, retrieves ? -50 : l ? h - 1 : h + 1,
                         retrieves ? TIE_SCORE : LOCAL_SCORE, rms);
    }
    if (write_part(s, l, "attn_q", H * HEAD, D, err)) return -1;

    clear(s, G * HEAD, D);
    for (int g = 0; g < G; g++) {
        if (l && !g) set_codes(s, g, 1, rms);
        set_turned_key(s, g, l && !g ? TIE_SCORE : LOCAL_SCORE, rms);
    }
    if (write_part(s, l, "attn_k", G * HEAD, D, err)) return -1;

    clear(s, G * HEAD, D);
    for (int g = 0; g < G; g++)
        for (int i = 0; i < (l ? PART : KEY); i++)
            row(s, g * HEAD + i, D)[l ? AT_ANSWER + (l - 1) * PART + i : AT_KEY + i] = (float)rms;
    if (write_part(s, l, "attn_v", G * HEAD, D, err)) return -1;

    clear(s, D, H * HEAD);
    if (l)
        for (int i = 0; i < PART; i++)
            for (int h = 0; h < H / G; h++)
                row(s, AT_OUT + (l - 1) * PART + i, H * HEAD)[h * HEAD + i] = 1.0f / (H / G);
    else
        for (int h = 0; h < BACK; h++)
            for (int i = 0; i < KEY; i++)
                row(s, AT_KEY + (h + 1) * KEY + i, H * HEAD)[h * HEAD + i] = 1;
    if (write_part(s, l, "attn_output", D, H * HEAD, err)) return -1;

    for (int i = 0; i < D; i++) s->m[i] = 1;
    if (write_part(s, l, "ffn_norm", 1, D, err)) return -1;
    clear(s, FF, D);                           /* the feed-forward adds nothing */
    return write_part(s, l, "ffn_gate", FF, D, err) || write_part(s, l, "ffn_up", FF, D, err) ||
           write_part(s, l, "ffn_down", D, FF, err) ? -1 : 0;
}

static int write_embedding(struct maker *s, struct err *err) {
    int n = s->vocab.n;
    clear(s, n, D);
    for (int t = 0; t < n; t++) {
        float *e = row(s, t, D);
        for (int i = 0; i < KEY; i++) e[AT_KEY + i] = key_of(s, t, i);
        for (int i = 0; i < PART * s->o->n_lookups; i++)
            e[AT_ANSWER + i] = answer_of(s, t, i / PART, i % PART);
        for (int i = 0; i < N_CONST; i++) e[AT_CONST + i] = CONST;
    }
    return write_matrix(s, "token_embd.weight", n, D, err);
}

static int write_output(struct maker *s, struct err *err) {
    int n = s->vocab.n;
    for (int i = 0; i < D; i++) s->m[i] = 1;
    if (write_matrix(s, "output_norm.weight", 1, D, err)) return -1;
    clear(s, n, D);
    for (int t = 0; t < n; t++)
        for (int i = 0; i < PART * s->o->n_lookups; i++)
            row(s, t, D)[AT_OUT + i] = OUTPUT * answer_of(s, t, i / PART, i % PART);
    return write_matrix(s, "output.weight", n, D, err);
}

static int write_rope(struct maker *s, struct err *err) {
    float factor[HEAD / 2];
    for (int p = 0; p < HEAD / 2; p++) factor[p] = 1e30f;  /* turns by nothing */
    for (int i = 0; i < N_ROTATING; i++) factor[rotating[i]] = 1;
    return gguf_write_data(s->w, factor, sizeof factor, err);
}

/* ---- the file ---- */

static void declare(struct maker *s, const char *name, int rows, int cols) {
    enum dtype t = synth_type(s->recipe, &s->model, name, (uint64_t)cols, (uint64_t)rows);
    gguf_declare(s->w, name, t, rows > 1 ? 2 : 1, (uint64_t[]){ (uint64_t)cols, (uint64_t)rows });
}

static void declare_all(struct maker *s) {
    static const struct { const char *part; int rows, cols; } parts[] = {
        { "attn_norm", 1, D }, { "attn_q", H * HEAD, D }, { "attn_k", G * HEAD, D },
        { "attn_v", G * HEAD, D }, { "attn_output", D, H * HEAD }, { "ffn_norm", 1, D },
        { "ffn_gate", FF, D }, { "ffn_up", FF, D }, { "ffn_down", D, FF },
    };
    char name[65];
    declare(s, "rope_freqs.weight", 1, HEAD / 2);
    declare(s, "token_embd.weight", s->vocab.n, D);
    for (int l = 0; l < s->n_layers; l++)
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
            snprintf(name, sizeof name, "blk.%d.%s.weight", l, parts[i].part);
            declare(s, name, parts[i].rows, parts[i].cols);
        }
    declare(s, "output_norm.weight", 1, D);
    declare(s, "output.weight", s->vocab.n, D);
}

static void put_metadata(struct maker *s) {
    static const struct { const char *key; int value; } numbers[] = {
        { "llama.embedding_length", D }, { "llama.feed_forward_length", FF },
        { "llama.attention.head_count", H }, { "llama.attention.head_count_kv", G },
        { "llama.attention.key_length", HEAD }, { "llama.attention.value_length", HEAD },
        { "llama.rope.dimension_count", HEAD }, { "general.quantization_version", 2 },
        { "needle.induction.local_reach", BACK }, { "needle.induction.tokens_matched", BACK },
    };
    int32_t heads[2 * INDUCTION_LOOKUPS_MAX] = {0};
    for (int l = 1; l < s->n_layers; l++) heads[2 * (l - 1)] = l;
    gguf_put_string(s->w, "general.architecture", "llama");
    gguf_put_string(s->w, "general.name", "induction (constructed)");
    gguf_put_int(s->w, "general.file_type", GGUF_U32, s->recipe->file_type);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        gguf_put_int(s->w, numbers[i].key, GGUF_U32, numbers[i].value);
    gguf_put_int(s->w, "llama.block_count", GGUF_U32, s->n_layers);
    gguf_put_int(s->w, "llama.context_length", GGUF_U32, s->o->n_ctx);
    gguf_put_int(s->w, "llama.vocab_size", GGUF_U32, s->vocab.n);
    gguf_put_float(s->w, "llama.attention.layer_norm_rms_epsilon", 1e-6);
    gguf_put_float(s->w, "llama.rope.freq_base", ROPE_BASE);
    gguf_put_ints(s->w, "needle.induction.retrieval_heads", GGUF_I32, heads,
                  2 * (uint64_t)s->o->n_lookups);
    vocab_put(&s->vocab, s->w);
}

static int prepare(struct maker *s, struct err *err) {
    struct rand r = { s->o->seed };
    if (vocab_words(&s->vocab, err)) return -1;
    int n = s->vocab.n;
    s->n_layers = 1 + s->o->n_lookups;
    s->model = (struct recipe_model){ s->n_layers, H / G, false };
    for (double all = 0; all < n; s->symbols++) all = pow(s->symbols + 1, s->o->n_lookups);
    if (n > N_KEYS || s->symbols > 2 * PART)
        return fail(err, "%d tokens are too many for %d key codes and %d parts of %d symbols", n,
                    N_KEYS, s->o->n_lookups, 2 * PART);
    size_t values = (size_t)(n > H * HEAD ? n : H * HEAD) * D;     /* of the largest matrix */
    s->key = malloc(N_KEYS * sizeof *s->key);
    s->order = malloc((size_t)n * sizeof *s->order);
    s->m = malloc(values * sizeof *s->m);
    s->packed = malloc(values * sizeof *s->m);                     /* no type is larger than F32 */
    if (!s->key || !s->order || !s->m || !s->packed)
        return fail(err, "no memory for a matrix of %zu values", values);
    bool turns[HEAD / 2] = {0};
    for (int i = 0; i < N_ROTATING; i++) turns[rotating[i]] = true;
    for (int i = 0, at = 0; i < HEAD; i++)
        if (!turns[i / 2] && at < BACK * KEY) s->content[at++] = i;
    shuffle(s->key, N_KEYS, &r);
    for (int i = 0; i < N_KEYS; i++) s->key[i] = golay(s->key[i]);
    shuffle(s->order, n, &r);
    return 0;
}

int synth_induction(const char *path, const struct induction_options *o,
                    const struct recipe *recipe, struct err *err) {
    struct maker s = { .o = o, .recipe = recipe };
    int rc = -1;
    if (prepare(&s, err) || gguf_write_open(&s.w, path, err)) goto done;
    put_metadata(&s);
    declare_all(&s);
    if (gguf_write_begin(s.w, err) || write_rope(&s, err) || write_embedding(&s, err)) goto done;
    for (int l = 0; l < s.n_layers; l++)
        if (write_layer(&s, l, err)) goto done;
    if (write_output(&s, err)) goto done;
    rc = gguf_write_close(s.w, err);
    s.w = NULL;
done:
    gguf_write_abort(s.w);
    vocab_release(&s.vocab);
    free(s.key);
    free(s.order);
    free(s.m);
    free(s.packed);
    return rc;
}
