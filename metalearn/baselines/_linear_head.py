"""Linear heads that a start solves for, on the features of a body whose parameters are shared."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import check_count, check_kind, check_positive, invalid
from metalearn._layers import Network
from metalearn._modules import below
from metalearn.functional._criteria import one_hot
from metalearn.inner import SGD
from metalearn.outer import MetaLearner
from metalearn.types import Batch, Meta, Params


class LinearHead(nn.Module):
    """Linear outputs of features with a constant one beside them, whose weights start at zero."""

    def __init__(self, num_features: int, num_outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_features + 1, num_outputs))

    def forward(self, features: Tensor) -> Tensor:
        return features @ self.weight[:-1] + self.weight[-1]


class HeadSolver(nn.Module, ABC):
    """A start that solves for the head's weights on the body's features, with a learned penalty.

    Weights of examples weigh their losses. What is solved is solved in float32 at least.
    """

    def __init__(self, method: str, body: nn.Module, penalty: float) -> None:
        super().__init__()
        check_kind(f"{method}'s body", body, nn.Module, "a module", "models.conv4(3, 5).features")
        check_positive(f"{method}'s penalty", penalty)
        self.method, self.network = method, Network.of(body)
        self.log_penalty = nn.Parameter(torch.tensor(float(penalty)).log())

    def forward(self, meta: Meta, support: Batch, key: Tensor) -> Params:
        """Return the head's weights, fitted to the support set."""
        like = meta.init["head.weight"]
        features = self.network(below("model.body", meta.shared), support)
        example = f"baselines.{self.method}(body, {{}}, {like.shape[1]})"
        check_features(self.method, features, like.shape[0] - 1, example)
        self._check_targets(support.y, len(features), like.shape[1])
        dtype = torch.promote_types(like.dtype, torch.float32)
        with torch.autocast(like.device.type, enabled=False):
            ones = features.new_ones(len(features), 1, dtype=dtype)
            x = torch.cat([features.to(dtype), ones], 1)
            y = support.y if support.y.dim() == 2 else one_hot(support.y, like.shape[1])
            weight = support.weight if isinstance(support.weight, Tensor) else ones[:, 0]
            penalty = self.log_penalty.to(dtype).exp()
            weights = self.solve(x, y.to(dtype), weight.to(dtype), penalty)
        return {"head.weight": weights.to(like.dtype)}

    @abstractmethod
    def solve(self, x: Tensor, y: Tensor, weight: Tensor, penalty: Tensor) -> Tensor:
        """Return weights `[num_features, num_outputs]`.

        Args:
            x: Features `[num_examples, num_features]`.
            y: Targets `[num_examples, num_outputs]`.
            weight: Weights of the examples `[num_examples]`.
            penalty: Positive scalar.
        """

    def _check_targets(self, target: Any, num_examples: int, num_outputs: int) -> None:
        """Raise unless targets are labels, or of as many outputs as the head's."""
        shape = tuple(getattr(target, "shape", ()))
        if not are_labels(target, num_examples) and shape != (num_examples, num_outputs):
            condition = f"be labels [num_examples], int64, or targets [num_examples, {num_outputs}]"
            fix = "Write Batch(x, y.long()) for labels, or Batch(x, y[..., None]) for one output."
            raise invalid(f"support.y of {self.method}", condition, brief(target), fix)


def are_labels(target: Any, num_examples: int) -> bool:
    """Return whether targets are labels, one of each example."""
    is_tensor = isinstance(target, Tensor) and target.dtype == torch.int64
    return is_tensor and tuple(target.shape) == (num_examples,)


def check_features(method: str, features: Any, num_features: int, example: str) -> None:
    """Raise unless these are as many features as a method was built for."""
    what = f"{method}'s body"
    if not isinstance(features, Tensor) or features.dim() != 2:
        fix = "End it in nn.Flatten(): nn.Sequential(body, nn.Flatten())."
        raise invalid(what, "return features [num_examples, num_features]", brief(features), fix)
    if features.shape[1] != num_features:
        fix = f"Write {example.format(features.shape[1])}."
        condition = f"return {num_features} features, its num_features"
        raise invalid(what, condition, features.shape[1], fix)


def solve_ridge(x: Tensor, y: Tensor, root: Tensor, penalty: Tensor) -> Tensor:
    """Return the W that minimises |root (x W - y)|^2 + penalty |W|^2, `[..., features, outputs]`.

    It takes one system, of the size of the examples or of the features, whichever are fewer.

    Args:
        x: Features `[..., examples, features]`.
        y: Targets `[..., examples, outputs]`.
        root: Roots of the examples' weights `[..., examples]`.
        penalty: Positive scalar.
    """
    x, y = root[..., None] * x, root[..., None] * y
    transposed = x.mT
    few = x.shape[-2] <= x.shape[-1]
    gram = x @ transposed if few else transposed @ x
    matrix = gram + penalty * torch.eye(gram.shape[-1], dtype=x.dtype, device=x.device)
    if few:
        return transposed @ torch.linalg.solve(matrix, y)
    return torch.linalg.solve(matrix, transposed @ y)


def solved(
    solver: HeadSolver,
    body: nn.Module,
    sizes: dict[str, int],
    criterion: Callable[..., Tensor],
    calibration: nn.Module | None = None,
) -> MetaLearner:
    """Return a learner of no inner step whose head the solver fits to every task."""
    fix = f"Write {solver.method}(body, 64, 5), say."
    for what, size in sizes.items():
        check_count(f"{solver.method}'s {what}", size, fix=fix)
    parts = OrderedDict(body=body, head=LinearHead(*sizes.values()))
    if calibration is not None:
        parts["calibration"] = calibration
    start: Any = {"fast": "head", "learn_init": False, "start": solver}
    return MetaLearner(nn.Sequential(parts), criterion, SGD(0.1), num_steps=0, **start)
