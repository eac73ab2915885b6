/* attention.h - causal attention for training: rotary embedding, softmax and the four gradients in
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
 * gradients are rounded to bf16; logits, sums and accumulators stay f32. */
#ifndef ATTENTION_H
#define ATTENTION_H
#include <stdint.h>

typedef uint16_t bf16;

/* What attention.py fills in; pointers as above. amx = 0 leaves the matrix unit alone. */
struct attention {
    int64_t batch, tokens, query_heads, kv_heads, head_dim, n_pairs, near, amx;
    const int32_t *pairs;
    const float *cs, *scale, *key_bias;
    const int32_t *until;
};

int attention_forward(const struct attention *, const bf16 *qkv, bf16 *out, float *lse);
int attention_backward(const struct attention *, const bf16 *qkv, const bf16 *out,
                       const float *lse, const bf16 *dout, bf16 *dqkv);

#endif
