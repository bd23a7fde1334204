"""What is wrong with the first task's losses, computed once, that shapes do not show."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from metalearn._calls import Seen
from metalearn._checks import invalid, mistyped
from metalearn._computable import computable
from metalearn._layers import Network
from metalearn._modules import call_model
from metalearn._random import random_numbers_kept
from metalearn._tasks import take
from metalearn._tree import tree_detach, tree_leaves, tree_map
from metalearn.outer._attempts import is_within, within
from metalearn.outer._checks._captured import captured
from metalearn.outer._checks._criteria import (
    check_label_axes,
    check_targets,
    check_weights,
    knows_targets,
)
from metalearn.outer._checks._named import any_key, losses_on_sets
from metalearn.outer._checks._start import check_start
from metalearn.outer._checks._support_batches import examples_of
from metalearn.outer._checks._unwritten import check_unwritten
from metalearn.types import Batch, Episode, Meta, Problem, learned_init


def check_losses(learner: Any, episodes: Episode) -> None:
    """Compute the first task's losses at the start, of which sets there are.

    Raises:
        TypeError: If a loss is no tensor, or does not take the given weights or labels.
        ValueError: If a loss cannot be computed, is no scalar or depends on a parameter that it is
            not given; if labels have no axis of examples, or a label of any task is out of range;
            if outputs and targets differ in shape; or if the model writes into a parameter, a
            buffer, its inputs or targets.
    """
    problem, meta = learner.problem.of_task(any_key(learner.device)), tree_detach(learner.meta)
    own = {id(tensor) for tensor in (*learner.parameters(), *learner.buffers())}
    constants = own - {id(leaf) for leaf in tree_leaves(learner.meta)}
    names = {id(param): name for name, param in learner.named_parameters()}
    seen = Seen()

    def check() -> None:
        copies = tree_map(Tensor.clone, take(episodes, 0))
        for name, batch in episodes._asdict().items():
            if name == "support" or tree_leaves(batch):
                sources = _check_loss(name, problem, meta, copies, batch)
                _check_written(name, copies)
                foreign = [leaf for leaf in sources if id(leaf) not in constants]
                on = losses_on_sets(problem).get(name)
                what = f"model and {on.loss.name}" if on else f"{name}_loss"
                _check_captures(what, foreign, names)
        if learner.batching == "vmap" and learner.chunk_size != 1:
            with seen:
                _call_unknown(problem, meta, copies)

    with torch.no_grad(), random_numbers_kept(learner.device):
        if problem.start is not learned_init:
            support, key = take(episodes.support, 0), any_key(learner.device)
            begun, sources = captured(partial(problem.start, meta, support, key))
            check_start(begun, meta)
            foreign = [leaf for leaf in sources if id(leaf) not in constants]
            _check_captures("start", foreign, names)
        check_unwritten(learner, check)
    for context in seen.contexts:
        if not is_within(learner.problem, context):
            learner.problem = within(learner.problem, context)


def _call_unknown(problem: Problem, meta: Meta, first: Episode) -> None:
    """Call a model that is not of known layers, which `vmap` has to trace."""
    on: Any = losses_on_sets(problem).get("support")
    if on is not None and type(on.loss.network) is Network:
        tensors = on.loss.model_tensors(meta.init, meta.shared)
        on.loss.network(tensors, on.batch(first, 0))


def _check_loss(
    name: str, problem: Problem, meta: Meta, first: Episode, batch: Batch
) -> list[Tensor]:
    """Compute the first task's loss, and return the tensors that it closes over."""
    if on := losses_on_sets(problem).get(name):
        x = getattr(first, name).x
        if name == "support":
            batch, x = examples_of(problem, batch), examples_of(problem, first.support, 0).x
        check_weights(on.loss, batch)
        if knows_targets(on.loss, batch.y):
            check_label_axes(name, on.loss.criterion, batch.y)
            with _explained(name, meta, batch):
                tensors = on.loss.model_tensors(meta.init, meta.shared)
                output = on.loss.network.seen(call_model(on.loss.model, tensors, x))
            check_targets(name, on.loss.criterion, output, batch.y)
    step = [0] if name == "support" else []
    compute = partial(getattr(problem, f"{name}_loss"), meta.init, meta.shared, first, *step)
    with _explained(name, meta, batch):
        loss, sources = captured(compute)
    _check_scalar(name, loss)
    return sources


def _check_written(name: str, first: Episode) -> None:
    """Raise if a loss has written into the task's tensors, which the next inner step would see."""
    if any(leaf._version for leaf in tree_leaves(first)):
        what, condition = f"{name} loss", "leave inputs and targets as they are"
        fix = (
            "Write x = x / 255 in place of x /= 255, say, and no layer that writes in place first."
        )
        raise invalid(what, condition, "a write into them", fix)


def _check_captures(what: str, foreign: list[Tensor], names: dict[int, str]) -> None:
    """Raise if something depends on tensors that it is not given, which would not be learned."""
    if foreign:
        first = foreign[0]
        got = f"one of shape {tuple(first.shape)}, which nothing would learn"
        fix = "Pass an nn.Module that owns it, which is then learned, or detach it."
        if id(first) in names:
            got = f"{names[id(first)]}, whose gradient would be lost"
            fix = "Take it from the arguments of a support_loss or query_loss, or detach it."
        raise invalid(what, "capture no parameters", got, fix)


@contextmanager
def _explained(name: str, meta: Meta, batch: Batch) -> Iterator[None]:
    """Explain what a loss raises on the first task's data."""
    what, whose = f"{name} loss", f"The first task's {name}"
    beside = f", the model's parameters of {tree_leaves(meta.init)[0].dtype}"
    try:
        with computable(what, take(batch, 0), whose, beside):
            yield
    except TypeError as error:
        if not tree_leaves(batch.weight):
            raise
        fix = "Use functional.cross_entropy, or a criterion (output, target, weight) -> scalar."
        raise mistyped(what, "take the weights of the examples", error, fix) from error


def _check_scalar(name: str, loss: Any) -> None:
    """Raise unless a loss is a scalar tensor."""
    if not isinstance(loss, Tensor):
        fix = "Return the loss as a scalar tensor."
        raise mistyped(f"{name} loss", "be a tensor", type(loss).__name__, fix)
    if loss.dim() > 0:
        fix = "Average it: reduction='mean', or loss.mean()."
        raise invalid(f"{name} loss", "be a scalar", f"shape {tuple(loss.shape)}", fix)
