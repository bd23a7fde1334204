"""Whether a model computes with the parameters it is given, by comparison with copies of it.

A meta-learner calls a model with other parameters than its own. A model that keeps a weight in a
list, a cache or a closure would still see its own, and so would one that recomputes a part in the
backward pass. A copy that holds the given parameters sees these.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._copies import copied
from metalearn._modules import get_tensor
from metalearn._tree import tree_detach, tree_leaves, tree_map
from metalearn.outer._checks._one_step import Probe, Results, by_hand, by_library, kept
from metalearn.outer._copied_loss import with_copies
from metalearn.types import Batch, Episode, Meta, Params, Problem

NOISE = 0.05
"""Relative distance by which parameters are moved from the model's own."""
SEEN = 100
"""By how many tolerances results must move with the parameters; if by fewer, float64 decides."""
SMALL = 0.01
"""Least scale of a relative distance, of losses and, as a share of the whole, of gradients."""

Fast: TypeAlias = frozenset[str] | None


class Comparison(NamedTuple):
    """How far a learner's results are from those of copies.

    Attributes:
        error: Largest relative distance of a loss or of a parameter's gradient; infinite where the
            learner's alone is not finite.
        moved: The same distance between copies with the model's own parameters and with the moved
            ones.
        tolerance: Largest `error` that rounding explains, by the dtype.
    """

    error: float
    moved: float
    tolerance: float

    @property
    def equal(self) -> bool:
        """Whether results differ by rounding at most."""
        return self.error <= self.tolerance

    @property
    def clear(self) -> bool:
        """Whether it would have shown if the model had not seen the moved parameters."""
        return self.moved > SEEN * self.tolerance


def compare(
    problem: Problem, meta: Meta, episode: Episode, order: int, fast: Fast = None
) -> Comparison:
    """Compare a model's losses and derivatives over one inner step with those of copies.

    Copies use plain autograd. The dtype is the parameters', or float64 where that shows a
    difference or could not show one, if the model takes it.

    Args:
        problem: A problem whose losses are a model's.
        meta: The model's own parameters, as they are learned.
        episode: One task.
        order: 2 compares a meta-gradient too, 1 first derivatives, 0 losses alone.
        fast: Names of the fast parameters to move; None for all.
    """
    probe = Probe(meta, meta.init, episode, order, aliases=_aliases(meta.shared))
    found = _compare(problem, probe, fast)
    if (found.equal and found.clear) or tree_leaves(meta.init)[0].dtype == torch.float64:
        return found
    try:
        with torch.autocast(tree_leaves(meta)[0].device.type, enabled=False):
            support_loss, query_loss = copied((problem.support_loss, problem.query_loss), _double)
            precise = problem._replace(support_loss=support_loss, query_loss=query_loss)
            return _compare(precise, _double(probe), fast)
    except (RuntimeError, TypeError, ValueError):  # the model or the device takes float32 alone
        return found


def sees_own(
    problem: Problem, model: nn.Module, meta: Meta, episode: Episode, order: int
) -> list[str]:
    """Return the fast parameters of which a loss sees the model's own values, not the given."""
    probe = _moved(Probe(meta, meta.init, episode, order, NOISE), None)
    expected = kept(by_library, problem, probe)

    def depends(names: Iterable[str]) -> bool:
        with _values(model, {name: probe.meta.init[name] for name in names}):
            # Rounding is the same, except in GPU kernels that add up in any order.
            return _distance(kept(by_library, problem, probe), expected) > _tolerance(meta) / SEEN

    if not depends(meta.init) or depends([]):  # losses that change from call to call show nothing
        return []
    return [name for name in meta.init if depends([name])]


@contextmanager
def _values(module: nn.Module, values: Params) -> Iterator[None]:
    """Give parameters other values for a while, unnoticed by autograd."""
    own = {name: get_tensor(module, name).data for name in values}
    old = tree_map(torch.clone, own)
    try:
        tree_map(Tensor.copy_, own, values)
        yield
    finally:
        tree_map(Tensor.copy_, own, old)


