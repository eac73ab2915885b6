/* attention.c - causal attention for training: rotary embedding, softmax and the four gradients in
 * one pass over bf16 tensors, in the manner of FlashAttention-2 (arXiv 2307.08691). No T x T matrix
 * ever exists.
 *
 *     x(q, k) = scale[b] * <rot(query q), rot(key k)>  +  (q - k > near ? key_bias[b][k] : 0)
 *     out(q)  = sum over the keys k that q sees of softmax_k(x) * value(k)
 *
 * Built by tools/train/attention.py, which is also how to call it:
 *
 *     gcc -O3 -march=native -mprefer-vector-width=512 -ffast-math -fopenmp -shared -fPIC \
 *         attention.c -o attention.so
 *
 * Tensors (contiguous; B sequences, T tokens, H query heads, G KV heads, D numbers a head; query
 * head h reads KV head h / (H / G)):
 *
 *     qkv, dqkv  bf16  [B][T][(H + 2G) * D]  query heads, then key heads, then value heads
 *     out, dout  bf16  [B][T][H * D]
 *     lse        f32   [B][H][T]             log of the softmax denominator, which backward reads
 *     pairs      int32 [n_pairs]             pair p rotates the numbers 2p and 2p + 1; others stay
 *     cs         f32   [B][T][n_pairs][2]    cosine and sine of each rotating pair
 *     scale      f32   [B]
 *     key_bias   f32   [B][T] or NULL
 *     until      int32 [G][T] or NULL        the mask: queries k .. until[g][k] - 1 see key k
 *
 * One number a key says every mask whose forgotten keys stay forgotten: dense is NULL (or T
 * everywhere), a sliding window with sinks is k < sink ? T : k + window, S2-Attention (arXiv
 * 2407.17678) is T for a vertical block and the end of the local window for the others. Always
 * until[g][k] > k. Keys are skipped 32 at a time where 64 queries see none.
 *
 * D is 32, 64, 96 or 128; T a multiple of 64; H a multiple of G. The functions return 0, or -1 when
 * a size is not so or memory is short. OpenMP threads share out the B * G KV heads; each keeps its
 * scratch for the next call.
 *
 * Precision: products take bf16 and add in f32. The rotated queries and keys, the weights and their
 * gradients are rounded to bf16; logits, sums and accumulators stay f32.
 *
 * How it works: everything is done transposed. A product of 32 keys and 64 queries has the queries
 * along the vector, so that maxima, sums and masks of queries are vectors and nothing is added
 * across one. See "words" for operand layouts. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif
#ifdef __AMX_BF16__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define INLINE static inline __attribute__((always_inline))

typedef uint16_t bf16;

/* What attention.py fills in; pointers as above. amx = 0 leaves the matrix unit alone. */
struct attention {
    int64_t batch, tokens, query_heads, kv_heads, head_dim, n_pairs, near, amx;
    const int32_t *pairs;
    const float *cs, *scale, *key_bias;
    const int32_t *until;
};

enum {
    LANES = 16,
    QUERIES = 64,   /* a query block */
    VECTORS = QUERIES / LANES,
    KEYS = 32,      /* a key block: what the masks skip, a step of a product that adds over keys */
    GROUP = 4,      /* key blocks a softmax step takes together, forward */
    MAX_HEAD = 128,
    MAX_STEPS = MAX_HEAD / KEYS > GROUP ? MAX_HEAD / KEYS : GROUP
};

static const float LOG2E = 1.44269504f, LN2 = 0.69314718f;
static const float HIDDEN = -1e30f, NOTHING = -1e20f;   /* a masked logit; the maximum of none */

/* ---- one vector: 16 floats ---- */

