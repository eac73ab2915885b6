"""model.py - a llama: RMSNorm, GQA with rotary positions on a few pairs of dimensions, SwiGLU, tied
embeddings.

float32 weights and residual stream, bfloat16 matrix products. Position p rotates only the pairs
listed in `pairs`; the other dimensions of a head carry content alone (the GGUF says so with a
frequency factor of 1e30), so distance does not wear a match out.

The start is structured, since an induction circuit that has to arise by chance costs more tokens
than the whole training:
  look_back   head h of layer 0 looks h + 1 tokens back (a constant in embedding dimension 0 feeds
              the rotary pairs). The quick pairs tell near tokens apart, but some of 32k far ones
              always rotate into the same place; each slow pair takes from those up to 12 nats, so
              layer 0 stays local however long the text;
  look_up     a layer compares the current tokens with what stands before each key, and copies the
              key's token.
Everything stays trainable."""
import math
from dataclasses import dataclass, asdict
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from attention import attend, s2_until


@dataclass
class Shape:
    vocabulary: int = 2048
    width: int = 192
    layers: int = 7
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    ff: int = 384
    rope_base: float = 10000.0
    pairs: tuple = (0, 1, 2, 3, 4, 6, 8, 12, 15, 18, 23, 31)        # of head_dim / 2
    look_up_layers: tuple = (2, 3)
    # The S2 mask; s2_block 0: every head sees everything. Phases go by KV head.
    s2_block: int = 0
    s2_local: int = 4
    s2_stride: int = 2
    s2_offset: int = 0
    s2_dense: int = 0           # the first layers that see everything

    def mask(self, layer, tokens):
        """until[kv_heads][tokens] as attention.py wants it, None: causal"""
        if not self.s2_block or layer < self.s2_dense: return None
        return s2_until(tokens, self.kv_heads, self.s2_block, self.s2_local, self.s2_stride,
                        self.s2_offset)


def linear(x, w): return F.linear(x, w.bfloat16())


def rms(x): return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5)


