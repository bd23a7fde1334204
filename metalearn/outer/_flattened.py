"""A function of a learner and trees as one of tensors alone, with its modules' constants."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from metalearn._attributes import attributes_kept
from metalearn._tree import tree_filled, tree_leaves, tree_map
from metalearn._walk import holders_of, modules_of

Place = tuple[dict[str, Any], str]
"""A module's dict of parameters or buffers, and a name in it."""


class Flattened:
    """A function of a learner and trees of tensors as one of tensors.

    Args:
        learner: Constants of whose modules are arguments too.
        function: Of trees; returns a tree of tensors.
        trees: Trees of the kind that it takes.

    Attributes:
        num_given: How many tensors the trees have; the others are constants.
    """

    def __init__(self, learner: Any, function: Callable[..., Any], trees: tuple[Any, ...]) -> None:
        self._learner, self._function, self._places = learner, function, _constants_of(learner)
        self._trees = tree_map(lambda leaf: 0, trees)  # of which only the structure is kept
        self._results: Any = None
        self.num_given = len(tree_leaves(trees))

    def tensors_of(self, trees: tuple[Any, ...]) -> list[Tensor]:
        """Return the arguments that stand for these trees, and the constants as they are now."""
        tensors = tree_leaves(trees)
        for owner, name in self._places:
            tensors.append(owner[name])
        return tensors

    def results_of(self, tensors: Sequence[Tensor]) -> Any:
        """Return the tree of results that these tensors are, in place of those of the last call."""
        return tree_filled(self._results, tensors)

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        """Call the function, with constants in the places of the learner's own."""
        constants = tensors[self.num_given :]
        kept = attributes_kept(*holders_of(self._learner))
        with _put(self._places, constants), kept:
            result = self._function(*tree_filled(self._trees, tensors))
        self._results = tree_map(lambda leaf: 0, result)
        # As autograd keeps gradients: it would copy others.
        return [leaf.contiguous() for leaf in tree_leaves(result)]


def _constants_of(learner: Any) -> list[Place]:
    """Return the places of all tensors of a learner's modules but of those that are learned."""
    learned = {id(tensor) for tensor in tree_leaves(learner.meta)}
    return [
        (own, name)
        for module in modules_of(learner)
        for own in (module._parameters, module._buffers)
        for name, tensor in own.items()
        if tensor is not None and id(tensor) not in learned
    ]


@contextmanager
def _put(places: list[Place], tensors: Sequence[Tensor]) -> Iterator[None]:
    """Put tensors into modules for as long as the context lasts."""
    own = [owner[name] for owner, name in places]
    try:
        for (owner, name), tensor in zip(places, tensors, strict=True):
            owner[name] = tensor
        yield
    finally:
        for (owner, name), tensor in zip(places, own, strict=True):
            owner[name] = tensor
