"""Tasks drawn by replaying a CUDA graph."""

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from metalearn._checks import invalid
from metalearn._fields import Checked
from metalearn._recording import Recording
from metalearn._tree import tree_leaves
from metalearn.data._episodes import TaskDistribution, Tasks
from metalearn.types import Episode

WAITS = "Drawing these tasks waits for the GPU or copies from the host: draw without CudaGraph."


@dataclass(frozen=True)
class CudaGraph(TaskDistribution, Checked):
    """The tasks of another distribution, drawn on a GPU by a single launch for all kernels.

    The first draw of each size is recorded as a CUDA graph; later ones replay it with new random
    numbers from that GPU's default generator, which gives the tasks that the distribution itself
    would draw. Everything must run on the GPU, as all of `metalearn.data` does, augmentations
    included. Drawing on the host, as torchvision's random transforms do, is an error. With a
    `generator`, tasks are drawn without a graph.

    Args:
        tasks: The other distribution; any images must be on the GPU.

    Raises:
        TypeError: If `tasks` is not a task distribution.
        ValueError: If its images are on the CPU; when drawing, if tasks would not be on a GPU, or
            random numbers are drawn on the host.

    >>> from metalearn import data
    >>> CudaGraph(data.Sinusoid(5, 5)).sample(3, device="cuda").support.x.shape  # doctest: +SKIP
    torch.Size([3, 5, 1])
    """

    tasks: Tasks
    _recordings: dict[Any, Recording] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source_device.type != "cuda":
            fix = "Pass data.EpisodeSampler(classes.to('cuda'), 5, 1, 15), say."
            raise invalid("CudaGraph's images", "be on a GPU", self.source_device, fix)

    @property
    def source_device(self) -> torch.device:
        """Device of the other distribution: a GPU, even if it is made of numbers alone."""
        return self.tasks.source_device or torch.device("cuda")

    def draw(
        self, num_tasks: int, generator: torch.Generator | None, device: torch.device | None
    ) -> Episode:
        """Replay a draw of `num_tasks` tasks."""
        if generator is not None:
            return self.tasks.draw(num_tasks, generator, device)
        device = device or self.tasks.source_device or torch.get_default_device()
        if device.type != "cuda":
            fix = "Pass sample(4, device='cuda')."
            raise invalid("tasks of a CudaGraph", "go to a GPU", device, fix)
        index = torch.cuda.current_device() if device.index is None else device.index
        device = torch.device("cuda", index)
        key = num_tasks, device, torch.get_default_dtype()
        if key not in self._recordings:
            self._recordings[key] = self._record(num_tasks, device)
        episodes: Episode = self._recordings[key](())
        return episodes

    def _record(self, num_tasks: int, device: torch.device) -> Recording:
        def draw() -> Episode:  # a replay would repeat the host's random numbers
            before = _host_state()
            episodes = self.tasks.draw(num_tasks, None, device)
            what, fix = f"draw of {type(self.tasks).__name__}", "Draw without CudaGraph."
            if _host_state() != before:
                got = "random numbers drawn on the host, as torchvision's transforms do"
                raise invalid(what, "draw all random numbers on the GPU", got, fix)
            places = {leaf.device.type for leaf in tree_leaves(episodes)}
            if places != {"cuda"}:
                raise invalid(what, "return tensors on the GPU", " and ".join(sorted(places)), fix)
            return episodes

        try:
            return Recording(draw, (), device)
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError):
                error.add_note(WAITS)
            raise

    def __reduce__(self) -> Any:
        return type(self), (self.tasks,)  # recordings belong to this process


def _host_state() -> tuple[Any, ...]:
    """Return the states of the host's global random number generators."""
    numpy: Any = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), numpy[1].tobytes(), numpy[2:]
