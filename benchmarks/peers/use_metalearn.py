"""This library, from the environment that the driver runs in."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from _torch import criterion, load, network, system, tasks, wait
from _worker import System, serve
from _workload import Arrays, Workload

from metalearn import data, inner, models, outer
from metalearn.types import Batch, Episode

RULES = {"sgd": inner.SGD, "adam": inner.Adam}
LEARNED = {"lstm": inner.LSTM, "turtle": inner.Turtle}


class Own(torch.nn.Module):
    """A custom module, whose layers the library does not know."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


def build(workload: Workload, arrays: Arrays, variant: str, device: str) -> System:
    if workload.method == "sample":
        images = torch.randint(0, 256, (1000, 20, 28, 28), dtype=torch.uint8)
        distribution: Any = data.EpisodeSampler(
            data.ClassImages(images).to(device), 5, 1, workload.query // 5
        )
        distribution = data.CudaGraph(distribution) if variant == "CUDA graph" else distribution
        return System(
            lambda: wait(distribution.sample(workload.num_tasks, device=device), device), list, int
        )
    episodes = tasks(arrays, device)
    given = Episode(
        Batch(episodes.support_x, episodes.support_y), Batch(episodes.query_x, episodes.query_y)
    )
    conv4 = partial(models.conv4, 1, workload.n_way, num_filters=workload.num_filters)
    if workload.num_layers:
        model = network(workload, arrays, device)
    else:
        model = load(conv4() if workload.num_filters else models.mlp(1, [40, 40], 1), arrays)
    model = Own(model) if "by vmap" in variant else model
    torch.manual_seed(0)
    fixed = workload.rule in RULES
    rule = RULES[workload.rule](workload.lr) if fixed else LEARNED[workload.rule]()
    learner = outer.MetaLearner(
        model,
        criterion(workload),
        rule,
        num_steps=workload.num_steps,
        estimator=estimator(workload, variant),
        chunk_size=2 if "2 tasks at once" in variant else None,
        batching="loop" if "loop" in variant else "vmap",
        compile="step" if "by step" in variant else "compiled" in variant,
        cuda_graph="CUDA graph" in variant,
    ).to(device)
    if variant == "rule in a plain loop":
        return system(workload, plain_loop(workload, learner, given), learner.parameters(), device)
    if "seeds" in variant:
        return seeds(workload, learner, given, int(variant.split()[0]))
    measured = system(
        workload,
        lambda: learner(given).backward(),
        learner.parameters(),
        device,
        (lambda adam: partial(learner.compiled_step(adam), given)) if "step" in variant else None,
    )
    # its memory was taken at the recording
    return measured._replace(peak=int) if learner.cuda_graph else measured


def seeds(workload: Workload, learner: outer.MetaLearner, episodes: Episode, count: int) -> System:
    """Return a step of `count` learners, each on all tasks; the gradient is the first's."""
    replicas = outer.Replicas([copy.deepcopy(learner) for _ in range(count)])
    tasks = Episode(
        *(Batch(torch.cat([x] * count), torch.cat([y] * count)) for x, y, _ in episodes)
    )
    measured = system(
        workload,
        lambda: replicas(tasks).sum().backward(),
        replicas.parameters(),
        str(learner.device),
    )
    return measured._replace(gradient=lambda: [of_all[0] for of_all in measured.gradient()])


def estimator(workload: Workload, variant: str) -> Any:
    if workload.method == "reptile":
        return outer.ParameterDifference()
    kind = outer.Stepwise if "Stepwise" in variant else outer.Unrolled
    options = {"blocks": "layers.*"} if "by blocks" in variant else {}
    result = kind(order=2 if workload.method == "maml" else 1, **options)
    if "SkipDiverged" in variant:
        return outer.SkipDiverged(result)
    return outer.ClipPerTask(result, 10.0) if "ClipPerTask" in variant else result


def plain_loop(
    workload: Workload, learner: outer.MetaLearner, episodes: Episode
) -> Callable[[], None]:
    """Return a meta-step by a hand-written loop over tasks that calls the rule's functions."""
    loss_of, rule, model = criterion(workload), learner.problem.rule, learner.model

    def meta_step() -> None:
        total: Any = 0.0
        meta = learner.meta
        for (x, y, _), (query_x, query_y, _) in zip(
            _each(episodes.support), _each(episodes.query), strict=True
        ):
            params, state = (
                meta.init,
                rule.init_state(meta.rule, meta.init, torch.zeros((), dtype=torch.int64)),
            )
            for step in range(workload.num_steps):
                loss = loss_of(torch.func.functional_call(model, params, x), y)
                grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
                grads = dict(zip(params, grads, strict=True))
                updates, state = rule.update(meta.rule, grads, state, params, loss, step)
                params = {name: param + updates[name] for name, param in params.items()}
            total = total + loss_of(torch.func.functional_call(model, params, query_x), query_y)
        (total / len(episodes.query.x)).backward()

    return meta_step


def _each(batch: Batch) -> list[Batch]:
    return [Batch(x, y) for x, y in zip(batch.x, batch.y, strict=True)]


if __name__ == "__main__":
    serve(build)
