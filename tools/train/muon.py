"""muon.py - momentum whose step is made orthogonal (Newton-Schulz iteration): Jordan et al. 2024.
For matrices only."""
import torch


def orthogonal(g):
    """The nearest matrix with all singular values about 1, by five steps of a quintic; bfloat16 is
    enough."""
    flip = g.shape[0] > g.shape[1]
    x = (g.T if flip else g).bfloat16()
    x = x / (x.float().norm() + 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    return (x.T if flip else x).float()


class Muon:
    def __init__(self, matrices, lr):
        """matrices: (parameter, row counts of the matrices stacked in it), each made orthogonal for
        itself"""
        self.matrices, self.lr, self.momentum = matrices, lr, .95
        self.mean = [torch.zeros_like(p) for p, _ in matrices]

    @torch.no_grad()
    def step(self):
        for (p, parts), mean in zip(self.matrices, self.mean):
            mean.lerp_(p.grad, 1 - self.momentum)
            update, row = p.grad.lerp(mean, self.momentum), 0
            for rows in parts:
                gain = max(1, rows / p.shape[1]) ** .5
                p[row:row + rows].add_(orthogonal(update[row:row + rows]), alpha=-self.lr * gain)
                row += rows
