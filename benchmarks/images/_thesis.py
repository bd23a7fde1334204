"""Huisman (2021), section 4.1.2: image classification on miniImageNet and CUB.

64 filters, 16 query images a class, Adam at 1e-3, 60,000 training tasks of one shot and 40,000 of
five, validated every 2,500 tasks on 600, the best state judged on 600. Transfer baselines see
mini-batches of 16, and train on a task for 100 steps on mini-batches of 4. The thesis' Table 3 has
the two numbers of tasks the other way round; these are those of its text.
"""

import torch.nn as nn
import torch.nn.functional as F

from benchmarks.images._methods import (
    Build,
    Method,
    by_centroids,
    cosine_pretraining,
    fine_tuned,
)
from benchmarks.images._problems import (
    LARGE,
    Problem,
    cub,
    cub_to_mini_imagenet,
    mini_imagenet,
    mini_imagenet_to_cub,
)
from metalearn import baselines, inner, outer


def _stepped(rule: inner.UpdateRule, num_steps: int, order: int = 2) -> Build:
    """Return a builder of learners whose gradients are clipped at 10, as its are."""

    def build(model: nn.Module) -> outer.MetaLearner:
        estimator = outer.ClipPerTask(outer.Unrolled(order=order), value=10.0)
        clipped = inner.Clipped(rule, value=10.0)
        return outer.MetaLearner(
            model, F.cross_entropy, clipped, num_steps=num_steps, estimator=estimator
        )

    return build


def _lstm(num_steps: int) -> Build:
    def build(model: nn.Module) -> outer.MetaLearner:
        rule = inner.LSTM(lr=0.011, forget_bias=4.5)
        return outer.FOMAML(model, F.cross_entropy, rule, num_steps=num_steps)

    return build


def methods(k_shot: int) -> dict[str, Method]:
    """Return the thesis' rows for a number of shots.

    MAML trains by 5 steps and is judged after 10. TURTLE is that of 5 steps on sines.
    """
    inputs = ("grad", "grad_history", "step")
    turtle = inner.LearnedRate(inner.Turtle(inputs, beta=0.9, lr=0.01), per="parameter")
    sgd, size = inner.SGD(0.01), 4 if k_shot == 1 else 2
    maml = {"lr": 1e-3, "meta_batch_size": size, "steps_at_test": 10}
    lstm_steps = 12 if k_shot == 1 else 5
    transfer = {"sees": "mini-batches", "lr": 1e-3, "meta_batch_size": 1}
    return {
        "TrainFromScratch": Method(baselines.TrainFromScratch, {}, "nothing"),
        "Finetuning": Method(baselines.Pretraining, {}, judged=fine_tuned, **transfer),
        "Centroid finetuning": Method(cosine_pretraining, {}, judged=by_centroids, **transfer),
        "LSTM": Method(_lstm(lstm_steps), {}, lr=1e-3, max_grad_norm=0.25, meta_batch_size=1),
        "MAML": Method(_stepped(sgd, 5), {}, **maml),
        "fo-MAML": Method(_stepped(sgd, 5, order=1), {}, **maml),
        "TURTLE": Method(_stepped(turtle, 5), {}, lr=1e-3, meta_batch_size=2),
    }


IMAGES = {
    "miniImageNet": (mini_imagenet, ("mini_imagenet",)),
    "CUB": (cub, ("CUB_200_2011",)),
    "miniImageNet to CUB": (mini_imagenet_to_cub, ("mini_imagenet", "CUB_200_2011")),
    "CUB to miniImageNet": (cub_to_mini_imagenet, ("mini_imagenet", "CUB_200_2011")),
}


def problem(name: str, k_shot: int) -> Problem:
    """Return one of its data sets with a number of shots."""
    images, archives = IMAGES[name]
    sizes = {"n_way": 5, "k_shot": k_shot, "num_query": 16}
    tasks, model = (60_000 if k_shot == 1 else 40_000), {**LARGE, "num_filters": 64}
    return Problem(images, sizes, model, methods(k_shot), archives, tasks, validate_every=2500)
