#!/usr/bin/env python3
"""train.py - trains a model of a few megabytes that answers questions about what it read far back.

    python3 train.py --out run --tokens 20e6

See README.md. The same flags and seed give the same model on the same machine. Progress: a line
every 50 steps, with the share of right answer tokens of each kind of task (teacher forced).
run/model.pt is written every 200 steps and at the end."""
import argparse, ctypes, os, time
# Otherwise torch's two OpenMP teams would spin against each other.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
import numpy as np
import torch
import torch.nn.functional as F
import corpus, model, tasks
from dice import Dice
from muon import Muon
from side_by_side import SideBySide

STORY_WEIGHT, UNKNOWABLE_WEIGHT = .15, .03  # of a token's loss; answers weigh 1
WARM_UP, HOLD, LAST = 50, .35, .02          # steps; share at full rate; then down in a line to this


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    a = p.add_argument
    a("--out", default="run", help="directory for the tokenizer and the model")
    a("--tokens", type=float, default=20e6, help="length of the training")
    a("--stop", type=float, default=float("inf"),
      help="end after so many tokens, the schedule being that of --tokens")
    a("--curriculum",
      default="256:0.05:4096,512:0.2:4096,1024:0.45:8192,2048:0.22:8192,4096:0.08:8192",
      help="sequence length : share of the training : tokens a step, in order")
    a("--mixed", action="store_true",
      help="draw the sequence length of each step by its share, in no order")
    a("--init", help="weights to begin with, a model.pt; its shape holds, but for the S2 mask")
    a("--resume", action="store_true",
      help="go on with OUT/model.pt where it was written (its matrices' momentum is lost)")
    a("--s2", help="train with the S2 mask BLOCK:LOCAL:STRIDE[:DENSE], e.g. 32:4:2:0")
    for name in ("width", "layers", "heads", "kv_heads", "head_dim", "ff", "vocabulary"):
        a("--" + name.replace("_", "-"), type=int, default=getattr(model.Shape, name))
    a("--lr", type=float, default=.02, help="of the matrices (Muon)")
    a("--adam-lr", type=float, default=3e-3, help="of embedding and norms")
    a("--listing", type=float, default=.05,
      help="share of list copying among the tasks (three times that in the first tenth)")
    a("--stretch-from", type=float, default=.05,
      help="share of the training before positions jump and keys are biased")
    a("--variety-from", type=float, default=.2,
      help="share of the training before facts and questions come in more than one wording")
    a("--seed", type=int, default=1)
    a("--processes", type=int, default=1,
      help="that share the sequences of a step, one core each; part of what makes a model, "
           "as the seed is")
    a("--threads", type=int, default=1, help="of each")
    return p.parse_args()


def shape_of(o, init):
    s2 = [int(n) for n in o.s2.split(":")] if o.s2 else []
    s2 = dict(zip(("s2_block", "s2_local", "s2_stride", "s2_dense"), s2))
    if init:
        return model.Shape(**{**init["shape"],
                              **{k: getattr(model.Shape, k) for k in model.Shape.__annotations__
                                 if k.startswith("s2_")},
                              **s2})
    return model.Shape(vocabulary=o.vocabulary, width=o.width, layers=o.layers, heads=o.heads,
                       kv_heads=o.kv_heads, head_dim=o.head_dim, ff=o.ff, **s2)


def stage(curriculum, done):
    """(sequence length, tokens a step) at that share of the training"""
    for entry in curriculum.split(","):
        length, share, step = entry.split(":")
        done -= float(share)
        if done < 0: break
    return int(length), int(step)


