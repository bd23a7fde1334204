"""The training loop: any learner, any optimizer, any scheduler."""

import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from tqdm.auto import tqdm

from metalearn._checks import check_count, check_positive, invalid
from metalearn._history import History
from metalearn._tasks import num_tasks
from metalearn.data import TaskDistribution
from metalearn.evaluation import as_iterable, bare, evaluate, mean_losses
from metalearn.functional import draw_keys
from metalearn.outer import MetaLearner, Replicas
from metalearn.outer._learner_checks import check_episodes
from metalearn.types import Episode

NOT_ELEMENTWISE = {"LBFGS", "Adafactor", "Muon", "Shampoo", "SOAP", "LAMB", "LARS"}
"""Optimizers, of PyTorch and others, that mix the elements of a tensor."""

REFRESH_SECONDS = 0.5
"""How often the progress bar reads the loss, which waits for a GPU."""


def fit(
    learner: MetaLearner | Replicas,
    batches: TaskDistribution | Iterable[Episode],
    optimizer: torch.optim.Optimizer,
    num_iterations: int,
    *,
    meta_batch_size: int | None = None,
    scheduler: LRScheduler | ReduceLROnPlateau | None = None,
    max_grad_norm: float | None = None,
    validate: TaskDistribution | Callable[[MetaLearner], float] | None = None,
    validate_every: int = 1000,
    num_validation_tasks: int = 600,
    keep_best: int = 1,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> History:
    """Train a learner. It is left at its last iteration; `load_state_dict(history.best_state)` goes back to the best.

    Args:
        learner: The learner, bare or in `DistributedDataParallel` or `torch.compile`, or `outer.Replicas` of it.
        batches: A task distribution, or an iterable of batches of episodes, started anew when it ends.
        optimizer: Any optimizer of the learner's parameters.
        num_iterations: Number of meta-steps, at least 1.
        meta_batch_size: Number of tasks in a meta-step, of each replica, at least 1; an iterable has its own.
        scheduler: Stepped after every iteration; `ReduceLROnPlateau` after every validation, with its score.
        max_grad_norm: Bound on the norm of the whole meta-gradient, of each replica, positive.
        validate: Distribution of tasks, the same ones each time, whose mean query loss is the score; or a function of
            the learner that returns the score. Lower is better.
        validate_every: Number of iterations between validations, at least 1; the last iteration is always validated.
        num_validation_tasks: Number of tasks in a validation, at least 1.
        keep_best: Number of states to keep, those of the lowest scores, at least 1; of replicas, 1. `evaluate` takes
            the learners that load them as an ensemble.
        generator: Source of the tasks' randomness and keys; PyTorch's if not given.
        progress: Whether to show a progress bar with loss and speed on standard error.

    Returns:
        The losses, the scores and the best states.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a count is below 1, the optimizer does not hold all that is learned, or it would mix replicas.

    Warns:
        RuntimeWarning: Once, if losses were not finite.

    >>> import torch.nn.functional as F
    >>> from metalearn import data, inner, models, outer
    >>> learner = outer.MAML(models.mlp(1, [8], 1), F.mse_loss, inner.SGD(lr=0.01), num_steps=1)
    >>> tasks, optimizer = data.Sinusoid(5, 5), torch.optim.Adam(learner.parameters(), lr=1e-3)
    >>> fit(learner, tasks, optimizer, 10, meta_batch_size=4, progress=False).loss.shape
    torch.Size([10])
    """
    inside = bare(learner)
    check_count("num_iterations", num_iterations, fix="Write num_iterations=10_000, say.")
    check_count("validate_every", validate_every)
    check_count("num_validation_tasks", num_validation_tasks)
    _check_keep_best(keep_best, inside)
    if max_grad_norm is not None:
        check_positive("max_grad_norm", max_grad_norm)
    _check_optimizer(inside, optimizer)
    _check_validation(validate)
    _check_scheduler(scheduler, validate)
    if meta_batch_size is not None:
        check_count("meta_batch_size", meta_batch_size, fix="Write meta_batch_size=4, say.")
        meta_batch_size *= len(inside) if isinstance(inside, Replicas) else 1
    episodes = _endless(batches, meta_batch_size, generator, inside.device)
    history, losses, start = History(keep_best=keep_best), [], time.perf_counter()
    with tqdm(total=num_iterations, disable=not progress, mininterval=REFRESH_SECONDS) as bar:
        for iteration in range(1, num_iterations + 1):
            losses.append(_meta_step(learner, next(episodes), optimizer, max_grad_norm, generator))
            last = iteration == num_iterations
            if validate is not None and (iteration % validate_every == 0 or last):
                scores = _scores(inside, validate, num_validation_tasks)
                history.record(iteration, scores, inside)
                if isinstance(scheduler, ReduceLROnPlateau):
                    scheduler.step(scores.nanmean().item())
            if scheduler is not None and not isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step()
            # Reading the loss waits for a GPU, so it is read only when the bar is drawn.
            if progress and (last or time.time() - bar.last_print_t > REFRESH_SECONDS):
                bar.set_postfix(history.shown(losses), refresh=False)
            bar.update()
    history.loss = torch.stack(losses).cpu()
    history.seconds = time.perf_counter() - start
    _warn_of_divergence(history.loss)
    return history


def _meta_step(
    learner: MetaLearner | Replicas,
    episodes: Episode,
    optimizer: torch.optim.Optimizer,
    max_grad_norm: float | None,
    generator: torch.Generator | None,
) -> Tensor:
    """Take one step of the optimizer and return the loss before it, not yet read."""
    keys = draw_keys(num_tasks(episodes), generator=generator, device=bare(learner).device)
    losses = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        losses.append(learner(episodes, keys=keys))
        total: Tensor = losses[-1].sum()
        total.backward()
        if max_grad_norm is not None:
            _clip(bare(learner), max_grad_norm)
        return total

    optimizer.step(closure)  # type: ignore[arg-type]
    return losses[0].detach()


def _clip(learner: MetaLearner | Replicas, max_norm: float) -> None:
    if isinstance(learner, Replicas):
        learner.clip_grad_norm_(max_norm)
    else:
        torch.nn.utils.clip_grad_norm_(learner.parameters(), max_norm)


def _endless(
    batches: TaskDistribution | Iterable[Episode],
    meta_batch_size: int | None,
    generator: torch.Generator | None,
    device: torch.device,
) -> Iterator[Episode]:
    if isinstance(batches, TaskDistribution):
        if meta_batch_size is None:
            fix = "Write meta_batch_size=4, say."
            raise TypeError(invalid("meta_batch_size", "be given for a task distribution", None, fix))
        return batches.batches(meta_batch_size, generator=generator, device=device)
    return _cycle(as_iterable("batches", batches), meta_batch_size, device)


def _cycle(batches: Iterable[Episode], meta_batch_size: int | None, device: torch.device) -> Iterator[Episode]:
    while True:
        came = False
        for batch in batches:
            came = True
            count = check_episodes(batch)
            if meta_batch_size not in (None, count):
                fix = "Leave it out for an iterable, whose batches have their size."
                raise ValueError(invalid("meta_batch_size", f"be the {count} tasks of a batch", meta_batch_size, fix))
            yield batch.to(device)
        if not came:
            fix = "Pass a list or a DataLoader, which can be started anew, or lower num_iterations."
            raise ValueError(invalid("batches", "last for all iterations", "an iterator at its end", fix))


def _scores(learner: MetaLearner | Replicas, validate: Any, num_validation_tasks: int) -> Tensor:
    """Return the learner's score, a scalar, or every replica's, `[R]`."""
    was_training = learner.training
    learner.eval()
    try:
        if isinstance(learner, Replicas) and isinstance(validate, TaskDistribution):
            return mean_losses(learner, validate, num_validation_tasks, _same_tasks()).double()
        if isinstance(learner, Replicas):
            each = [_score(learner[index], validate, num_validation_tasks) for index in range(len(learner))]
            return torch.tensor(each, dtype=torch.float64)
        return torch.tensor(_score(learner, validate, num_validation_tasks), dtype=torch.float64)
    finally:
        learner.train(was_training)


def _score(learner: MetaLearner, validate: Any, num_validation_tasks: int) -> float:
    if isinstance(validate, TaskDistribution):
        return evaluate(learner, validate, num_tasks=num_validation_tasks, generator=_same_tasks())["loss"].mean
    return float(validate(learner))


def _same_tasks() -> torch.Generator:
    """Return a source of the same tasks at every validation."""
    return torch.Generator().manual_seed(0)


def _check_optimizer(learner: MetaLearner | Replicas, optimizer: Any) -> None:
    fix = "Write torch.optim.Adam(learner.parameters(), lr=1e-3), say."
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(invalid("optimizer", "be a torch.optim.Optimizer", repr(optimizer), fix))
    if isinstance(learner, Replicas) and type(optimizer).__name__ in NOT_ELEMENTWISE:
        condition = "work on each element by itself, or replicas would influence one another"
        raise ValueError(invalid("optimizer of replicas", condition, type(optimizer).__name__, fix))
    held = {id(param) for group in optimizer.param_groups for param in group["params"]}
    learned = [name for name, param in learner.named_parameters() if param.requires_grad]
    if left_out := [name for name in learned if id(learner.get_parameter(name)) not in held]:
        fix += " Call .requires_grad_(False) on what shall not be learned."
        raise ValueError(invalid("optimizer", "hold all of the learner's parameters", f"one without {left_out}", fix))


def _check_validation(validate: Any) -> None:
    if not (validate is None or callable(validate) or isinstance(validate, TaskDistribution)):
        fix = "Pass validate=tasks, or a function: lambda learner: evaluate(learner, ...)['loss'].mean."
        condition = "be a task distribution or a function of the learner"
        raise TypeError(invalid("validate", condition, repr(validate), fix))


def _check_keep_best(keep_best: Any, learner: MetaLearner | Replicas) -> None:
    check_count("keep_best", keep_best, fix="Write keep_best=5, say.")
    if keep_best > 1 and isinstance(learner, Replicas):
        fix = "Leave it out; every replica's best state is kept."
        raise ValueError(invalid("keep_best of replicas", "be 1", keep_best, fix))


def _check_scheduler(scheduler: Any, validate: Any) -> None:
    if not (scheduler is None or isinstance(scheduler, LRScheduler | ReduceLROnPlateau)):
        fix = "Pass torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_iterations), say."
        raise TypeError(invalid("scheduler", "be one of torch.optim.lr_scheduler", repr(scheduler), fix))
    if isinstance(scheduler, ReduceLROnPlateau) and validate is None:
        fix = "Pass validate=tasks too."
        raise ValueError(invalid("ReduceLROnPlateau", "have a validation score", "validate=None", fix))


def _warn_of_divergence(loss: Tensor) -> None:
    if bad := (~loss.isfinite()).reshape(len(loss), -1).any(1).nonzero().flatten().tolist():
        message = f"{len(bad)} of {len(loss)} meta-losses were not finite, the first at iteration {bad[0] + 1}."
        fix = "Estimate.diagnostics['finite'] says which tasks; lower the rates, or clip with outer.ClipPerTask."
        warnings.warn(f"{message} {fix}", RuntimeWarning, stacklevel=3)
