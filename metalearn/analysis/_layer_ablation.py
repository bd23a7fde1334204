"""Ablation of adaptation by layer: each layer frozen, and each layer adapting alone."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from metalearn._brief import brief
from metalearn._checks import check_count, invalid, mistyped
from metalearn._results import Evaluation
from metalearn.analysis._frozen import frozen, select_fast
from metalearn.analysis._plot import axes_or_new, check_score
from metalearn.data import TaskDistribution
from metalearn.evaluation import bare, evaluate_each
from metalearn.outer import MetaLearner
from metalearn.outer._select import Selection
from metalearn.types import Episode


@dataclass(frozen=True, eq=False)
class LayerAblation:
    """The result of `layer_ablation`: evaluations on the same tasks.

    Attributes:
        frozen: With only this layer frozen, by layer.
        alone: With only this layer adapting, by layer.
        whole: With all layers adapting.
    """

    frozen: dict[str, Evaluation]
    alone: dict[str, Evaluation]
    whole: Evaluation

    def plot(self, ax: Any = None, *, score: str = "loss") -> Any:
        """Draw two bars per layer and a line for all layers; return matplotlib's axes."""
        check_score(score, self.frozen)
        ax, width = axes_or_new(ax), 0.4
        bars = {"freezing only this": self.frozen, "adapting only this": self.alone}
        for index, (label, evaluations) in enumerate(bars.items()):
            summaries = [evaluation[score] for evaluation in evaluations.values()]
            places = [layer + (index - 0.5) * width for layer in range(len(summaries))]
            means = [summary.mean for summary in summaries]
            intervals = [summary.ci95 for summary in summaries]
            ax.bar(places, means, width, yerr=intervals, label=label)
        ax.axhline(self.whole[score].mean, color="0.3", linestyle="--", label="adapting all")
        ax.set_xticks(range(len(self.frozen)), list(self.frozen))
        ax.set_ylabel(score)
        ax.legend()
        return ax

    def __repr__(self) -> str:
        rows = [f"all adapt: {self.whole}"]
        for layer in self.frozen:
            rows += [f"{layer} frozen: {self.frozen[layer]}", f"{layer} alone: {self.alone[layer]}"]
        return "\n".join(rows)


def layer_ablation(
    learner: MetaLearner,
    episodes: TaskDistribution | Iterable[Episode],
    layers: Mapping[str, Selection] | Iterable[str | Sequence[str]] | None = None,
    *,
    num_tasks: int,
    num_steps: int | None = None,
    metrics: Mapping[str, Callable[[Any, Any], Any]] = {},
    generator: torch.Generator | None = None,
) -> LayerAblation:
    """Evaluate a trained learner with each layer frozen in adaptation and with each adapting alone.

    A frozen layer keeps its learned initial values; it was trained to adapt, and only its updates
    are skipped. A rule that mixes layers, such as one that clips the norm of the whole gradient,
    sees the gradients of frozen ones too.

    Args:
        learner: The learner; it is not changed.
        episodes: As for `evaluate`.
        layers: What counts as a layer: a list of patterns, or a dict of them by name, each as a
            learner's `fast=`. `{"C1": ["features.0", "features.1"]}` makes a convolution and its
            batch normalisation one layer. By default, each module that owns fast parameters.
        num_tasks: Number of tasks, at least 1.
        num_steps: Number of adaptation steps, at least 0; as in training if not given.
        metrics: As for `evaluate`.
        generator: As for `evaluate`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a pattern matches no fast parameter, a count is too low, or the episodes end
            before `num_tasks`.

    References:
        Arnold et al., "Decoupling adaptation from modeling with meta-optimizers for meta learning",
            2019 (Figure 2, left and middle).

    >>> import torch.nn.functional as F
    >>> from metalearn import data, inner, models, outer
    >>> learner = outer.MAML(models.mlp(1, [8], 1), F.mse_loss, inner.SGD(lr=0.01), num_steps=2)
    >>> ablation = layer_ablation(learner, data.Sinusoid(k_shot=5, num_query=5), num_tasks=20)
    >>> list(ablation.frozen), bool(ablation.alone["2"]["loss"].mean > 0)
    (['0', '2'], True)
    """
    learner = bare(learner, MetaLearner)
    num_steps = learner.num_steps if num_steps is None else num_steps
    check_count("num_steps", num_steps, minimum=0)
    named = _named(layers, learner)
    everything = set(learner.meta.init)
    chosen = [set(select_fast("layers", layer, learner)) for layer in named.values()]
    fixed = [set(), *chosen, *(everything - names for names in chosen)]
    conditions = [(frozen(learner, names), num_steps) for names in fixed]
    whole, *results = evaluate_each(
        conditions, episodes, num_tasks=num_tasks, metrics=metrics, generator=generator
    )
    halves = results[: len(named)], results[len(named) :]
    without, alone = (dict(zip(named, half, strict=True)) for half in halves)
    return LayerAblation(without, alone, whole)


def _named(layers: Any, learner: MetaLearner) -> dict[str, Selection]:
    """Return the selections that count as layers, by name."""
    if layers is None:
        owned: dict[str, list[str]] = {}
        for name in learner.meta.init:
            owned.setdefault(name.rpartition(".")[0] or name, []).append(name)
        return dict(owned)
    if isinstance(layers, str) or not isinstance(layers, Iterable):
        fix = "Write layers=['features', 'head'], say."
        raise mistyped("layers", "be a list or a dict of patterns", brief(layers), fix)
    if not isinstance(layers, Mapping):
        layers = {
            ", ".join(layer) if isinstance(layer, list | tuple) else str(layer): layer
            for layer in layers
        }
    if not layers:
        raise invalid("layers", "be at least one", layers, "Leave it out for every module.")
    return dict(layers)
