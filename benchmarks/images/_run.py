"""Train and judge methods for few-shot images.

Either each for the same time, `minutes` of CPU time of one thread on a CPU and otherwise of wall
time, without evaluations, with an outer rate that follows a half cosine to 0; or by the problem's
own protocol: a number of tasks, validated now and then, the best state judged.
"""

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.images._methods import Method
from benchmarks.images._problems import Problem
from benchmarks.papers._experiment import Settings
from metalearn import (
    Evaluation,
    History,
    data,
    evaluate,
    fit,
    functional,
    outer,
)
from metalearn.types import Episode

METRICS = {"accuracy": functional.accuracy}
LOOK_EVERY = 20
"""Iterations between looks at the clock."""
TEST_SEED, VALIDATION_SEED = 1, 2
STAYING = "training sets, each for four steps"
Batches = data.TaskDistribution | Iterable[Episode]


@dataclass(frozen=True)
class Staying(Iterable[Episode]):
    """Batches of tasks that stay for four meta-steps."""

    tasks: data.TaskDistribution
    size: int

    def __iter__(self) -> Iterator[Episode]:
        return (batch for batch in self.tasks.batches(self.size) for _ in range(4))


@dataclass(frozen=True)
class Run:
    """One method on one problem, from one seed.

    Attributes:
        problem: What is classified.
        method: How.
        images: The problem's classes, on the device.
        settings: How it is run.
        seed: Of the start and of all training tasks.
    """

    problem: Problem
    method: Method
    images: dict[str, data.ClassImages]
    settings: Settings
    seed: int = 0

    def trained(self) -> tuple[outer.MetaLearner, dict[str, Any]]:
        """Return the learner, and the seconds and iterations that it was trained for."""
        learner, batches, size = self.begun()
        if batches is None:
            return learner, {"seconds": 0, "iterations": 0}
        if self.settings.minutes is not None:
            return learner, self.for_minutes(learner, batches, size)
        return learner, self.by_protocol(learner, batches, size)

    def trained_to(self, num_iterations: int) -> outer.MetaLearner:
        """Return the learner as it is after some iterations, from the last checkpoint on."""
        learner, batches, size = self.begun()
        if batches is not None:
            self.fitted(learner, batches, size, num_iterations)
        return learner

    def begun(self) -> tuple[outer.MetaLearner, Batches | None, int | None]:
        """Return the learner at its start, what it trains on, and how many tasks to draw of it."""
        torch.manual_seed(self.seed)
        tasks = self.problem.sampler(self.images["train"], self.method.shots)
        flat = self.method.sees == "mini-batches"
        num_classes = len(self.images["train"]) if flat else tasks.n_way
        statistics, filters = self.settings.statistics, self.settings.filters
        model = self.problem.network(self.method, num_classes, statistics, filters)
        learner = self.method.build(model).to(self.settings.device)
        compile, cuda_graph = self.settings.compile, self.settings.cuda_graph
        learner.set_batching(compile=compile, cuda_graph=cuda_graph)
        return learner, *self.seen(tasks)

    def seen(self, tasks: data.EpisodeSampler) -> tuple[Batches | None, int | None]:
        """Return what the method trains on, and the number of tasks to draw of it."""
        if self.method.sees == STAYING:
            return Staying(data.SupportAsQuery(tasks), self.meta_batch_size), None
        known: dict[str, tuple[data.TaskDistribution, int]] = {
            "episodes": (tasks, self.meta_batch_size),
            "training sets": (data.SupportAsQuery(tasks), self.meta_batch_size),
            "mini-batches": (data.MiniBatches(self.images["train"], 16), 1),
        }
        if self.method.sees not in known:
            return None, None
        batches, size = known[self.method.sees]
        return (data.CudaGraph(batches) if self.settings.cuda_graph else batches), size

    @property
    def meta_batch_size(self) -> int:
        """Tasks in a meta-step."""
        of_problem = None if self.settings.minutes is not None else self.problem.meta_batch_size
        return self.settings.meta_batch_size or of_problem or self.method.meta_batch_size

    @property
    def iterations(self) -> int:
        """Meta-steps of a training on the problem's number of tasks."""
        return self.settings.iterations(self.problem.num_tasks // self.meta_batch_size)

    def optimizer(self, learner: outer.MetaLearner) -> torch.optim.Optimizer:
        """Return the method's optimizer of the learner."""
        fused = self.settings.device != "cpu"
        return self.method.optimizer(learner.parameters(), lr=self.method.lr, fused=fused)  # type: ignore[call-arg]

    def for_minutes(
        self, learner: outer.MetaLearner, batches: Batches, size: int | None
    ) -> dict[str, Any]:
        """Train until the time is over, and look at the validation classes now and then."""
        optimizer = self.optimizer(learner)
        budget, seconds, iterations, looks = 60 * (self.settings.minutes or 0), 0.0, 0, 0
        if isinstance(batches, data.TaskDistribution) and size is not None:
            learner(batches.sample(size, device=learner.device))  # the checks of a first call
        while seconds < budget:
            optimizer.param_groups[0]["lr"] = self.method.lr * (
                0.5 + 0.5 * math.cos(math.pi * seconds / budget)
            )
            start = self.clock()
            options = {"meta_batch_size": size, "max_grad_norm": self.method.max_grad_norm}
            fit(learner, batches, optimizer, LOOK_EVERY, progress=False, **options)  # type: ignore[arg-type]
            seconds += self.clock() - start
            iterations += LOOK_EVERY
            if math.floor(seconds / budget * self.settings.looks) > looks:
                looks += 1
                mean = self.score(learner, "val", 200)["accuracy"].mean
                found = f"{iterations} iterations, {100 * mean:.1f} %"
                print(f"{seconds:6.0f} s, {found}", flush=True)
        return {"seconds": round(seconds), "iterations": iterations}

    def by_protocol(
        self, learner: outer.MetaLearner, batches: Batches, size: int | None
    ) -> dict[str, Any]:
        """Train on the problem's number of tasks, and load the best of the validations."""
        start, every = self.clock(), max(self.problem.validate_every // self.meta_batch_size, 1)
        options = {"validate": self.error, "validate_every": every}
        history = self.fitted(learner, batches, size, self.iterations, **options)
        learner.load_state_dict(history.best_state)  # type: ignore[arg-type]
        return {"seconds": round(self.clock() - start), "iterations": self.iterations}

    def fitted(
        self,
        learner: outer.MetaLearner,
        batches: Batches,
        size: int | None,
        num_iterations: int,
        **options: Any,
    ) -> History:
        """Train up to a number of iterations, from the last checkpoint on."""
        folder = self.settings.checkpoints
        return fit(
            learner,
            batches,
            self.optimizer(learner),
            num_iterations,
            meta_batch_size=size,
            max_grad_norm=self.method.max_grad_norm,
            checkpoint_dir=None if folder is None else folder / f"seed {self.seed}",
            progress=False,
            **options,
        )

    def clock(self) -> float:
        """Return the time that counts: a single thread's own, or all that passes."""
        if self.settings.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize(self.settings.device)
        return time.perf_counter()

    def error(self, learner: Any) -> float:
        """Return the error on validation tasks, the same ones each time."""
        scored = self.score(learner, "val", self.settings.tasks, VALIDATION_SEED)
        return 1 - scored["accuracy"].mean

    def score(
        self, learner: outer.MetaLearner, split: str, num_tasks: int, seed: int = TEST_SEED
    ) -> Evaluation:
        """Evaluate on the tasks of one split, the same ones each time."""
        tasks = self.problem.sampler(self.images[split])
        judged = self.method.judged(learner, tasks).eval()
        generator = torch.Generator().manual_seed(seed)
        steps = self.method.steps_at_test
        options = {"num_tasks": num_tasks, "metrics": METRICS, "generator": generator}
        result = evaluate(judged, tasks, num_steps=steps, **options)
        learner.train()
        return result
