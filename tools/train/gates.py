#!/usr/bin/env python3
"""gates.py - which KV heads have to see everything, learned by gradient: the gates of DuoAttention.

    python3 gates.py run/model.pt -o heads.tsv [--sink 16 --recent 128] [--lengths 1024:2048]
                     [--stretch]
    ./run model.gguf --attn duo,heads=heads.tsv,ratio=0.25 -f long-prompt.txt

Every KV head gets a gate a (arXiv 2410.10819), 1 at first: its query heads give
a * (attention to everything) + (1 - a) * (attention to the first `sink` tokens, the `recent` before
the query, and the query's own). The weights are frozen; the gates are trained on

    harm + reg * mean of the gates,   harm = |H - H'|^2 / |H|^2, the mean over the answers' tokens,

H and H' being the last hidden states of the model as it is and of the gated one. A gate whose head
fetches nothing sinks to 0 for what it costs; one that is needed stays near 1. Texts are those of
the training (corpus.py), with tens of questions each; only answer tokens that the model ranks first
by itself count. After --steps the gates' mean over the last fifth is written.

Differences from the authors' code: harm is relative, as in bin/heads, so that reg means the same
for models of different scale; the full attention mixed in is the gated model's own, as the paper
has it; float32 gates, which hardly ever tie.

stdout: the gates in order, and what the choice is worth on texts not seen before, with heads wholly
narrowed. Exit status 1: the model answers too little for its heads to be judged."""
import argparse, os, sys, time
# Otherwise torch's two OpenMP teams would spin against each other.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
from typing import NamedTuple, Optional
import numpy as np
import torch
import corpus, model, train
from attention import BLOCK, attend, window_until
from dice import Dice

MUST_KNOW = .5                  # share of the answers' tokens
EXAM = 8                        # batches no gate is trained on


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    a = p.add_argument
    a("model", help="a model.pt of train.py")
    a("-o", "--output", help="a line per layer, a gate per KV head: for --attn duo,heads=FILE")
    a("--tokenizer", help="default: tokenizer.model beside the model")
    a("--sink", type=int, default=16, help="first tokens that every head sees")
    a("--recent", type=int, default=128, help="tokens before each query's own that every head sees")
    a("--lengths", default="1024:2048", help="shortest and longest text, multiples of %d" % BLOCK)
    a("--stretch", action="store_true",
      help="jumping positions and loud stories: contexts to 36k simulated, as in training")
    a("--tokens", type=int, default=4096, help="tokens a step")
    a("--steps", type=int, default=300)
    a("--lr", type=float, default=.02,
      help="rises over the first fifth of the steps, falls over the last")
    a("--reg", type=float, default=.05, help="what a gate costs; more: fewer heads see everything")
    a("--seed", type=int, default=1)
    a("--threads", type=int, default=1)
    o = p.parse_args()
    o.lengths = [int(n) for n in o.lengths.split(":")]
    if (len(o.lengths) != 2 or o.lengths[0] > o.lengths[1]
            or any(n < BLOCK or n % BLOCK for n in o.lengths)):
        p.error(f"--lengths: wanted two multiples of {BLOCK}, the smaller first, "
                "with : between them")
    if o.steps < 1 or o.sink < 0 or o.recent < 0:
        p.error("--steps below 1, --sink or --recent below 0")
    return o


# ---- texts ---------------------------------------------------------------------------------------

class Batch(NamedTuple):
    ids: torch.Tensor                   # [B][T]
    next: torch.Tensor                  # [B][T]
    asked: torch.Tensor                 # bool [B][T]: the next token is part of an answer
    positions: np.ndarray               # [B][T]
    key_bias: Optional[torch.Tensor]    # [B][T]