INLINE float to_float(bf16 x) {
    uint32_t u = (uint32_t)x << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

INLINE bf16 to_bf16(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return (bf16)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* 2^x for the fraction of x, times 2^floor(x): a polynomial of relative error 1e-7. */
static const float P0 = 0.999999925f, P1 = 0.693153073f, P2 = 0.240153617f, P3 = 0.0558263179f,
                   P4 = 0.00898934028f, P5 = 0.0018775766f;

#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512BW__)
typedef __m512 vec;
INLINE vec load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void store(float *p, vec a) { _mm512_storeu_ps(p, a); }
INLINE vec all(float x) { return _mm512_set1_ps(x); }
INLINE vec add(vec a, vec b) { return _mm512_add_ps(a, b); }
INLINE vec sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
INLINE vec mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
INLINE vec fma_(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vec max_(vec a, vec b) { return _mm512_max_ps(a, b); }
INLINE vec pick(uint16_t m, vec a, vec b) { return _mm512_mask_mov_ps(b, m, a); }
INLINE int any_above(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0; }
INLINE vec exp2_(vec x) {
    vec f = _mm512_reduce_ps(x, 1), p = all(P5);                /* x - floor(x) */
    p = fma_(p, f, all(P4));
    p = fma_(p, f, all(P3));
    p = fma_(p, f, all(P2));
    p = fma_(p, f, all(P1));
    p = fma_(p, f, all(P0));
    return _mm512_scalef_ps(p, x);                              /* it takes the floor itself */
}
#else
typedef struct { float v[LANES]; } vec;
#define EACH(expression) vec r; for (int i = 0; i < LANES; i++) r.v[i] = (expression); return r
INLINE vec load(const float *p) { EACH(p[i]); }
INLINE void store(float *p, vec a) { memcpy(p, a.v, sizeof a.v); }
INLINE vec all(float x) { EACH(x); }
INLINE vec add(vec a, vec b) { EACH(a.v[i] + b.v[i]); }
INLINE vec sub(vec a, vec b) { EACH(a.v[i] - b.v[i]); }
INLINE vec mul(vec a, vec b) { EACH(a.v[i] * b.v[i]); }
INLINE vec fma_(vec a, vec b, vec c) { EACH(a.v[i] * b.v[i] + c.v[i]); }
INLINE vec max_(vec a, vec b) { EACH(a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
INLINE vec pick(uint16_t m, vec a, vec b) { EACH(m >> i & 1 ? a.v[i] : b.v[i]); }
INLINE int any_above(vec a, vec b) {
    int n = 0;
    for (int i = 0; i < LANES; i++) n += a.v[i] > b.v[i];
    return n != 0;
}
INLINE float exp2_one(float x) {
    if (x < -126) return 0;
    float n = floorf(x), f = x - n;
    return ldexpf(((((P5 * f + P4) * f + P3) * f + P2) * f + P1) * f + P0, (int)n);
}
INLINE vec exp2_(vec x) { EACH(exp2_one(x.v[i])); }
#endif

/* 32 floats as 32 bf16 in their order. */
INLINE void store_bf16(bf16 *p, vec a, vec b) {
#ifdef __AVX512BF16__
    _mm512_storeu_si512(p, (__m512i)_mm512_cvtne2ps_pbh(b, a));
#else
    float f[2 * LANES];
    store(f, a), store(f + LANES, b);
    for (int i = 0; i < 2 * LANES; i++) p[i] = to_bf16(f[i]);
#endif
}

/* 16 words: even[i] in the low half, odd[i] in the high half, as bf16. */
INLINE void store_words(uint32_t *p, vec even, vec odd) {
#ifdef __AVX512BF16__
    static const uint16_t order[32] = { 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8,
                                        24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31 };
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
    _mm512_storeu_si512(p, _mm512_permutexvar_epi16(_mm512_loadu_si512(order), both));
#else
    float f[2 * LANES];
    store(f, even), store(f + LANES, odd);
    for (int i = 0; i < LANES; i++) p[i] = to_bf16(f[i]) | (uint32_t)to_bf16(f[LANES + i]) << 16;
#endif
}

/* ---- products: C[m][n] (+)= A[m][k] B[k][n], m and n multiples of 32 and k taken 32 at a time.
 *
 * A is rows of bf16, step s of them at a[s]; B is "words": two neighbours in k side by side,
 * [k / 2][n] of 32 bits. That is what the tiles of AMX want; C is f32. ---- */

struct product {
    float *c;
    const bf16 *a[MAX_STEPS];
    const uint32_t *b;
    size_t ldc, lda, ldb;         /* in elements of each */
    int m, n, steps, add;         /* add: to what C holds */
};

#ifdef __AVX512BF16__
/* 8 rows x 32 columns at a time, in registers. */
static void multiply_plain(const struct product *p) {
    for (int n = 0; n < p->n; n += 32)
        for (int m = 0; m < p->m; m += 8) {
            float *c = p->c + (size_t)m * p->ldc + n;
            __m512 sum[8][2];
            #pragma GCC unroll 8
            for (size_t i = 0; i < 8; i++) {
                sum[i][0] = p->add ? load(c + i * p->ldc) : all(0);
                sum[i][1] = p->add ? load(c + i * p->ldc + 16) : all(0);
            }
            for (int k = 0; k < p->steps * 16; k++) {
                const bf16 *a = p->a[k / 16] + (size_t)m * p->lda + k % 16 * 2;
                const uint32_t *b = p->b + (size_t)k * p->ldb + n;
                __m512bh left = (__m512bh)_mm512_loadu_si512(b),
                         right = (__m512bh)_mm512_loadu_si512(b + 16);
                #pragma GCC unroll 8
                for (size_t i = 0; i < 8; i++) {
                    int32_t word;
                    memcpy(&word, a + i * p->lda, sizeof word);
                    __m512bh both = (__m512bh)_mm512_set1_epi32(word);
                    sum[i][0] = _mm512_dpbf16_ps(sum[i][0], both, left);
                    sum[i][1] = _mm512_dpbf16_ps(sum[i][1], both, right);
                }
            }
            #pragma GCC unroll 8
            for (size_t i = 0; i < 8; i++)
                store(c + i * p->ldc, sum[i][0]), store(c + i * p->ldc + 16, sum[i][1]);
        }
}
#else
static void multiply_plain(const struct product *p) {
    for (int m = 0; m < p->m; m++) {
        float *c = p->c + (size_t)m * p->ldc;
        if (!p->add) memset(c, 0, (size_t)p->n * sizeof *c);
        for (int k = 0; k < p->steps * 16; k++) {
            const bf16 *a = p->a[k / 16] + (size_t)m * p->lda + k % 16 * 2;
            const uint32_t *b = p->b + (size_t)k * p->ldb;
            float even = to_float(a[0]), odd = to_float(a[1]);
            for (int n = 0; n < p->n; n++)
                c[n] += even * to_float((bf16)b[n]) + odd * to_float((bf16)(b[n] >> 16));
        }
    }
}
#endif

#ifdef __AMX_BF16__
/* Linux lends the tile registers to a process that asks: ARCH_REQ_XCOMP_PERM, feature 18. */
static int amx_usable(void) {
    return !syscall(SYS_arch_prctl, 0x1023, 18);
}

struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes_per_row[16];
    uint8_t rows[16];
};

static void amx_start(void) {
    struct tile_config c = { .palette = 1 };
    for (int i = 0; i < 8; i++) c.rows[i] = 16, c.bytes_per_row[i] = 64;
    __asm__ volatile("" ::"r"(&c) : "memory");   /* the intrinsic does not say it reads all of c */
    _tile_loadconfig(&c);
}

static void amx_stop(void) {
    _tile_release();
}

/* Tiles 0..3: 32 x 32 of C; 4, 5: A; 6, 7: B. The intrinsics do not say what memory they touch:
 * hence the barriers. */
static __attribute__((noinline)) void multiply_amx(const struct product *p) {
    size_t ldc = p->ldc * sizeof(float), lda = p->lda * sizeof(bf16),
           ldb = p->ldb * sizeof(uint32_t);
    __asm__ volatile("" ::: "memory");
    for (int n = 0; n < p->n; n += 32)
        for (int m = 0; m < p->m; m += 32) {
            float *c = p->c + (size_t)m * p->ldc + n, *below = c + 16 * p->ldc;
            if (p->add) {
                _tile_loadd(0, c, ldc);
                _tile_loadd(1, c + 16, ldc);
                _tile_loadd(2, below, ldc);
                _tile_loadd(3, below + 16, ldc);
            } else {
                _tile_zero(0);
                _tile_zero(1);
                _tile_zero(2);
                _tile_zero(3);
            }
            for (int s = 0; s < p->steps; s++) {
                const bf16 *a = p->a[s] + (size_t)m * p->lda;
                const uint32_t *b = p->b + (size_t)s * 16 * p->ldb + n;
                _tile_loadd(4, a, lda);
                _tile_loadd(6, b, ldb);
                _tile_loadd(7, b + 16, ldb);
                _tile_loadd(5, a + 16 * p->lda, lda);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
            _tile_stored(0, c, ldc);
            _tile_stored(1, c + 16, ldc);
            _tile_stored(2, below, ldc);
            _tile_stored(3, below + 16, ldc);
        }
    __asm__ volatile("" ::: "memory");
}
#else
static int amx_usable(void) { return 0; }
static void amx_start(void) {}
static void amx_stop(void) {}
static void multiply_amx(const struct product *p) { multiply_plain(p); }
#endif

/* ---- layouts ---- */

/* 16 x 16 words, transposed; lds and ldd in words. */
static void transpose(uint32_t *d, size_t ldd, const uint32_t *s, size_t lds) {
#ifdef __AVX512F__
    __m512i r[16], t[16];
    for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_si512(s + (size_t)i * lds);
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {                       /* columns i, 4 + i, 8 + i, 12 + i */
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        _mm512_storeu_si512(d + (size_t)i * ldd, _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88));
        _mm512_storeu_si512(d + (size_t)(i + 8) * ldd, _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd));
        _mm512_storeu_si512(d + (size_t)(i + 4) * ldd,
                            _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88));
        _mm512_storeu_si512(d + (size_t)(i + 12) * ldd,
                            _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd));
    }
#else
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++)
            d[(size_t)j * ldd + (size_t)i] = s[(size_t)i * lds + (size_t)j];
#endif
}