class Batch:
    def __init__(self, d, tok, o, done, share):
        """A step's sequences of length T, as many as one process of o.processes takes; share: where
        in the curriculum, 0..1."""
        T, tokens = stage(o.curriculum, share)
        stretch = done >= o.stretch_from
        listing = o.listing * (3 if done < .1 else 1)
        samples = [corpus.sample(d, tok, T, listing, stretch, done >= o.variety_from)
                   for _ in range(max(1, tokens // T // o.processes))]
        ids = torch.from_numpy(np.stack([s.ids for s in samples])).long()
        self.T, self.tokens, self.read, self.next = (
            T, len(samples) * T * o.processes, ids[:, :-1].contiguous(), ids[:, 1:].reshape(-1))
        self.positions = np.stack([s.positions for s in samples])
        self.marks = np.stack([s.marks for s in samples])[:, 1:].reshape(-1)
        self.task = np.stack([s.task for s in samples])[:, 1:].reshape(-1)
        self.key_bias = (torch.from_numpy(np.stack([s.key_bias for s in samples])) if stretch
                         else None)
        cool = np.where(d.rng.random(len(samples)) < .5,
                        d.rng.uniform(.5, 1, len(samples)), 1).astype(np.float32)
        self.temperature = torch.from_numpy(cool) if stretch else None
        w = np.choose(self.marks, [STORY_WEIGHT, UNKNOWABLE_WEIGHT, 1.0])
        self.weights = torch.from_numpy((w / w.sum()).astype(np.float32))


class Report:
    """Means since the last line: loss of text and of answers, right answers by kind of task."""
    def __init__(self): self.clear()

    def clear(self):
        self.loss, self.n = np.zeros(3), np.zeros(3)
        self.right, self.asked = (np.zeros(len(tasks.KINDS_OF_TASK)),
                                  np.zeros(len(tasks.KINDS_OF_TASK)))
        self.tokens, self.began = 0, time.time()

    def add(self, batch, loss, right):
        self.loss += np.bincount(batch.marks, loss, 3)
        self.n += np.bincount(batch.marks, minlength=3)
        answer = batch.marks == corpus.ANSWER
        self.asked += np.bincount(batch.task[answer], minlength=len(self.asked))
        self.right += np.bincount(batch.task[answer], right[answer], len(self.right))
        self.tokens += batch.tokens

    def line(self):
        mean, share = self.loss / np.maximum(self.n, 1), self.right / np.maximum(self.asked, 1)
        out = f"text {mean[corpus.PLAIN]:.3f} answers {mean[corpus.ANSWER]:.3f} | "
        out += " ".join(f"{k} {s:.3f}" for k, s in zip(tasks.KINDS_OF_TASK, share))
        out += f" | {self.tokens / (time.time() - self.began):.0f} tokens/s"
        self.clear()
        return out


def keep_freed_memory():
    """glibc gives big blocks back and faults them in again at every step, which costs more than the
    arithmetic of a norm."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)           # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)         # M_TRIM_THRESHOLD
    except OSError:
        pass                                # another libc: only slower


def main():
    o = arguments()
    keep_freed_memory()
    os.makedirs(o.out, exist_ok=True)
    prefix = f"{o.out}/tokenizer"
    if not os.path.exists(prefix + ".model"): corpus.train_tokenizer(prefix, o.vocabulary)
    us = SideBySide(o.processes, f"{o.out}/meeting")
    torch.set_num_threads(o.threads)
    torch.manual_seed(o.seed)
    tok, seen = corpus.Tokenizer(prefix + ".model"), 0
    if o.resume:
        net, file = model.load(f"{o.out}/model.pt")
        seen = file["tokens"]
    else:
        init = torch.load(o.init) if o.init else None
        shape = shape_of(o, init)
        net = model.of(shape, init["weights"]) if init else model.start(shape)
    if us.rank == 0:
        print(f"{sum(p.numel() for p in net.parameters()) / 1e6:.2f}M parameters", flush=True)
    matrices = net.matrices()
    rest = [p for p in net.parameters() if all(p is not m for m, _ in matrices)]
    muon, adam = Muon(matrices, o.lr), torch.optim.AdamW(rest, lr=o.adam_lr, betas=(.9, .98),
                                                         weight_decay=0)
    # Each process has its own texts, all of the same length.
    d, lengths = Dice(o.seed + 1000 + seen + us.rank * 10**9), Dice(o.seed + 2000 + seen)
    step, report, began = 0, Report(), time.time()
    while seen < min(o.tokens, o.stop):
        done = seen / o.tokens
        batch = Batch(d, tok, o, done, lengths.uniform() if o.mixed else done)
        hidden = net(batch.read, batch.positions, batch.temperature, batch.key_bias)
        logits = net.logits(hidden).view(-1, net.shape.vocabulary).float()
        loss = F.cross_entropy(logits, batch.next, reduction="none")
        (loss * batch.weights).sum().backward()
        us.mean_gradients(net.parameters())
        torch.nn.utils.clip_grad_norm_(rest, 1.0)
        rate = min(1, (step + 1) / WARM_UP) * (1 if done < HOLD
                                               else max(LAST, (1 - done) / (1 - HOLD)))
        muon.lr, muon.momentum = o.lr * rate, min(.95, .85 + step / 3000)
        for group in adam.param_groups: group["lr"] = o.adam_lr * rate
        muon.step()
        adam.step()
        net.zero_grad(set_to_none=True)
        report.add(batch, loss.detach().numpy(), (logits.detach().argmax(-1) == batch.next).numpy())
        seen += batch.tokens
        step += 1
        if us.rank: continue
        if step % 50 == 0:
            print(f"step {step} {seen / 1e6:.2f}M of length {batch.T}, "
                  f"{time.time() - began:.0f} s: {report.line()}", flush=True)
        if step % 200 == 0: model.save(f"{o.out}/model.pt", net, flags=vars(o), tokens=seen)
    if us.rank == 0: model.save(f"{o.out}/model.pt", net, flags=vars(o), tokens=seen)
    us.part()


if __name__ == "__main__": main()
