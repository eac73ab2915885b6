"""attention.py - the kernel of attention.c as a differentiable PyTorch function.

    import attention
    out = attention.attend(qkv, query_heads, kv_heads, cs=cs, pairs=pairs, scale=scale,
                           key_bias=bias, until=until)

    qkv       bfloat16 [B][T][(H + 2G) * D]: query heads, key heads, value heads;
              T a multiple of 64, D 32, 64, 96 or 128
    pairs     int32 [n]: the pairs (2p, 2p + 1) of each head that rotate; None: none does
    cs        float32 [B][T][n][2]: their cosines and sines
    scale     float32 [B] or None (1 / sqrt(D))
    key_bias  float32 [B][T] or None: added to the logit of a key more than `near` tokens back;
              gets no gradient
    until     int32 [G][T] or None (causal): key k is seen by the queries k .. until[g][k] - 1;
              see s2_until, window_until
    out       bfloat16 [B][T][H * D]

attention.c is compiled on first use into $XDG_CACHE_HOME/needle-train (or ~/.cache/needle-train),
under a name made of its text, that of its headers, and the flags. Set OMP_WAIT_POLICY=passive
before torch is imported: autograd has a thread team of its own.
"""
import ctypes
import functools
import hashlib
import os
import subprocess
import tempfile

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCES = [os.path.join(HERE, "attention" + end)
           for end in (".c", ".h", "_vec.h", "_product.h", "_layout.h")]
FLAGS = ("-O3 -march=native -mprefer-vector-width=512 -ffast-math -fopenmp -std=gnu11 "
         "-shared -fPIC").split()
BLOCK = 64  # T must be a multiple


def build(flags=()):
    """Path of the compiled kernel."""
    flags = FLAGS + list(flags)
    key = hashlib.sha256(" ".join(flags).encode())
    for source in SOURCES:
        with open(source, "rb") as f:
            key.update(f.read())
    key = key.hexdigest()[:16]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = os.path.join(cache, "needle-train", f"attention-{key}.so")
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        handle, new = tempfile.mkstemp(dir=os.path.dirname(path))
        os.close(handle)
        try:
            subprocess.run([os.environ.get("CC", "gcc"), *flags, SOURCES[0], "-o", new, "-lm"],
                           check=True)
            os.replace(new, path)
        finally:
            if os.path.exists(new):
                os.remove(new)
    return path


@functools.lru_cache(None)
def library(flags=()):
    return ctypes.CDLL(build(flags))


class Arguments(ctypes.Structure):  # struct attention of attention.h
    _fields_ = [(n, ctypes.c_int64) for n in
                "batch tokens query_heads kv_heads head_dim n_pairs near amx".split()]
    _fields_ += [(n, ctypes.c_void_p) for n in "pairs cs scale key_bias until".split()]


def pointer(tensor):
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def check(name, tensor, dtype, shape):
    if tensor is not None and (tensor.dtype != dtype or tuple(tensor.shape) != shape
                               or not tensor.is_contiguous()):
        raise ValueError(f"{name}: want contiguous {dtype} {shape}, "
                         f"got {tensor.dtype} {tuple(tensor.shape)}")


class Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv, heads, options, lib):
        H, G = heads
        cs, pairs, scale, key_bias, near, until, amx = options
        B, T = qkv.shape[:2]
        D = qkv.shape[2] // (H + 2 * G)
        n = 0 if pairs is None else len(pairs)
        qkv = qkv.contiguous()
        if scale is None:
            scale = torch.full((B,), D ** -0.5)
        check("qkv", qkv, torch.bfloat16, (B, T, (H + 2 * G) * D))
        check("pairs", pairs, torch.int32, (n,))
        check("cs", cs, torch.float32, (B, T, n, 2))
        check("scale", scale, torch.float32, (B,))
        check("key_bias", key_bias, torch.float32, (B, T))
        check("until", until, torch.int32, (G, T))
        if n and cs is None:
            raise ValueError("pairs without cs")
        out = torch.empty(B, T, H * D, dtype=torch.bfloat16)
        lse = torch.empty(B, H, T)
        ctx.arguments = Arguments(B, T, H, G, D, n, near, amx,
                                  *map(pointer, (pairs, cs, scale, key_bias, until)))
        ctx.kept = pairs, cs, scale, key_bias, until  # the pointers must stay good
        ctx.lib = lib
        if lib.attention_forward(ctypes.byref(ctx.arguments), pointer(qkv), pointer(out),
                                 pointer(lse)):
            raise ValueError(f"attention: cannot do T {T}, H {H}, G {G}, D {D} "
                             "(T % 64, D % 32, D <= 128, H % G), or no memory")
        ctx.save_for_backward(qkv, out, lse)
        return out

    @staticmethod
    def backward(ctx, dout):
        qkv, out, lse = ctx.saved_tensors
        dout = dout.to(torch.bfloat16).contiguous()
        dqkv = torch.empty_like(qkv)
        if ctx.lib.attention_backward(ctypes.byref(ctx.arguments),
                                      *map(pointer, (qkv, out, lse, dout, dqkv))):
            raise MemoryError("attention: no memory for the backward pass")
        return dqkv, None, None, None


def attend(qkv, query_heads, kv_heads, cs=None, pairs=None, scale=None, key_bias=None, near=64,
           until=None, amx=True, lib=None):
    """Causal attention with its gradient; see the top of this file."""
    options = cs, pairs, scale, key_bias, near, until, int(amx)
    return Attention.apply(qkv, (query_heads, kv_heads), options, lib or library())


def s2_until(tokens, kv_heads, block, local_blocks, stride, offset=0):
    """S2-Attention: key block j is seen by query block i iff i - j < local_blocks, or j is vertical
    to the KV head: (j + g * step + offset) % stride == 0, step = max(1, stride // kv_heads)."""
    j = torch.arange(tokens) // block
    g = torch.arange(kv_heads)[:, None] * max(1, stride // kv_heads)
    end = ((j + local_blocks) * block).clamp(max=tokens).expand(kv_heads, tokens)
    return torch.where((j + g + offset) % stride == 0, tokens, end).to(torch.int32).contiguous()


def window_until(tokens, kv_heads, sink, window):
    """A sliding window: key k is seen iff k < sink or q - k < window. Mix the heads of several
    masks with torch.cat."""
    k = torch.arange(tokens)
    end = torch.where(k < sink, tokens, (k + window).clamp(max=tokens))
    return end.expand(kv_heads, tokens).to(torch.int32).contiguous()
