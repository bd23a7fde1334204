"""Sensitivity of adaptation to noise on the initial values of some layers, such as the head."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from metalearn._attributes import deep_copied
from metalearn._checks import as_list, check_count, check_not_negative, invalid
from metalearn._modules import get_tensor
from metalearn._results import Evaluation
from metalearn.analysis._frozen import frozen as freeze
from metalearn.analysis._frozen import select_fast
from metalearn.analysis._plot import draw_curve
from metalearn.data import TaskDistribution
from metalearn.evaluation import bare, evaluate_each
from metalearn.functional import normal
from metalearn.outer import MetaLearner
from metalearn.outer._select import Selection
from metalearn.types import Episode


@dataclass(frozen=True, eq=False)
class HeadNoise:
    """The result of `head_noise`.

    Attributes:
        evaluations: Evaluations on the same tasks, by standard deviation of the noise.
    """

    evaluations: dict[float, Evaluation]

    def plot(self, ax: Any = None, *, score: str = "loss") -> Any:
        """Draw the mean score with its 95 % interval over the noise; return matplotlib's axes."""
        return draw_curve(ax, self.evaluations, score, "standard deviation of the noise")

    def __repr__(self) -> str:
        lines = (f"std {std:g}: {evaluation}" for std, evaluation in self.evaluations.items())
        return "\n".join(lines)


def head_noise(
    learner: MetaLearner,
    episodes: TaskDistribution | Iterable[Episode],
    names: Selection,
    stds: Iterable[float],
    *,
    num_tasks: int,
    num_steps: int | None = None,
    frozen: Selection = False,
    metrics: Mapping[str, Callable[[Any, Any], Any]] = {},
    generator: torch.Generator | None = None,
    seed: int = 0,
) -> HeadNoise:
    """Evaluate a trained learner with Gaussian noise of several sizes added to its initial head.

    All evaluations use one draw of the noise, scaled.

    Args:
        learner: The learner; it is not changed.
        episodes: As for `evaluate`.
        names: Which fast parameters to perturb: a pattern such as "head", or as a learner's
            `fast=`.
        stds: Standard deviations of the noise, each at least 0.
        num_tasks: Number of tasks, at least 1.
        num_steps: Number of adaptation steps, at least 0; as in training if not given.
        frozen: Which fast parameters do not adapt, as `names`. In the paper these are the first
            three of four blocks.
        metrics: As for `evaluate`.
        generator: As for `evaluate`; it does not draw the noise.
        seed: Seed of the noise, from 0 to 2**62 - 1.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a pattern matches no fast parameter, a number is too low, or the episodes end
            before `num_tasks`.

    References:
        Arnold et al., "Decoupling adaptation from modeling with meta-optimizers for meta learning",
            2019 (Figure 2, right).

    >>> import torch.nn.functional as F
    >>> from metalearn import data, inner, models, outer
    >>> learner = outer.MAML(models.mlp(1, [8], 1), F.mse_loss, inner.SGD(lr=0.01), num_steps=2)
    >>> noise = head_noise(learner, data.Sinusoid(5, 5), "2", [0, 0.1, 1], frozen="0", num_tasks=20)
    >>> list(noise.evaluations)
    [0, 0.1, 1]
    """
    learner = bare(learner, MetaLearner)
    num_steps = learner.num_steps if num_steps is None else num_steps
    check_count("num_steps", num_steps, minimum=0)
    check_count("seed", seed, minimum=0)
    if seed >= 2**62:
        raise invalid("seed", "be below 2**62", seed)
    sizes = _sizes(stds)
    chosen = select_fast("names", names, learner)
    fixed = freeze(learner, select_fast("frozen", frozen, learner))
    conditions = [(_perturbed(fixed, chosen, std, seed), num_steps) for std in sizes]
    evaluations = evaluate_each(
        conditions, episodes, num_tasks=num_tasks, metrics=metrics, generator=generator
    )
    return HeadNoise(dict(zip(sizes, evaluations, strict=True)))


def _perturbed(learner: MetaLearner, names: list[str], std: float, seed: int) -> MetaLearner:
    """Return a copy of the learner with noise added to some of its parameters."""
    other = deep_copied(learner)
    for stream, name in enumerate(names):
        start = get_tensor(other.model, name)
        key = torch.tensor(seed, device=start.device)
        start.data.add_(std * normal(key, start.shape, stream, dtype=start.dtype))
    return other


def _sizes(stds: Any) -> list[float]:
    fix = "Write stds=[0, 0.01, 0.1, 1], say."
    sizes = as_list("stds", stds, fix=fix) if isinstance(stds, Iterable) else [stds]
    for std in sizes:
        check_not_negative("stds", std, fix=fix)
    if not sizes:
        raise invalid("stds", "be at least one number", "[]", fix)
    return sizes
