"""side_by_side.py - one training in several processes: each takes a share of every step's
sequences, and their gradients are averaged, so that all make the same step and hold the same model.
PyTorch's gloo carries the gradients over loopback (test_side_by_side.py checks it)."""
import os
import torch
import torch.distributed as dist


class SideBySide:
    """Forks at once: call it before torch has computed anything. rank: 0 in the process that was
    started, 1.. in the others."""
    def __init__(self, processes, meeting):
        """meeting: a path for a file by which they find each other; it is removed"""
        self.processes, self.rank, self.meeting, self.children = processes, 0, meeting, []
        if processes == 1: return
        if os.path.exists(meeting): os.remove(meeting)
        for rank in range(1, processes):
            child = os.fork()
            if child == 0:
                self.rank, self.children = rank, []
                break
            self.children.append(child)
        dist.init_process_group("gloo", init_method=f"file://{os.path.abspath(meeting)}",
                                rank=self.rank, world_size=processes)

    def mean_gradients(self, parameters):
        if self.processes == 1: return
        grads = [p.grad for p in parameters]
        flat = torch.cat([g.view(-1) for g in grads])
        dist.all_reduce(flat)
        flat /= self.processes
        for g, mean in zip(grads, flat.split([g.numel() for g in grads])): g.copy_(mean.view_as(g))

    def part(self):
        """The last step is done: the others end, and rank 0 waits for them."""
        if self.processes == 1: return
        dist.barrier()
        if self.rank: os._exit(0)
        for child in self.children: os.waitpid(child, 0)
        if os.path.exists(self.meeting): os.remove(self.meeting)
