"""Train and judge methods for few-shot images.

Either each for the same time, `minutes` of CPU time of one thread on a CPU and otherwise of wall
time, without evaluations, with an outer rate that follows a half cosine to 0; or by the problem's
own protocol: a number of tasks, validated now and then, the best state judged.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torchvision.utils import save_image

from benchmarks.images._methods import Method
from benchmarks.images._problems import Problem
from benchmarks.papers._curve import curve
from benchmarks.papers._experiment import Cells, Experiment, Settings, Table
from metalearn import (
    Evaluation,
    Summary,
    analysis,
    data,
    evaluate,
    fit,
    functional,
    outer,
    over_seeds,
)
from metalearn.types import Episode

METRICS = {"accuracy": functional.accuracy}
LOOK_EVERY = 20
"""Iterations between looks at the clock."""
TEST_SEED, VALIDATION_SEED = 1, 2


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

    def trained(
        self, num_iterations: int | None = None
    ) -> tuple[outer.MetaLearner, dict[str, Any]]:
        """Return the learner, and the seconds and iterations that it was trained for.

        `num_iterations` is where to stop; the problem's and settings' if not given.
        """
        torch.manual_seed(self.seed)
        tasks = self.problem.sampler(self.images["train"], self.method.shots)
        flat = self.method.sees == "mini-batches"
        num_classes = len(self.images["train"]) if flat else tasks.n_way
        statistics, filters = self.settings.statistics, self.settings.filters
        model = self.problem.network(self.method, num_classes, statistics, filters)
        learner = self.method.build(model).to(self.settings.device)
        compile, cuda_graph = self.settings.compile, self.settings.cuda_graph
        learner.set_batching(compile=compile, cuda_graph=cuda_graph)
        batches: dict[str, data.TaskDistribution] = {
            "episodes": tasks,
            "training sets": data.SupportAsQuery(tasks),
            "mini-batches": data.MiniBatches(self.images["train"], 16),
        }
        if cuda_graph:
            batches = {name: data.CudaGraph(of_name) for name, of_name in batches.items()}
        if self.method.sees not in batches:
            return learner, {"seconds": 0, "iterations": 0}
        seen, size = batches[self.method.sees], 1 if flat else self.meta_batch_size
        if self.settings.minutes is not None:
            return learner, self.for_minutes(learner, seen, size)
        return learner, self.by_protocol(learner, seen, size, num_iterations or self.iterations)

    @property
    def meta_batch_size(self) -> int:
        """Tasks in a meta-step."""
        return self.settings.meta_batch_size or self.method.meta_batch_size

    @property
    def iterations(self) -> int:
        """Meta-steps of a training on the problem's number of tasks."""
        return self.settings.iterations(self.problem.num_tasks // self.meta_batch_size)

    def optimizer(self, learner: outer.MetaLearner) -> torch.optim.Optimizer:
        """Return the method's optimizer of the learner."""
        fused = self.settings.device != "cpu"
        return self.method.optimizer(learner.parameters(), lr=self.method.lr, fused=fused)  # type: ignore[call-arg]

    def for_minutes(
        self, learner: outer.MetaLearner, batches: data.TaskDistribution, size: int
    ) -> dict[str, Any]:
        """Train until the time is over, and look at the validation classes now and then."""
        optimizer = self.optimizer(learner)
        budget, seconds, iterations, looks = 60 * (self.settings.minutes or 0), 0.0, 0, 0
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
        self,
        learner: outer.MetaLearner,
        batches: data.TaskDistribution,
        size: int,
        num_iterations: int,
    ) -> dict[str, Any]:
        """Train for a number of iterations, and load the best of the validations on the way."""
        folder, start = self.settings.checkpoints, self.clock()
        history = fit(
            learner,
            batches,
            self.optimizer(learner),
            num_iterations,
            meta_batch_size=size,
            max_grad_norm=self.method.max_grad_norm,
            validate=self.error,
            validate_every=max(self.problem.validate_every // size, 1),
            checkpoint_dir=None if folder is None else folder / f"seed {self.seed}",
            progress=False,
        )
        learner.load_state_dict(history.best_state)
        return {"seconds": round(self.clock() - start), "iterations": num_iterations}

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
        judged = self.method.judged(learner, tasks.n_way).eval()
        generator = torch.Generator().manual_seed(seed)
        steps = self.method.steps_at_test
        options = {"num_tasks": num_tasks, "metrics": METRICS, "generator": generator}
        result = evaluate(judged, tasks, num_steps=steps, **options)
        learner.train()
        return result


def percent(summary: Summary) -> Summary:
    """Return accuracies in percent."""
    tasks = summary.tasks and percent(summary.tasks)
    return Summary(100 * summary.values, summary.over, tasks, summary.num_outliers)


def run(settings: Settings, problem: Problem, method: Method) -> Cells:
    """Train and judge one seed after the other; return accuracies, time and iterations."""
    images = problem.read(settings.device)
    splits = [*(split for split in images if split not in ("train", "val")), "val"]
    scores: dict[str, list[Evaluation]] = {split: [] for split in splits}
    found: dict[str, Any] = {}
    for seed in range(settings.seeds):
        one = Run(problem, method, images, settings, seed)
        device, autocast = torch.device(settings.device).type, settings.autocast
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            learner, found = one.trained()
            for split, of_split in scores.items():
                of_split.append(one.score(learner, split, settings.tasks))
    summaries = {
        split: (over_seeds(each) if len(each) > 1 else each[0])["accuracy"]
        for split, each in scores.items()
    }
    cells: Cells = {split: percent(summary) for split, summary in summaries.items()}
    statistics = scores["val"][0].batch_statistics
    words = {"iterations": f"{found['iterations']:,}", "time": f"{found['seconds']} s"}
    return {**cells, **words, "batch statistics": statistics}


def run_curve(settings: Settings, problem: Problem, method: Method, split: str) -> Cells:
    """Train one learner, and return its accuracies on a split's tasks on the way."""
    images = problem.read(settings.device)
    one, found = Run(problem, method, images, settings), []

    def train_to(at: int) -> None:
        found[:] = [one.trained(at)[0]]

    def score() -> Summary:
        return percent(one.score(found[0], split, settings.tasks)["accuracy"])

    return curve(settings, one.iterations, train_to, score)


def run_pairs(settings: Settings, problem: Problem) -> Cells:
    """Train a representation, and return the extreme distances between two data sets' images."""
    images = problem.read(settings.device)
    learner, _ = Run(problem, problem.methods["hyper-representation"], images, settings).trained()
    generator = torch.Generator().manual_seed(TEST_SEED)
    sets = [
        problem.sampler(images[split]).sample(1, generator=generator).query
        for split in ("train", "test")
    ]
    distances = analysis.feature_distances(learner.model.get_submodule("features"), Episode(*sets))
    values, cells = distances.values[0], {}
    for name, pair in (("closest", distances.closest[0]), ("farthest", distances.farthest[0])):
        of_train, of_test = pair.tolist()
        cells[name] = Summary(values[of_train, of_test][None].cpu())
        if settings.pictures:
            path = settings.pictures / f"franceschi_figure_2_{name}.png"
            both = [each.x[0, index] for each, index in zip(sets, pair.tolist(), strict=True)]
            path.parent.mkdir(parents=True, exist_ok=True)
            save_image(torch.stack(both), path)
    return {**cells, "mean": Summary(values.mean()[None].cpu())}


def table(
    title: str,
    problems: dict[str, Problem],
    paper: Callable[[str, str], str],
    rows: Callable[[Problem], dict[str, Method]] = lambda problem: problem.methods,
) -> Table:
    """Return a table of methods on problems.

    Args:
        title: What it is.
        problems: The problems, by what rows say of them; "" says nothing.
        paper: The paper's cell of a problem and a method.
        rows: The methods of a problem.
    """
    experiments = [
        Experiment(
            ", ".join(filter(None, (name, of_problem))),
            {"test": paper(of_problem, name)},
            partial(run, problem=problem, method=method),
            problem.archives,
        )
        for of_problem, problem in problems.items()
        for name, method in rows(problem).items()
    ]
    return Table(title, experiments, lower_is_better=False, images=True)
