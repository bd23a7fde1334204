"""Memory in use, counted where PyTorch hands it out."""

import os
from collections.abc import Callable
from typing import Any

import torch


def peak_live_bytes(function: Callable[[], Any], device: torch.device | str = "cpu") -> int:
    """Return a call's peak of live bytes of tensors on a device, beyond those alive before it.

    Counted in PyTorch's allocator, so that the fragmentation of the process's memory does not show.

    >>> peak_live_bytes(lambda: torch.zeros(1000).sum().item())
    4004
    """
    if torch.device(device).type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        function()
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it writes to standard error otherwise
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, profile_memory=True, acc_events=True) as profile:
        function()
    events = profile.profiler.kineto_results.events()
    changes = sorted(
        (event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"
    )
    live = peak = 0
    for _, change in changes:
        live += change
        peak = max(peak, live)
    return peak
