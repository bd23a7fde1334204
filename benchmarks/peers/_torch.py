"""Shared by the systems on PyTorch: networks, and a step that leaves its gradient in `.grad`."""

import runpy
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from _transformer import Transformer, next_token
from _worker import PACKAGE, System
from _workload import ADAM_LR, Arrays, Workload


class Tasks(NamedTuple):
    """A batch of episodes, with a leading task axis."""

    support_x: torch.Tensor
    support_y: torch.Tensor
    query_x: torch.Tensor
    query_y: torch.Tensor


def network(workload: Workload, arrays: Arrays, device: str) -> nn.Module:
    """Return the workload's network with its initial parameters."""
    if workload.num_layers:
        return Transformer(workload.num_layers).to(device)
    blocks: list[nn.Module] = []
    if workload.num_filters:
        filters = workload.num_filters
        for channels in (1, filters, filters, filters):
            convolution = nn.Conv2d(channels, filters, 3, stride=2, padding=1)
            blocks += [convolution, nn.BatchNorm2d(filters, track_running_stats=False), nn.ReLU()]
        blocks += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(filters, workload.n_way)]
    else:
        blocks = [nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1)]
    return load(nn.Sequential(*blocks), arrays).to(device)


def load(model: nn.Module, arrays: Arrays) -> Any:
    """Give a model the initial parameters and return it."""
    with torch.no_grad():
        for index, param in enumerate(model.parameters()):
            param.copy_(torch.from_numpy(arrays[str(index)]))
    return model


def tasks(arrays: Arrays, device: str) -> Tasks:
    """Return the workload's episodes."""
    return Tasks(*(torch.from_numpy(arrays[name]).to(device) for name in Tasks._fields))


def criterion(workload: Workload) -> Callable[..., torch.Tensor]:
    """Return the workload's loss."""
    if workload.num_layers:
        return next_token
    return F.cross_entropy if workload.num_filters else F.mse_loss


def inner_optimizer(workload: Workload, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer that the workload's inner loop follows."""
    kind = torch.optim.Adam if workload.rule == "adam" else torch.optim.SGD
    return kind(model.parameters(), lr=workload.lr)


def wait(result: Any, device: str) -> Any:
    """Return a result when it is there."""
    if device == "cuda":
        torch.cuda.synchronize()
    return result


def system(
    workload: Workload,
    meta_step: Callable[[], Any],
    params: Iterable[torch.Tensor],
    device: str,
    compiled_step: Callable[[torch.optim.Optimizer], Callable[[], Any]] | None = None,
) -> System:
    """Return a system from a function that leaves the meta-gradient in the `.grad` of params.

    Args:
        workload: What is computed.
        meta_step: The function.
        params: What the gradient is taken of.
        device: Where.
        compiled_step: From Adam to an iteration that contains its step.
    """
    params = list(params)
    if workload.adam:
        return _with_adam(meta_step, params, device, compiled_step)

    def step() -> None:
        for param in params:
            param.grad = None
        wait(meta_step(), device)

    def gradient() -> list[np.ndarray]:
        step()
        return [param.grad.cpu().numpy() for param in params]

    return System(step, gradient, _peak_of(step, device))


def _with_adam(
    meta_step: Callable[[], Any],
    params: list[torch.Tensor],
    device: str,
    compiled_step: Callable[[torch.optim.Optimizer], Callable[[], Any]] | None,
) -> System:
    """Return a system whose "gradient" is what one iteration changes in the first parameters."""
    optimizer = torch.optim.Adam(params, ADAM_LR, fused=True)
    first = [param.detach().clone() for param in params]
    iteration = compiled_step(optimizer) if compiled_step else None

    def step() -> None:
        if iteration is not None:
            iteration()
        else:
            optimizer.zero_grad()
            meta_step()
            optimizer.step()
        wait(None, device)

    @torch.no_grad()
    def change() -> list[np.ndarray]:
        torch._foreach_copy_(params, first)
        for state in optimizer.state.values():
            for tensor in state.values():
                tensor.zero_()
        with torch.enable_grad():
            step()
        return [(param - old).cpu().numpy() for param, old in zip(params, first, strict=True)]

    return System(step, change, _peak_of(step, device))


def _peak_of(step: Callable[[], Any], device: str) -> Callable[[], int]:
    return lambda: runpy.run_path(str(PACKAGE / "_memory.py"))["peak_live_bytes"](step, device)
