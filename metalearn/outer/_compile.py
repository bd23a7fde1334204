"""`torch.compile` of a whole meta-step, and its recording as a CUDA graph."""

from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

import torch

from metalearn._tree import tree_leaves
from metalearn.outer._cuda_graph import Recorded
from metalearn.types import Episode

NOTE = (
    "torch.compile cannot compile this meta-step as one graph; "
    "the user code named above is the part that it stops at."
    " Run it without: call set_batching again, without compile."
)


class WholeStep:
    """A function compiled for every shape of episodes, recorded as a CUDA graph, or neither.

    Args:
        function: The function, of a learner and trees of tensors.
        options: True, or options of `torch.compile`; False does not compile.
        cuda_graph: Whether it is recorded.
    """

    def __init__(
        self, function: Callable[..., Any], options: bool | Mapping[str, Any], cuda_graph: bool
    ) -> None:
        self._function, self._options, self._cuda_graph = function, options, cuda_graph
        self._made: dict[Any, Callable[..., Any]] = {}

    def for_shapes_of(self, episodes: Episode) -> Callable[..., Any]:
        """Return the function as it is run for episodes of these shapes."""
        if self._options is False and not self._cuda_graph:
            return self._function
        # A recording knows shapes by itself.
        shapes = (
            () if self._options is False else tuple(leaf.shape for leaf in tree_leaves(episodes))
        )
        if shapes not in self._made:
            function = self._function if self._options is False else self._compile()
            self._made[shapes] = Recorded(function) if self._cuda_graph else function
        return self._made[shapes]

    def _compile(self) -> Callable[..., Any]:
        # A copy is compiled, since torch.compile counts recompilations by code object and gives up
        # after a few.
        function: Any = self._function
        own = FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
        options = {} if isinstance(self._options, bool) else dict(self._options)
        compiled = torch.compile(own, **{"fullgraph": True, "dynamic": False, **options})

        def run(*args: Any) -> Any:
            try:
                return compiled(*args)
            except RuntimeError as error:
                # By name, since importing torch._dynamo takes seconds.
                if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                    error.add_note(NOTE)
                raise

        return run

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": {}}

    def __deepcopy__(self, memo: Any) -> "WholeStep":
        return WholeStep(self._function, self._options, self._cuda_graph)
