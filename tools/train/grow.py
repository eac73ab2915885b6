#!/usr/bin/env python3
"""grow.py - a model to train further, made from trained ones by four changes of their weights.

    python3 grow.py RUN/model.pt [MORE/model.pt ..] --tokenizer RUN/tokenizer.model -o grown.pt
                    [--without LAYER] [--twice LAYER] [--near PAIR,PAIR,..]

Several checkpoints of one shape: the mean of their weights (of runs with a common start, it is
often better than each).
--without a layer is left out, one that has come to do little.
--twice   a layer's copy is put behind it, and each writes half of what the one wrote: what it did
          is done in two steps, which training can then tell apart. The model says nearly what it
          said before.
--near    layer 0 gets to see near tokens only, in any length of text. The pairs of dimensions,
          which carried content, rotate slowly from now on; layer 0's queries and keys are constant
          there, so that a key d tokens back loses PENALTY (1 - cos(theta d)) a pair. Without it the
          heads that gather the last few tokens drown in 32k far ones. What the pairs carried is
          pressed into the other content dimensions; retrieving layers use all of theirs, so the
          model has to be trained on before it is good again."""
import argparse
from dataclasses import replace
import numpy as np
import torch
import corpus
import model
from attention import attend
from dice import Dice

PENALTY = 8.0               # in nats
SAMPLES, TOKENS = 8, 2048   # of training text, from which the use of dimensions is measured


def mean(paths):
    files = [torch.load(p) for p in paths]
    for p, f in zip(paths, files):
        if f["shape"] != files[0]["shape"]:
            raise SystemExit(f"grow.py: {p} has another shape than {paths[0]}: {f['shape']}, "
                             f"{files[0]['shape']}")
    weights = {name: sum(f["weights"][name] for f in files) / len(files)
               for name in files[0]["weights"]}
    return model.of(model.Shape(**files[0]["shape"]), weights)


def layer_of(name):
    """("qkv", 3) of "qkv.3"; ("embedding", None): a weight of no layer"""
    kind, _, n = name.rpartition(".")
    return (kind, int(n)) if n.isdigit() else (name, None)


def without(m, layer):
    new = {}
    for name, w in m.state_dict().items():
        kind, n = layer_of(name)
        if n is None: new[name] = w
        elif n != layer: new[f"{kind}.{n - (n > layer)}"] = w
    return model.of(replace(m.shape, layers=m.shape.layers - 1), new)


def twice(m, layer):
    new = {}
    for name, w in m.state_dict().items():
        kind, n = layer_of(name)
        if n is None:
            new[name] = w
            continue
        if n == layer and kind in ("out", "down"): w = w / 2
        new[f"{kind}.{n + (n > layer)}"] = w
        if n == layer: new[f"{kind}.{n + 1}"] = w
    return model.of(replace(m.shape, layers=m.shape.layers + 1), new)


def queries_and_keys(m, tokenizer):
    """What every layer's qkv gives for training text:
    [layer][tokens][(heads + 2 kv_heads) head_dim]"""
    tok, s = corpus.Tokenizer(tokenizer), m.shape
    samples = [corpus.sample(Dice(i), tok, TOKENS, stretch=False) for i in range(SAMPLES)]
    ids = torch.from_numpy(np.stack([x.ids for x in samples])).long()[:, :-1].contiguous()
    seen = {}
    def gather(layer, qkv, **how):
        seen[layer] = qkv.double().reshape(-1, qkv.shape[-1])
        return attend(qkv, s.heads, s.kv_heads, **how)
    m(ids, np.stack([x.positions for x in samples]), gather=gather)
    return [seen[l] for l in range(s.layers)]


def root(m):
    values, vectors = torch.linalg.eigh(m)
    return vectors @ torch.diag(values.clamp(min=1e-9).sqrt()) @ vectors.T


def press(q, k, n):
    """Maps (of queries, of keys) [n][dims] that keep q . k for these rows as well as n dimensions
    can. The keys' mean does not count: a constant in all keys changes no weight of a softmax."""
    k = k - k.mean(0)
    a, b = root(k.T @ k / len(k)), root(q.T @ q / len(q))
    u, size, vt = torch.linalg.svd(b @ a)
    scale = torch.diag(size[:n] ** -.5)
    return scale @ vt[:n] @ a, scale @ u[:, :n].T @ b


def near(m, pairs, tokenizer):
    s = m.shape
    D, H, G, R = s.head_dim, s.heads, s.kv_heads, s.heads // s.kv_heads
    content = [d for d in range(D) if d // 2 not in s.pairs]
    left = [d for d in content if d // 2 not in pairs]
    slow = [2 * p for p in pairs]
    seen = queries_and_keys(m, tokenizer)
    def rows(head, dims): return [head * D + d for d in dims]
    first = model.rms(m.embedding) * m.attn_norm[0]     # all that layer 0 can ever read
    constant = torch.linalg.lstsq(
        first.double(), torch.ones(len(first), 1).double()).solution[:, 0].float()
    for l in range(s.layers):
        w = m.qkv[l]
        for g in range(G):
            query_heads = range(g * R, (g + 1) * R)
            q = torch.cat([seen[l][:, rows(h, content)] for h in query_heads])
            of_q, of_k = press(q, seen[l][:, rows(H + g, content)], len(left))
            for head, press_head in [(H + g, of_k)] + [(h, of_q) for h in query_heads]:
                w[rows(head, left)] = (press_head @ w[rows(head, content)].double()).float()
                w[rows(head, slow + [d + 1 for d in slow])] = 0
                if l == 0: w[rows(head, slow)] = constant * (PENALTY * D ** .5) ** .5
            # Where queries and keys were both 0 neither would ever learn.
            if l: w[rows(H + g, slow)] = torch.randn(len(pairs), s.width) * .02
    return model.of(replace(s, pairs=(*s.pairs, *pairs)), m.state_dict())


@torch.no_grad()
def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("checkpoint", nargs="+")
    p.add_argument("-o", required=True, dest="out")
    p.add_argument("--tokenizer", help="tokenizer.model of the run, for --near")
    p.add_argument("--without", type=int, metavar="LAYER")
    p.add_argument("--twice", type=int, metavar="LAYER")
    p.add_argument("--near", metavar="PAIRS",
                   help="pairs of dimensions that do not rotate yet, e.g. 15,18,23,31")
    p.add_argument("--seed", type=int, default=1)
    o = p.parse_args()
    torch.manual_seed(o.seed)
    m = mean(o.checkpoint)
    if o.without is not None: m = without(m, o.without)
    if o.twice is not None: m = twice(m, o.twice)
    if o.near:
        pairs = [int(n) for n in o.near.split(",")]
        if not o.tokenizer: p.error("--near wants --tokenizer")
        if set(pairs) & set(m.shape.pairs):
            p.error(f"--near: got {o.near}, wanted pairs other than those that rotate: "
                    f"{m.shape.pairs}")
        m = near(m, pairs, o.tokenizer)
    model.save(o.out, m)
    print(f"{o.out}: {m.shape.layers} layers, pairs {m.shape.pairs}, "
          f"{sum(p.numel() for p in m.parameters()) / 1e6:.2f}M parameters")


if __name__ == "__main__": main()