/* rows x cols of bf16 as words of two numbers of a row, for a product that adds over the columns:
 * [cols / 2][rows]. */
static void words_of_rows(uint32_t *d, const bf16 *s, int rows, int cols) {
    const uint32_t *w = (const uint32_t *)(const void *)s;
    for (int r = 0; r < rows; r += 16)
        for (int c = 0; c < cols / 2; c += 16)
            transpose(d + (size_t)c * (size_t)rows + r, (size_t)rows,
                      w + (size_t)r * (size_t)(cols / 2) + c, (size_t)(cols / 2));
}

/* The same as words of two numbers of a column, for a product that adds over the rows:
 * [rows / 2][cols]. */
static void words_of_columns(uint32_t *d, const bf16 *s, int rows, int cols) {
    for (int r = 0; r < rows; r += 2, s += 2 * cols, d += cols)
        for (int c = 0; c < cols; c++) d[c] = s[c] | (uint32_t)s[cols + c] << 16;
}

/* Blocks of 32 tokens x dim, each transposed: [tokens / 32][dim][32]. */
static void transpose_blocks(bf16 *d, const bf16 *s, size_t tokens, int dim) {
    uint32_t w[KEYS / 2 * MAX_HEAD];
    for (size_t t = 0; t < tokens; t += KEYS) {
        words_of_columns(w, s + t * (size_t)dim, KEYS, dim);
        for (int c = 0; c < dim; c += 16)
            transpose((uint32_t *)(void *)(d + (t * (size_t)dim + (size_t)c * KEYS)), KEYS / 2,
                      w + c, (size_t)dim);
    }
}