class Model(nn.Module):
    def __init__(self, shape):
        super().__init__()
        s = self.shape = shape
        q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
        def matrix(rows, columns, gain=1.0):
            return nn.Parameter(torch.randn(rows, columns) * gain / math.sqrt(columns))
        def each(make): return nn.ParameterList([make(l) for l in range(s.layers)])
        self.embedding = nn.Parameter(torch.randn(s.vocabulary, s.width) * .05)
        self.qkv = each(lambda l: matrix(q + 2 * kv, s.width))
        # quiet branches: the structured start is heard
        self.out = each(lambda l: matrix(s.width, q, .02 if l else .3))
        self.gate_up = each(lambda l: matrix(2 * s.ff, s.width))
        self.down = each(lambda l: matrix(s.width, s.ff, .01))
        self.attn_norm = each(lambda l: nn.Parameter(torch.ones(s.width)))
        self.ff_norm = each(lambda l: nn.Parameter(torch.ones(s.width)))
        self.last_norm = nn.Parameter(torch.ones(s.width))
        self.register_buffer("rotated", torch.tensor(s.pairs, dtype=torch.int32), persistent=False)
        self.theta = np.array([s.rope_base ** (-2.0 * p / s.head_dim) for p in s.pairs])

    def matrices(self):
        """(parameter, row counts of the matrices stacked in it)"""
        s = self.shape
        q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
        return ([(p, [q, kv, kv]) for p in self.qkv] +
                [(p, [s.width]) for p in list(self.out) + list(self.down)] +
                [(p, [s.ff, s.ff]) for p in self.gate_up])

    def rotation(self, positions):
        """[B][T] -> cosine and sine [B][T][pairs][2]"""
        a = positions[..., None] * self.theta
        return torch.from_numpy(np.stack([np.cos(a), np.sin(a)], -1).astype(np.float32))

    def forward(self, ids, positions, temperature=None, key_bias=None, gather=None):
        """ids [B][T], positions numpy [B][T]; temperature [B] multiplies the attention scores.
        Hidden states [B][T][width]. gather(layer, qkv, attend's options) stands in for attention,
        to look into the heads or to change what they see."""
        s = self.shape
        scale = torch.full((len(ids),), s.head_dim ** -.5)
        if temperature is not None: scale = scale * temperature
        turn = self.rotation(positions)
        x = F.embedding(ids, self.embedding)
        for l in range(s.layers):
            h = (rms(x) * self.attn_norm[l]).bfloat16()
            how = dict(cs=turn, pairs=self.rotated, scale=scale, key_bias=key_bias,
                       until=s.mask(l, ids.shape[1]))
            h = linear(h, self.qkv[l])
            h = gather(l, h, **how) if gather else attend(h, s.heads, s.kv_heads, **how)
            x = x + linear(h, self.out[l])
            h = (rms(x) * self.ff_norm[l]).bfloat16()
            gate, up = linear(h, self.gate_up[l]).chunk(2, -1)
            x = x + linear(F.silu(gate) * up, self.down[l])
        return rms(x) * self.last_norm

    def logits(self, hidden): return linear(hidden.bfloat16(), self.embedding)

    # ---- the structured start --------------------------------------------------------------------

    @torch.no_grad()
    def look_back(self, gain=7.0, constant=.5):
        s = self.shape
        D, H, G = s.head_dim, s.heads, s.kv_heads
        self.embedding[:, 0] = constant
        seen = constant / math.sqrt(.05 ** 2 + constant ** 2 / s.width)     # the constant, normed
        w = self.qkv[0]
        w.mul_(.3)
        for r, p in enumerate(s.pairs):
            for g in range(G):
                k = (H + g) * D + 2 * p
                w[k:k + 2] = 0
                w[k, 0] = gain / seen
            for h in range(H):
                q, angle = h * D + 2 * p, (h + 1) * self.theta[r]
                w[q:q + 2] = 0
                w[q, 0], w[q + 1, 0] = gain / seen * math.cos(angle), -gain / seen * math.sin(angle)
        w[(H + G) * D:, 0] = 0              # values do not carry the constant

    def written(self, h):
        """What head h of layer 0 writes, as a map of the normed embedding it sees."""
        s = self.shape
        D, v = s.head_dim, s.heads + s.kv_heads + h // (s.heads // s.kv_heads)
        return self.out[0][:, h * D:(h + 1) * D] @ self.qkv[0][v * D:(v + 1) * D]

    @torch.no_grad()
    def look_up(self, layer, gain=1.6, copy=.4):
        """A key matches when the token before it is the current one; in the KV heads 0, 2 .. half
        of the dimensions that do not rotate compare one token further back, on both sides."""
        s = self.shape
        D, H, G, R = s.head_dim, s.heads, s.kv_heads, s.heads // s.kv_heads
        one, two = self.written(0).T, self.written(1).T
        still = [d for d in range(D) if d // 2 not in s.pairs]
        x = self.behind_layer_0()
        def loud(rows): return rows * (gain / (x @ rows.T).std())
        w = self.qkv[layer]
        w.mul_(.3)
        for g in range(G):
            probe = torch.randn(len(still), s.width) / math.sqrt(s.width)
            probe[:, 0] = 0
            q, k = probe.clone(), probe @ one
            k[:, 0] = 0
            half = len(still) // 2 if g % 2 == 0 else len(still)
            q[:half], k[:half] = loud(q[:half]), loud(k[:half])
            if half < len(still):
                q[half:], k[half:] = loud(probe[half:] @ one), loud(probe[half:] @ two)
            w[[(H + g) * D + d for d in still]] = k
            carry = torch.randn(D, s.width) / math.sqrt(s.width)
            carry[:, 0] = 0
            w[(H + G + g) * D:(H + G + g + 1) * D] = carry
            for h in range(g * R, (g + 1) * R):
                w[[h * D + d for d in still]] = q
                self.out[layer][:, h * D:(h + 1) * D] = carry.T * copy

    def behind_layer_0(self, n=2000):
        """The residual stream there for random text, normed, as far as heads 0 and 1 write it:
        [n][width]."""
        words, normed = self.embedding.clone(), rms(self.embedding)
        words[:, 0] = 0
        ids = torch.randint(0, self.shape.vocabulary, (3, n))
        x = words[ids[0]] + normed[ids[1]] @ self.written(0).T + normed[ids[2]] @ self.written(1).T
        x[:, 0] = self.embedding[0, 0]
        return rms(x)


def start(shape):
    """An untrained model with the structured start, drawn from torch's global seed."""
    m = Model(shape)
    m.look_back()
    for l in shape.look_up_layers: m.look_up(l, copy=.4 / len(shape.look_up_layers))
    return m


def of(shape, weights):
    """A model of that shape with a copy of these weights, a state_dict."""
    m = Model(shape)
    m.load_state_dict(weights)
    return m


def save(path, model, **more):
    torch.save({"shape": asdict(model.shape), "weights": model.state_dict(), **more}, path)


def load(path):
    """(model, everything the file holds)"""
    file = torch.load(path)
    return of(Shape(**file["shape"]), file["weights"]), file
