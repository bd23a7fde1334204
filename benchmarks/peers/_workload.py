"""What is timed, as plain data and NumPy arrays, so that every system computes the same."""

import math
from dataclasses import dataclass

import numpy as np

Arrays = dict[str, np.ndarray]
ADAM_LR = 1e-3
LENGTH, NUM_TOKENS = 128, 64
"""Of the transformer's sequences, and how many there are to choose from."""


@dataclass(frozen=True)
class Workload:
    """One meta-iteration: the gradient of the mean query loss of `num_tasks` adapted tasks.

    Attributes:
        name: Of the workload.
        num_tasks: Tasks in the meta-batch.
        num_steps: Inner steps.
        support: Support examples a task.
        query: Query examples a task.
        num_filters: Filters of Conv-4 on images of 28 x 28 pixels; 0 for an MLP 1-40-40-1 on sine
            waves.
        rule: "sgd", "adam", "lstm" or "turtle".
        method: "maml", "fomaml", "reptile"; "sample" draws episodes and does nothing with them.
        lr: Rate of inner SGD or Adam.
        n_way: Classes of conv4.
        adam: Whether a step of Adam is a part of the iteration.
        num_layers: Blocks of a transformer that predicts the next of random tokens; 0 for another
            network.
    """

    name: str
    num_tasks: int
    num_steps: int
    support: int = 10
    query: int = 10
    num_filters: int = 0
    rule: str = "sgd"
    method: str = "maml"
    lr: float = 0.01
    n_way: int = 5
    adam: bool = False
    num_layers: int = 0


def shapes(workload: Workload) -> list[tuple[int, ...]]:
    """Return the shapes of the network's parameters in their order."""
    if not workload.num_filters:
        return [
            shape
            for rows, columns in ((40, 1), (40, 40), (1, 40))
            for shape in ((rows, columns), (rows,))
        ]
    filters, blocks = workload.num_filters, []
    for channels in (1, filters, filters, filters):
        blocks += [(filters, channels, 3, 3), (filters,), (filters,), (filters,)]
    return [*blocks, (workload.n_way, filters), (workload.n_way,)]


def arrays(workload: Workload, seed: int = 0) -> Arrays:
    """Return initial parameters "0", "1", ... and one batch of episodes, float32 and int64.

    A transformer has its parameters from PyTorch.
    """
    random = np.random.default_rng(seed)
    if workload.num_layers:
        return _tokens(workload, random)
    result: Arrays = {}
    for index, shape in enumerate(shapes(workload)):
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        is_norm_weight = workload.num_filters and index % 4 == 2 and index < 16
        value = np.ones(shape) if is_norm_weight else random.uniform(-bound, bound, shape)
        result[str(index)] = value.astype(np.float32)
    amplitude, phase = (
        random.uniform(*bounds, (workload.num_tasks, 1, 1)) for bounds in ((0.1, 5), (0, math.pi))
    )
    for part, count in (("support", workload.support), ("query", workload.query)):
        if workload.num_filters:
            x = random.uniform(0, 1, (workload.num_tasks, count, 1, 28, 28))
            y = np.tile(np.arange(count) % workload.n_way, (workload.num_tasks, 1)).astype(np.int64)
        else:
            x = random.uniform(-5, 5, (workload.num_tasks, count, 1))
            y = (amplitude * np.sin(x - phase)).astype(np.float32)
        result |= {f"{part}_x": x.astype(np.float32), f"{part}_y": y}
    return result


def _tokens(workload: Workload, random: np.random.Generator) -> Arrays:
    result: Arrays = {}
    for part, count in (("support", workload.support), ("query", workload.query)):
        tokens = random.integers(NUM_TOKENS, size=(workload.num_tasks, count, LENGTH + 1))
        result |= {f"{part}_x": tokens[..., :-1], f"{part}_y": tokens[..., 1:]}
    return result