/* One head's rows out of (or into) a tensor whose tokens are `width` apart, rotated by cs (into:
 * back). */
static void read_rows(bf16 *d, const bf16 *s, size_t width, size_t tokens, int dim) {
    for (size_t t = 0; t < tokens; t++)
        memcpy(d + t * (size_t)dim, s + t * width, (size_t)dim * sizeof *d);
}

static void rotate_rows(const struct attention *a, bf16 *x, const float *cs, size_t tokens) {
    for (size_t t = 0; t < tokens; t++, x += a->head_dim)
        for (int64_t i = 0; i < a->n_pairs; i++, cs += 2) {
            bf16 *p = x + 2 * a->pairs[i];
            float u = to_float(p[0]), v = to_float(p[1]);
            p[0] = to_bf16(u * cs[0] - v * cs[1]);
            p[1] = to_bf16(u * cs[1] + v * cs[0]);
        }
}

static void unrotate_rows(const struct attention *a, float *x, const float *cs, size_t tokens) {
    for (size_t t = 0; t < tokens; t++, x += a->head_dim)
        for (int64_t i = 0; i < a->n_pairs; i++, cs += 2) {
            float *p = x + 2 * a->pairs[i], u = p[0], v = p[1];
            p[0] = u * cs[0] + v * cs[1];
            p[1] = v * cs[0] - u * cs[1];
        }
}

static void write_rows(bf16 *d, size_t width, const float *s, size_t tokens, int dim,
                       float factor) {
    vec f = all(factor);
    for (size_t t = 0; t < tokens; t++)
        for (int c = 0; c < dim; c += 2 * LANES) {
            const float *p = s + t * (size_t)dim + c;
            store_bf16(d + t * width + c, mul(f, load(p)), mul(f, load(p + LANES)));
        }
}

/* dim x 64 floats to 64 x dim. */
static void transpose_queries(float *d, const float *s, int dim) {
    for (int c = 0; c < dim; c += 16)
        for (int q = 0; q < QUERIES; q += 16)
            transpose((uint32_t *)(void *)(d + (size_t)q * (size_t)dim + c), (size_t)dim,
                      (const uint32_t *)(const void *)(s + (size_t)c * QUERIES + q), QUERIES);
}

/* ---- one KV head of one sequence, and one block of queries of one of its heads ---- */

struct work {
    const struct attention *a;
    void (*multiply)(const struct product *);
    int dim;
    size_t tokens, width, b, g, first_query;
    const float *cs, *bias;             /* of sequence b */
    const int32_t *until;               /* of KV head g */
    int32_t *until_max;                 /* [tokens / 32] 1 + the last query that sees a block */
    bf16 *keys, *values;                /* [tokens][dim] */
    bf16 *keys_t, *values_t;            /* [tokens / 32][dim][32] */
    float *dkeys, *dvalues;             /* [tokens][dim] */
    uint32_t *seen;                     /* the key blocks that the query block sees */
    size_t n_seen;
};

static void find_ends(struct work *w) {
    for (size_t k = 0; k < w->tokens / KEYS; k++) {
        int32_t most = w->until ? 0 : (int32_t)w->tokens;
        for (size_t i = 0; w->until && i < KEYS; i++)
            if (w->until[k * KEYS + i] > most) most = w->until[k * KEYS + i];
        w->until_max[k] = most;
    }
}

static void list_seen(struct work *w, size_t first_query) {
    w->first_query = first_query, w->n_seen = 0;
    for (size_t k = 0; k < (first_query + QUERIES) / KEYS; k++)
        if (w->until_max[k] > (int32_t)first_query) w->seen[w->n_seen++] = (uint32_t)k;
}

/* 64 bits, from `first` to `end` - 1 set; either may lie outside. */
INLINE uint64_t lanes(int64_t first, int64_t end) {
    if (first < 0) first = 0;
    if (end > 64) end = 64;
    if (first >= end) return 0;
    return (end == 64 ? ~(uint64_t)0 : ((uint64_t)1 << end) - 1) & ~(uint64_t)0 << first;
}

/* What turns the product of a key with 64 queries into logits, base 2. */
struct key_row {
    uint64_t visible, far;
    float bias;
};

INLINE struct key_row key_row(const struct work *w, size_t key) {
    int64_t k = (int64_t)key - (int64_t)w->first_query;
    int64_t end = (w->until ? w->until[key] : (int64_t)w->tokens) - (int64_t)w->first_query;
    struct key_row r = { lanes(k, end), 0, 0 };
    if (w->bias) r.far = lanes(k + w->a->near + 1, QUERIES), r.bias = w->bias[key] * LOG2E;
    return r;
}

