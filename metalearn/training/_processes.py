"""The processes that train one learner together under `DistributedDataParallel`."""

import sys
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from metalearn._checks import mistyped


@dataclass(frozen=True)
class Processes:
    """The processes that train a learner, and which of them this is.

    Attributes:
        rank: Index of this process.
        count: Number of processes.
        group: The process group; None for a single process.
    """

    rank: int = 0
    count: int = 1
    group: Any = None

    @staticmethod
    def of(learner: Any) -> "Processes":
        """Return the processes of a wrapped learner; for any other, this process alone.

        Raises:
            TypeError: If the learner is sharded.
        """
        inside = getattr(learner, "_orig_mod", learner)
        # looked up, since importing it takes as long as importing PyTorch
        fsdp = sys.modules.get("torch.distributed.fsdp")
        if fsdp is not None and isinstance(inside, fsdp.FSDPModule):
            fix = "Wrap it in DistributedDataParallel, or write the loop yourself with data.Shard."
            got = "one of fully_shard, whose parameters are in pieces between steps"
            raise mistyped("fit's learner", "be whole in every process", got, fix)
        if not isinstance(inside, DistributedDataParallel):
            return Processes()
        group = inside.process_group
        return Processes(dist.get_rank(group), dist.get_world_size(group), group)

    def share(self) -> slice:
        """Return this process's slice of all tasks, as in `data.Shard`."""
        return slice(self.rank, None, self.count)

    def same(self, value: Any) -> Any:
        """Return the first process's value."""
        if self.count == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, group_src=0, group=self.group)
        return values[0]

    def all(self, value: Any) -> list[Any]:
        """Return every process's value."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value, group=self.group)
        return values

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of every process's tensor."""
        if self.count > 1:
            dist.all_reduce(tensor, group=self.group)
        return tensor

    def any(self, value: bool, device: torch.device) -> bool:
        """Return whether any process's value is true; a sum on `device` is faster than `all`."""
        return value if self.count == 1 else bool(self.sum(torch.tensor(int(value), device=device)))

    def generator(self, generator: torch.Generator | None) -> torch.Generator | None:
        """Return a generator that draws the first process's numbers in every process."""
        if self.count == 1:
            return generator
        if generator is None:
            return torch.Generator().manual_seed(self.same(int(torch.randint(2**62, ()))))
        return generator.set_state(self.same(generator.get_state()))
