"""test_attention.py - attention.py against plain float64 autograd: every option, head size and
product kernel.

    /usr/bin/python3 tools/train/test_attention.py
"""
import math
import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
import torch

import attention

FALLBACK = ("-mno-amx-bf16", "-mno-avx512f")


def rotated(x, cs, pairs):
    """x [B][T][heads][D]."""
    if pairs is None:
        return x
    even, odd = (2 * pairs).long(), (2 * pairs + 1).long()
    c, s = cs[:, :, None, :, 0].double(), cs[:, :, None, :, 1].double()
    y = x.clone()
    y[..., even] = x[..., even] * c - x[..., odd] * s
    y[..., odd] = x[..., even] * s + x[..., odd] * c
    return y


def reference(qkv, H, G, visible, cs=None, pairs=None, scale=None, key_bias=None, near=64):
    """The definition; qkv float64, visible bool [G][T][T] (query, key)."""
    B, T, W = qkv.shape
    D = W // (H + 2 * G)
    x = qkv.view(B, T, H + 2 * G, D)
    q = rotated(x[:, :, :H], cs, pairs)
    k = rotated(x[:, :, H:H + G], cs, pairs).repeat_interleave(H // G, 2)
    v = x[:, :, H + G:].repeat_interleave(H // G, 2)
    scale = torch.full((B,), D ** -0.5).double() if scale is None else scale.double()
    logits = torch.einsum("bqhd,bkhd->bhqk", q, k) * scale[:, None, None, None]
    t = torch.arange(T)
    if key_bias is not None:
        logits = logits + key_bias.double()[:, None, None, :] * (t[:, None] - t > near)
    logits = logits.masked_fill(~visible.repeat_interleave(H // G, 0), -math.inf)
    return torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v).reshape(B, T, H * D)


def causal(T):
    t = torch.arange(T)
    return t[:, None] >= t


def s2_visible(T, G, block, local, stride, offset):
    """By the formula, block by block."""
    see = torch.zeros(G, T, T, dtype=torch.bool)
    step = max(1, stride // G)
    for g in range(G):
        for i in range(0, T, block):
            for j in range(0, i + block, block):
                near = i // block - j // block < local
                see[g, i:i + block, j:j + block] = (
                    near or (j // block + g * step + offset) % stride == 0)
    return see & causal(T)


def window_visible(T, G, sink, window):
    t = torch.arange(T)
    return ((t < sink) | (t[:, None] - t < window)).logical_and(causal(T)).expand(G, T, T)


def error(got, want):
    return ((got.double() - want).norm() / want.norm()).item()


def compare(name, B, T, H, G, D, visible=None, until=None, n_pairs=0, with_scale=False,
            with_bias=False, near=64, size=1.0, **kernel):
    torch.manual_seed(T + D)
    qkv = (torch.randn(B, T, (H + 2 * G) * D) * size).bfloat16()
    dout = torch.randn(B, T, H * D).bfloat16()
    options = {"near": near}
    if n_pairs:
        options["pairs"] = torch.randperm(D // 2)[:n_pairs].sort()[0].int()
        angle = torch.rand(B, T, n_pairs) * 6
        options["cs"] = torch.stack([angle.cos(), angle.sin()], -1).contiguous()
    if with_scale:
        options["scale"] = torch.rand(B) * 0.5 + 0.05
    if with_bias:
        options["key_bias"] = torch.randn(B, T) * 3
    x = qkv.clone().requires_grad_()
    out = attention.attend(x, H, G, until=until, **options, **kernel)
    out.backward(dout)
    y = qkv.double().requires_grad_()
    want = reference(y, H, G, causal(T).expand(G, T, T) if visible is None else visible, **options)
    want.backward(dout.double())
    cut = [H * D, G * D, G * D]
    errors = [error(out.detach(), want.detach())]
    errors += [error(a, b) for a, b in zip(x.grad.split(cut, 2), y.grad.split(cut, 2))]
    ok = all(e < 0.01 for e in errors)  # bf16 in, out and between products: 0.2 to 0.4 %
    print(f"{'ok  ' if ok else 'FAIL'} {name:44s} out {errors[0]:.4f}  dq {errors[1]:.4f}  "
          f"dk {errors[2]:.4f}  dv {errors[3]:.4f}")
    return ok


def cases(**kernel):
    for D in 32, 64, 96, 128:
        yield compare(f"head {D}", 2, 192, 4, 2, D, n_pairs=D // 4, **kernel)
    for T in 64, 128, 320, 576:
        yield compare(f"length {T}", 1, T, 2, 1, 64, n_pairs=32, **kernel)
    yield compare("no rotation, as many KV heads", 1, 256, 3, 3, 64, **kernel)
    yield compare("scale per sequence", 3, 256, 4, 2, 64, n_pairs=8, with_scale=True, **kernel)
    yield compare("key bias", 2, 320, 4, 2, 64, n_pairs=8, with_bias=True, with_scale=True,
                  **kernel)
    yield compare("key bias, near 5", 2, 192, 4, 2, 32, with_bias=True, near=5, **kernel)
    yield compare("sharp softmax", 1, 512, 2, 1, 64, n_pairs=4, size=2.0, **kernel)
    for block, local, stride, offset in ((32, 4, 4, 0), (16, 1, 3, 1), (48, 2, 5, 2), (64, 1, 8, 1),
                                         (16, 3, 1, 0)):
        T, G = 576, 2
        yield compare(f"s2 block {block} local {local} stride {stride} offset {offset}", 2, T, 4, G,
                      64, n_pairs=16, visible=s2_visible(T, G, block, local, stride, offset),
                      with_bias=True, until=attention.s2_until(T, G, block, local, stride, offset),
                      **kernel)
    for sink, window in (4, 100), (0, 2), (70, 64):
        T, G = 448, 2
        yield compare(f"window {window} sinks {sink}", 1, T, 4, G, 64,
                      visible=window_visible(T, G, sink, window),
                      until=attention.window_until(T, G, sink, window), **kernel)


def skipping():
    """A hidden key may hold anything: the blocks no query sees are not even read."""
    T, far = 512, slice(0, 128)
    qkv = torch.randn(1, T, 3 * 32).bfloat16()
    until = attention.window_until(T, 1, 0, 64)
    wild = qkv.clone()
    wild[:, far, 32:] = 1e4
    a, b = (attention.attend(x, 1, 1, until=until)[:, 256:] for x in (qkv, wild))
    ok = torch.equal(a, b)
    print("ok  " if ok else "FAIL", "hidden keys do not matter")
    return ok


def refusals():
    ok = True
    for shape, heads in (((1, 100, 96), (1, 1)), ((1, 64, 3 * 40), (1, 1)),
                         ((1, 64, 7 * 32), (3, 2))):
        try:
            attention.attend(torch.zeros(shape).bfloat16(), *heads)
            ok = False
        except ValueError:
            pass
    print("ok  " if ok else "FAIL", "sizes that do not fit are refused")
    return ok


def main():
    results = [skipping(), refusals()]
    for title, kernel in (("matrix unit", {}), ("without it", {"amx": False}),
                          ("plain C", {"lib": attention.library(FALLBACK)})):
        print(title)
        results += cases(**kernel)
    raise SystemExit(0 if all(results) else f"{results.count(False)} of {len(results)} failed")


if __name__ == "__main__":
    main()