def _compare(problem: Problem, probe: Probe, fast: Fast) -> Comparison:
    """Compare losses with those of copies, after noise has moved a probe's parameters."""
    copies, support = with_copies(problem), probe.episode._replace(query=Batch(()))
    own = kept(by_hand, copies, probe._replace(episode=support, order=min(probe.order, 1)))
    moved = _moved(probe, fast)._replace(rate=_rate(own, probe.meta.init))
    expected, ours = kept(by_hand, copies, moved), kept(by_library, problem, moved)
    return Comparison(_distance(ours, expected), _distance(own, expected), _tolerance(probe.meta))


def _aliases(shared: Params) -> dict[str, str]:
    """Return the first name of each tensor by all its names: a criterion may share layers."""
    first: dict[Any, str] = {}
    return {
        name: first.setdefault((leaf.data_ptr(), leaf.shape), name) for name, leaf in shared.items()
    }


def _tolerance(meta: Meta) -> float:
    """Return the relative distance that rounding explains in the dtype of the computation."""
    leaf = tree_leaves(meta.init)[0]
    autocast = torch.is_autocast_enabled(leaf.device.type)
    dtype = torch.get_autocast_dtype(leaf.device.type) if autocast else leaf.dtype
    return torch.finfo(dtype).eps ** 0.5 / 10


def _distance(left: Results, right: Results) -> float:
    """Return the largest relative distance of shared results, where the right ones are finite."""
    distances = [0.0]
    for what in left.keys() & right.keys():
        whole = _length(right[what])
        least = SMALL * (1.0 if what.endswith("loss") else whole)
        for name, part in right[what].items() if math.isfinite(whole) else ():
            scale = max(part.norm().item(), least) or 1.0
            distance = (left[what][name] - part).norm().item() / scale
            distances.append(distance if math.isfinite(distance) else math.inf)
    return max(distances)


def _moved(probe: Probe, fast: Fast) -> Probe:
    """Return a probe with noise added to its fast parameters."""
    init, moved_on = (_with_noise(probe.meta.init, fast, seed) for seed in (0, 1))
    return probe._replace(meta=probe.meta._replace(init=init), moved_on=moved_on)


def _with_noise(init: Params, fast: Fast, seed: int) -> Params:
    """Return parameters with noise added, the same for the same seed."""
    moved = tree_detach(init)
    device = tree_leaves(moved)[0].device
    whole = _size(torch.cat([leaf.reshape(-1) for leaf in moved.values()])) or 1.0
    generator = torch.Generator(device).manual_seed(seed)  # several times faster than keyed numbers
    for name, leaf in moved.items():
        noise = torch.randn(leaf.shape, generator=generator, device=device, dtype=torch.float32)
        if fast is None or name in fast:
            # By elements, so that what must be positive mostly stays so; zeros as far as the rest.
            scale = leaf if _size(leaf) else torch.full_like(leaf, whole)
            moved[name] = leaf + scale * (NOISE * noise).to(leaf.dtype)
    return moved


def _size(tensor: Tensor) -> float:
    """Return the root mean square of a tensor's elements."""
    return tensor.detach().abs().square().mean().sqrt().item() if tensor.numel() else 0.0


def _rate(own: Results, init: Params) -> float:
    """Return a rate at which one step moves the parameters as far as the noise does."""
    size, slope = _length(init), _length(own.get("support gradient", {}))
    return NOISE * size / slope if 0 < size < math.inf and 0 < slope < math.inf else NOISE


def _length(params: Params) -> float:
    """Return the norm of all tensors' elements."""
    return math.hypot(*(param.detach().norm().item() for param in params.values()))


def _double(tree: Any) -> Any:
    """Return a pytree whose floating tensors are of float64, and complex ones of complex128."""

    def double(leaf: Any) -> Any:
        is_floating = isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())
        return leaf.to(torch.promote_types(leaf.dtype, torch.float64)) if is_floating else leaf

    return tree_map(double, tree)
