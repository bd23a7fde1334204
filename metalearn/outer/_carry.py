"""What outlives a meta-step, kept by the learner."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn as nn
from torch import Tensor

from metalearn._checks import invalid
from metalearn._modules import TensorTree
from metalearn._tree import tree_filled, tree_leaves, tree_map, tree_names
from metalearn.types import Carry

RESET = "or start anew: learner.carry.reset()."
LOAD = f"Load what the same estimator and rule have saved, {RESET}"


class Carried(nn.Module):
    """Tensors that come into being with the first training step, if the estimator carries anything.

    Calling the module returns what is carried: what the last training step left, or what was
    loaded, or the estimator's start. Its structure is known only then, so what is loaded waits.
    """

    _own: TensorTree | None

    def __init__(self) -> None:
        super().__init__()
        self.common: TensorTree | None = None
        # No submodule: DistributedDataParallel would give all processes the first one's problems.
        vars(self)["_own"] = None
        self._loaded: dict[str, Tensor] = {}
        self.is_empty = True

    @property
    def value(self) -> Carry | None:
        """What the last training step left; None before the first one."""
        if self.common is None or self._own is None:
            return None
        return Carry(self.common(), self._own())

    def forward(
        self, like: Carry, start: Callable[[], Carry], num_tasks: int, num_replicas: int | None
    ) -> Carry:
        """Return what is carried.

        Args:
            like: What one task leaves, of whose shapes and dtypes it must be.
            start: Returns what is carried at first.
            num_tasks: Number of inner problems, of each replica if there are some.
            num_replicas: Number of replicas, the first axis of all; None of a single learner.

        Raises:
            ValueError: If what is carried is shaped otherwise, or of another number of problems.
        """
        if self.is_empty:
            return start()
        of_common = () if num_replicas is None else (num_replicas,)
        _check_fits(like, self._named(), {"common": of_common, "own": (*of_common, num_tasks)})
        if self._loaded:
            loaded = self._loaded
            self.keep(start())
            own: Any = self._own
            for name, tree in (("common", self.common), ("own", own)):
                tree.load_state_dict(named_below(name, loaded))  # type: ignore[union-attr]
            self._loaded = {}
        # learner.bfloat16() converts it too
        kept: Any = self.value
        return tree_map(lambda kept, leaf: kept.to(leaf.dtype), kept, like)

    def keep(self, carry: Carry) -> None:
        """Carry this from now on."""
        if tree_leaves(carry):
            self.is_empty, self.common = False, TensorTree(carry.common, learned=False)
            vars(self)["_own"] = TensorTree(carry.own, learned=False)

    def reset(self) -> None:
        """Start anew with the next training step."""
        self.common, vars(self)["_own"], self._loaded, self.is_empty = None, None, {}, True

    def part(self, index: int) -> "Carried":
        """Return one replica's part of what replicas carry, all tensors of which are `[R, ...]`."""
        part = Carried()
        part._loaded = {name: tensor[index].clone() for name, tensor in self._loaded.items()}
        part.is_empty = not part._loaded
        if (carried := self.value) is not None:
            part.keep(tree_map(lambda leaf: leaf[index].clone(), carried))
        return part

    def own_like(self, like: dict[str, Any]) -> dict[str, Any]:
        """Return these fields of what is each problem's own.

        Args:
            like: Those of one problem, of whose shapes and dtypes they must be.

        Raises:
            ValueError: If nothing goes on, or what does is shaped otherwise.
        """
        own, names = named_below("own", self._named()), tree_names(like)
        if not own.keys() & set(names):
            fix = "Train a learner with estimator=outer.Continued(outer.Unrolled()): "
            fix += "learner(episodes) starts them."
            raise invalid("inner models", "have started", "none", fix)
        wanted = dict(zip(names, (tuple(leaf.shape) for leaf in tree_leaves(like)), strict=True))
        got = {name: tuple(own[name].shape[1:]) for name in names if name in own}
        if got != wanted:
            raise invalid("learner's carry", f"be shaped as {wanted}", got, LOAD)
        pairs = zip(names, tree_leaves(like), strict=True)
        filled: dict[str, Any] = tree_filled(
            like, [own[name].to(leaf.dtype, copy=True) for name, leaf in pairs]
        )
        return filled

    def _named(self) -> dict[str, Tensor]:
        """Return the tensors by names such as "common.0" and "own.params.weight"."""
        if self.common is None or self._own is None:
            return self._loaded
        trees = {"common": self.common, "own": self._own}
        return {
            f"{name}.{path}": tensor
            for name, tree in trees.items()
            for path, tensor in tree.named_buffers()
        }

    def _apply(self, *args: Any, **kwargs: Any) -> "Carried":
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        convert = args[0]
        self._loaded = {name: convert(tensor) for name, tensor in self._loaded.items()}
        if self._own is not None:
            self._own._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        return self

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        destination.update({f"{prefix}{name}": tensor for name, tensor in self._named().items()})

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        self.reset()
        self._loaded = {
            name.removeprefix(prefix): tensor.clone()
            for name, tensor in state_dict.items()
            if name.startswith(prefix)
        }
        self.is_empty = not self._loaded


def places_of(keys: Tensor) -> Tensor:
    """Return where the problems with these keys stand among those of all processes.

    Problem i of n (from 1) stands at i/n, and every process has every n-th, as `data.Shard` deals.
    """
    is_one_of_many = dist.is_available() and dist.is_initialized()
    rank, count = (dist.get_rank(), dist.get_world_size()) if is_one_of_many else (0, 1)
    index = torch.arange(len(keys), device=keys.device) * count + rank
    return (index + 1) / (len(keys) * count)


def named_below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(f"{prefix}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{prefix}.")
    }


def _check_fits(like: Carry, carried: dict[str, Tensor], axes: dict[str, tuple[int, ...]]) -> None:
    """Raise if what is carried is another estimator's or rule's, or of other inner problems."""
    wanted = {
        f"{kind}.{name or 'value'}": (*axes[kind], *leaf.shape)
        for kind, tree in like._asdict().items()
        for name, leaf in zip(tree_names(tree), tree_leaves(tree), strict=True)
    }
    got = {name: tuple(tensor.shape) for name, tensor in carried.items()}
    last = len(axes["own"]) - 1
    begun, asked = (
        {shape[last] for name, shape in shapes.items() if name.startswith("own.")}
        for shapes in (got, wanted)
    )
    if got.keys() == wanted.keys() and begun != asked:
        fix = f"Pass as many tasks at every call, {RESET}"
        raise invalid("inner problems that go on", f"be {begun.pop()} tasks", asked.pop(), fix)
    if got != wanted:
        raise invalid("learner's carry", f"be shaped as {wanted or 'nothing'}", got, LOAD)
