"""What `MetaLearner` refuses of its arguments and its model, before anything is computed."""

import inspect
import warnings
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
    message,
    misfit,
    mistyped,
)
from metalearn._modules import constant_starts
from metalearn._walk import modules_of
from metalearn.functional import OnQuery, OnSupport
from metalearn.functional._losses import has_tables_of_one, is_of_model
from metalearn.inner import UpdateRule
from metalearn.models import FrozenNorm, running_statistics
from metalearn.models._batch_norm import Norms
from metalearn.outer._base import MetaGradient
from metalearn.outer._copied_loss import are_copied
from metalearn.outer._part_checks import check_parts
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


def check_on_gpu(learner: Any) -> None:
    """Raise if a learner is to be recorded as a CUDA graph and is not on a GPU."""
    if learner.cuda_graph and learner.device.type != "cuda":
        fix = "Write .to('cuda'), or call set_batching again, without cuda_graph."
        raise invalid("a learner with cuda_graph=True", "be on a GPU", learner.device, fix)


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


def check_under_vmap(learner: Any) -> None:
    """Raise for what would silently be another thing under vmap: hooks of the backward pass, padded
    tables.
    """
    if learner.batching == "loop":
        return
    modules = list(modules_of(learner))
    if any(each._backward_hooks or each._backward_pre_hooks for each in modules):
        fix = "Remove them, or choose batching='loop'."
        raise invalid("modules under vmap", "have no hooks of the backward pass", "some", fix)
    of_users = not all(map(is_of_model, (learner.problem.support_loss, learner.problem.query_loss)))
    if of_users and has_tables_of_one(modules):
        what, condition = (
            "embeddings in losses of your own under vmap",
            "have no padding_idx and no scale_grad_by_freq",
        )
        raise invalid(what, condition, "one that has", "Choose batching='loop'.")


def check_copied(learner: Any, num_tasks: int) -> None:
    """Raise if a model that the backward pass computes again, which is called by copies, would be
    traced.
    """
    if not are_copied(learner.problem):
        return
    what = "model that computes a part again in the backward pass, as torch.utils.checkpoint does,"
    if learner.batching == "vmap" and learner.chunk_size != 1 and num_tasks > 1:
        fix = (
            "Choose batching='loop', or outer.Stepwise() without checkpoints, which spares the "
            "same memory."
        )
        raise invalid(what, "be called task by task", "vmap", fix)
    if learner.compile_options is not False:
        fix = "Call learner.set_batching('loop')."
        raise invalid(what, "not be compiled", f"compile={learner.compile_options}", fix)


def check_norms(model: nn.Module, problem: Problem) -> None:
    """Raise if normalisation layers have been replaced since the losses were made."""
    losses = [
        on.loss
        for on in (problem.support_loss, problem.query_loss)
        if isinstance(on, OnSupport | OnQuery)
    ]
    norms = Norms.of(model)
    if any(loss.norms != norms for loss in losses):
        fix = "Call models.use_batch_statistics before you build the learner."
        raise invalid("model", "keep its normalisation layers in a learner", "others", fix)


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
        if rows and "support" not in estimator.differentiates:
            got, fix = "'per_step' in the model", "Use batch_statistics='support'."
            raise invalid(f"batch statistics under {estimator}", "not be tracked", got, fix)


def check_precision(kind: str, dtype: torch.dtype) -> None:
    """Raise if the parameters, or autocast on their kind of device, use float16: nobody could scale
    the gradient.
    """
    if torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16:
        fix = f"Write torch.autocast({kind!r}, torch.bfloat16)."
        raise invalid("autocast", "use bfloat16", "float16", fix)
    if dtype == torch.float16:
        raise invalid(
            "parameters", "be of bfloat16 or more bits", "float16", "Write learner.float()."
        )


def warn_of_new_statistics(model: nn.Module) -> None:
    """Warn of frozen statistics that nothing has set: layers with them normalise nothing."""
    norms = {name: norm for name, norm in model.named_modules() if isinstance(norm, FrozenNorm)}
    if new := [
        name for name, norm in norms.items() if not norm.mean.any() and (norm.var == 1).all()
    ]:
        fix = (
            "Load a pretrained model's with load_state_dict, or choose batch_statistics='support'."
        )
        warnings.warn(
            message("frozen statistics", "be set", f"those of new layers in {new}", fix),
            stacklevel=2,
        )
