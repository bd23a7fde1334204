"""A learner's own tensors, which a meta-step reads and never writes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._checks import invalid

FIX = "Write models.use_batch_statistics(model, 'support'), or keep what it writes in an estimator's carry."
MAX_NORM = (
    "Leave max_norm out, and scale what is looked up: h * (max_norm / h.norm(dim=-1, keepdim=True)).clamp(max=1)."
)


@contextmanager
def unwritten(learner: nn.Module) -> Iterator[None]:
    """Raise if a parameter or buffer is written to or replaced, after all that can be learned or saved are put back."""
    places = _places(learner)
    written = []
    try:
        yield
    finally:
        with torch.no_grad():
            for path, (own, name, tensor, version, value) in places.items():
                if own[name] is not tensor or tensor._version != version or not _same(tensor, value):
                    written.append(path)
                    own[name] = tensor if value is None else tensor.copy_(value)
    if written:
        bounded = any(getattr(module, "max_norm", None) is not None for module in learner.modules())
        fix = MAX_NORM if bounded else FIX
        what = "parameters" if set(written) & {name for name, _ in learner.named_parameters()} else "buffers"
        raise ValueError(invalid("model", f"leave its {what} as they are", f"writes into {written}", fix))


def _places(learner: nn.Module) -> dict[str, tuple[Any, str, Tensor, int, Tensor | None]]:
    """Return, by name, where each tensor is and what is in it; of parameters that stay constant no copy is made."""
    return {
        f"{path}.{name}".lstrip("."): (own, name, tensor, tensor._version, _copy(tensor))
        for path, module in learner.named_modules()
        for own in (module._parameters, module._buffers)
        for name, tensor in own.items()
        if tensor is not None
    }


def _copy(tensor: Tensor) -> Tensor | None:
    frozen = isinstance(tensor, nn.Parameter) and not tensor.requires_grad
    return None if frozen else tensor.detach().clone()


def _same(tensor: Tensor, value: Tensor | None) -> bool:
    """Return whether a tensor has its values, NaN among them; a write through `.data` counts up no version."""
    return value is None or torch.equal(tensor, value) or bool(((tensor == value) | (tensor != tensor)).all())
