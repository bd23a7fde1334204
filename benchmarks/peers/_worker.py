"""The process of one system: it builds and times workloads on request, one JSON line each."""

import json
import os
import runpy
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _workload import Arrays, Workload

PACKAGE = Path(__file__).parents[2] / "metalearn"


class System(NamedTuple):
    """A built workload.

    Attributes:
        step: One meta-iteration, waited for.
        gradient: The meta-gradient that a step leaves, in the order of the parameters.
        peak: Bytes alive at the peak of one step.
    """

    step: Callable[[], Any]
    gradient: Callable[[], list[np.ndarray]]
    peak: Callable[[], int]


def serve(build: Callable[[Workload, Arrays, str, str], System]) -> None:
    """Answer the driver until it closes the pipe.

    Args:
        build: Called with workload, arrays, the variant that the command line names, and the
            device.
    """
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to standard error
    variant, device, large_blocks = sys.argv[1:4]
    if large_blocks == "True":
        runpy.run_path(str(PACKAGE / "_allocator.py"))["keep_large_blocks"]()
    system: System | None = None
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if order["do"] == "build":
                workload = Workload(**order["workload"])
                chosen = order.get("variant", variant)
                system = build(workload, dict(np.load(order["arrays"])), chosen, device)
                start = time.perf_counter()
                system.step()
                answer: Any = time.perf_counter() - start
            elif order["do"] == "package":
                answer = sys.modules["metalearn"].__file__
            else:
                answer = _measured(system, order)
        except Exception as error:
            traceback.print_exc()
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=pipe, flush=True)
        else:
            print(json.dumps({"answer": answer}), file=pipe, flush=True)


def _measured(system: Any, order: dict[str, Any]) -> Any:
    """Return what the driver wants to know of a system that has been built."""
    if order["do"] == "time":
        clock = getattr(time, order.get("clock", "perf_counter"))
        return _seconds(system.step, order["at_least"], clock)
    if order["do"] == "calls":
        return _calls(system.step)
    if order["do"] == "gradient":
        np.savez(order["to"], *system.gradient())
        return True
    return system.peak()


def _seconds(step: Callable[[], Any], at_least: float, clock: Callable[[], float]) -> float:
    """Return the mean time of as many steps as take `at_least` seconds together."""
    calls, start = 0, clock()
    while (elapsed := clock() - start) < at_least or not calls:
        step()
        calls += 1
    return elapsed / calls


def _calls(step: Callable[[], Any]) -> int:
    """Return how many Python functions one step calls, its backward pass on a CPU included."""
    count = 0

    def note(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        step()
    finally:
        sys.setprofile(None)
    return count
