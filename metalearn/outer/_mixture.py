"""Learners of different models around one update rule: a learned optimizer."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import check_index, invalid
from metalearn.functional import derive_key, draw_keys
from metalearn.outer._checks._episodes import check_episodes, check_keys
from metalearn.outer._learner import MetaLearner
from metalearn.outer._signature import learners_of
from metalearn.types import Batch, Episode


class Mixture(nn.Module):
    """Learners whose models differ, and that learn one update rule together.

    A learned optimizer is to work on networks that it was not learned on, so it is learned on
    several: MLPs of many shapes, with random starts by the tasks' keys (`start=`). The rule's
    meta-parameters must have the same shapes whatever the model's are, as those of `inner.LSTM`,
    `inner.Turtle`, `inner.LearnedRate(rule, "scalar")` have. The first learner's become those of
    all; what else a learner learns stays its own.

    It is called on the episodes of `data.Zipped([tasks, ...])`, which have one task of every
    distribution, and returns the mean of the learners' losses. `fit` trains it as it trains a
    learner. `mixture[i]` is learner i, to `adapt` and `evaluate`; `inner.as_optimizer` takes the
    rule to any module: `as_optimizer(rule, mixture[0].meta.rule, module.named_parameters())`.

    Args:
        learners: At least one learner, with equal rules; they are wrapped, not copied.

    Raises:
        TypeError: If they are no learners.
        ValueError: If there are none, one is there twice, their rules differ, or what is learned
            about the rules is shaped otherwise.

    References:
        Andrychowicz et al., "Learning to learn by gradient descent by gradient descent", NeurIPS
        2016. Metz et al., "Understanding and correcting pathologies in the training of learned
        optimizers", ICML 2019.

    >>> import torch.nn.functional as F
    >>> from metalearn import data, inner, models
    >>> def of_width(width):
    ...     rule = inner.Turtle(lr=0.01)
    ...     return MetaLearner(models.mlp(1, [width], 1), F.mse_loss, rule, num_steps=2)
    >>> mixture = Mixture([of_width(8), of_width(16)])
    >>> loss = mixture(data.Zipped([data.Sinusoid(5, 5), data.Sinusoid(10, 5)]).sample(3))
    >>> loss.backward()
    """

    def __init__(self, learners: Sequence[MetaLearner]) -> None:
        super().__init__()
        self.learners = nn.ModuleList(_checked(learners))
        first, *others = self.learners
        for learner in others:
            learner.rule = first.rule

    def __len__(self) -> int:
        """Return the number of learners."""
        return len(self.learners)

    def __getitem__(self, index: int) -> MetaLearner:
        """Return one learner."""
        check_index("index", index, len(self))
        return list(self)[index]

    def __iter__(self) -> Iterator[MetaLearner]:
        """Return the learners one after the other."""
        return iter(self.learners)  # type: ignore[arg-type]

    def forward(self, episodes: Episode, *, keys: Tensor | None = None) -> Tensor:
        """Return the mean of all learners' losses after adaptation, with its meta-gradient.

        Args:
            episodes: Tasks, with a leading task axis, whose inputs and targets are tuples with an
                entry for every learner.
            keys: The tasks' random keys `[num_tasks]`, int64; drawn from PyTorch's generator if not
                given. Every learner's are derived from them.

        Raises:
            TypeError: If the episodes are of the wrong kind.
            ValueError: If they are not of as many distributions as there are learners, or as a
                learner's `forward`.
        """
        num_tasks = check_episodes(episodes)
        _check_zipped(episodes, len(self))
        keys = draw_keys(num_tasks, device=self.device) if keys is None else keys
        check_keys(keys, num_tasks)
        losses = [
            learner(unzipped(episodes, index), keys=derive_key(keys, index))
            for index, learner in enumerate(self)
        ]
        return torch.stack(losses).mean()

    @property
    def device(self) -> torch.device:
        """Where the parameters are, and the episodes must be."""
        return self[0].device

    @property
    def carry(self) -> nn.ModuleList:
        """What every learner carries from step to step."""
        return nn.ModuleList(learner.carry for learner in self)

    @property
    def diagnostics(self) -> dict[str, Tensor]:
        """Those of the learners' last calls that all of them have, joined."""
        each = [learner.diagnostics for learner in self]
        names = [name for name in each[0] if all(name in of_one for of_one in each)]
        return {name: torch.cat([of_one[name] for of_one in each]) for name in names}


def unzipped(episodes: Episode, index: int) -> Episode:
    """Return the tasks of one of the distributions that were zipped."""
    return Episode(*(Batch(*(part[index] for part in batch)) for batch in episodes))


def _check_zipped(episodes: Episode, count: int) -> None:
    """Raise unless these have a part for every learner."""
    for batch in episodes:
        for name, part in batch._asdict().items():
            if not (isinstance(part, tuple) and len(part) == count):
                got = f"{name} = {brief(part)}"
                fix = "Sample them from data.Zipped, with a distribution for every learner."
                raise invalid("episodes of a mixture", f"have tuples of {count}", got, fix)


def _checked(learners: Any) -> list[MetaLearner]:
    """Return learners as a list; raise unless they can learn one rule."""
    fix = "Write Mixture([build(width) for width in (16, 32)]), with equal rules."
    learners = learners_of("Mixture", learners, fix)
    if len(set(map(id, learners))) < len(learners):
        raise invalid("learners of a mixture", "be different ones", "one of them twice", fix)
    first, shapes = learners[0], _shapes(learners[0])
    for learner in learners[1:]:
        rules = first.problem.rule, learner.problem.rule
        if rules[0] != rules[1]:
            got = f"{rules[0]} and {rules[1]}"
            raise invalid("rules of a mixture", "be equal", got, fix)
        if (other := _shapes(learner)) != shapes:
            name = next(name for name in {**shapes, **other} if shapes.get(name) != other.get(name))
            got = f"rule.{name} of {shapes.get(name, 'none')} and {other.get(name, 'none')}"
            fix = "Learn what has the same shape for all models: inner.LSTM, inner.Turtle, "
            fix += "inner.LearnedRate(rule, 'scalar'), inner.Learned(rule, 'lr')."
            raise invalid("what a mixture learns about its rule", "fit every model", got, fix)
    return learners


def _shapes(learner: MetaLearner) -> dict[str, list[int]]:
    return {name: list(param.shape) for name, param in learner.rule.named_parameters()}
