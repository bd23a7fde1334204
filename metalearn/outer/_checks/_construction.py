"""What `MetaLearner` refuses of its arguments and its model, before anything is computed."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn as nn
from torch.nn.parameter import is_lazy

from metalearn._brief import brief
from metalearn._checks import (
    check_bool,
    check_choice,
    check_count,
    check_function,
    check_kind,
    invalid,
    misfit,
    mistyped,
)
from metalearn._modules import constant_starts
from metalearn.functional import OnQuery, OnSupport
from metalearn.inner import UpdateRule
from metalearn.models import running_statistics
from metalearn.models._batch_norm import Norms
from metalearn.outer._base import MetaGradient
from metalearn.outer._checks._parts import check_parts
from metalearn.types import Problem

MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
"""Modes of `torch.compile`, of which nobody remembers that they are no backends."""
ARGUMENTS = {
    "support_loss": "params, shared, episode, step",
    "query_loss": "params, shared, episode",
}
"""What losses of one's own are called with."""


def check_arguments(
    *,
    model: Any,
    rule: Any,
    num_steps: Any,
) -> None:
    """Raise unless a learner can be built from the arguments."""
    check_kind(
        "model", model, nn.Module, "an nn.Module", "the module itself: models.mlp(1, [40, 40], 1)"
    )
    if isinstance(
        model, nn.DataParallel | nn.parallel.DistributedDataParallel | torch.jit.ScriptModule
    ):
        fix = "Pass the bare module; wrap the learner: DistributedDataParallel(learner)."
        raise mistyped("model", "be no wrapper and not scripted", type(model).__name__, fix)
    check_kind("rule", rule, UpdateRule, "an update rule", "one: inner.SGD(lr=0.01)")
    check_count("num_steps", num_steps, fix="Write num_steps=5, say.")
    check_parts({"model": model})
    if norms := running_statistics(model):
        fix = (
            "Write models.use_batch_statistics(model, 'support'), or 'frozen' if it is "
            "pretrained; see docs/gotchas.md."
        )
        got = f"them in {norms[:3]}" + f" and {len(norms) - 3} more layers" * (len(norms) > 3)
        raise invalid("model", "keep no running statistics", got, fix)


def check_batching(batching: Any, chunk_size: Any, compile: Any, cuda_graph: Any) -> None:
    """Raise unless a learner can batch tasks like this."""
    check_choice("batching", batching, ["vmap", "loop"])
    if chunk_size is not None:
        check_count("chunk_size", chunk_size, fix="Leave it out for all at once.")
        if batching == "loop" and chunk_size > 1:
            raise invalid(
                "chunk_size of a loop", "be left out", chunk_size, "It takes one task at a time."
            )
    if not isinstance(compile, bool | Mapping):
        name = "mode" if isinstance(compile, str) and compile in MODES else "backend"
        fix = f'Write compile={{"{name}": {compile!r}}}.'.replace("'", '"')
        raise mistyped("compile", "be a bool or torch.compile's options", brief(compile), fix)
    for name in compile if isinstance(compile, Mapping) else ():
        check_choice(
            "an option of compile", name, list(inspect.signature(torch.compile).parameters)[1:]
        )
    check_bool("cuda_graph", cuda_graph)
    mode = compile.get("mode") if isinstance(compile, Mapping) else None
    if cuda_graph and mode in ("reduce-overhead", "max-autotune"):
        got, fix = (
            f"mode={mode!r}, which records CUDA graphs of its own",
            "Leave cuda_graph out, or the mode.",
        )
        raise invalid("compile with cuda_graph=True", "record nothing", got, fix)


def check_estimator(estimator: Any) -> None:
    """Raise unless this is an estimator."""
    check_kind("estimator", estimator, MetaGradient, "an estimator", "one: outer.Unrolled()")


def check_criteria(
    criterion: Any, support_criterion: Any, support_loss: Any, query_loss: Any, support_batches: Any
) -> None:
    """Raise unless criteria and losses are functions, and say once each what the two loops
    minimise.
    """
    given = {
        "criterion": criterion,
        "support_criterion": support_criterion,
        "support_loss": support_loss,
        "query_loss": query_loss,
    }
    for what, value in given.items():
        if value is not None:
            check_function(
                what, value, "be a function or a module", fix="Pass F.mse_loss or nn.MSELoss()."
            )
    for what, names in ARGUMENTS.items():
        if given[what] is not None and (error := misfit(given[what], names.count(",") + 1)):
            fix = f"Write def {what}({names}): ...; a loss of output and y is a criterion."
            raise mistyped(what, f"take ({names})", error, fix)
    check_parts({what: value for what, value in given.items() if value is not None})
    if support_loss is not None and (support_criterion is not None or support_batches is not None):
        fix = "Leave out support_criterion and support_batches, or support_loss."
        raise mistyped(
            "support_loss", "be given alone", "another way to make the inner loss too", fix
        )
    if support_loss is not None and query_loss is not None and criterion is not None:
        raise mistyped("criterion", "be None if both losses are given", criterion, "Pass None.")
    if criterion is None and not (query_loss and (support_loss or support_criterion)):
        fix = "Pass one, or both support_loss and query_loss."
        raise mistyped("criterion", "say what is minimised", None, fix)


def check_parameters(model: nn.Module) -> None:
    """Raise unless the model has parameters that can be learned, all with a shape and none a
    constant by now.
    """
    if lazy := [name for name, param in model.named_parameters() if is_lazy(param)]:
        raise invalid(
            "model", "be initialised", f"lazy {lazy}", "Call it once on an example: model(x)."
        )
    if constants := constant_starts(model):
        fix = "Build the model anew: with learn_init=False it serves one learner."
        raise invalid(
            "model", "be new", f"one whose starts {constants} a learner has made constants", fix
        )
    if not any(param.requires_grad for param in model.parameters()):
        raise invalid(
            "model", "have parameters that require grad", "none", "Call model.requires_grad_()."
        )


def check_fast(names: list[str]) -> None:
    """Raise if no parameter adapts."""
    if not names:
        raise invalid("fast", "choose at least one parameter", "none", "fast='*' takes all.")


def check_reaches(estimator: MetaGradient, rule: UpdateRule, learned: dict[str, list[str]]) -> None:
    """Raise unless the estimator gives a gradient to all that is learned, given by field of
    `Meta`.
    """
    for field, names in learned.items():
        if names and field not in estimator.reaches:
            reached = ", ".join(sorted(estimator.reaches))
            of_rule = f" of {rule}" if field == "rule" else ""
            instead = {"init": "learn_init=False", "shared": ".requires_grad_(False) on these"}
            other = instead.get(field, "a rule without meta-parameters")
            fix = f"Use an estimator that reaches them, as outer.Unrolled() does, or {other}."
            condition = f"reach all that is learned, {names}{of_rule} too"
            raise invalid(
                f"estimator {estimator}", condition, f"one that reaches {reached} only", fix
            )


def check_owns(criterion: str, adapting: list[str]) -> None:
    """Raise if a criterion holds parameters that adapt: it would see what they are before."""
    if adapting:
        fix = (
            "Write support_loss= and query_loss=, which are given the adapted ones, or leave them "
            "out of fast=."
        )
        raise invalid(criterion, "hold no parameters that adapt", adapting, fix)


def check_statistics(model: nn.Module, problem: Problem, estimator: MetaGradient) -> None:
    """Raise unless the model's normalisation layers get what they need of losses and estimator."""
    norms = Norms.of(model)
    told = isinstance(problem.support_loss, OnSupport) and isinstance(problem.query_loss, OnQuery)
    if not told and (norms.by_support or norms.by_step):
        fix = (
            "Give a criterion, or functional.OnSupport(...) and "
            "functional.OnQuery(functional.ModelLoss(...))."
        )
        got = "a loss of its own"
        raise invalid(
            "'support' or 'per_step' statistics", "be used by losses of the model", got, fix
        )
    for name, rows in norms.rows:
        if rows not in (0, problem.num_steps + 1):
            fix = f"Write batch_statistics='per_step', num_steps={problem.num_steps}."
            raise invalid(
                f"layer {name!r}", f"be made for {problem.num_steps} inner steps", rows - 1, fix
            )
        if rows and "support" not in estimator.traits.differentiates:
            got, fix = "'per_step' in the model", "Use batch_statistics='support'."
            raise invalid(f"batch statistics under {estimator}", "not be tracked", got, fix)
