"""All modules of a module, fast: `nn.Module.modules` makes every name on its way."""

from collections.abc import Iterator

import torch.nn as nn


def modules_of(learner: nn.Module) -> Iterator[nn.Module]:
    """Yield all modules of a learner but for its carry, which is new after every step."""
    return each_module(*parts_of(learner))


def parts_of(learner: nn.Module) -> list[nn.Module]:
    """Return the modules that a learner consists of, but for its carry."""
    return [
        child for name, child in learner._modules.items() if name != "carry" and child is not None
    ]


def each_module(*roots: nn.Module) -> Iterator[nn.Module]:
    """Yield modules and all below them, in no particular order; one that is in several places as
    often.
    """
    left = list(roots)
    while left:
        module = left.pop()
        yield module
        left += [child for child in module._modules.values() if child is not None]
