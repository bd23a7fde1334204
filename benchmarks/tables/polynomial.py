"""The fraction of units that MT-net adapts on polynomials of order 0 to 3: Lee and Choi (2018), Figure 4.

Coefficients from U[-1, 1], x from U[-2, 2] as in the authors' code, which also divides c_i by 2^i and uses a rate of
0.001 where we keep to the paper; all else as in `sine_mtnet`. The paper plots the fractions without a table of them:
they rise with the order.
"""

from functools import partial

from benchmarks.tables._experiment import Experiment, Settings, Table, score, train
from benchmarks.tables._t_net import build
from metalearn import data, inner


def run(settings: Settings, order: int) -> dict[str, list[float]]:
    """Train all seeds and return the learned fractions and the 10-shot errors."""
    tasks = data.Polynomial(10, 10, order)
    builder = partial(build, method="MT-net", lr=0.01, compile=settings.compile)
    replicas, _ = train(builder, tasks, settings, num_iterations=60_000, meta_batch_size=4)
    fractions = [inner.adapted_fraction(replicas[index].meta.rule).item() for index in range(settings.seeds)]
    return {"adapted fraction": fractions, "MSE": score(replicas, tasks, num_tasks=600)}


TABLE = Table(
    "Fraction of units that a task may change, and MSE after one step, by order",
    [
        Experiment(f"order {order}", {"adapted fraction": "", "MSE": ""}, partial(run, order=order))
        for order in range(4)
    ],
)
