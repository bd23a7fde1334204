"""What `MetaLearner` refuses of its arguments and its model before anything is computed."""

import inspect
from collections.abc import Mapping
from difflib import get_close_matches
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
from metalearn.inner import UpdateRule
from metalearn.models import running_statistics
from metalearn.models._batch_norm import Norms
from metalearn.outer._base import MetaGradient
from metalearn.outer._checks._named import losses_on_sets
from metalearn.outer._checks._parts import check_parts
from metalearn.types import Problem

WRAPPERS: Any = nn.DataParallel | nn.parallel.DistributedDataParallel | torch.jit.ScriptModule
MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
"""Modes of `torch.compile`, which are easily taken for backends."""
RECORDING = ("reduce-overhead", "max-autotune")
"""Those that record CUDA graphs."""
ARGUMENTS = {
    "support_loss": "params, shared, episode, step",
    "query_loss": "params, shared, episode",
    "start": "meta, support, key",
}
"""What a user's losses and start are called with."""
INSTEAD = {
    "init": "learn_init=False",
    "shared": ".requires_grad_(False) on these",
    "rule": "a rule without meta-parameters",
}
"""What to write, by field of `Meta`, so that its tensors are not learned."""


def check_arguments(*, model: Any, rule: Any, num_steps: Any, start: Any) -> None:
    """Raise unless a learner can be built from the arguments."""
    example = "the module itself: models.mlp(1, [40, 40], 1)"
    check_kind("model", model, nn.Module, "an nn.Module", example)
    if isinstance(model, WRAPPERS):
        fix = "Pass the bare module; wrap the learner: DistributedDataParallel(learner)."
        raise mistyped("model", "be no wrapper and not scripted", type(model).__name__, fix)
    check_kind("rule", rule, UpdateRule, "an update rule", "one: inner.SGD(lr=0.01)")
    fix = "Write num_steps=5, say"
    fix += ", or start= as well: none are taken where it solves the inner problem."
    check_count("num_steps", num_steps, minimum=1 if start is None else 0, fix=fix)
    check_parts({"model": model})
    if norms := running_statistics(model):
        got = f"them in {norms[:3]}" + f" and {len(norms) - 3} more layers" * (len(norms) > 3)
        fix = "Write models.use_batch_statistics(model, 'support'), or 'frozen' if it is pretrained"
        fix += "; see docs/gotchas.md."
        raise invalid("model", "keep no running statistics", got, fix)


def check_batching(batching: Any, chunk_size: Any, compile: Any, cuda_graph: Any) -> None:
    """Raise unless a learner can batch tasks like this."""
    check_choice("batching", batching, ["vmap", "loop"])
    if chunk_size is not None:
        check_count("chunk_size", chunk_size, fix="Leave it out for all at once.")
        if batching == "loop" and chunk_size > 1:
            fix = "It takes one task at a time."
            raise invalid("chunk_size of a loop", "be left out", chunk_size, fix)
    check_bool("cuda_graph", cuda_graph)
    if isinstance(compile, bool) or compile in ("whole", "step"):
        return
    if not isinstance(compile, Mapping):
        name = "mode" if isinstance(compile, str) and compile in MODES else "backend"
        fix = f'Write compile={{"{name}": {compile!r}}}.'.replace("'", '"')
        if near := get_close_matches(str(compile), ["whole", "step"], 1):
            fix = f'Write compile="{near[0]}".'
        condition = 'be a bool, "whole", "step" or torch.compile\'s options'
        raise mistyped("compile", condition, brief(compile), fix)
    options = list(inspect.signature(torch.compile).parameters)[1:]
    for name in compile:
        check_choice("an option of compile", name, options)
    if cuda_graph and (mode := compile.get("mode")) in RECORDING:
        got = f"mode={mode!r}, which records CUDA graphs of its own"
        fix = "Leave cuda_graph out, or the mode."
        raise invalid("compile with cuda_graph=True", "record nothing", got, fix)


def check_estimator(estimator: Any) -> None:
    """Raise unless this is an estimator."""
    check_kind("estimator", estimator, MetaGradient, "an estimator", "one: outer.Unrolled()")


def check_criteria(
    criterion: Any,
    support_criterion: Any,
    support_loss: Any,
    query_loss: Any,
    start: Any,
    support_batches: Any,
) -> None:
    """Raise unless each loop is told by functions, and once, what it minimises."""
    losses = {"support_loss": support_loss, "query_loss": query_loss}
    given = {"criterion": criterion, "support_criterion": support_criterion, **losses}
    given["start"] = start
    given = {what: value for what, value in given.items() if value is not None}
    for what, value in given.items():
        fix = "Pass F.mse_loss or nn.MSELoss()."
        if what == "start":
            fix = f"Write def start({ARGUMENTS['start']}): ...; None starts at what is learned."
        check_function(what, value, "be a function or a module", fix=fix)
    for what, names in ARGUMENTS.items():
        if what in given and (error := misfit(given[what], names.count(",") + 1)):
            fix = f"Write def {what}({names}): ..."
            fix += "" if what == "start" else "; a loss of output and y is a criterion."
            raise mistyped(what, f"take ({names})", error, fix)
    check_parts(given)
    if "support_loss" in given and ("support_criterion" in given or support_batches is not None):
        got = "another way to make the inner loss too"
        fix = "Leave out support_criterion and support_batches, or support_loss."
        raise mistyped("support_loss", "be given alone", got, fix)
    if given.keys() >= {"criterion", "support_loss", "query_loss"}:
        raise mistyped("criterion", "be None if both losses are given", criterion, "Pass None.")
    in_support = given.keys() & {"support_criterion", "support_loss"}
    if "criterion" not in given and not (in_support and "query_loss" in given):
        fix = "Pass one, or both support_loss and query_loss."
        raise mistyped("criterion", "say what is minimised", None, fix)


