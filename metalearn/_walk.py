"""Fast iteration over modules: `nn.Module.modules` builds every name on its way."""

from collections.abc import Iterator
from typing import Any

import torch.nn as nn


def modules_of(learner: nn.Module) -> Iterator[nn.Module]:
    """Yield all modules of a learner except its carry, which is new after every step."""
    return each_module(*parts_of(learner))


def parts_of(learner: nn.Module) -> list[nn.Module]:
    """Return a learner's children except its carry."""
    return [
        child for name, child in learner._modules.items() if name != "carry" and child is not None
    ]


def holders_of(learner: Any) -> list[Any]:
    """Return all that a learner calls and that may keep something."""
    return [*parts_of(learner), *learner.problem, learner.estimator]


def each_module(*roots: nn.Module) -> Iterator[nn.Module]:
    """Yield modules and all their descendants in no particular order, shared ones repeatedly."""
    left = list(roots)
    while left:
        module = left.pop()
        yield module
        left += [child for child in module._modules.values() if child is not None]
