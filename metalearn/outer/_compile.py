"""How a meta-step is run: as it is, compiled, or recorded as a CUDA graph."""

import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any, TypeAlias

import torch

from metalearn._checks import message
from metalearn._modes import in_transform
from metalearn.outer._attempts import remedy_of
from metalearn.outer._by_step import SteppedStep
from metalearn.outer._captured_step import CapturedStep
from metalearn.outer._cuda_graph import Recorded
from metalearn.outer._estimates import whole
from metalearn.outer._trust import DisagreementError

Options: TypeAlias = bool | str | Mapping[str, Any]
"""Whether and how to compile, as a learner is told."""
NOTE = (
    "torch.compile cannot compile this meta-step as one graph; "
    "the user code named above is the part that it stops at."
    " Run it without: call set_batching again, without compile."
)
CAPTURED = {"backend", "options"}
"""Options of `torch.compile` that a captured step has as well."""
SENTENCE = ".  "
"""What begins the advice in PyTorch's errors, which is for its own developers."""
MOST_LAYERS = 100
"""Number of layers, counted once for every inner step, up to which the whole is one graph: the time
that compiling takes grows with it."""
BACKENDS = ("inductor", "eager")
"""Backends of a captured step; "eager" runs its graph as it is."""


class WholeStep:
    """How a meta-step is run: as it is, compiled, recorded as a CUDA graph, or both.

    Args:
        function: `estimate_tasks`, or what does the same.
        options: True, "whole", "step" or options of `torch.compile`; False does not compile.
        cuda_graph: Whether it is recorded.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        options: bool | str | Mapping[str, Any],
        cuda_graph: bool,
    ) -> None:
        self._function, self._options, self._cuda_graph = function, options, cuda_graph
        self._recorded: dict[bool, Recorded] = {}

    @property
    def is_compiled(self) -> bool:
        """Whether every kind of call has a compiled function of its own."""
        return self._options is not False

    def for_kind(self, chunk_size: int | None) -> Callable[..., Any]:
        """Return the function as it is run for one kind of call.

        Args:
            chunk_size: Number of tasks at once if it is smaller than that of the call's tasks.
        """
        if chunk_size is None:
            return self._sped_up(partial(whole, self._function, None), False)
        return partial(whole, self._sped_up(self._function, True), chunk_size)

    def _sped_up(self, function: Callable[..., Any], of_chunk: bool) -> Callable[..., Any]:
        if self.is_compiled:
            function = _Compiled(function, self._options)
            return Recorded(function) if self._cuda_graph else function
        if not self._cuda_graph:
            return function
        return self._recorded.setdefault(of_chunk, Recorded(function))  # it knows kinds by itself

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_recorded": {}}

    def __deepcopy__(self, memo: Any) -> "WholeStep":
        return WholeStep(self._function, self._options, self._cuda_graph)


class NotCompiledWarning(UserWarning):
    """A step was to be compiled and is run in another way."""


class _Compiled:
    """A function of one kind of arguments, but that a last chunk of tasks may have fewer.

    It is captured and compiled, whole or step by step; by `torch.compile` if it cannot be captured
    or the options are of that alone; and not at all, with a warning, where neither works.
    """

    def __init__(self, function: Callable[..., Any], options: Options) -> None:
        self._function, self._how = function, options
        self._options = dict(options) if isinstance(options, Mapping) else {}
        self._runs: dict[int, Callable[..., Any]] = {}

    def __call__(self, *args: Any) -> Any:
        if in_transform():
            return self._function(*args)
        num_tasks = len(args[-1])
        if num_tasks not in self._runs:
            self._runs[num_tasks] = self._chosen(args)
        return self._runs[num_tasks](*args)

    def _chosen(self, args: tuple[Any, ...]) -> Callable[..., Any]:
        backend = self._options.get("backend", "inductor")
        if not (self._options.keys() <= CAPTURED and backend in BACKENDS):
            return partial(_explained, _by_dynamo(self._function, self._options))
        options = (self._options.get("options") or {}) if backend == "inductor" else None
        tried = [SteppedStep, CapturedStep] if self._is_to_go_by_step(*args) else [CapturedStep]
        failures: list[Exception] = []
        run, how = self._function, "is not compiled"
        for made in tried:
            try:
                run, how = made(self._function, options, args), "is compiled as one graph"
                break
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                if remedy_of(error, args[0].problem):  # the learner tries again
                    raise
                failures.append(error)
        else:
            if not isinstance(failures[-1], DisagreementError):
                run, how = self._instead(args)
        if failures and (len(failures) == len(tried) or self._how == "step"):
            _warn(failures[0], how)
        return run

    def _is_to_go_by_step(self, learner: Any, setup: Any, *_: Any) -> bool:
        """Return whether the inner loop is to be compiled step by step."""
        layers = sum(not module._modules for module in learner.model.modules())
        is_long = layers * setup.problem.num_steps > MOST_LAYERS
        return self._how == "step" or (is_long and self._how != "whole")

    def _instead(self, args: tuple[Any, ...]) -> tuple[Callable[..., Any], str]:
        """Return what is run in place of a captured step, and how."""
        run = _by_dynamo(self._function, self._options)
        try:
            run(*args)
        except torch.OutOfMemoryError:
            raise
        except Exception:
            return self._function, "is not compiled"
        return run, "is compiled by torch.compile, with more to do at every call"


def _warn(why: Exception, how: str) -> None:
    """Warn that a step is run in another way than it was to be."""
    first, *_ = str(why).strip().partition("\n")[0].partition(SENTENCE)
    got = f"{type(why).__name__}: {first}{_place_of(why)}"
    fix = f"It {how}. Call set_batching again, without compile, to run it as it is."
    text = message("meta-step", "be captured to be fast", got, fix)
    warnings.warn(text, NotCompiledWarning, stacklevel=5)


def _place_of(error: Exception) -> str:
    """Return in words where the user's code is that raised an error."""
    own = tuple(
        str(Path(module.__file__ or "").parent) for module in (torch, sys.modules["metalearn"])
    )
    frames = traceback.extract_tb(error.__traceback__)
    if theirs := [frame for frame in frames if not frame.filename.startswith(own)]:
        frame = theirs[-1]
        return f", at {frame.line!r} in {Path(frame.filename).name}, line {frame.lineno}"
    return ""


def _by_dynamo(function: Callable[..., Any], options: dict[str, Any]) -> Callable[..., Any]:
    def meta_step(*args: Any) -> Any:
        return function(*args)

    # A copy is compiled, since torch.compile counts recompilations by code object and gives up
    # after a few.
    code, closure = meta_step.__code__.replace(), meta_step.__closure__
    own = FunctionType(code, meta_step.__globals__, "meta_step", None, closure)
    return torch.compile(own, **{"fullgraph": True, "dynamic": False, **options})


def _explained(compiled: Callable[..., Any], *args: Any) -> Any:
    """Call what `torch.compile` has made, whose errors get a note."""
    try:
        return compiled(*args)
    except RuntimeError as error:
        # By name, since importing torch._dynamo takes seconds.
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            error.add_note(NOTE)
        raise
