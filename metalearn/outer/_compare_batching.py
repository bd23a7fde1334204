"""The fastest way of batching tasks, measured on the user's model, episodes and device."""

import statistics
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from metalearn._attributes import deep_copied
from metalearn._checks import as_list, check_count, invalid, mistyped
from metalearn._memory import peak_live_bytes
from metalearn.functional import draw_keys
from metalearn.outer._checks._construction import check_batching
from metalearn.outer._checks._episodes import check_episodes
from metalearn.outer._compile import NotCompiledWarning
from metalearn.outer._learner import MetaLearner
from metalearn.types import Episode


@dataclass(frozen=True)
class BatchingTime:
    """What one meta-gradient costs with one choice of batching.

    Attributes:
        settings: Arguments of `MetaLearner` and `MetaLearner.set_batching`.
        seconds: Median time; infinite if it failed.
        peak_bytes: Peak of live bytes on the learner's device.
        error: Why it failed, or "".
    """

    settings: dict[str, Any]
    seconds: float = float("inf")
    peak_bytes: int = 0
    error: str = ""

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings.items() if value)
        if self.error:
            return f"{settings:<50} failed: {self.error.splitlines()[0]}"
        return f"{settings:<50} {1e3 * self.seconds:10.2f} ms {self.peak_bytes / 1e6:10.1f} MB"


@dataclass(frozen=True)
class BatchingTable:
    """The result of `compare_batching`, which prints as a table.

    Attributes:
        times: What each choice costs.
    """

    times: Sequence[BatchingTime]

    def fastest(self, max_bytes: float = float("inf")) -> dict[str, Any]:
        """Return the settings of the fastest choice that fits, for `learner.set_batching`.

        Args:
            max_bytes: Largest peak of live bytes allowed.

        Raises:
            ValueError: If no choice fits.
        """
        fitting = [time for time in self.times if not time.error and time.peak_bytes <= max_bytes]
        if not fitting:
            peaks = [time.peak_bytes for time in self.times if not time.error]
            fix = "Estimate with outer.Stepwise(), which needs the least memory."
            raise invalid("max_bytes", "allow one of the choices", f"{max_bytes} for {peaks}", fix)
        return min(fitting, key=lambda time: time.seconds).settings

    def __repr__(self) -> str:
        return "\n".join(map(str, self.times))


def compare_batching(
    learner: MetaLearner,
    episodes: Episode,
    *,
    chunk_sizes: Iterable[int] | None = None,
    compile: bool | str | Mapping[str, Any] = True,
    rounds: int = 5,
) -> BatchingTable:
    """Time a learner's meta-gradient with every way of batching its tasks.

    Tasks are vmapped, in chunks and in a loop, eager and compiled, and on a GPU recorded as a CUDA
    graph too. The choices take turns, on copies of the learner. One that fails, as by lack of
    memory, says why.

    Args:
        learner: The learner; it is left as it is.
        episodes: Tasks, with a leading task axis, as many as in a meta-batch.
        chunk_sizes: Sizes of the chunks to try; by default a half, a quarter and an eighth of the
            tasks.
        compile: Whether to measure compiled steps too, which takes up to a minute each; a dict is
            passed on to `torch.compile` as options.
        rounds: Number of measurements whose median is taken, at least 1.

    Raises:
        TypeError: If an argument has a wrong type.
        ValueError: If a chunk is larger than the number of tasks, or `learner(episodes)` raises it.

    >>> import torch.nn.functional as F
    >>> from metalearn import data, inner, models, outer
    >>> learner = outer.MAML(models.mlp(1, [8], 1), F.mse_loss, inner.SGD(0.01), num_steps=1)
    >>> table = compare_batching(learner, data.Sinusoid(5, 5).sample(4), compile=False)
    >>> learner.set_batching(**table.fastest())
    >>> [time.settings["chunk_size"] for time in table.times]
    [None, 2, 1]
    """
    if not isinstance(learner, MetaLearner):
        of_replicas = hasattr(learner, "learner")
        fix = "Take one of replicas: replicas[0]." if of_replicas else "Pass outer.MAML(...), say."
        raise mistyped("learner", "be a MetaLearner", type(learner).__name__, fix)
    num_tasks = check_episodes(episodes)
    check_count("rounds", rounds)
    check_batching("vmap", None, compile, False)
    ways = [*(("vmap", size) for size in (None, *_sizes(num_tasks, chunk_sizes))), ("loop", 1)]
    keys = learner.check(episodes, draw_keys(num_tasks, device=learner.device))
    choices: list[dict[str, Any]] = [
        {"batching": batching, "chunk_size": size, "compile": how, "cuda_graph": False}
        for how in ([False, compile] if compile else [False])
        for batching, size in ways
    ]
    in_turns = partial(_in_turns, learner, episodes, keys, rounds)
    times = in_turns(choices)
    if learner.device.type == "cuda":
        for choice in choices:  # one by one, since each recording keeps its memory
            times += in_turns([{**choice, "cuda_graph": True}])
    return BatchingTable(times)


def _in_turns(
    learner: MetaLearner,
    episodes: Episode,
    keys: Tensor,
    rounds: int,
    choices: list[dict[str, Any]],
) -> list[BatchingTime]:
    timers = [_Timed(learner, choice, episodes, keys) for choice in choices]
    for _ in range(rounds):
        for timer in timers:
            timer.measure()
    return [timer.result() for timer in timers]


def _sizes(num_tasks: int, chunk_sizes: Any) -> list[int]:
    if chunk_sizes is None:
        return sorted({num_tasks // parts for parts in (2, 4, 8)} - {0, 1}, reverse=True)
    what, fix = "chunk_sizes", "Write chunk_sizes=[2, 5], say."
    sizes = as_list(what, chunk_sizes, "be a list of ints", fix=fix)
    for size in sizes:
        fix = "Chunks of 1 are the loop, which is measured anyway."
        check_count(what, size, minimum=2, fix=fix)
        if size > num_tasks:
            raise invalid(what, f"be at most the {num_tasks} tasks", size)
    return sizes


class _Timed:
    """One choice: a copy of the learner, built and warmed up, and its times so far."""

    def __init__(
        self, learner: MetaLearner, settings: dict[str, Any], episodes: Episode, keys: Tensor
    ) -> None:
        self._settings, self._peak, self._error = settings, 0, ""
        self._times: list[float] = []
        own = deep_copied(learner)
        own.set_batching(**settings)
        estimate = partial(own.estimate, episodes, keys)
        # Imported late, since it logs at its import where CUDA has tools and no device.
        from torch.utils.benchmark import Timer

        num_threads = torch.get_num_threads()
        self._timer = Timer("estimate()", globals={"estimate": estimate}, num_threads=num_threads)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", NotCompiledWarning)
                if not own.cuda_graph:  # whose peak is at its recording
                    estimate()
                self._peak = peak_live_bytes(estimate, learner.device)
            self._calls = max(1, round(0.05 / self._timer.timeit(1).mean))
        except (RuntimeError, NotCompiledWarning) as error:  # out of memory, or not to be vmapped
            self._error = f"{type(error).__name__}: {error}"

    def measure(self) -> None:
        """Take one measurement."""
        if not self._error:
            self._times.append(self._timer.timeit(self._calls).mean)

    def result(self) -> BatchingTime:
        """Return the median."""
        seconds = statistics.median(self._times) if self._times else float("inf")
        return BatchingTime(self._settings, seconds, self._peak, self._error)
