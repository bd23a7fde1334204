"""What a learner refuses of a new kind of call, by passes through the model on the first task."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn as nn

from metalearn._attributes import attributes_kept
from metalearn._checks import message
from metalearn._modes import untraced
from metalearn._tasks import num_tasks, take
from metalearn._tree import tree_detach, tree_leaves
from metalearn._walk import holders_of
from metalearn.models import FrozenNorm
from metalearn.outer._attempts import attempts, called_as, check_copied, surroundings
from metalearn.outer._checks._call import Purpose
from metalearn.outer._checks._derivative_errors import derivatives_explained
from metalearn.outer._checks._episodes import warn_of_single_examples
from metalearn.outer._checks._first_gradient import check_gradient
from metalearn.outer._checks._first_losses import check_losses
from metalearn.outer._checks._labels import check_labels_of_all
from metalearn.outer._checks._model import needs_copies
from metalearn.outer._checks._unwritten import check_unwritten
from metalearn.outer._copied_loss import with_copies
from metalearn.types import Batch, Episode

Once = Callable[[Any, Callable[[], None]], None]
"""Runs a check, unless it has passed before in the learner's present state."""


def check_kind(learner: Any, subject: Any, episodes: Episode, purpose: Purpose, once: Once) -> None:
    """Raise if the first task's losses or meta-gradient, or the model, are wrong.

    If the backward pass recomputes the model, every call copies it from then on.

    Args:
        learner: The learner.
        subject: The learner that is checked, the first one of several replicas.
        episodes: Tasks; without query sets if the purpose is adaptation.
        purpose: What the learner is called for.
        once: Runs a check that has not run before.
    """

    @untraced
    def run(check: Callable[..., None], *args: Any) -> None:
        with attributes_kept(*holders_of(subject)):
            for attempt in attempts(subject):
                with attempt, surroundings(subject.problem):
                    check(subject, *args)

    once(("losses", kinds(*episodes)), partial(run, _check_losses, episodes))
    if purpose is Purpose.META_GRADIENT:
        once("gradient", partial(run, check_gradient, take(episodes, 0)))
    if learner.check_model and purpose is not Purpose.EPISODES:
        order = learner.estimator.traits.order
        if purpose is not Purpose.META_GRADIENT:
            episodes, order = Episode(episodes.support, Batch(())), min(order, 1)
        # Whatever the shapes: a check takes several passes, and texts have many lengths.
        ranks = tuple((leaf.dim(), leaf.dtype) for leaf in tree_leaves(episodes))
        once(("model", order, ranks), partial(run, _check_model, episodes, order))
    if subject is not learner:
        learner.problem = called_as(learner.problem, subject.problem)
    check_copied(learner, num_tasks(episodes))


def kinds(*batches: Batch) -> tuple[Any, ...]:
    """Return what makes a kind of call new: which batches have weights, and features of tensors.

    These are the rank, the shape of one example and the dtype, and the number of labels, since the
    number of classes may grow with it.
    """
    weighted = tuple(bool(tree_leaves(batch.weight)) for batch in batches)
    # An outer torch.compile(learner) has guards of its own.
    if torch.compiler.is_compiling():
        return weighted
    return weighted, *(
        (leaf.dim(), leaf.shape[2 if leaf.is_floating_point() else 1 :], leaf.dtype)
        for leaf in tree_leaves(batches)
    )


def _check_losses(learner: Any, episodes: Episode) -> None:
    check_losses(learner, episodes)
    check_labels_of_all(learner, episodes)
    warn_of_new_statistics(learner.model)
    warn_of_single_examples(episodes)


@torch.no_grad()
def _check_model(learner: Any, episodes: Episode, order: int) -> None:
    problem, meta, episode = learner.problem, tree_detach(learner.meta), take(episodes, 0)
    compute = partial(needs_copies, problem, learner.model, meta, episode, order)
    with derivatives_explained("second" if order == 2 else "first"):
        if check_unwritten(learner, compute):
            learner.problem = with_copies(problem)


def warn_of_new_statistics(model: nn.Module) -> None:
    """Warn of frozen statistics that were never set: such layers normalise nothing."""
    norms = {name: norm for name, norm in model.named_modules() if isinstance(norm, FrozenNorm)}
    unset = [name for name, norm in norms.items() if not norm.mean.any()]
    if new := [name for name in unset if (norms[name].var == 1).all()]:
        got = f"those of new layers in {new}"
        fix = "Load a pretrained model's with load_state_dict"
        fix += ", or choose batch_statistics='support'."
        warnings.warn(message("frozen statistics", "be set", got, fix), stacklevel=2)
