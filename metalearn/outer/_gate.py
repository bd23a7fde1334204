"""What a learner checks before it computes: shapes at every call, the problem itself at the
first.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from metalearn._attributes import attributes_kept
from metalearn._derivatives import untraced
from metalearn._tasks import num_tasks, take
from metalearn._tree import tree_detach, tree_leaves
from metalearn._walk import modules_of, parts_of
from metalearn.functional import draw_keys
from metalearn.outer._copied_loss import with_copies
from metalearn.outer._derivative_errors import derivatives_explained
from metalearn.outer._episode_checks import (
    check_device,
    check_episodes,
    check_judged,
    check_keys,
    check_support_batches,
    check_task_axis,
    warn_of_single_examples,
)
from metalearn.outer._gradient_probe import check_gradient
from metalearn.outer._label_checks import check_labels_of_all
from metalearn.outer._learner_checks import (
    check_copied,
    check_norms,
    check_precision,
    check_under_vmap,
    warn_of_new_statistics,
)
from metalearn.outer._loss_probe import check_losses
from metalearn.outer._model_check import needs_copies, order_of
from metalearn.outer._recomputed import exactly
from metalearn.outer._unwritten import check_unwritten
from metalearn.types import Batch, Episode

if TYPE_CHECKING:
    from metalearn.outer._learner import MetaLearner


class Gate:
    """Lets data into a learner, and remembers which checks it need not repeat."""

    def __init__(self) -> None:
        self._passed: set[Any] = set()

    def episodes(self, learner: "MetaLearner", episodes: Episode, keys: Tensor | None) -> Tensor:
        """Raise for what is wrong with the episodes or their losses, and return the keys."""
        count = check_episodes(episodes)
        self.data(learner, episodes._asdict())
        self.once(("losses", kinds(*episodes)), learner, lambda: _check_losses(learner, episodes))
        return self._keys(learner, count, keys)

    def support(self, learner: "MetaLearner", support: Batch, keys: Tensor | None) -> Tensor:
        """Raise for what is wrong with the support sets or their loss, and return the keys."""
        count = check_task_axis({"support": support})
        self.data(learner, {"support": support})
        alone = Episode(support, Batch(()))
        self.once(("support", kinds(support)), learner, lambda: _check_losses(learner, alone))
        return self._keys(learner, count, keys)

    def training(self, learner: "MetaLearner", episodes: Episode, keys: Tensor) -> None:
        """Raise for what is wrong with the first task's meta-gradient, or with the model that it is
        taken of.
        """
        mode, order = _mode(learner), order_of(learner.estimator)
        self.once(
            "gradient", learner, lambda: _check_gradient(learner, *take((episodes, keys), 0)), mode
        )
        self._model(learner, episodes, order, mode)

    def adaptation(self, learner: "MetaLearner", support: Batch) -> None:
        """Raise for what is wrong with the model where it is only adapted."""
        self._model(
            learner,
            Episode(support, Batch(())),
            min(order_of(learner.estimator), 1),
            _mode(learner),
        )

    def _model(self, learner: "MetaLearner", episodes: Episode, order: int, mode: Any) -> None:
        """Raise for a model that is no function of the parameters that it is given; call copies
        where that mends it.
        """
        if learner.check_model:
            # Not of which shapes: a check takes several passes, and texts are of a hundred lengths.
            ranks = tuple((leaf.dim(), leaf.dtype) for leaf in tree_leaves(episodes))
            check = partial(_check_model, learner, episodes, order)
            self.once(("model", order, ranks), learner, check, mode)
        check_copied(learner, num_tasks(episodes))

    def data(self, learner: "MetaLearner", batches: dict[str, Batch]) -> None:
        """Raise unless data and learner agree on device and sets, and the support set on its number
        of parts.
        """
        check_judged(learner.problem, batches)
        check_device(batches, learner.device)
        check_norms(learner.model, learner.problem)
        check_under_vmap(learner)
        check_precision(learner.device.type, learner.dtype)
        check_support_batches(learner.problem, batches["support"])

    def _keys(self, learner: "MetaLearner", count: int, keys: Tensor | None) -> Tensor:
        if keys is None:
            return draw_keys(count, device=learner.device)
        check_keys(keys, count)
        return keys.to(learner.device)

    def once(
        self, what: Any, learner: "MetaLearner", check: Callable[[], Any], mode: Any = None
    ) -> None:
        """Run a check that costs a pass through the model, once for every mode and choice of what
        is learned.
        """
        passed = what, mode or _mode(learner)
        if passed not in self._passed:
            with attributes_kept(*parts_of(learner)):
                untraced(exactly)(learner, check)
            self._passed.add(passed)


def kinds(*batches: Batch) -> tuple[Any, ...]:
    """Return which batches have weights, and of each tensor what is probed anew if it is new.

    That is its rank, shape of one example and dtype, and the number of labels, with which that of
    classes may grow.
    """
    weighted = tuple(bool(tree_leaves(batch.weight)) for batch in batches)
    # an outer torch.compile(learner), which has guards of its own
    if torch.compiler.is_compiling():
        return weighted
    return weighted, *(
        (leaf.dim(), leaf.shape[2 if leaf.is_floating_point() else 1 :], leaf.dtype)
        for leaf in tree_leaves(batches)
    )


def _mode(learner: "MetaLearner") -> tuple[Any, ...]:
    """Return what requires grad and the flags of all modules, such as `training`."""
    modules = list(modules_of(learner))
    learned = tuple(
        p is not None and p.requires_grad for each in modules for p in each._parameters.values()
    )
    return learned, tuple(
        value for each in modules for value in vars(each).values() if type(value) is bool
    )


def _check_losses(learner: "MetaLearner", episodes: Episode) -> None:
    any_key = torch.zeros((), dtype=torch.int64, device=learner.device)
    check_losses(learner.problem.of_task(any_key), learner.meta, episodes, learner)
    check_labels_of_all(learner, episodes)
    warn_of_new_statistics(learner.model)
    warn_of_single_examples(episodes)


@torch.no_grad()
def _check_model(learner: "MetaLearner", episodes: Episode, order: int) -> None:
    problem, meta, episode = learner.problem, tree_detach(learner.meta), take(episodes, 0)
    with derivatives_explained("second" if order == 2 else "first"):
        copies = check_unwritten(
            learner, lambda: needs_copies(problem, learner.model, meta, episode, order)
        )
    if copies:
        learner.problem = with_copies(problem)


@torch.no_grad()
def _check_gradient(learner: "MetaLearner", episode: Episode, key: Tensor) -> None:
    learned = {id(leaf) for leaf in tree_leaves(learner.meta)}
    wanted = ((name, param) for name, param in learner.named_parameters() if param.requires_grad)
    constants = [name for name, param in wanted if id(param) not in learned]
    check_gradient(
        learner.problem.of_task(key),
        learner.estimator,
        tree_detach(learner.meta),
        episode,
        key,
        constants,
    )
