"""The training loop: any learner, any optimizer, any scheduler."""

import time
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from metalearn._checks import check_bool, check_count, check_generator, check_positive
from metalearn._tasks import num_tasks
from metalearn._tree import over_first_axes
from metalearn.data import TaskDistribution
from metalearn.evaluation import Learner, bare
from metalearn.functional import draw_keys
from metalearn.outer import CompiledStep, Mixture, Replicas
from metalearn.outer._checks._optimizer import check_optimizer
from metalearn.training._batches import Batches
from metalearn.training._checkpoint import Checkpoints, Run
from metalearn.training._checks import (
    check_callbacks,
    check_compile_step,
    check_keep_best,
    check_scheduler,
    check_validation,
    warn_of_divergence,
    warn_of_evaluation_mode,
)
from metalearn.training._history import History
from metalearn.training._interrupt import Interrupt
from metalearn.training._logs import Progress
from metalearn.training._processes import Processes
from metalearn.training._stopping import check_has_score, is_over
from metalearn.training._validation import check_can_validate, score
from metalearn.types import Episode

REFRESH_SECONDS = 0.5
"""Seconds between the progress bar's reads of the loss, which synchronise with a GPU."""


def fit(
    learner: Learner,
    batches: TaskDistribution | Iterable[Episode],
    optimizer: torch.optim.Optimizer,
    num_iterations: int,
    *,
    meta_batch_size: int | None = None,
    scheduler: LRScheduler | ReduceLROnPlateau | None = None,
    max_grad_norm: float | None = None,
    compile_step: bool = False,
    validate: TaskDistribution | Callable[[Any], float] | None = None,
    validate_every: int = 1000,
    num_validation_tasks: int = 600,
    num_validation_steps: int | None = None,
    keep_best: int = 1,
    checkpoint_dir: str | Path | None = None,
    checkpoint_every: int = 1000,
    callbacks: Sequence[Callable[[Progress], Any]] = (),
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> History:
    """Train a learner.

    It ends at the last iteration's state; `load_state_dict(history.best_state)` restores the best.

    In `DistributedDataParallel` every process computes an equal share of a distribution's
    meta-batch, for any number of processes; an iterable gives each process its own batches.

    With a checkpoint folder, the same call in a new process resumes a killed one, with exactly the
    same results: parameters, optimizer, scheduler, history, the position in an iterable and all
    random states come from the file, which is replaced atomically. Ctrl-C then waits for the end of
    the iteration and writes the file too.

    Args:
        learner: The learner, bare or in `DistributedDataParallel` or `torch.compile`, or
            `outer.Replicas` of it, or an `outer.Mixture`, on tasks of `data.Zipped`.
        batches: A task distribution, or an iterable of batches of episodes, which restarts at its
            end.
        optimizer: Any optimizer of the learner's parameters.
        num_iterations: Number of meta-steps, at least 1, including those before a checkpoint.
        meta_batch_size: Number of tasks in a meta-step, per replica, at least 1; an iterable has
            its own.
        scheduler: Stepped after every iteration; `ReduceLROnPlateau` after every validation, with
            its score.
        max_grad_norm: Bound on the norm of the whole meta-gradient, per replica, positive.
        compile_step: Whether meta-gradient and optimizer's step are one compiled graph, by
            `learner.compiled_step`: for `SGD`, `Adam` and `AdamW`, in a single process. Hooks do
            not run, and `.grad` is not written.
        validate: Task distribution, of which the same tasks are used each time and the mean query
            loss is the score; or a function of the learner that returns the score. Lower is better.
        validate_every: Number of iterations between validations, at least 1; the last iteration is
            always validated.
        num_validation_tasks: Number of tasks in a validation, at least 1.
        num_validation_steps: Number of adaptation steps in a validation, at least 0; as in training
            if not given. Not for a function, which chooses its own.
        keep_best: Number of states with the lowest scores to keep, at least 1; for replicas, 1.
            `evaluate` takes the learners that load them as an ensemble.
        checkpoint_dir: Folder of the run's `checkpoint.pt`; None for no checkpoints.
        checkpoint_every: Number of iterations between checkpoints, at least 1; the last iteration
            has one too.
        callbacks: Functions called with a `training.Progress` after every iteration, such as
            `training.CSVLog(path)`. A callback that returns True ends the run, such as
            `training.EarlyStopping(patience=10)`: this iteration is then validated and saved as the
            last. A repeated call asks them before it continues training.
        generator: Source of the tasks' randomness and keys; PyTorch's if not given.
        progress: Whether to show a progress bar with loss and speed on standard error.

    Returns:
        The losses, the scores and the best states.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a count is below 1, nothing is learned, the optimizer lacks learned
            parameters, would mix replicas or cannot be compiled, the first validation tasks are ill
            posed, the checkpoint is damaged or another run's, or processes cannot share the tasks
            equally.

    Warns:
        UserWarning: If the learner is in evaluation mode.
        RuntimeWarning: Once, if losses were not finite.

    >>> import torch.nn.functional as F
    >>> from metalearn import data, inner, models, outer
    >>> learner = outer.MAML(models.mlp(1, [8], 1), F.mse_loss, inner.SGD(lr=0.01), num_steps=1)
    >>> tasks, optimizer = data.Sinusoid(5, 5), torch.optim.Adam(learner.parameters(), lr=1e-3)
    >>> fit(learner, tasks, optimizer, 10, meta_batch_size=4, progress=False).loss.shape
    torch.Size([10])
    """
    inside = bare(learner, Learner)
    check_count("num_iterations", num_iterations, fix="Write num_iterations=10_000, say.")
    check_count("validate_every", validate_every)
    check_count("num_validation_tasks", num_validation_tasks)
    checkpoints = Checkpoints(checkpoint_dir, checkpoint_every)
    check_keep_best(keep_best, inside)
    check_bool("progress", progress)
    check_generator(generator)
    if max_grad_norm is not None:
        check_positive("max_grad_norm", max_grad_norm)
    check_optimizer(inside, optimizer, isinstance(inside, Replicas))
    check_compile_step(compile_step, learner)
    warn_of_evaluation_mode(inside)
    check_validation(validate, num_validation_steps, inside)
    check_scheduler(scheduler, optimizer, validate)
    check_callbacks(callbacks)
    check_has_score(callbacks, validate)
    if meta_batch_size is not None:
        check_count("meta_batch_size", meta_batch_size, fix="Write meta_batch_size=4, say.")
        meta_batch_size *= len(inside) if isinstance(inside, Replicas) else 1
    processes = Processes.of(learner)
    generator = processes.generator(generator)
    source = Batches(batches, meta_batch_size, generator, inside.device, processes)
    history = History(keep_best=keep_best)
    run = Run(
        inside, optimizer, scheduler, source, generator, processes, history, num_validation_steps
    )
    check_can_validate(run, validate, num_validation_tasks)
    checkpoints.resume(run, num_iterations)
    step = inside.compiled_step(optimizer, max_grad_norm) if compile_step else None
    # if any process has callbacks, all communicate at every iteration
    is_watched = processes.any(bool(callbacks), inside.device)
    # The callback that ended the run may be gone, or more patient now.
    run.is_over = run.is_over and is_over(callbacks, run.progress())
    done, start = run.iteration, time.perf_counter() - history.seconds
    shows = progress and processes.rank == 0
    may_wait = checkpoints.file is not None and processes.count == 1
    with _bar(num_iterations, done, shows) as bar, Interrupt(may_wait) as interrupt:
        while run.iteration < num_iterations and not run.is_over:
            history.add(*_meta_step(run, learner, next(source), max_grad_norm, step))
            run.iteration += 1
            is_last = run.iteration == num_iterations
            if validate is not None and (run.iteration % validate_every == 0 or is_last):
                score(run, validate, num_validation_tasks)
            if scheduler is not None and not isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step()
            run.is_over = is_watched and is_over(callbacks, run.progress())
            is_last = is_last or run.is_over
            if is_last and validate is not None and run.iteration not in history.scores:
                score(run, validate, num_validation_tasks)
            history.seconds = time.perf_counter() - start
            checkpoints.save(run, is_last or interrupt.came)
            if interrupt.came:
                raise KeyboardInterrupt
            # Reading the loss synchronises with a GPU, so it is read only when the bar is drawn.
            if shows and (is_last or time.time() - bar.last_print_t > REFRESH_SECONDS):
                bar.set_postfix(history.shown(), refresh=False)
            bar.update()
    history.read(processes)
    warn_of_divergence(history.loss, done)
    return history


def _bar(num_iterations: int, done: int, shows: bool) -> Any:
    # `tqdm.auto` only if shown: it warns in a notebook without ipywidgets
    tqdm = import_module("tqdm.auto" if shows else "tqdm").tqdm
    return tqdm(total=num_iterations, initial=done, disable=not shows, mininterval=REFRESH_SECONDS)


def _meta_step(
    run: Run,
    learner: Any,
    episodes: Episode,
    max_grad_norm: float | None,
    step: CompiledStep | None,
) -> tuple[Tensor, Tensor]:
    """Take an optimizer step; return the loss before it and the number of diverged tasks."""
    count, inside = num_tasks(episodes), run.learner
    keys = draw_keys(count * run.processes.count, generator=run.generator, device=inside.device)
    keys = keys[run.processes.share()]
    if step is not None:
        return step(episodes, keys=keys), (~inside.diagnostics["finite"]).sum(-1)
    seen: list[tuple[Tensor, Tensor]] = []

    def closure() -> Tensor:
        run.optimizer.zero_grad()
        loss = learner(episodes, keys=keys)
        seen.append((loss.detach(), (~inside.diagnostics["finite"]).sum(-1)))
        total: Tensor = loss.sum()
        total.backward()
        if max_grad_norm is not None:
            _clip(inside, max_grad_norm)
        return total

    run.optimizer.step(closure)  # type: ignore[arg-type]
    if run.processes.count > 1:
        _carry_alike(run.processes, run.learner)
    return seen[0]


def _carry_alike(processes: Processes, learner: Learner) -> None:
    """Carry the mean over all processes' finite tasks in every process, as a single one would."""
    if isinstance(learner, Mixture):
        for each in learner:
            _carry_alike(processes, each)
        return
    leaves = list(learner.carry.buffers())
    if not leaves:
        return
    finite = learner.diagnostics["finite"].sum(-1)
    of_all = processes.sum(finite.clone())
    for leaf in leaves:
        own, total = over_first_axes(finite, leaf), over_first_axes(of_all, leaf)
        mean = processes.sum(torch.where(own > 0, own * leaf, 0)) / total.clamp(min=1)
        leaf.copy_(torch.where(total > 0, mean, leaf))


def _clip(learner: Learner, max_norm: float) -> None:
    if isinstance(learner, Replicas):
        learner.clip_grad_norm_(max_norm)
    else:
        torch.nn.utils.clip_grad_norm_(learner.parameters(), max_norm)