INLINE int is_simple(struct key_row r) {
    return r.visible == ~(uint64_t)0 && (r.far == 0 || r.far == ~(uint64_t)0);
}

/* Vector v of the row; scale in base 2. */
INLINE vec logits(struct key_row r, int simple, const float *s, int v, vec scale) {
    vec x = load(s + v * LANES);
    if (simple) return fma_(x, scale, all(r.far ? r.bias : 0));
    x = fma_(x, scale, pick((uint16_t)(r.far >> v * LANES), all(r.bias), all(0)));
    return pick((uint16_t)(r.visible >> v * LANES), x, all(HIDDEN));
}

/* <key, query> of one key block with 64 queries, or <value, dout>:
 * s[32][64] = rows[32][dim] x words[dim / 2][64]. */
static void score(const struct work *w, float *s, const bf16 *rows, const uint32_t *words) {
    struct product p = { .c = s, .b = words, .ldc = QUERIES, .lda = (size_t)w->dim, .ldb = QUERIES,
                         .m = KEYS, .n = QUERIES, .steps = w->dim / KEYS };
    for (int i = 0; i < p.steps; i++) p.a[i] = rows + i * KEYS;
    w->multiply(&p);
}

/* sum[dim][64] += of n key blocks, blocks_t[block][dim][32] x words[n * 16][64]. */
static void gather(const struct work *w, float *sum, const bf16 *blocks_t, const uint32_t *block,
                   int n, const uint32_t *words) {
    struct product p = { .c = sum, .b = words, .ldc = QUERIES, .lda = KEYS, .ldb = QUERIES,
                         .m = w->dim, .n = QUERIES, .steps = n, .add = 1 };
    for (int i = 0; i < n; i++) p.a[i] = blocks_t + (size_t)block[i] * (size_t)w->dim * KEYS;
    w->multiply(&p);
}

/* sum[32][dim] += weights[32][64] x words[32][dim]: what a key block gets from 64 queries. */
static void spread(const struct work *w, float *sum, const bf16 *weights, const uint32_t *words) {
    struct product p = { .c = sum, .b = words, .ldc = (size_t)w->dim, .lda = QUERIES,
                         .ldb = (size_t)w->dim, .m = KEYS, .n = w->dim, .steps = QUERIES / KEYS,
                         .add = 1 };
    for (int i = 0; i < p.steps; i++) p.a[i] = weights + i * KEYS;
    w->multiply(&p);
}

/* The rotated queries of one head's block, as rows. */
static void read_queries(const struct work *w, bf16 *rows, const bf16 *qkv, size_t head) {
    const struct attention *a = w->a;
    size_t first = w->b * w->tokens + w->first_query;
    read_rows(rows, qkv + first * w->width + head * (size_t)w->dim, w->width, QUERIES, w->dim);
    rotate_rows(a, rows, w->cs + w->first_query * (size_t)a->n_pairs * 2, QUERIES);
}

static void read_keys_and_values(const struct work *w, const bf16 *qkv) {
    const struct attention *a = w->a;
    size_t head = (size_t)a->query_heads + w->g, dim = (size_t)w->dim;
    const bf16 *s = qkv + w->b * w->tokens * w->width;
    read_rows(w->keys, s + head * dim, w->width, w->tokens, w->dim);
    read_rows(w->values, s + (head + (size_t)a->kv_heads) * dim, w->width, w->tokens, w->dim);
    rotate_rows(a, w->keys, w->cs, w->tokens);
}

/* ---- forward ---- */

struct softmax {
    float max[QUERIES], sum[QUERIES];   /* base 2 */
    float out[MAX_HEAD * QUERIES];      /* [dim][64], over 2^max */
};

/* A maximum may lag by 2^8 before all is rescaled: nothing overflows and it seldom happens. */
static void raise_max(struct softmax *m, const vec top[VECTORS], int dim) {
    int rise = 0;
    for (int v = 0; v < VECTORS; v++)
        rise |= any_above(top[v], add(load(m->max + v * LANES), all(8)));
    if (!rise) return;
    for (int v = 0; v < VECTORS; v++) {
        vec old = load(m->max + v * LANES), now = max_(old, top[v]), f = exp2_(sub(old, now));
        store(m->max + v * LANES, now);
        store(m->sum + v * LANES, mul(f, load(m->sum + v * LANES)));
        for (int d = 0; d < dim; d++) {
            float *o = m->out + d * QUERIES + v * LANES;
            store(o, mul(f, load(o)));
        }
    }
}

/* Products to logits, in place; top: each query's greatest. */
static void find_logits(const struct work *w, float *s, const uint32_t *block, int n, float scale,
                        vec top[VECTORS]) {
    vec c = all(scale);
    for (int v = 0; v < VECTORS; v++) top[v] = all(NOTHING);
    for (int i = 0; i < n * KEYS; i++, s += QUERIES) {
        struct key_row r = key_row(w, (size_t)block[i / KEYS] * KEYS + (size_t)(i % KEYS));
        int simple = is_simple(r);
        for (int v = 0; v < VECTORS; v++) {
            vec x = logits(r, simple, s, v, c);
            store(s + v * LANES, x);
            top[v] = max_(top[v], x);
        }
    }
}

