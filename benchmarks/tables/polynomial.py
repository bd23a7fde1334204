"""The masks of MT-net on polynomials of order 0 to 3: Lee and Choi (2018), Figure 4.

As in the paper: coefficients from U[-1, 1], inner rate 0.01, all else as in `sine_mtnet`. As coded
by the authors: every c_i is divided by 2^i, and the rate is 0.001. In both x is from U[-2, 2],
which the paper leaves out.

It plots, without a table of them, the averages of e^-l / (e^-l + 1) over all logits l, which rise
with the order, and calls them the fraction of weights that change. By its eq. 9 they are the
fraction of units that does not: `kept_fraction`.
"""

from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.papers._experiment import Experiment, Settings, Table, score, train
from benchmarks.tables._t_net import build
from metalearn import Summary, data, inner
from metalearn.types import Batch, Episode


@dataclass(frozen=True)
class AsCoded(data.Polynomial):
    """sum_i c_i (x / 2)^i, drawn as polynomials on half the range."""

    x_range: tuple[float, float] = (-1, 1)

    def draw(
        self, num_tasks: int, generator: torch.Generator | None, device: torch.device | None
    ) -> Episode:
        """Draw polynomials and stretch them."""
        episodes = super().draw(num_tasks, generator, device)
        return Episode(*(Batch(2 * batch.x, batch.y) for batch in episodes))


READINGS = {"paper": (data.Polynomial, 0.01), "code": (AsCoded, 0.001)}


def _over_runs(values: list[torch.Tensor]) -> Summary:
    return Summary(torch.stack(values), "runs")


def run(settings: Settings, reading: str, order: int) -> dict[str, Summary]:
    """Train all seeds and return the learned fractions and the 10-shot errors."""
    kind, lr = READINGS[reading]
    tasks = kind(10, 10, order)
    builder = partial(build, method="MT-net", lr=lr, compile=settings.compile)
    replicas, _ = train(builder, tasks, settings, num_iterations=60_000, meta_batch_size=4)
    learners = [replicas[index] for index in range(settings.seeds)]
    layers = [inner.kept_fraction(learner.meta.rule) for learner in learners]
    logits = [
        torch.cat([logit.detach() for logit in learner.rule.mask.parameters()])
        for learner in learners
    ]
    columns = {
        "sigmoid(-l)": _over_runs([(-of_seed).sigmoid().mean() for of_seed in logits]),
        **{
            f"... layer {i + 1}": _over_runs([list(of_seed.values())[i] for of_seed in layers])
            for i in range(3)
        },
        "MSE": score(replicas, tasks, num_tasks=600),
    }
    return {f"{name}, as in the {reading}": values for name, values in columns.items()}


TABLE = Table(
    (
        "Figure 4's average of sigmoid(-l) over all logits and over those of each layer, and MSE "
        "after one step, by order"
    ),
    [
        Experiment(
            f"order {order}",
            {f"sigmoid(-l), as in the {reading}": "", f"MSE, as in the {reading}": ""},
            partial(run, reading=reading, order=order),
        )
        for reading in READINGS
        for order in range(4)
    ],
)
