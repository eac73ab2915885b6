#!/usr/bin/env python3
"""compare_heads.py - how far files of head scores agree.

    python3 compare_heads.py gates=gates.tsv 1k=heads-1k.tsv 16k=heads-16k.tsv [copy=heads.json]
                             [--top 4,8] [--heads 12]

The scores are those of gates.py, of bin/heads at several lengths, of any DuoAttention pattern.
Files are a line per layer with a score per KV head (TSV), or the JSON of bin/heads --json with copy
scores of query heads (a head its mean, a KV head the best of its query heads; at least one TSV says
how many KV heads there are). NAME= is what a file is called in the tables, by default its own name.
Markdown on stdout: Spearman's correlation over all heads, equal scores sharing their mean rank; of
the first k heads of one file how many are among the first k of the other, where a tie at the border
counts by halves, thirds and so on, as if it were drawn by lot; and the heads themselves."""
import argparse, json, os
import numpy as np


def read_tsv(path):
    with open(path) as f:
        lines = [[float(x) for x in line.split("\t")] for line in f.read().splitlines()]
    if not lines or len({len(line) for line in lines}) != 1:
        raise SystemExit(f"{path}: wanted lines of equally many scores")
    scores = np.array(lines)
    if not np.isfinite(scores).all(): raise SystemExit(f"{path}: a score is not a number")
    return scores


def read_json(path, layers, kv_heads):
    with open(path) as f:
        scores = {tuple(map(int, k.split("-"))): np.mean(v) for k, v in json.load(f).items()}
    heads = 1 + max(h for _, h in scores)
    if 1 + max(l for l, _ in scores) != layers or heads % kv_heads or len(scores) != layers * heads:
        raise SystemExit(f"{path}: {len(scores)} query heads do not fit {layers} layers of "
                         f"{kv_heads} KV heads")
    return np.array([[scores[l, h] for h in range(heads)] for l in range(layers)]).reshape(
        layers, kv_heads, -1).max(-1)


def read(arguments):
    """{name: [layers][kv_heads]}, in order"""
    named = [a.split("=", 1) if "=" in a else [os.path.splitext(os.path.basename(a))[0], a]
             for a in arguments]
    if len({name for name, _ in named}) < len(named):
        raise SystemExit("two files of the same name: use NAME=FILE")
    files = {name: path for name, path in named}
    out = {name: None if path.endswith(".json") else read_tsv(path) for name, path in files.items()}
    shapes = {s.shape for s in out.values() if s is not None}
    if len(shapes) != 1:
        raise SystemExit("wanted files of one model, at least one a TSV; got layers x KV heads: "
                         f"{sorted(shapes)}")
    return {name: read_json(files[name], *shapes.copy().pop()) if s is None else s
            for name, s in out.items()}


def ranks(x):
    """0 the lowest; equal values share the mean of their places."""
    _, group, count = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count + 1) / 2)[group]


def correlation(a, b):
    """Spearman's; nan when one side has a single value."""
    a, b = ranks(a) - (len(a) - 1) / 2, ranks(b) - (len(b) - 1) / 2
    size = np.sqrt((a * a).sum() * (b * b).sum())
    return (a * b).sum() / size if size else np.nan


def first(x, k):
    """Of each head, the chance that it is among the k highest when ties are drawn by lot."""
    border = np.sort(x)[-k]
    above, tied = x > border, x == border
    return above + tied * (k - above.sum()) / tied.sum()


def shared(a, b, k):
    """Heads among the first k of both; ties drawn alike: a file shares all k with itself."""
    a, b = first(a, k), first(b, k)
    return k if np.array_equal(a, b) else (a * b).sum()


def matrix(title, scores, cell):
    print(f"\n| {title} | " + " | ".join(scores) + " |\n|" + "---|" * (len(scores) + 1))
    for name, a in scores.items():
        print(f"| {name} | " + " | ".join(cell(a, b) for b in scores.values()) + " |")


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("files", nargs="+", metavar="[NAME=]FILE")
    p.add_argument("--top", help="the k of the first k, with commas (an eighth, a quarter and "
                   "half of the heads)")
    p.add_argument("--heads", type=int, default=16, help="heads listed, by the mean of their ranks")
    o = p.parse_args()
    tables = read(o.files)
    layers, kv_heads = next(iter(tables.values())).shape
    n = layers * kv_heads
    scores = {name: t.ravel() for name, t in tables.items()}
    tops = ([int(k) for k in o.top.split(",")] if o.top
            else sorted({max(1, n // d) for d in (8, 4, 2)}))
    if any(not 0 < k <= n for k in tops): p.error(f"--top: wanted 1 to {n}")
    print(f"{layers} layers of {kv_heads} KV heads, {len(scores)} files")
    matrix("rank correlation", scores, lambda a, b: f"{correlation(a, b):.3f}")
    for k in tops:
        matrix(f"of the first {k}, the same", scores, lambda a, b: f"{shared(a, b, k):.3g}")
    print("\n| layer | KV head | " + " | ".join(scores) + " |\n|" + "---|" * (len(scores) + 2))
    for i in np.argsort(-sum(ranks(s) for s in scores.values()), kind="stable")[:o.heads]:
        print(f"| {i // kv_heads} | {i % kv_heads} | "
              + " | ".join(f"{s[i]:.3f}" for s in scores.values()) + " |")


if __name__ == "__main__": main()
