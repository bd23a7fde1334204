"""What `fit` checks before it computes."""

import warnings
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from metalearn._brief import brief
from metalearn._checks import check_bool, check_count, check_function, invalid, message, mistyped
from metalearn.data import TaskDistribution
from metalearn.evaluation import Learner
from metalearn.outer import Mixture, Replicas


def check_compile_step(compile_step: Any, learner: Any) -> None:
    """Raise unless this is a bool, and not True for a learner that something is wrapped around."""
    check_bool("compile_step", compile_step)
    if compile_step and isinstance(learner, Mixture):
        fix = "Leave it out: mixture[i].set_batching(compile=True) compiles a learner's meta-step."
        raise invalid("compile_step=True", "go with one learner", "a mixture of several", fix)
    if compile_step and not isinstance(learner, Learner):
        fix = "Leave it out, or pass the learner itself."
        got = f"a learner in {type(learner).__name__}"
        raise invalid("compile_step=True", "go with a bare learner", got, fix)


def warn_of_evaluation_mode(learner: Learner) -> None:
    """Warn of a learner in evaluation mode, where dropout is off and nothing is carried over."""
    if not learner.training:
        got, fix = "one in evaluation mode", "Call learner.train() first."
        condition = "be in training mode, where dropout is on and estimators carry on"
        warnings.warn(message("learner", condition, got, fix), stacklevel=3)


def check_validation(validate: Any, num_steps: Any, learner: Learner) -> None:
    """Raise unless this is a task distribution, with or without a number of steps, or a function.

    Args:
        validate: What scores are computed by; None for none.
        num_steps: Number of inner steps on validation tasks; None for as many as in training.
        learner: What is validated.
    """
    of_tasks = isinstance(validate, TaskDistribution)
    if not (validate is None or of_tasks):
        condition = "be a task distribution or a function of the learner"
        fix = "Pass validate=tasks, or a function: "
        fix += "lambda learner: evaluate(learner, ...)['loss'].mean."
        check_function("validate", validate, condition, fix=fix)
    if of_tasks and isinstance(learner, Mixture):
        fix = "Write validate=lambda mixture: evaluate(mixture[0], tasks, num_tasks=600)"
        fix += "['loss'].mean, or a mean over its learners."
        got = f"validate={brief(validate)}"
        raise invalid("validate of a mixture", "be a function of it", got, fix)
    if num_steps is None:
        return
    what, fix = "num_validation_steps", "Leave it out for as many as in training."
    check_count(what, num_steps, minimum=0, fix=fix)
    if not of_tasks:
        fix = "Pass validate=tasks."
        if validate is not None:
            fix = f"Write evaluate(learner, tasks, num_tasks=600, num_steps={num_steps}) in the "
            fix += "function."
        condition = "go with a task distribution to validate on"
        raise invalid(what, condition, f"validate={validate!r}", fix)


def check_keep_best(keep_best: Any, learner: Learner) -> None:
    """Raise unless this is a count, which is 1 for replicas."""
    check_count("keep_best", keep_best, fix="Write keep_best=5, say.")
    if keep_best > 1 and isinstance(learner, Replicas):
        fix = "Leave it out; every replica's best state is kept."
        raise invalid("keep_best of replicas", "be 1", keep_best, fix)


def check_scheduler(scheduler: Any, optimizer: Any, validate: Any) -> None:
    """Raise unless this is None, or a scheduler of the optimizer that gets the score it needs."""
    if scheduler is None:
        return
    if not isinstance(scheduler, LRScheduler | ReduceLROnPlateau):
        fix = "Pass torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_iterations), say."
        raise mistyped("scheduler", "be one of torch.optim.lr_scheduler", brief(scheduler), fix)
    if scheduler.optimizer is not optimizer:
        fix = "Make it of the optimizer that fit is given: "
        fix += "CosineAnnealingLR(optimizer, num_iterations), say."
        raise invalid("scheduler", "be the optimizer's", "one of another optimizer", fix)
    if isinstance(scheduler, ReduceLROnPlateau) and validate is None:
        fix = "Pass validate=tasks too."
        raise invalid("ReduceLROnPlateau", "have a validation score", "validate=None", fix)


def check_callbacks(callbacks: Any) -> None:
    """Raise unless these are a list of functions."""
    fix = 'Write callbacks=[training.CSVLog("log.csv")], say.'
    condition = "be a list of functions of the progress"
    if not isinstance(callbacks, Sequence):
        raise mistyped("callbacks", condition, brief(callbacks), fix)
    for callback in callbacks:
        check_function("callbacks", callback, condition, fix=fix)


def warn_of_divergence(loss: Tensor, first: int) -> None:
    """Warn of losses that are not finite; the first `first` are of earlier calls of `fit`."""
    if bad := (~loss.isfinite()).reshape(len(loss), -1).any(1)[first:].nonzero().flatten().tolist():
        text = f"{len(bad)} of {len(loss) - first} meta-losses were not finite, the first at "
        text += f"iteration {first + bad[0] + 1}. History.num_diverged counts such tasks; lower "
        text += "the rates, clip with outer.ClipPerTask, or leave them out with outer.SkipDiverged."
        warnings.warn(text, RuntimeWarning, stacklevel=3)
