"""What MAML, first-order MAML and Reptile descend: Sun's overview, equations 33 to 41.

In float64, exactly over all orders of k mini-batches of sines: the meta-gradient as a sum of
AvgGrad and, times alpha, AvgGradInner, by least squares at two small rates, extrapolated to 0.
"""

import itertools
from functools import partial

import torch
import torch.nn.functional as F

from benchmarks.papers._experiment import Experiment, Settings, Table
from metalearn import Summary, analysis, data, functional, inner, outer
from metalearn.types import Batch, Episode

ALPHA = 1e-4
METHODS: dict[str, outer.MetaGradient] = {
    "MAML": outer.Unrolled(),
    "FOMAML": outer.Unrolled(order=1),
    "Reptile": outer.ParameterDifference(),
}


def expected(method: str, k: int) -> tuple[float, float]:
    """Return the paper's coefficients."""
    of_inner = {"MAML": 2.0 * (k - 1), "FOMAML": k - 1.0, "Reptile": k * (k - 1) / 2}[method]
    return (float(k) if method == "Reptile" else 1.0), of_inner


def meta_gradient(
    model: torch.nn.Module, method: str, batches: Batch, alpha: float
) -> torch.Tensor:
    """Return the mean meta-gradient over all orders of the mini-batches, as one vector."""
    k = batches.x.shape[1]
    orders = list(itertools.permutations(range(k)))
    x, y = (
        torch.cat([leaf[:, list(order)] for order in orders]) for leaf in (batches.x, batches.y)
    )
    steps = k if method == "Reptile" else k - 1
    given = {"num_steps": steps, "support_batches": functional.GivenBatches()}
    learner = outer.MetaLearner(
        model, F.mse_loss, inner.SGD(alpha), estimator=METHODS[method], **given
    )
    episodes = Episode(Batch(x[:, :steps], y[:, :steps]), Batch(x[:, -1], y[:, -1]))
    gradient = flat(learner.estimate(episodes).gradient.init)
    return gradient / alpha if method == "Reptile" else gradient


def flat(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return tensors as one vector."""
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


def coefficients(method: str, k: int, seed: int) -> torch.Tensor:
    """Return the coefficients of AvgGrad and of AvgGradInner for one network and its tasks."""
    torch.manual_seed(seed)
    layers = torch.nn.Linear(1, 20), torch.nn.Tanh(), torch.nn.Linear(20, 1)
    model = torch.nn.Sequential(*layers).double()
    sines = data.Sinusoid(5 * k, num_query=1).sample(8).support
    batches = Batch(*(leaf.double().unflatten(1, (k, 5)) for leaf in (sines.x, sines.y)))
    terms = [flat(each) for each in analysis.taylor_terms(model, F.mse_loss, batches)]

    def at(alpha: float) -> torch.Tensor:
        gradient = meta_gradient(model, method, batches, alpha)
        both = torch.stack([terms[0], -alpha * terms[1]], 1)
        return torch.linalg.lstsq(both, gradient[:, None]).solution[:, 0]

    return 2 * at(ALPHA / 2) - at(ALPHA)


def run(settings: Settings, method: str, k: int) -> dict[str, Summary]:
    """Return both coefficients, one for each seed."""
    found = torch.stack([coefficients(method, k, seed) for seed in range(settings.seeds)])
    names = ("AvgGrad", "alpha AvgGradInner")
    return {name: Summary(of_term, "runs") for name, of_term in zip(names, found.T, strict=True)}


def table() -> Table:
    """Equations 33 to 41: the coefficients of both gradients, for two to four mini-batches."""
    experiments = []
    for method, k in itertools.product(METHODS, (2, 3, 4)):
        first, second = expected(method, k)
        paper = {"AvgGrad": f"{first:g}", "alpha AvgGradInner": f"{second:g}"}
        row = f"{method}, k = {k}"
        experiments.append(Experiment(row, paper, partial(run, method=method, k=k)))
    title = "Coefficients of the meta-gradient; in brackets the paper's"
    return Table(title, experiments, judged=False)