/* Logits to weights, as words. */
static void find_weights(struct softmax *m, uint32_t *words, const float *s, int keys) {
    vec max[VECTORS], sum[VECTORS];
    for (int v = 0; v < VECTORS; v++)
        max[v] = load(m->max + v * LANES), sum[v] = load(m->sum + v * LANES);
    for (int k = 0; k < keys; k += 2, s += 2 * QUERIES, words += QUERIES)
        for (int v = 0; v < VECTORS; v++) {
            vec even = exp2_(sub(load(s + v * LANES), max[v]));
            vec odd = exp2_(sub(load(s + QUERIES + v * LANES), max[v]));
            sum[v] = add(sum[v], add(even, odd));
            store_words(words + v * LANES, even, odd);
        }
    for (int v = 0; v < VECTORS; v++) store(m->sum + v * LANES, sum[v]);
}

static void attend(const struct work *w, struct softmax *m, const uint32_t *queries, float scale) {
    _Alignas(64) float s[GROUP * KEYS * QUERIES];
    _Alignas(64) uint32_t weights[GROUP * KEYS / 2 * QUERIES];
    for (int q = 0; q < QUERIES; q++) m->max[q] = NOTHING, m->sum[q] = 0;
    memset(m->out, 0, (size_t)w->dim * QUERIES * sizeof *m->out);
    for (size_t i = 0; i < w->n_seen; i += GROUP) {
        const uint32_t *block = w->seen + i;
        int n = w->n_seen - i < GROUP ? (int)(w->n_seen - i) : GROUP;
        for (int k = 0; k < n; k++)
            score(w, s + k * KEYS * QUERIES, w->keys + (size_t)block[k] * KEYS * (size_t)w->dim,
                  queries);
        vec top[VECTORS];
        find_logits(w, s, block, n, scale, top);
        raise_max(m, top, w->dim);
        find_weights(m, weights, s, n * KEYS);
        gather(w, m->out, w->values_t, block, n, weights);
    }
}

static void forward_block(const struct work *w, const bf16 *qkv, size_t head, bf16 *out,
                          float *lse) {
    _Alignas(64) bf16 rows[QUERIES * MAX_HEAD];
    _Alignas(64) uint32_t queries[QUERIES * MAX_HEAD / 2];
    _Alignas(64) float o[QUERIES * MAX_HEAD];
    _Alignas(64) struct softmax m;
    size_t heads = (size_t)w->a->query_heads, dim = (size_t)w->dim;
    read_queries(w, rows, qkv, head);
    words_of_rows(queries, rows, QUERIES, w->dim);
    attend(w, &m, queries, w->a->scale[w->b] * LOG2E);
    for (int q = 0; q < QUERIES; q++) {
        lse[(w->b * heads + head) * w->tokens + w->first_query + (size_t)q] =
            m.max[q] * LN2 + logf(m.sum[q]);
        m.sum[q] = 1 / m.sum[q];
    }
    for (int d = 0; d < w->dim; d++)
        for (int q = 0; q < QUERIES; q++) m.out[d * QUERIES + q] *= m.sum[q];
    transpose_queries(o, m.out, w->dim);
    write_rows(out + ((w->b * w->tokens + w->first_query) * heads + head) * dim, heads * dim, o,
               QUERIES, w->dim, 1);
}

/* ---- backward ---- */

/* What the keys of a query block need to know of it. */
struct query_side {
    uint32_t queries[QUERIES * MAX_HEAD / 2], queries_by_column[QUERIES * MAX_HEAD / 2];
    uint32_t douts[QUERIES * MAX_HEAD / 2], douts_by_column[QUERIES * MAX_HEAD / 2];
    float lse[QUERIES], delta[QUERIES];     /* base 2; <dout, out> */
    float dqueries[MAX_HEAD * QUERIES];     /* [dim][64] */
};

/* Products of queries and keys (s) and of douts and values (t) of one key block to weights and
 * logit gradients. */
static void find_gradients(const struct work *w, const struct query_side *y, size_t block,
                           float scale, const float *s, const float *t, bf16 *weights, bf16 *grads,
                           uint32_t *grad_words) {
    vec c = all(scale);
    for (int k = 0; k < KEYS; k += 2) {
        struct key_row r0 = key_row(w, block * KEYS + (size_t)k),
                       r1 = key_row(w, block * KEYS + (size_t)k + 1);
        int simple = is_simple(r0) && is_simple(r1);
        for (int v = 0; v < VECTORS; v += 2) {
            vec p[2][2], d[2][2];
            for (int i = 0; i < 2; i++) {
                vec lse = load(y->lse + (v + i) * LANES), delta = load(y->delta + (v + i) * LANES);
                const float *dp = t + k * QUERIES + (v + i) * LANES;
                p[0][i] = exp2_(sub(logits(r0, simple, s + k * QUERIES, v + i, c), lse));
                p[1][i] = exp2_(sub(logits(r1, simple, s + (k + 1) * QUERIES, v + i, c), lse));
                d[0][i] = mul(p[0][i], sub(load(dp), delta));
                d[1][i] = mul(p[1][i], sub(load(dp + QUERIES), delta));
                store_words(grad_words + k / 2 * QUERIES + (v + i) * LANES, d[0][i], d[1][i]);
            }
            for (int j = 0; j < 2; j++) {
                store_bf16(weights + (k + j) * QUERIES + v * LANES, p[j][0], p[j][1]);
                store_bf16(grads + (k + j) * QUERIES + v * LANES, d[j][0], d[j][1]);
            }
        }
    }
}