def check_output(output: Any) -> None:
    """Raise unless this says what of a model's output is seen."""
    if output is None or isinstance(output, str):
        return
    condition, fix = "be a field's name or a function", 'Write output="logits", say.'
    check_function("output", output, condition, fix=fix)
    if isinstance(output, nn.Module):
        fix = "Make it the last part of the model, whose parameters are learned."
        raise mistyped("output", condition, type(output).__name__, fix)


def check_parameters(model: nn.Module) -> None:
    """Raise unless the model's parameters have shapes and can be learned."""
    if lazy := [name for name, param in model.named_parameters() if is_lazy(param)]:
        fix = "Call it once on an example: model(x)."
        raise invalid("model", "be initialised", f"lazy {lazy}", fix)
    if constants := constant_starts(model):
        got = f"one whose starts {constants} a learner has made constants"
        fix = "Build the model anew: with learn_init=False it serves one learner."
        raise invalid("model", "be new", got, fix)
    if not any(param.requires_grad for param in model.parameters()):
        fix = "Call .requires_grad_() on what is to be learned: the model, or its adapters."
        raise invalid("model", "have parameters that require grad", "none", fix)


def check_fast(names: list[str]) -> None:
    """Raise if no parameter adapts."""
    if not names:
        raise invalid("fast", "choose at least one parameter", "none", "fast='*' takes all.")


def check_reaches(estimator: MetaGradient, rule: UpdateRule, learned: dict[str, list[str]]) -> None:
    """Raise unless the estimator gives a gradient to all that is learned.

    Args:
        estimator: The estimator.
        rule: The learner's update rule.
        learned: Names of what is learned, by field of `Meta`.
    """
    for field, names in learned.items():
        if names and field not in estimator.reaches:
            of_rule = f" of {rule}" if field == "rule" else ""
            condition = f"reach all that is learned, {names}{of_rule} too"
            got = f"one that reaches {', '.join(sorted(estimator.reaches))} only"
            fix = "Use an estimator that reaches them, as outer.Unrolled() does"
            fix += f", or {INSTEAD[field]}."
            raise invalid(f"estimator {estimator}", condition, got, fix)


def check_takes_steps(estimator: MetaGradient, rule: UpdateRule, of_rule: list[str]) -> None:
    """Raise unless an estimator and a rule make sense without an inner step.

    Args:
        estimator: The estimator.
        rule: The learner's update rule.
        of_rule: Names of what is learned about it.
    """
    if not estimator.traits.stepless:
        fix = "Write estimator=outer.Unrolled(), which differentiates start, or num_steps=5, say."
        raise invalid(f"num_steps under {estimator}", "be at least 1", 0, fix)
    if of_rule:
        fix = "Write inner.SGD(0.1), or num_steps=5, say."
        got = f"{rule}, which learns {of_rule}"
        raise invalid("the rule of no inner step", "learn nothing", got, fix)


def check_owns(criterion: str, adapting: list[str]) -> None:
    """Raise if a criterion holds parameters that adapt: it would see their start."""
    if adapting:
        fix = "Write support_loss= and query_loss=, which are given the adapted ones"
        fix += ", or leave them out of fast=."
        raise invalid(criterion, "hold no parameters that adapt", adapting, fix)


def check_statistics(model: nn.Module, problem: Problem, estimator: MetaGradient) -> None:
    """Raise unless the model's normalisation layers get what they need of losses and estimator."""
    norms, num_steps = Norms.of(model), problem.num_steps
    if (norms.by_support or norms.by_step) and len(losses_on_sets(problem)) < 2:
        what, condition = "'support' or 'per_step' statistics", "be used by losses of the model"
        fix = "Give a criterion, or functional.OnSupport(...) and "
        fix += "functional.OnQuery(functional.ModelLoss(...))."
        raise invalid(what, condition, "a loss of its own", fix)
    for name, rows in norms.rows:
        if rows not in (0, num_steps + 1):
            fix = f"Write batch_statistics='per_step', num_steps={num_steps}."
            fix = fix if num_steps else "Write batch_statistics='support'."
            raise invalid(f"layer {name!r}", f"be made for {num_steps} inner steps", rows - 1, fix)
        if rows and "support" not in estimator.traits.differentiates:
            what, fix = f"batch statistics under {estimator}", "Use batch_statistics='support'."
            raise invalid(what, "not be tracked", "'per_step' in the model", fix)
