"""Progressive search: cells grow block by block, and a surrogate chooses which to try."""

import math
from collections.abc import Callable, Iterable
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Annotated

import torch

from metalearn._brief import brief
from metalearn._checks import (
    as_list,
    check_choice,
    check_function,
    check_kind,
    invalid,
    message,
    mistyped,
)
from metalearn._fields import Check, Checked, Count, CountFromZero, CountOrNone
from metalearn.search._cell import Cell
from metalearn.search._expand import expanded, smallest
from metalearn.search._log import Log, Trial
from metalearn.search._operators import OPERATORS
from metalearn.search._surrogate import RidgeEnsemble, Surrogate, rank_correlation

Score = Callable[[Cell], float]
AGAIN = "Run it again with a new executor and the same log; fewer workers need less memory."


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        trials: All trials, in the order in which the search chose them.
        rank_correlations: For each round that the surrogate chose, Spearman's correlation of
            predictions and scores over the cells tried, NaN for fewer than two. It is lower than
            over all cells, since the chosen ones have similar predictions.
    """

    trials: tuple[Trial, ...]
    rank_correlations: tuple[float, ...]

    def __repr__(self) -> str:
        scores = [trial.score for trial in self.trials if trial.score is not None]
        best = f", best score {max(scores):.4g}" if scores else ""
        num_failed = len(self.trials) - len(scores)
        return f"SearchResult({len(self.trials)} trials, {num_failed} failed{best})"

    @property
    def best(self) -> Trial:
        """The trial with the highest score."""
        scored = (trial for trial in self.trials if trial.score is not None)
        return max(scored, key=lambda trial: trial.score or 0.0)


@dataclass(frozen=True)
class ProgressiveSearch(Checked):
    """Grow cells block by block and try those with the best predicted scores.

    All cells of one block, or a random subset, are tried first. Then, repeatedly, all tried cells
    are expanded by every possible block, the surrogate is fitted to all scores so far, and the top
    K expansions are tried.

    Args:
        num_blocks: Number of blocks of the largest cells, at least 1.
        num_candidates: The top K, the number of cells tried per round, at least 1.
        num_rounds: Number of rounds with cells of the same size, each with a surrogate fitted to
            the previous ones, at least 1.
        num_first: Number of cells of one block that are tried, drawn at random, at least 1; None
            for all.
        operators: Names in `search.OPERATORS`.
        surrogate: Predictor of scores.
        allowed: Function of a cell that returns whether it may be tried, such as a bound on
            `cost(...).parameters`; None allows all.
        seed: Random seed, at least 0. The same seed finds the same cells, with any number of
            workers.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a count is below 1, or an operator is unknown.

    References:
        Liu et al., "Progressive neural architecture search", ECCV 2018.
        Kim et al., "Auto-Meta: Automated gradient based meta learner search", 2018.

    >>> operators = ("identity", "conv_3x3")
    >>> search = ProgressiveSearch(num_blocks=2, num_candidates=5, operators=operators)
    >>> result = search.run(lambda cell: str(cell).count("conv"))
    >>> result.best.score, len(result.trials)
    (4.0, 15)
    """

    num_blocks: Count = 3
    num_candidates: Count = 16
    num_rounds: Count = 1
    num_first: CountOrNone = None
    operators: tuple[str, ...] = field(default_factory=lambda: tuple(OPERATORS))
    surrogate: Annotated[
        Surrogate, Check(check_kind, Surrogate, "a Surrogate", "search.RidgeEnsemble()")
    ] = RidgeEnsemble()
    allowed: Annotated[
        Callable[[Cell], bool] | None, Check(check_function, "be a function of a cell")
    ] = None
    seed: CountFromZero = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        fix = "Write operators=('identity', 'conv_3x3'), say."
        if isinstance(self.operators, str) or not isinstance(self.operators, Iterable):
            condition = "be a list of names"
            raise mistyped("ProgressiveSearch's operators", condition, brief(self.operators), fix)
        operators = as_list("ProgressiveSearch's operators", self.operators)
        if not operators:
            raise invalid("ProgressiveSearch's operators", "be at least one", "none", fix)
        for name in operators:
            check_choice("ProgressiveSearch's operators", name, OPERATORS)
        object.__setattr__(self, "operators", tuple(dict.fromkeys(operators)))

    def run(
        self, score: Score, *, executor: Executor | None = None, log: str | Path | None = None
    ) -> SearchResult:
        """Run the search.

        Args:
            score: Function of a cell that returns its score, higher is better, such as
                `search.ReptileScore(tasks)`. Its errors, including out of memory, are recorded, and
                the search continues.
            executor: Where scores are computed; sequentially in this process if not given.
            log: File to which every trial is appended as a line of JSON. A killed search resumes
                from it without repeating trials.

        Returns:
            All trials and the best of them.

        Raises:
            TypeError: If an argument has the wrong type, or the executor cannot send the score to
                its workers.
            ValueError: If the log is damaged before its last line or of another score, or no cell
                is allowed.
            RuntimeError: If every cell fails, or the executor breaks, such as when the system kills
                a worker.
        """
        fix = "Write lambda cell: ..., say."
        check_function("score", score, "be a function of a cell", fix=fix)
        if executor is None:
            with ThreadPoolExecutor(1) as own:
                return self.run(score, executor=own, log=log)
        check_kind("executor", executor, Executor, "an Executor", "ProcessPoolExecutor(2)")
        _check_sends(executor, score, self.operators)
        return _Run(self, score, executor, Log(log, score)).all()


@dataclass
class _Run:
    """One run of a search.

    Attributes:
        search: The settings.
        score: The score function.
        executor: Where scores are computed.
        log: Trials of this and earlier runs.
        tried: The cells that this run has chosen, in an order that depends neither on the workers'
            speed nor on where an earlier run was killed.
        correlations: One per round.
    """

    search: ProgressiveSearch
    score: Score
    executor: Executor
    log: Log
    tried: dict[Cell, Trial] = field(default_factory=dict)
    correlations: list[float] = field(default_factory=list)

    def all(self) -> SearchResult:
        """Run all rounds."""
        search, generator = self.search, torch.Generator().manual_seed(self.search.seed)
        level = smallest(search.operators)
        if search.num_first is not None:
            order = torch.randperm(len(level), generator=generator).tolist()
            level = [level[index] for index in order]
        level = self._top(level, search.num_first or len(level))
        if not level:
            fix = "Allow more: more operators, or fewer filters."
            raise invalid("cells of one block", "be allowed in part", "none that is", fix)
        self._try(level)
        for _ in range(1, search.num_blocks):
            scored = (cell for cell in level if self.tried[cell].score is not None)
            candidates = expanded(scored, search.operators)
            level = []
            for _ in range(search.num_rounds):
                level += self._round(candidates, generator)
        return SearchResult(tuple(self.tried.values()), tuple(self.correlations))

    def _round(self, candidates: list[Cell], generator: torch.Generator) -> list[Cell]:
        """Try the top K of the cells that have not been tried."""
        known = [trial for trial in self.tried.values() if trial.score is not None]
        scores = torch.tensor([trial.score for trial in known], dtype=torch.float64)
        predict = self.search.surrogate.fit([trial.cell for trial in known], scores, generator)
        candidates = [cell for cell in candidates if cell not in self.tried]
        if not candidates:
            return []
        predicted = predict(candidates)
        is_tensor = isinstance(predicted, torch.Tensor)
        if not is_tensor or predicted.shape != (len(candidates),):
            got = f"shape {tuple(predicted.shape)}" if is_tensor else brief(predicted)
            fix = "Return one score of each cell from what fit returns."
            raise invalid("surrogate's predictions", f"be a tensor [{len(candidates)}]", got, fix)
        order = predicted.argsort(descending=True, stable=True).tolist()
        chosen = self._top([candidates[index] for index in order], self.search.num_candidates)
        self._try(chosen)
        expected = dict(zip(candidates, predicted.tolist(), strict=True))
        trials = [self.tried[cell] for cell in chosen]
        pairs = [(expected[tried.cell], tried.score) for tried in trials if tried.score is not None]
        each = torch.tensor(pairs, dtype=torch.float64).reshape(-1, 2)
        self.correlations.append(rank_correlation(each[:, 0], each[:, 1]))
        return chosen

    def _top(self, cells: list[Cell], count: int) -> list[Cell]:
        """Return the first `count` allowed cells."""
        is_allowed = self.search.allowed
        allowed = cells if is_allowed is None else filter(is_allowed, cells)
        return list(islice(allowed, count))

    def _try(self, cells: list[Cell]) -> None:
        """Score all cells that have no score in the log, and take their trials."""
        futures: dict[Future[Trial], Cell] = {}
        try:
            for cell in cells:
                known = self.log.trials.get(cell)
                if known is None or known.score is None:  # failures of earlier runs are retried
                    futures[self.executor.submit(judge, self.score, cell)] = cell
            for future in as_completed(futures):
                self.log.add(future.result())
        except BrokenExecutor as error:
            got = f"{type(error).__name__}: {error}"
            raise RuntimeError(message("executor", "keep its workers", got, AGAIN)) from error
        finally:
            for future in futures:
                future.cancel()
        self.tried |= {cell: self.log.trials[cell] for cell in cells}
        if all(trial.score is None for trial in self.tried.values()):
            first = next(iter(self.tried.values()))
            got = f"{first.error} for the first of them"
            fix = f"Try score(Cell.from_json({first.cell.to_json()!r}))."
            raise RuntimeError(message("score", "work for some cell", got, fix))


def judge(score: Score, cell: Cell) -> Trial:
    """Return the trial of one cell, including any error."""
    start = perf_counter()
    try:
        value = float(score(cell))
        if not math.isfinite(value):
            raise invalid("score", "be finite", value)
        return Trial(cell, value, seconds=perf_counter() - start)
    except Exception as error:  # including MemoryError and torch.OutOfMemoryError
        return Trial(cell, None, f"{type(error).__name__}: {error}", perf_counter() - start)


def _arrived(score: Score, operators: tuple[str, ...]) -> list[str]:
    """Return the operators that a worker does not know."""
    return [name for name in operators if name not in OPERATORS]


def _check_sends(executor: Executor, score: Score, operators: tuple[str, ...]) -> None:
    """Raise unless the executor can send the score to a worker that knows the operators."""
    try:
        unknown = executor.submit(_arrived, score, operators).result()
    except Exception as error:
        fix = (
            "Define the score at the top level of a module that workers can import, or pass "
            "ThreadPoolExecutor(2)."
        )
        got = f"{type(error).__name__}: {error}"
        raise mistyped("executor", "send the score to its workers", got, fix) from error
    if unknown:
        fix = "Add them to search.OPERATORS in the module of the score, which workers import."
        condition = f"know the operators {list(operators)}"
        raise invalid("executor's workers", condition, f"none of {unknown}", fix)
