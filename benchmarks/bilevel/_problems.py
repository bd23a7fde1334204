"""The data of the problems, and how good hyperparameters are."""

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.datasets import load_digits

from benchmarks.peers._bilevel import CLASSES, PROBLEMS, Tensors

Arrays = dict[str, np.ndarray]
TOLERANCE = 1e-6
"""Of the largest element of the inner gradient."""


def arrays(name: str, seed: int) -> Arrays:
    """Return the data of a problem, and where hyperparameters and parameters start."""
    made = {"cleaning": _cleaning, "penalties": _penalties, "logistic": _logistic}
    random = np.random.default_rng(seed)
    each = made.get(name, _quadratic)(random)
    return {
        key: value if value.dtype == np.int64 else value.astype(np.float32)
        for key, value in each.items()
    }


def _digits(random: np.random.Generator, count: int, validation: int) -> Arrays:
    images, labels = load_digits(return_X_y=True)
    order = random.permutation(len(labels))[: count + validation]
    x, y = images[order] / 16, labels[order].astype(np.int64)
    return {"x": x[:count], "y": y[:count], "val_x": x[count:], "val_y": y[count:]}


def _cleaning(random: np.random.Generator) -> Arrays:
    """500 digits, half of them with random labels, and a weight for each."""
    data = _digits(random, 500, 300)
    data["y"] = np.where(random.random(500) < 0.5, random.integers(0, CLASSES, 500), data["y"])
    return {**data, "start": np.zeros(500), "params": np.zeros(65 * CLASSES)}


def _penalties(random: np.random.Generator) -> Arrays:
    """100 digits, and a penalty for each of 650 parameters."""
    size = 65 * CLASSES
    return {
        **_digits(random, 100, 400),
        "start": np.full(size, np.log(1e-3 / (1 - 1e-3))),
        "params": np.zeros(size),
    }


def _logistic(random: np.random.Generator) -> Arrays:
    """Examples of which few features say anything, and a penalty for every feature."""
    dim, counts = 100, {"": 400, "val_": 400}
    true = random.normal(size=dim) * (random.random(dim) < 0.2)
    data: Arrays = {"start": random.logistic(size=dim), "params": np.zeros(dim)}
    for level, count in counts.items():
        x = random.normal(size=(count, dim))
        data[f"{level}x"] = x
        data[f"{level}y"] = np.sign(x @ true + random.logistic(size=count))
    return data


def _quadratic(random: np.random.Generator) -> Arrays:
    """Losses whose Hessians have eigenvalues from 0.1 to 1, and a value function that is convex."""
    dim = 100
    while True:
        data: Arrays = {"start": np.full(dim, -2.0), "params": np.zeros(dim)}
        for level in ("inner", "outer"):
            for name, low in (("params", 0.1), ("hyper", 0.0)):
                spectrum = np.geomspace(0.1, 1, dim)
                spectrum[0] = low
                data[f"{level}_{name}"] = _rotated(random, spectrum)
            left, right = _rotation(random, dim), _rotation(random, dim)
            data[f"{level}_cross"] = left * np.geomspace(0.01, 0.1, dim) @ right.T
            data[f"{level}_linear_params"] = random.normal(size=dim) / 32
            data[f"{level}_linear_hyper"] = random.normal(size=dim) / 32
        slope = -np.linalg.solve(data["inner_params"], data["inner_cross"].T)
        mixed = data["outer_cross"] @ slope
        curvature = data["outer_hyper"] + slope.T @ data["outer_params"] @ slope + mixed + mixed.T
        if np.linalg.eigvalsh(curvature)[0] > 1e-12:
            return data


def _rotation(random: np.random.Generator, dim: int) -> np.ndarray:
    return np.linalg.qr(random.normal(size=(dim, dim)))[0]


def _rotated(random: np.random.Generator, spectrum: np.ndarray) -> np.ndarray:
    axes = _rotation(random, len(spectrum))
    return (axes * spectrum) @ axes.T


def in_double(given: Arrays) -> Tensors:
    """Return data as tensors in double precision, but for labels."""
    return {
        name: torch.from_numpy(each if each.dtype == np.int64 else each.astype(np.float64))
        for name, each in given.items()
    }


def value(
    name: str, hyper: np.ndarray, data: Tensors, start: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the outer loss at the inner problem's solution, and the solution, in float64.

    Args:
        name: The problem.
        hyper: Hyperparameters.
        data: The problem's data.
        start: Where the solver starts: the solution for other hyperparameters, say.
    """
    problem, at = PROBLEMS[name], torch.from_numpy(hyper).double()

    def inner(params: np.ndarray) -> tuple[float, np.ndarray]:
        value = torch.from_numpy(params).requires_grad_()
        loss = problem.inner(at, value, data)
        return loss.item(), torch.autograd.grad(loss, value)[0].numpy()

    options = {"maxiter": 5000, "ftol": 0.0, "gtol": TOLERANCE, "maxcor": 30}
    solution = minimize(inner, start, jac=True, method="L-BFGS-B", options=options).x
    return problem.outer(at, torch.from_numpy(solution), data).item(), solution
