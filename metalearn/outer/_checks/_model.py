"""Whether a model is a function of its parameters; if not, it is copied or refused."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._checks import invalid
from metalearn._random import random_numbers_kept
from metalearn._sharded import sharded_parts
from metalearn._tree import tree_leaves
from metalearn.functional import OnQuery
from metalearn.functional._losses import is_of_model
from metalearn.outer._checks._named import any_key, losses_on_sets
from metalearn.outer._checks._purity import compare, sees_own
from metalearn.outer._copied_loss import with_copies
from metalearn.types import Episode, Meta, Problem, learned_init

SKIP = "check_model=False trusts the model as it is."
OWN = "Read them as their module's own at every call"
OWN += ", not from a list, a cache, a closure or another module."
GIVEN = "Take them from params and shared, or draw to the start by outer.Implicit(strength); "
GIVEN += "a model that the backward pass computes again is called by "
GIVEN += "functional.call_copy(model, params, (x,))."
UNDEFINED = (torch.linalg.LinAlgError, ValueError)  # type: ignore[attr-defined]
"""What a model raises where it is not defined, as at a matrix without a root."""
MISSED = (AttributeError, LookupError, NameError, RecursionError, TypeError)
"""What a copy raises if something still refers to the original."""


def needs_copies(
    problem: Problem, model: nn.Module, meta: Meta, episode: Episode, order: int
) -> bool:
    """Return whether the losses are exact only if every call copies the model.

    Args:
        problem: The problem.
        model: The model.
        meta: The model's own parameters, as they are learned.
        episode: One task; without a query set the support loss stands in for the query loss.
        order: How many times the losses are differentiated.

    Raises:
        ValueError: If a loss depends on the model's own parameters instead of the given ones, or it
            or, however the model is called, its derivatives differ from those of a copy that holds
            them.
    """
    if sharded_parts(model):  # whose hooks a copy would share
        return False
    problem = problem.of_task(any_key(tree_leaves(meta)[0].device))._replace(start=learned_init)
    if not tree_leaves(episode.query):
        on: Any = problem.support_loss
        seen = on.batch(episode, 0) if is_of_model(on) else episode.support
        episode = Episode(episode.support, seen)
        problem = problem._replace(query_loss=_as_query_loss(problem.support_loss))
    of_model = [is_of_model(loss) for loss in (problem.support_loss, problem.query_loss)]
    try:
        names = sees_own(problem, model, meta, episode, 0 if all(of_model) else order)
        differs = not names and any(of_model) and not compare(problem, meta, episode, order).equal
    except UNDEFINED:  # at the moved parameters, which says nothing
        return False
    except MISSED as error:  # not raised by the model itself, which has been called before
        got = f"{type(error).__name__} in a copy: {error}"
        raise invalid("model", "be one that can be copied", got, SKIP) from error
    if names:
        raise _foreign(names, OWN if all(of_model) else GIVEN)
    if not differs:
        return False
    if not compare(problem, meta, episode, 0).equal:
        _refuse_values(problem, meta, episode)
    # Losses are right and derivatives are not: the backward pass looks at the model again.
    if not (found := compare(with_copies(problem), meta, episode, order)).equal:
        got = f"derivatives that are off by {found.error:.1g}"
        fix = f"Compute in the model's forward pass alone, in PyTorch's own functions. {SKIP}"
        raise invalid("model", "have the derivatives of its outputs", got, fix)
    return True


def _refuse_values(problem: Problem, meta: Meta, episode: Episode) -> None:
    """Raise with what makes losses differ: parameters, or else what changes from call to call."""

    def differs_by(*names: str) -> bool:
        return not compare(problem, meta, episode, 0, frozenset(names)).equal

    if not differs_by():
        raise _foreign([name for name in meta.init if differs_by(name)], OWN)
    changing = _changed_by_a_call(problem, meta, episode)
    got = "outputs that change from call to call" + (f", as {changing} do" if changing else "")
    fix = "Leave nothing behind for the next call, and draw from PyTorch's global generator alone."
    raise invalid("model", "be a function of inputs and parameters", got, f"{fix} {SKIP}")


def _as_query_loss(support_loss: Any) -> Callable[..., Tensor]:
    if is_of_model(support_loss):
        return OnQuery(support_loss.loss)
    return lambda params, shared, episode: support_loss(params, shared, episode, 0)


def _foreign(names: list[str], fix: str) -> ValueError:
    """Return the error of a model that computes with other parameters than the given ones."""
    got = f"others in the place of {[f'model.{name}' for name in names]}"
    return invalid("model", "compute with the parameters that it is given", got, f"{fix} {SKIP}")


def _changed_by_a_call(problem: Problem, meta: Meta, episode: Episode) -> list[str]:
    """Return the plain attributes of modules that a call writes."""
    model = next(on.loss.model for on in losses_on_sets(problem).values() if is_of_model(on))
    before = _attributes(model)
    with random_numbers_kept(tree_leaves(meta)[0].device):
        problem.support_loss(meta.init, meta.shared, episode, 0)
    return [name for name, value in _attributes(model).items() if before.get(name) != value]


def _attributes(model: nn.Module) -> dict[str, Any]:
    """Return by name which object each attribute is, and how much is in it."""
    return {
        f"{path}.{name}": (id(value), len(value) if isinstance(value, list | dict | set) else 0)
        for path, module in model.named_modules(prefix="model")
        for name, value in vars(module).items()
    }