def draw(d, tok, o):
    T = BLOCK * d.between(*(n // BLOCK for n in o.lengths))
    samples = [corpus.sample(d, tok, T, stretch=o.stretch) for _ in range(max(1, o.tokens // T))]
    ids = torch.from_numpy(np.stack([s.ids for s in samples])).long()
    marks = torch.from_numpy(np.stack([s.marks for s in samples]))
    bias = torch.from_numpy(np.stack([s.key_bias for s in samples])) if o.stretch else None
    positions = np.stack([s.positions for s in samples])
    return Batch(ids[:, :-1].contiguous(), ids[:, 1:], marks[:, 1:] == corpus.ANSWER, positions,
                 bias)


# ---- gated attention -----------------------------------------------------------------------------

def gated(net, gates, sink, recent):
    """The `gather` of a model whose KV heads are as full as gates [layers][kv_heads] say."""
    H, G, D = net.shape.heads, net.shape.kv_heads, net.shape.head_dim
    def gather(layer, qkv, until=None, **how):
        near = window_until(qkv.shape[1], G, sink, recent + 1)
        if until is not None: near = torch.minimum(near, until)
        a = gates[layer].repeat_interleave(H // G * D)
        full, narrow = attend(qkv, H, G, until=until, **how), attend(qkv, H, G, until=near, **how)
        return (a * full + (1 - a) * narrow).bfloat16()
    return gather


def hidden(net, batch, rows, gather=None):
    return net(batch.ids, batch.positions, key_bias=batch.key_bias, gather=gather)[rows]


@torch.no_grad()
def known(net, batch):
    """(bool [B][T]: answer tokens the model gets right by itself, its hidden states there)"""
    h = hidden(net, batch, batch.asked)
    right = net.logits(h).argmax(-1) == batch.next[batch.asked]
    rows = batch.asked.clone()
    rows[batch.asked] = right
    return rows, h[right]


def harm(h, other): return ((h - other).square().sum(-1) / h.square().sum(-1)).mean()


# ---- training ------------------------------------------------------------------------------------

def fit(net, batches, o, say=lambda line: None):
    """Gates [layers][kv_heads] after o.steps of the endless `batches`."""
    net.requires_grad_(False)
    gates = torch.ones(net.shape.layers, net.shape.kv_heads, requires_grad=True)
    adam = torch.optim.Adam([gates], lr=o.lr)
    fifth, late, began = max(1, o.steps // 5), [], time.time()
    for step in range(o.steps):
        batch = next(batches)
        rows, h = known(net, batch)
        if not len(h): continue
        gates.data.clamp_(0, 1)
        for group in adam.param_groups:
            group["lr"] = o.lr * min(1, (step + 1) / fifth, (o.steps - step) / fifth)
        moved = harm(h, hidden(net, batch, rows, gated(net, gates, o.sink, o.recent)))
        adam.zero_grad()
        (moved + o.reg * gates.mean()).backward()
        adam.step()
        if step >= o.steps - fifth: late.append(gates.detach().clamp(0, 1).clone())
        if (step + 1) % 25 == 0:
            open_ = gates.detach().clamp(0, 1).sum()
            say(f"step {step + 1}, {time.time() - began:.0f} s: harm {moved:.4f}, "
                f"gates {open_:.2f} of {gates.numel()}, "
                f"{len(h)} of {batch.asked.sum()} answer tokens count")
    if not late: raise SystemExit("gates.py: no answer in the last texts that the model knows")
    return torch.stack(late).mean(0)


# ---- what comes of it ----------------------------------------------------------------------------

def best(gates, ratio):
    """1 for that share of the heads with the highest gates (the first among equals), 0 for the
    others."""
    flat = gates.flatten()
    chosen = torch.zeros_like(flat)
    chosen[torch.sort(flat, descending=True, stable=True)[1][:round(ratio * len(flat))]] = 1
    return chosen.view_as(gates)


@torch.no_grad()
def exam(net, batches, gates, o):
    """(share of the answers' tokens right, harm), over all batches"""
    right = asked = moved = n = 0
    for batch in batches:
        rows, h = known(net, batch)
        out = net(batch.ids, batch.positions, key_bias=batch.key_bias,
                  gather=gated(net, gates, o.sink, o.recent))
        right += (net.logits(out[batch.asked]).argmax(-1) == batch.next[batch.asked]).sum().item()
        asked += batch.asked.sum().item()
        moved += harm(h, out[rows]).item() * len(h) if len(h) else 0
        n += len(h)
    return right / max(1, asked), moved / max(1, n)


def report(net, gates, batches, o):
    print("| rank | layer | KV head | gate |\n|---|---|---|---|")
    order = torch.sort(gates.flatten(), descending=True, stable=True)[1].tolist()
    for place, i in enumerate(order):
        print(f"| {place + 1} | {i // gates.shape[1]} | {i % gates.shape[1]} | "
              f"{gates.flatten()[i]:.3f} |")
    print(f"\nTexts not seen before; the other heads see {o.sink} + {o.recent} tokens throughout:\n"
          "\n| KV heads that see everything | answer tokens right | harm |\n|---|---|---|")
    torch.manual_seed(o.seed)
    choices = [("all", torch.ones_like(gates))]
    choices += [(f"the best {100 * r:g} %", best(gates, r)) for r in (.75, .5, .25, .125)]
    choices += [("25 % drawn by lot", best(torch.rand_like(gates), .25)),
                ("all but the best 25 %", 1 - best(gates, .25)), ("none", torch.zeros_like(gates))]
    for name, full in choices:
        print("| %s | %.3f | %.2e |" % (name, *exam(net, batches, full, o)), flush=True)


def write(path, gates):
    """full_attention_heads.tsv, as DuoAttention's code writes it"""
    with open(path, "w") as f:
        for line in gates.tolist(): f.write("\t".join("%.18e" % a for a in line) + "\n")


def main():
    o = arguments()
    train.keep_freed_memory()
    torch.set_num_threads(o.threads)
    net, _ = model.load(o.model)
    tok = corpus.Tokenizer(o.tokenizer or os.path.join(os.path.dirname(o.model), "tokenizer.model"))
    dice = Dice(o.seed + 2000)                              # not the training's
    unseen = [draw(dice, tok, o) for _ in range(EXAM)]
    share, _ = exam(net, unseen, torch.ones(net.shape.layers, net.shape.kv_heads), o)
    if share < MUST_KNOW:
        raise SystemExit(f"gates.py: the model gets {share:.0%} of the answers right: "
                         "nothing can be said about its heads")
    gates = fit(net, iter(lambda: draw(dice, tok, o), None), o,
                lambda line: print(line, file=sys.stderr, flush=True))
    if o.output: write(o.output, gates)
    report(net, gates, unseen, o)


if __name__ == "__main__": main()
