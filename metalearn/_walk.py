"""All modules of a module, fast: `nn.Module.modules` makes every name on its way."""

from collections.abc import Iterator

import torch.nn as nn


def each_module(*roots: nn.Module) -> Iterator[nn.Module]:
    """Yield modules and all below them, in no particular order; one that is in several places as often."""
    left = list(roots)
    while left:
        module = left.pop()
        yield module
        left += [child for child in module._modules.values() if child is not None]