static void attend_back(const struct work *w, struct query_side *y, float scale) {
    _Alignas(64) float s[KEYS * QUERIES], t[KEYS * QUERIES];
    _Alignas(64) bf16 weights[KEYS * QUERIES], grads[KEYS * QUERIES];
    _Alignas(64) uint32_t grad_words[GROUP * KEYS / 2 * QUERIES];
    size_t dim = (size_t)w->dim;
    memset(y->dqueries, 0, dim * QUERIES * sizeof *y->dqueries);
    for (size_t i = 0; i < w->n_seen; i += GROUP) {
        int n = w->n_seen - i < GROUP ? (int)(w->n_seen - i) : GROUP;
        for (int k = 0; k < n; k++) {
            size_t block = w->seen[i + (size_t)k], at = block * KEYS * dim;
            score(w, s, w->keys + at, y->queries);
            score(w, t, w->values + at, y->douts);
            find_gradients(w, y, block, scale, s, t, weights, grads,
                           grad_words + k * KEYS / 2 * QUERIES);
            spread(w, w->dvalues + at, weights, y->douts_by_column);
            spread(w, w->dkeys + at, grads, y->queries_by_column);
        }
        gather(w, y->dqueries, w->keys_t, w->seen + i, n, grad_words);
    }
}

static void read_query_side(const struct work *w, struct query_side *y, const bf16 *qkv,
                            const bf16 *out, const float *lse, const bf16 *dout, size_t head) {
    _Alignas(64) bf16 rows[QUERIES * MAX_HEAD];
    size_t heads = (size_t)w->a->query_heads, dim = (size_t)w->dim;
    size_t at = ((w->b * w->tokens + w->first_query) * heads + head) * dim;
    read_queries(w, rows, qkv, head);
    words_of_rows(y->queries, rows, QUERIES, w->dim);
    words_of_columns(y->queries_by_column, rows, QUERIES, w->dim);
    read_rows(rows, dout + at, heads * dim, QUERIES, w->dim);
    words_of_rows(y->douts, rows, QUERIES, w->dim);
    words_of_columns(y->douts_by_column, rows, QUERIES, w->dim);
    for (size_t q = 0; q < QUERIES; q++) {
        const bf16 *o = out + at + q * heads * dim;
        float sum = 0;
        for (size_t d = 0; d < dim; d++) sum += to_float(rows[q * dim + d]) * to_float(o[d]);
        y->delta[q] = sum;
        y->lse[q] = lse[(w->b * heads + head) * w->tokens + w->first_query + q] * LOG2E;
    }
}

static void backward_block(const struct work *w, struct query_side *y, const bf16 *qkv,
                           const bf16 *out, const float *lse, const bf16 *dout, size_t head,
                           bf16 *dqkv) {
    _Alignas(64) float rows[QUERIES * MAX_HEAD];
    float scale = w->a->scale[w->b];
    read_query_side(w, y, qkv, out, lse, dout, head);
    attend_back(w, y, scale * LOG2E);
    transpose_queries(rows, y->dqueries, w->dim);
    unrotate_rows(w->a, rows, w->cs + w->first_query * (size_t)w->a->n_pairs * 2, QUERIES);
    write_rows(dqkv + (w->b * w->tokens + w->first_query) * w->width + head * (size_t)w->dim,
               w->width, rows, QUERIES, w->dim, scale);
}

static void write_dkeys_and_dvalues(const struct work *w, bf16 *dqkv) {
    const struct attention *a = w->a;
    size_t head = (size_t)a->query_heads + w->g, dim = (size_t)w->dim;
    bf16 *d = dqkv + w->b * w->tokens * w->width;
    unrotate_rows(a, w->dkeys, w->cs, w->tokens);
    write_rows(d + head * dim, w->width, w->dkeys, w->tokens, w->dim, a->scale[w->b]);
    write_rows(d + (head + (size_t)a->kv_heads) * dim, w->width, w->dvalues, w->tokens, w->dim, 1);
}

/* ---- the calls ---- */

/* This thread's scratch, kept from call to call: fresh pages would cost more than copying into
 * them does. */
static void *scratch(size_t bytes) {
    static _Thread_local void *kept;
    static _Thread_local size_t size;
    if (bytes <= size) return kept;
    free(kept);
    size = (bytes + 4095) / 4096 * 4096;
    kept = aligned_alloc(4096, size);
    if (!kept) size = 0;
    return kept;
}

