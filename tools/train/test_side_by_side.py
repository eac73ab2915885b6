"""test_side_by_side.py - two processes hold the mean of their gradients, and end together.

    /usr/bin/python3 tools/train/test_side_by_side.py
"""
import os
import tempfile

import torch

from side_by_side import SideBySide


def main():
    with tempfile.TemporaryDirectory() as d:
        meeting = os.path.join(d, "meeting")
        torch.manual_seed(1)
        parameters = [torch.nn.Parameter(torch.randn(3, 5)), torch.nn.Parameter(torch.randn(7))]
        starts = [[10. * rank + p.detach() for p in parameters] for rank in (0, 1)]
        us = SideBySide(2, meeting)
        for p, g in zip(parameters, starts[us.rank]): p.grad = g.clone()
        us.mean_gradients(parameters)
        right = all(torch.allclose(p.grad, (a + b) / 2)
                    for p, a, b in zip(parameters, *starts))
        child = us.children
        us.part()                                       # rank 1 ends here
        ended = (len(child) == 1 and not os.path.exists(f"/proc/{child[0]}") and
                 not os.path.exists(meeting))
        alone = SideBySide(1, meeting)
        parameters[0].grad = starts[1][0].clone()
        alone.mean_gradients(parameters[:1])
        alone.part()
        unchanged = alone.rank == 0 and torch.equal(parameters[0].grad, starts[1][0])
    results = [("the mean of both", right), ("the other has ended, nothing is left", ended),
               ("one process alone", unchanged)]
    for name, held in results: print(f"{'ok  ' if held else 'FAIL'} {name}")
    raise SystemExit(0 if all(held for _, held in results) else "failed")


if __name__ == "__main__":
    main()
