"""A cell's score: its accuracy on unseen tasks after a short meta-training."""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch.optim.lr_scheduler import LinearLR

from metalearn import inner, outer
from metalearn._checks import as_device, check_kind
from metalearn._fields import Check, Checked, Count, CountFromZero, Positive
from metalearn._random import random_numbers_kept
from metalearn.data import TaskDistribution
from metalearn.evaluation import evaluate
from metalearn.functional import accuracy
from metalearn.search._build import build
from metalearn.search._cell import Cell, Network
from metalearn.training import fit

Tasks = Annotated[
    TaskDistribution,
    Check(check_kind, TaskDistribution, "tasks", "data.EpisodeSampler(classes, 5, 1, 5)"),
]


@dataclass(frozen=True)
class ReptileScore(Checked):
    """Train a cell's network briefly by Reptile and return its accuracy on validation tasks.

    Every cell starts from the same seed and sees the same tasks. It pickles if its tasks do.

    Args:
        train: Classification tasks to train on, whose support set has a multiple of `num_steps`
            examples.
        validation: Validation tasks with the same number of classes.
        num_cells: Number of cells in the network, at least 1.
        num_filters: Number of its filters, at least 1.
        num_iterations: Number of meta-steps, at least 1.
        meta_batch_size: Number of tasks in a meta-step, at least 1.
        num_steps: Number of inner steps in training, at least 1, each on a part of the support set.
        num_steps_judged: Number of inner steps on a validation task, at least 1.
        inner_lr: Learning rate of the inner Adam, positive.
        outer_lr: Initial learning rate of the outer SGD, positive; it decays linearly to zero.
        num_tasks: Number of validation tasks, at least 1.
        seed: Seed of the initial parameters and the tasks, at least 0.
        device: Device for training.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a number is out of range.

    References:
        Nichol et al., "On first-order meta-learning algorithms", 2018.
        Kim et al., "Auto-Meta: Automated gradient based meta learner search", 2018.
    """

    train: Tasks
    validation: Tasks
    num_cells: Count = 3
    num_filters: Count = 16
    num_iterations: Count = 200
    meta_batch_size: Count = 5
    num_steps: Count = 5
    num_steps_judged: Count = 10
    inner_lr: Positive = 1e-3
    outer_lr: Positive = 1.0
    num_tasks: Count = 100
    seed: CountFromZero = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        super().__post_init__()
        as_device(self.device)

    def __call__(self, cell: Cell) -> float:
        """Return the accuracy, from 0 to 1."""
        generator = torch.Generator().manual_seed(self.seed)
        support = self.train.sample(1, generator=generator).support
        channels, size = support.x.shape[2], support.x.shape[-1]
        network = Network(cell, self.num_cells, self.num_filters)
        # Initialisation draws from the global generator, which is restored.
        with random_numbers_kept():
            torch.default_generator.manual_seed(self.seed)
            model = build(network, channels, int(support.y.max()) + 1, image_size=size)
        return self.judge(model)

    def judge(self, model: torch.nn.Module) -> float:
        """Train a model as a cell's network is trained, and return its accuracy."""
        generator = torch.Generator().manual_seed(self.seed)
        criterion, rule = F.cross_entropy, inner.Adam(self.inner_lr, betas=(0.0, 0.999))
        learner = outer.Reptile(
            model.to(self.device),
            criterion,
            rule,
            num_steps=self.num_steps,
            support_batches=self.num_steps,
            keep_state=True,
        )
        optimizer = torch.optim.SGD(learner.parameters(), lr=self.outer_lr)
        scheduler = LinearLR(optimizer, 1.0, 0.0, total_iters=self.num_iterations)
        fit(
            learner,
            self.train,
            optimizer,
            self.num_iterations,
            meta_batch_size=self.meta_batch_size,
            scheduler=scheduler,
            generator=generator,
            progress=False,
        )
        # without Adam's carried state, on whole support sets, which may be smaller than in training
        judged = outer.Reptile(learner.model, criterion, rule, num_steps=self.num_steps_judged)
        evaluation = evaluate(
            judged.eval(),
            self.validation,
            num_tasks=self.num_tasks,
            metrics={"accuracy": accuracy},
            generator=torch.Generator().manual_seed(self.seed),
        )
        return evaluation["accuracy"].mean