static int start_work(struct work *w, const struct attention *a) {
    size_t tokens = (size_t)a->tokens, n = tokens * (size_t)a->head_dim, blocks = tokens / KEYS;
    char *p = scratch(4 * n * sizeof(bf16) + 2 * n * sizeof(float) + 2 * blocks * sizeof(int32_t));
    if (!p) return -1;
    *w = (struct work){ .a = a, .multiply = multiply_plain, .dim = (int)a->head_dim,
                        .tokens = tokens,
                        .width = (size_t)((a->query_heads + 2 * a->kv_heads) * a->head_dim) };
    w->keys = (bf16 *)(void *)p, w->values = w->keys + n,
    w->keys_t = w->values + n, w->values_t = w->keys_t + n;
    w->dkeys = (float *)(void *)(w->values_t + n), w->dvalues = w->dkeys + n;
    w->until_max = (int32_t *)(void *)(w->dvalues + n),
    w->seen = (uint32_t *)(void *)(w->until_max + blocks);
    if (a->amx && amx_usable()) amx_start(), w->multiply = multiply_amx;
    return 0;
}

static void stop_work(const struct work *w) {
    if (w->multiply == multiply_amx) amx_stop();
}

static void start_head(struct work *w, size_t b, size_t g, const bf16 *qkv) {
    const struct attention *a = w->a;
    w->b = b, w->g = g;
    w->cs = a->cs ? a->cs + b * w->tokens * (size_t)a->n_pairs * 2 : NULL;
    w->bias = a->key_bias ? a->key_bias + b * w->tokens : NULL;
    w->until = a->until ? a->until + g * w->tokens : NULL;
    find_ends(w);
    read_keys_and_values(w, qkv);
}

static int fits(const struct attention *a) {
    return a->head_dim > 0 && a->head_dim <= MAX_HEAD && a->head_dim % KEYS == 0 && a->tokens > 0 &&
           a->tokens % QUERIES == 0 && a->kv_heads > 0 && a->query_heads % a->kv_heads == 0;
}

static void forward_head(struct work *w, const bf16 *qkv, bf16 *out, float *lse) {
    size_t ratio = (size_t)(w->a->query_heads / w->a->kv_heads);
    transpose_blocks(w->values_t, w->values, w->tokens, w->dim);
    for (size_t q = 0; q < w->tokens; q += QUERIES) {
        list_seen(w, q);
        for (size_t h = w->g * ratio; h < (w->g + 1) * ratio; h++)
            forward_block(w, qkv, h, out, lse);
    }
}

static void backward_head(struct work *w, const bf16 *qkv, const bf16 *out, const float *lse,
                          const bf16 *dout, bf16 *dqkv) {
    _Alignas(64) struct query_side y;
    size_t ratio = (size_t)(w->a->query_heads / w->a->kv_heads);
    transpose_blocks(w->keys_t, w->keys, w->tokens, w->dim);
    memset(w->dkeys, 0, 2 * w->tokens * (size_t)w->dim * sizeof(float));    /* and dvalues */
    for (size_t q = 0; q < w->tokens; q += QUERIES) {
        list_seen(w, q);
        for (size_t h = w->g * ratio; h < (w->g + 1) * ratio; h++)
            backward_block(w, &y, qkv, out, lse, dout, h, dqkv);
    }
    write_dkeys_and_dvalues(w, dqkv);
}

/* Runs `head` on every KV head of every sequence, shared out over the threads. */
typedef void head_run(struct work *, const bf16 *qkv, const void *tensors);

static int each_head(const struct attention *a, const bf16 *qkv, head_run *head,
                     const void *tensors) {
    if (!fits(a)) return -1;
    int status = 0;
    #pragma omp parallel
    {
        struct work w;
        int ok = !start_work(&w, a);
        #pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < a->batch * a->kv_heads; i++) {
            if (!ok) continue;
            start_head(&w, (size_t)(i / a->kv_heads), (size_t)(i % a->kv_heads), qkv);
            head(&w, qkv, tensors);
        }
        if (ok) stop_work(&w);
        else {
            #pragma omp atomic write
            status = -1;
        }
    }
    return status;
}

struct forward { bf16 *out; float *lse; };
struct backward { const bf16 *out, *dout; const float *lse; bf16 *dqkv; };

static void run_forward(struct work *w, const bf16 *qkv, const void *tensors) {
    const struct forward *t = tensors;
    forward_head(w, qkv, t->out, t->lse);
}

static void run_backward(struct work *w, const bf16 *qkv, const void *tensors) {
    const struct backward *t = tensors;
    backward_head(w, qkv, t->out, t->lse, t->dout, t->dqkv);
}

int attention_forward(const struct attention *a, const bf16 *qkv, bf16 *out, float *lse) {
    return each_head(a, qkv, run_forward, &(struct forward){ out, lse });
}

int attention_backward(const struct attention *a, const bf16 *qkv, const bf16 *out,
                       const float *lse, const bf16 *dout, bf16 *dqkv) {
    return each_head(a, qkv, run_backward, &(struct backward){ out, dout, lse, dqkv });
}
