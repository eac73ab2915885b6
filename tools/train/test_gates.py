"""test_gates.py - gates.py on models whose looking heads are known, and the arithmetic of
compare_heads.py.

Ten seconds of a free core.

    /usr/bin/python3 tools/train/test_gates.py
"""
import contextlib
import io
import os
import sys
import tempfile
import types

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
import numpy as np
import torch

import compare_heads
import gates
import model
from attention import attend, window_until

LOOK_UP, NEAR, T = 2, 63, 256
SHAPE = model.Shape(vocabulary=512, width=128, layers=4, heads=4, kv_heads=2, ff=128,
                    look_up_layers=(LOOK_UP,))


def ok(name, right, what=""):
    print(f"{'ok  ' if right else 'FAIL'} {name:52s} {what}", flush=True)
    return bool(right)


def looker(seed):
    """Untrained, but for the structured start: layer LOOK_UP finds and copies. Louder, so that it
    answers some questions."""
    torch.manual_seed(seed)
    net = model.start(SHAPE).requires_grad_(False)
    net.qkv[LOOK_UP][:SHAPE.heads * SHAPE.head_dim] *= 2
    return net


def copying(distance=96):
    """Random tokens that come again `distance` later, beyond the window: what is asked for."""
    ids = torch.stack([3 + torch.randperm(SHAPE.vocabulary - 3)[:distance]
                       for _ in range(4)]).repeat(1, 4)[:, :T + 1]
    asked = (torch.arange(T) > distance + 8).expand(4, T)
    return gates.Batch(ids[:, :-1].contiguous(), ids[:, 1:], asked, np.tile(np.arange(T), (4, 1)),
                       None)


def ends():
    """All gates 1: the model itself. All 0: the model under a window's mask."""
    net, batch, shape = looker(1), copying(), (SHAPE.layers, SHAPE.kv_heads)
    def run(gather=None): return net(batch.ids, batch.positions, gather=gather)
    def windowed(layer, qkv, until=None, **how):
        return attend(qkv, SHAPE.heads, SHAPE.kv_heads,
                      until=window_until(T, SHAPE.kv_heads, 4, NEAR + 1), **how)
    one, zero = (run(gates.gated(net, a, 4, NEAR)) for a in (torch.ones(shape), torch.zeros(shape)))
    yield ok("gates of 1 change no bit", torch.equal(one, run()))
    yield ok("gates of 0 are a window's mask", torch.equal(zero, run(windowed)))
    yield ok("which is not the same", not torch.equal(zero, one))


def slope():
    """The gradient of harm against differences; the step is wide: the products are bfloat16."""
    net, batch = looker(2), copying()
    rows, h = gates.known(net, batch)
    at = torch.full((SHAPE.layers, SHAPE.kv_heads), .5)
    def harm(a): return gates.harm(h, gates.hidden(net, batch, rows, gates.gated(net, a, 0, NEAR)))
    a = at.clone().requires_grad_()
    harm(a).backward()
    for g in range(SHAPE.kv_heads):
        step = torch.zeros_like(at)
        step[LOOK_UP, g] = .05
        want = (harm(at + step) - harm(at - step)).item() / .1
        got = a.grad[LOOK_UP, g].item()
        yield ok(f"the slope of gate {LOOK_UP}-{g}", abs(got - want) < .1 * abs(want),
                 f"{got:.4f}, by differences {want:.4f}")


def found():
    """The heads that look up must be found; with a window over the whole text nobody is needed."""
    options = types.SimpleNamespace(sink=0, recent=NEAR, reg=.05, lr=.05, steps=50)
    for seed in 1, 2:
        got = gates.fit(looker(seed), iter(copying, None), options)
        others = torch.cat([got[:LOOK_UP], got[LOOK_UP + 1:]])
        yield ok(f"seed {seed}: those that look up, and no others",
                 got[LOOK_UP].min() > .5 and others.max() < .3,
                 f"{got[LOOK_UP].min():.3f} and more against {others.max():.3f} and less")
        chosen = gates.best(got, .25)
        yield ok("the best quarter are they",
                 torch.equal(chosen.nonzero()[:, 0], torch.tensor([LOOK_UP] * 2)))
        with torch.no_grad():
            batch = [copying()]
            _, kept = gates.exam(looker(seed), batch, chosen, options)
            _, lost = gates.exam(looker(seed), batch, 1 - chosen, options)
        yield ok("without them more is lost than without the others", kept < lost,
                 f"harm {kept:.4f} against {lost:.4f}")
    options.recent = T
    got = gates.fit(looker(1), iter(copying, None), options)
    yield ok("a window over everything: nobody", got.max() < .1, f"{got.max():.3f} and less")


def comparing():
    x = np.array([3., 1, 2, 2])
    yield ok("equal scores share their rank",
             np.array_equal(compare_heads.ranks(x), [3, 0, 1.5, 1.5]))
    yield ok("rank correlation",
             abs(compare_heads.correlation(np.arange(5.), np.array([2., 1, 4, 3, 5])) - .8) < 1e-12)
    yield ok("upside down", compare_heads.correlation(x, -x) == -1)
    yield ok("a tie at the border counts by halves",
             compare_heads.shared(x, np.array([3., 1, 2, 0]), 2) == 1.5)
    yield ok("a file agrees with itself", compare_heads.shared(x, x, 2) == 2)
    with tempfile.TemporaryDirectory() as d:
        tsv, json = os.path.join(d, "a.tsv"), os.path.join(d, "b.json")
        table = torch.rand(2, 2)
        gates.write(tsv, table)
        with open(json, "w") as f:
            f.write('{"0-0": [0, 1], "0-1": [1, 1], "0-2": [0], "0-3": [0], '
                    '"1-0": [0], "1-1": [0], "1-2": [0], "1-3": [0.25]}')
        both = compare_heads.read([tsv, "copy=" + json])
        yield ok("what gates.py writes comes back",
                 np.array_equal(both["a"], table.double().numpy()))
        yield ok("a KV head is the best of its query heads",
                 np.array_equal(both["copy"], [[1, 0], [0, .25]]))
        out, kept = io.StringIO(), sys.argv
        sys.argv = ["compare_heads.py", tsv, "copy=" + json]
        with contextlib.redirect_stdout(out): compare_heads.main()
        sys.argv = kept
        yield ok("the tables",
                 out.getvalue().count("| a | 1.000 |") == 1 and "| 1 | 1 |" in out.getvalue())


def main():
    torch.set_num_threads(1)
    results = [r for part in (ends, slope, comparing, found) for r in part()]
    raise SystemExit(0 if all(results) else f"{results.count(False)} of {len(results)} failed")


if __name__ == "__main__":
    main()
