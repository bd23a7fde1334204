"""Whether a captured step computes what an eager one does."""

from collections.abc import Callable, Sequence
from functools import partial
from operator import is_
from typing import Any

import torch
from torch import Tensor

from metalearn.outer._capture import Flat, capture, draws

EXACT = 1e-9
"""Relative distance that a graph in float64 may have from an eager step."""
TIMES, MORE = 10.0, 1e-5
"""What a compiled step may be further from float64 than the eager one: so many times, and more."""
UNKNOWN = 1e-4
"""How far from float64 an eager step is taken to be where float64 cannot be had."""
FLOOR = 1e-2
"""Share of the norm of all results below which a small one need not be exact by itself."""


class DisagreementError(RuntimeError):
    """A compiled step does not compute what an eager one does."""


def check_agrees(function: Flat, run: Flat, *args: Any, precise: Flat | None = None) -> None:
    """Raise if a compiled function does not compute what the function does.

    The arguments are those of `_disagreement`.

    Raises:
        DisagreementError: Which says how far it is off.
    """
    if difference := _disagreement(function, run, *args, precise=precise):
        raise DisagreementError(difference)


def _disagreement(
    function: Flat,
    run: Flat,
    tensors: Sequence[Tensor],
    others: Sequence[Tensor],
    num_written: int = 0,
    *,
    precise: Flat | None = None,
) -> str:
    """Return in words how a compiled function differs from the function; "" if it does not.

    Args:
        function: Of tensors; returns tensors.
        run: What it was compiled to, a function of other tensors beside.
        tensors: Arguments that both are compared at, drawing the same random numbers.
        others: The other tensors.
        num_written: Number of first arguments that may be written to, which are results too.
        precise: What computes the same in less memory, which float64 takes twice as much of; None
            captures the function, and compares the graph in float64 too.
    """
    called = partial(_called_on_copies, num_written)
    eager, got = called(function, tensors), called(run, [*tensors, *others])
    doubles = list(map(_as_double, tensors))
    if all(map(is_, doubles, tensors)):
        off = distance(got, eager)
        return "" if off <= EXACT else f"It is {off:.1e} off in float64"
    own, reference = UNKNOWN, eager
    try:
        expected = called(precise or function, doubles)
        if precise is None:
            graph, constants = capture(function, doubles)
            if (off := distance(called(graph, [*doubles, *constants]), expected)) > EXACT:
                return f"It is {off:.1e} off in float64"
        if precise or not draws(graph):  # other numbers than in another precision
            own, reference = distance(eager, expected), expected
    except RuntimeError:  # a part of the model is of its own precision, or memory is short
        pass
    if (off := distance(got, reference)) > TIMES * own + MORE:
        return f"It is {off:.1e} off, where an eager step is {own:.1e} off"
    return ""


def distance(got: Sequence[Any], expected: Sequence[Any]) -> float:
    """Return the largest relative distance between results; what is not finite counts as zero.

    Integers and truths must be equal: 1 if they are not.
    """
    both = list(zip(got, expected, strict=True))
    if not all(left.is_floating_point() or left.equal(right) for left, right in both):
        return 1.0
    pairs = [
        (left.double().nan_to_num(0, 0, 0), right.double().nan_to_num(0, 0, 0))
        for left, right in both
        if left.is_floating_point()
    ]
    floor = FLOOR * torch.stack([right.norm() for _, right in pairs]).norm()
    distances = [(left - right).norm() / right.norm().clamp(min=floor) for left, right in pairs]
    return float(torch.stack(distances).nan_to_num(0).max())


def _called_on_copies(
    num_written: int, function: Callable[..., Any], tensors: Sequence[Tensor]
) -> Sequence[Tensor]:
    """Call a function as it would draw now, and take back what it has drawn and written."""
    devices = {tensor.device for tensor in tensors if tensor.is_cuda}
    written = [tensor.clone() for tensor in tensors[:num_written]]
    with torch.no_grad(), torch.random.fork_rng(list(devices)):
        return [*function(*written, *tensors[num_written:]), *written]


def _as_double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor
