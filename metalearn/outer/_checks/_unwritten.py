"""A learner's own tensors, which losses read and must not write: all tasks and steps would."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._checks import invalid
from metalearn._sharded import is_sharded

T = TypeVar("T")
NEW = "Compute with a new tensor: weight.clamp(-1, 1) in place of weight.clamp_(-1, 1)."
MAX_NORM = "Leave max_norm out and scale what is looked up: "
MAX_NORM += "h * (bound / h.norm(dim=-1, keepdim=True)).clamp(max=1)."


def check_unwritten(learner: nn.Module, compute: Callable[[], T]) -> T:
    """Compute, put parameters and buffers back, and raise if one was written or replaced."""
    with _put_back(learner) as written:
        computed = compute()
    if not written:
        return computed
    got = f"writes into {written}"
    if set(written) & {name for name, _ in learner.named_parameters(remove_duplicate=False)}:
        bounded = any(getattr(module, "max_norm", None) is not None for module in learner.modules())
        fix = MAX_NORM if bounded else NEW
        raise invalid("model", "leave its parameters as they are", got, fix)
    owners = [learner.get_submodule(name.rpartition(".")[0]) for name in written]
    if _is_written_once(learner, compute):
        fix = "Call model(x) before you build the learner, on the largest input that will come."
    elif _eval_helps(owners, learner, compute):
        fix = "Call learner.eval(), or .eval() of the modules that hold them"
        fix += ", once model(x) has set them."
    elif _eval_helps(list(learner.modules()), learner, compute):
        fix = "Call learner.eval(), once model(x) has set them."
    else:
        fix = "Write models.use_batch_statistics(model, 'support')"
        fix += ", or keep what it writes in an estimator's carry."
    raise invalid("model", "leave its buffers as they are", got, fix)


def _is_written_once(learner: nn.Module, compute: Callable[[], Any]) -> bool:
    """Return whether a second call writes nothing, as where the first one makes tables."""
    with _put_back(learner):
        compute()
        with _put_back(learner) as written:
            compute()
    return not written


def _eval_helps(modules: list[nn.Module], learner: nn.Module, compute: Callable[[], Any]) -> bool:
    """Return whether nothing is written if these modules are in evaluation mode."""
    modes = [(module, module.training) for module in modules]
    for module in modules:
        module.training = False
    try:
        with _put_back(learner) as written:
            compute()
    except (RuntimeError, TypeError, ValueError):  # of another mode nothing is asked
        return False
    finally:
        for module, mode in modes:
            module.training = mode
    return not written


@contextmanager
def _put_back(learner: nn.Module) -> Iterator[list[str]]:
    """Put back tensors that are written or replaced, and list their names.

    Frozen parameters keep what is written into them.
    """
    places = [
        (f"{path}.{name}".lstrip("."), own, name, tensor, tensor._version, _copy(tensor))
        for path, module in learner.named_modules()
        for own in (module._parameters, module._buffers)
        for name, tensor in own.items()
        if tensor is not None and not is_sharded(tensor)  # which is put together by being replaced
    ]
    written: list[str] = []
    try:
        yield written
    finally:
        with torch.no_grad():
            for path, own, name, tensor, version, value in places:
                is_kept = own.get(name) is tensor and tensor._version == version
                if not (is_kept and _same(tensor, value)):
                    written.append(path)
                    own[name] = tensor if value is None else tensor.copy_(value)


def _copy(tensor: Tensor) -> Tensor | None:
    """Return a copy, None of frozen parameters, which may be most of the memory."""
    frozen = isinstance(tensor, nn.Parameter) and not tensor.requires_grad
    return None if frozen else tensor.detach().clone()


def _same(tensor: Tensor, value: Tensor | None) -> bool:
    """Return whether a tensor has its values, NaN among them.

    A write through `.data` does not raise the version.
    """
    if value is None or tensor.layout != torch.strided or tensor.is_nested:
        return True
    return torch.equal(tensor, value) or bool(((tensor == value) | (tensor != tensor)).all())
