"""The transfer baselines: `MetaLearner` with their choices filled in."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch.nn as nn
from torch import Tensor

from metalearn._attributes import deep_copied
from metalearn._checks import check_kind
from metalearn.baselines._cosine_head import CosineHead
from metalearn.baselines._transfer import Transfer
from metalearn.functional import cross_entropy
from metalearn.inner import Adam, UpdateRule
from metalearn.outer import MetaLearner

Criterion = Callable[..., Tensor]


def TrainFromScratch(  # noqa: N802
    model: nn.Module,
    criterion: Criterion = cross_entropy,
    rule: UpdateRule = Adam(1e-3),
    *,
    num_steps: int = 100,
    estimator: Transfer = Transfer(),
) -> MetaLearner:
    """Return a learner that trains from a fixed random start in every task; it needs no `fit`.

    With many support examples and steps it is the upper bound to which Arnold et al. compare
    adaptation.

    Args:
        model: Any module; its initial parameters become constants.
        criterion: `(output, y) -> scalar`.
        rule: How a task is trained.
        num_steps: Number of steps, at least 1.
        estimator: Size of the mini-batches, and how often the best parameters are selected.

    References:
        Huisman, "Revisiting learned optimizers in few-shot settings", 2021, table 2 and appendix
        A.1. Arnold et al., "Decoupling adaptation from modeling with meta-optimizers for meta
        learning", 2019, table 2 (upper bound).
    """
    return MetaLearner(
        model, criterion, rule, num_steps=num_steps, estimator=estimator, learn_init=False
    )


def Pretraining(  # noqa: N802
    model: nn.Module,
    criterion: Criterion = cross_entropy,
    rule: UpdateRule = Adam(1e-3),
    *,
    num_steps: int = 100,
    estimator: Transfer = Transfer(),
) -> MetaLearner:
    """Return a learner without an inner loop: `fit` trains the model on all tasks' data.

    `fit` takes the data as `data.MiniBatches`.

    Args:
        model: Any module, with one output per training class, or the outputs of the regression.
        criterion: `(output, y) -> scalar`; `F.mse_loss` for regressions.
        rule: How `adapt` would train the whole model.
        num_steps: Number of steps of `adapt`, at least 1.
        estimator: Size of its mini-batches, and how often the best parameters are selected.

    References:
        Huisman, "Revisiting learned optimizers in few-shot settings", 2021, algorithm 1.

    >>> import torch
    >>> from metalearn import data, fit, models
    >>> images = data.ClassImages(torch.randint(256, (10, 20, 8, 8), dtype=torch.uint8))
    >>> model = models.conv4(1, len(images), num_filters=4, num_layers=2)
    >>> learner = Pretraining(model)
    >>> batches = data.MiniBatches(images, 16)
    >>> optimizer = torch.optim.Adam(learner.parameters(), lr=1e-3)
    >>> _ = fit(learner, batches, optimizer, 3, meta_batch_size=1, progress=False)
    >>> Finetuning(model.features, nn.Linear(4, 5)).num_steps
    100

    A regression, whose features are all layers but the last:

    >>> import torch.nn.functional as F
    >>> model = models.mlp(1, [40, 40], 1)
    >>> learner = Pretraining(model, F.mse_loss)
    >>> batches = data.MiniBatches(data.Sinusoid(5, 50), 16)
    >>> optimizer = torch.optim.Adam(learner.parameters(), lr=1e-3)
    >>> _ = fit(learner, batches, optimizer, 3, meta_batch_size=1, progress=False)
    >>> finetuning = Finetuning(model[:-1], nn.Linear(40, 1), F.mse_loss)
    """
    return MetaLearner(model, criterion, rule, num_steps=num_steps, estimator=estimator)


def Finetuning(  # noqa: N802
    body: nn.Module,
    head: nn.Module,
    criterion: Criterion = cross_entropy,
    rule: UpdateRule = Adam(1e-3),
    *,
    num_steps: int = 100,
    estimator: Transfer = Transfer(),
) -> MetaLearner:
    """Return a learner that trains a new head on frozen features in every task; it needs no `fit`.

    Args:
        body: The pretrained features; they are copied.
        head: A new output layer, the start of every task.
        criterion: `(output, y) -> scalar`.
        rule: How a task is trained.
        num_steps: Number of steps, at least 1.
        estimator: Size of the mini-batches, and how often the best parameters are selected.

    Raises:
        TypeError: If body or head is not a module.

    References:
        Huisman, "Revisiting learned optimizers in few-shot settings", 2021, section 2.2.1 and
        appendix A.1.
    """
    example = "Finetuning(model.features, nn.Linear(800, 5)), say"
    for what, part in (("body", body), ("head", head)):
        check_kind(what, part, nn.Module, "a module", example)
    model = nn.Sequential(OrderedDict(body=deep_copied(body).requires_grad_(False), head=head))
    start: Any = {"fast": "head", "learn_init": False}
    return MetaLearner(model, criterion, rule, num_steps=num_steps, estimator=estimator, **start)


def CentroidFinetuning(  # noqa: N802
    body: nn.Module,
    num_features: int,
    num_classes: int,
    criterion: Criterion = cross_entropy,
    rule: UpdateRule = Adam(1e-3),
    *,
    num_steps: int = 100,
    estimator: Transfer = Transfer(),
) -> MetaLearner:
    """Return `Finetuning` with a `CosineHead`, for features that were pretrained under one.

    Args:
        body: The pretrained features, of a model with a `CosineHead`; they are copied.
        num_features: Size of the features, at least 1.
        num_classes: Number of classes in a task, at least 1.
        criterion: `(output, y) -> scalar`.
        rule: How a task is trained.
        num_steps: Number of steps, at least 1.
        estimator: Size of the mini-batches, and how often the best parameters are selected.

    References:
        Huisman, "Revisiting learned optimizers in few-shot settings", 2021, section 2.2.2 and
        appendix A.1. Chen et al., "A closer look at few-shot classification", ICLR 2019.
    """
    head = CosineHead(num_features, num_classes)
    return Finetuning(body, head, criterion, rule, num_steps=num_steps, estimator=estimator)
