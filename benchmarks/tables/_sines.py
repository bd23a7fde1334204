"""Huisman's (2021) sine regression: what its tables and figures vary.

a sin(x - p), MLP 1-40-40-1, 50 query points, 70,000 training tasks seen once, Adam at 1e-3; every
2,500 tasks a validation on 1,000 tasks, whose best state is judged. Where there are several steps,
gradients are clipped at 10. The network has PyTorch's initialisation; the thesis' code sets its
biases to zero.
"""

from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F

from benchmarks.papers._experiment import (
    TEST_SEED,
    VALIDATION_SEED,
    Experiment,
    Settings,
    score,
    train,
)
from metalearn import Summary, data, inner, models, outer

TASKS = 70_000


@dataclass(frozen=True)
class Variant:
    """A way to learn sines.

    Attributes:
        method: "MAML", "LSTM" or "TURTLE".
        num_steps: T, the inner steps.
        k_shot: Support points of a task.
        order: Of the meta-gradient.
        meta_batch_size: Tasks in a meta-step.
        inputs: What TURTLE's network sees.
        beta: Of the running means among these.
        hidden: Widths of its hidden layers.
        activation: Of these.
        rates: Whether it has a learned rate for every parameter. They start at 0.01; the thesis
            does not say, and its code draws them from U[0, 1).
    """

    method: str = "TURTLE"
    num_steps: int = 1
    k_shot: int = 5
    order: int = 2
    meta_batch_size: int = 1
    inputs: tuple[str, ...] = ("grad",)
    beta: float = 0.0
    hidden: tuple[int, ...] = (20,) * 5
    activation: str = "relu"
    rates: bool = False

    @property
    def rule(self) -> inner.UpdateRule:
        """The update rule."""
        if self.method == "MAML":
            return inner.SGD(0.01)
        if self.method == "LSTM":
            # the middle of the ranges that its authors draw its gates' biases from
            return inner.LSTM(lr=0.011, forget_bias=4.5)
        network = {"hidden": self.hidden, "activation": self.activation, "beta": self.beta}
        if self.rates:
            turtle = inner.Turtle(self.inputs, **network, lr=0.01)
            return inner.LearnedRate(turtle, per="parameter")
        return inner.Turtle(self.inputs, **network)

    def build(self, seed: int, compile: bool) -> outer.MetaLearner:
        """Return a learner to train."""
        rule, order = self.rule, 1 if self.method == "LSTM" else self.order
        estimator: outer.MetaGradient = outer.Unrolled(order=order)
        if self.num_steps > 1 and self.method != "LSTM":
            estimator = outer.ClipPerTask(estimator, value=10.0)
            rule = inner.Clipped(rule, value=10.0)
        return outer.MetaLearner(
            models.mlp(1, [40, 40], 1),
            F.mse_loss,
            rule,
            num_steps=self.num_steps,
            estimator=estimator,
            compile=compile,
        )

    def trained(self, settings: Settings) -> outer.Replicas:
        """Train all seeds, and return them at their best validations."""
        tasks = data.Sinusoid(self.k_shot, num_query=50)
        replicas, _ = train(
            partial(self.build, compile=settings.compile),
            tasks,
            settings,
            num_iterations=TASKS // self.meta_batch_size,
            meta_batch_size=self.meta_batch_size,
            max_grad_norm=0.25 if self.method == "LSTM" else None,
            validate=tasks,
            validate_every=2500 // self.meta_batch_size,
        )
        return replicas


def validated(settings: Settings, variant: Variant, column: str) -> dict[str, Summary]:
    """Train, and return the errors of the best validations."""
    tasks = data.Sinusoid(variant.k_shot, num_query=50)
    seeds = [VALIDATION_SEED] * settings.seeds
    return {column: score(variant.trained(settings), tasks, num_tasks=1000, task_seeds=seeds)}


def tested(settings: Settings, variant: Variant, column: str) -> dict[str, Summary]:
    """Train, and return the errors on the thesis' one set of 2,000 test tasks for all runs."""
    tasks, seeds = data.Sinusoid(variant.k_shot, num_query=50), [TEST_SEED] * settings.seeds
    return {column: score(variant.trained(settings), tasks, num_tasks=2000, task_seeds=seeds)}


def validation(row: str, column: str, variant: Variant, paper: str = "") -> Experiment:
    """Return a cell of the errors of the best validations."""
    return Experiment(row, {column: paper}, partial(validated, variant=variant, column=column))
