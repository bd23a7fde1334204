"""What `MetaLearner` refuses, before anything is computed: by its arguments and by the shapes it is called on."""

import inspect
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.parameter import is_lazy

from metalearn._checks import check_choice, check_count, check_function, check_kind, invalid
from metalearn._tree import tree_leaves, tree_names
from metalearn.functional import OnQuery, OnSupport
from metalearn.inner import UpdateRule
from metalearn.models import running_statistics
from metalearn.models._batch_norm import Norms
from metalearn.outer._base import MetaGradient
from metalearn.types import Batch, Episode, Problem


def check_arguments(
    *,
    model: Any,
    criteria: tuple[Any, Any],
    losses: tuple[Any, Any],
    rule: Any,
    num_steps: Any,
    support_batches: Any,
) -> None:
    """Raise unless a learner can be built from the arguments."""
    check_kind("model", model, nn.Module, "an nn.Module", "the module itself: models.mlp(1, [40, 40], 1)")
    check_kind("rule", rule, UpdateRule, "an update rule", "one: inner.SGD(lr=0.01)")
    check_criteria(*criteria, *losses, support_batches)
    check_count("num_steps", num_steps, fix="Write num_steps=5, say.")
    if support_batches is not None:
        check_count("support_batches", support_batches, fix="Leave it out for all at once.")
    if compiled := [name or "itself" for name, module in model.named_modules() if _is_compiled(module)]:
        fix = "Pass the module as it was before, and compile the whole meta-step: MAML(..., compile=True)."
        raise ValueError(invalid("model", "not be compiled", f"torch.compile of {compiled}", fix))
    if norms := running_statistics(model):
        fix = (
            "Write models.use_batch_statistics(model, 'support'), or 'frozen' if it is pretrained; see docs/gotchas.md."
        )
        got = f"them in {norms[:3]}" + f" and {len(norms) - 3} more layers" * (len(norms) > 3)
        raise ValueError(invalid("model", "keep no running statistics", got, fix))


def _is_compiled(module: nn.Module) -> bool:
    """Return whether `torch.compile` made the module or runs it: what it compiles has no second derivative."""
    # By name, since importing torch._dynamo takes seconds.
    return type(module).__module__ == "torch._dynamo.eval_frame" or module._compiled_call_impl is not None


def check_batching(batching: Any, chunk_size: Any, compile: Any) -> None:
    """Raise unless a learner can batch tasks like this."""
    check_choice("batching", batching, ["vmap", "loop"])
    if chunk_size is not None:
        check_count("chunk_size", chunk_size, fix="Leave it out for all at once.")
    if not isinstance(compile, bool | Mapping):
        fix = f'Write compile={{"backend": {compile!r}}}.'.replace("'", '"')
        raise TypeError(invalid("compile", "be a bool or torch.compile's options", repr(compile), fix))
    for name in compile if isinstance(compile, Mapping) else ():
        check_choice("an option of compile", name, list(inspect.signature(torch.compile).parameters)[1:])


def check_estimator(estimator: Any) -> None:
    """Raise unless this is an estimator."""
    check_kind("estimator", estimator, MetaGradient, "an estimator", "one: outer.Unrolled()")


def check_criteria(
    criterion: Any, support_criterion: Any, support_loss: Any, query_loss: Any, support_batches: Any
) -> None:
    """Raise unless criteria and losses are functions, and say once each what the two loops minimise."""
    given = {
        "criterion": criterion,
        "support_criterion": support_criterion,
        "support_loss": support_loss,
        "query_loss": query_loss,
    }
    for what, value in given.items():
        if value is not None:
            check_function(what, value, "be a function or a module", fix="Pass F.mse_loss or nn.MSELoss().")
    if support_loss is not None and (support_criterion is not None or support_batches is not None):
        fix = "Leave out support_criterion and support_batches, or support_loss."
        raise TypeError(invalid("support_loss", "be given alone", "another way to make the inner loss too", fix))
    if support_loss is not None and query_loss is not None and criterion is not None:
        raise TypeError(invalid("criterion", "be None if both losses are given", criterion, "Pass None."))
    if criterion is None and not (query_loss and (support_loss or support_criterion)):
        fix = "Pass one, or both support_loss and query_loss."
        raise TypeError(invalid("criterion", "say what is minimised", None, fix))


def check_parameters(model: nn.Module) -> None:
    """Raise unless the model has parameters that can be learned, all of them with a shape."""
    if lazy := [name for name, param in model.named_parameters() if is_lazy(param)]:
        raise ValueError(invalid("model", "be initialised", f"lazy {lazy}", "Call it once on an example: model(x)."))
    if not any(param.requires_grad for param in model.parameters()):
        fix = "A model whose starts were made constants by learn_init=False serves one learner: build it anew."
        raise ValueError(invalid("model", "have parameters that require grad", "none", fix))


def check_fast(names: list[str]) -> None:
    """Raise if no parameter adapts."""
    if not names:
        raise ValueError(invalid("fast", "choose at least one parameter", "none", "fast='*' takes all."))


def check_reaches(estimator: MetaGradient, rule: UpdateRule, learned: dict[str, list[str]]) -> None:
    """Raise unless the estimator gives a gradient to all that is learned, given by field of `Meta`."""
    for field, names in learned.items():
        if names and field not in estimator.reaches:
            reached = ", ".join(sorted(estimator.reaches))
            of_rule = f" of {rule}" if field == "rule" else ""
            instead = {"init": "learn_init=False", "shared": ".requires_grad_(False) on these"}
            fix = f"Use estimator=outer.Unrolled(), or {instead.get(field, 'a rule without meta-parameters')}."
            condition = f"reach all that is learned, {names}{of_rule} too"
            raise ValueError(invalid(f"estimator {estimator}", condition, f"one that reaches {reached} only", fix))


def check_owns(criterion: str, adapting: list[str]) -> None:
    """Raise if a criterion holds parameters that adapt: it would see what they are before."""
    if adapting:
        fix = "Write support_loss= and query_loss=, which are given the adapted ones, or leave them out of fast=."
        raise ValueError(invalid(criterion, "hold no parameters that adapt", adapting, fix))


def check_serial(estimator: MetaGradient, num_tasks: int) -> None:
    """Raise if an estimator that carries one task's progress is given several tasks."""
    if estimator.serial and num_tasks != 1:
        fix = "Pass the same one at every call: fit(learner, [episode], ...)."
        raise ValueError(invalid(f"tasks for {estimator}", "come one at a time", num_tasks, fix))


def check_episodes(episodes: Any) -> int:
    """Return the number of tasks; raise unless the episodes' shapes agree."""
    if not (isinstance(episodes, Episode) and all(isinstance(batch, Batch) for batch in episodes)):
        fix = "Pass tasks.sample(25), or Episode(Batch(x, y), Batch(x, y)) with a leading task axis."
        got = type(episodes).__name__
        if isinstance(episodes, Episode):
            got += " of " + " and ".join(type(batch).__name__ for batch in episodes)
        raise TypeError(invalid("episodes", "be an Episode of two Batches", got, fix))
    return check_task_axis({"support": episodes.support, "query": episodes.query})


def check_task_axis(batches: dict[str, Batch]) -> int:
    """Return the number of tasks; raise unless all tensors agree on it and each batch on its number of examples."""
    sizes = set()
    for name, batch in batches.items():
        if not isinstance(batch, Batch):
            fix = "Write learner.adapt(episodes.support)."
            raise TypeError(invalid(name, "be a Batch", type(batch).__name__, fix))
        for field, part in zip(batch._fields, batch, strict=True):
            for leaf in tree_leaves(part):
                _check_leaf(f"{name}.{field}", leaf)
                sizes.add(leaf.shape[0])
        _check_examples(name, *batch)
    if len(sizes) != 1 or 0 in sizes:
        places = [f"{name}.{place}" for name, batch in batches.items() for place in tree_names(batch)]
        got = dict(zip(places, map(len, tree_leaves(tuple(batches.values()))), strict=True))
        fix = "Every tensor begins with [num_tasks, num_examples]; for one task that is tensor[None]."
        raise ValueError(invalid("episodes", "agree on a number of tasks of at least 1", got, fix))
    return sizes.pop()


def _check_leaf(name: str, leaf: Any) -> None:
    if not isinstance(leaf, Tensor) or leaf.dim() == 0:
        fix = "Stack the tasks' tensors: torch.stack([...])."
        raise TypeError(invalid("episodes", "hold tensors with a leading task axis", f"{leaf!r} in {name}", fix))
    if leaf.requires_grad:
        fix = "Detach it, or learn it as a model parameter or in a support_criterion."
        raise ValueError(invalid("episodes", "not require grad", f"{name}, whose gradient would be lost", fix))


def _check_examples(name: str, x: Any, y: Any, weight: Any) -> None:
    if isinstance(x, Tensor) and isinstance(weight, Tensor) and weight.shape != x.shape[:2]:
        got, fix = f"{name}.weight {tuple(weight.shape)}", f"Give {name}.weight one number an example."
        raise ValueError(invalid("weights", f"be of shape {tuple(x.shape[:2])}, [num_tasks, num_examples]", got, fix))
    if isinstance(x, Tensor) and isinstance(y, Tensor) and min(x.dim(), y.dim()) > 1 and x.shape[:2] != y.shape[:2]:
        got = f"{name}.x {tuple(x.shape)} and {name}.y {tuple(y.shape)}"
        fix = "Both begin with [num_tasks, num_examples]."
        raise ValueError(invalid("inputs and targets", "agree on tasks and examples", got, fix))
    if {leaf.shape[1] for leaf in tree_leaves(x) if leaf.dim() > 1} == {0}:
        shapes = [tuple(leaf.shape) for leaf in tree_leaves(x)]
        fix = "Every tensor begins with [num_tasks, num_examples]."
        raise ValueError(invalid(f"{name}.x", "have at least 1 example", shapes, fix))


def check_judged(problem: Problem, episodes: Episode) -> None:
    """Raise if a loss is of a set that is left out."""
    for name, batch in zip(Episode._fields, episodes, strict=True):
        if isinstance(getattr(problem, f"{name}_loss"), OnSupport | OnQuery) and not tree_leaves(batch):
            fix = "Pass data.SupportAsQuery(tasks), or Episode(support, support)." if name == "query" else ""
            condition = f"have the examples that the {name} loss is measured on"
            raise ValueError(invalid(f"{name} set", condition, "none", fix))


def warn_of_single_examples(episodes: Episode) -> None:
    """Warn of tasks of one example without features, which are rather the examples of one task."""
    # What adaptation is given has no query set; without targets it is no regression.
    parts = [part for batch in episodes if tree_leaves(batch) for part in (batch.x, batch.y)]
    shapes = {tuple(part.shape) if isinstance(part, Tensor) and part.is_floating_point() else () for part in parts}
    num_tasks = len(tree_leaves(parts)[0])
    if num_tasks > 1 and shapes == {(num_tasks, 1)}:
        got = f"{(num_tasks, 1)}, {num_tasks} tasks of one example each"
        fix = f"For one task of {num_tasks} examples write x[None], y[None]."
        warnings.warn(invalid("x and y", "be [num_tasks, num_examples, ...]", got, fix), stacklevel=2)


def check_device(batches: Any, device: torch.device) -> None:
    """Raise unless the data are on the learner's device."""
    for leaf in tree_leaves(batches):
        if leaf.device != device:
            fix = f"Write episodes.to({str(device)!r}), or sample(..., device={str(device)!r})."
            raise ValueError(invalid("episodes", f"be on the learner's device {device}", leaf.device, fix))


def check_norms(model: nn.Module, problem: Problem) -> None:
    """Raise if normalisation layers have been replaced since the losses were made."""
    losses = [on.loss for on in (problem.support_loss, problem.query_loss) if isinstance(on, OnSupport | OnQuery)]
    norms = Norms.of(model)
    if any(loss.norms != norms for loss in losses):
        fix = "Call models.use_batch_statistics before you build the learner."
        raise ValueError(invalid("model", "keep its normalisation layers in a learner", "others", fix))


def check_statistics(model: nn.Module, problem: Problem, estimator: MetaGradient) -> None:
    """Raise unless the model's normalisation layers get what they need of losses and estimator."""
    norms = Norms.of(model)
    told = isinstance(problem.support_loss, OnSupport) and isinstance(problem.query_loss, OnQuery)
    if not told and (norms.by_support or norms.by_step):
        fix = "Give a criterion, or functional.OnSupport(...) and functional.OnQuery(functional.ModelLoss(...))."
        got = "a loss of its own"
        raise ValueError(invalid("'support' or 'per_step' statistics", "be used by losses of the model", got, fix))
    for name, rows in norms.rows:
        if rows not in (0, problem.num_steps + 1):
            fix = f"Write batch_statistics='per_step', num_steps={problem.num_steps}."
            raise ValueError(invalid(f"layer {name!r}", f"be made for {problem.num_steps} inner steps", rows - 1, fix))
        if rows and "support" not in estimator.differentiates:
            got, fix = "'per_step' in the model", "Use batch_statistics='support'."
            raise ValueError(invalid(f"batch statistics under {estimator}", "not be tracked", got, fix))


def check_precision(kind: str, dtype: torch.dtype) -> None:
    """Raise if the parameters, or autocast on their kind of device, use float16: nobody could scale the gradient."""
    if torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16:
        fix = f"Write torch.autocast({kind!r}, torch.bfloat16)."
        raise ValueError(invalid("autocast", "use bfloat16", "float16", fix))
    if dtype == torch.float16:
        raise ValueError(invalid("parameters", "be of bfloat16 or more bits", "float16", "Write learner.float()."))


def check_keys(keys: Any, num_tasks: int) -> None:
    """Raise unless there is one int64 key a task."""
    if not isinstance(keys, Tensor) or keys.dtype != torch.int64 or keys.shape != (num_tasks,):
        got = f"{tuple(keys.shape)} of {keys.dtype}" if isinstance(keys, Tensor) else repr(keys)
        fix = f"Write keys=functional.draw_keys({num_tasks})."
        raise ValueError(invalid("keys", f"be int64 of shape ({num_tasks},)", got, fix))


def check_support_batches(support: Batch, num_batches: int) -> None:
    """Raise unless the support set can be dealt into equal parts."""
    if num_batches > 1 and tree_leaves(support.weight):
        fix = "Leave support_batches out."
        raise ValueError(invalid("support_batches", "be 1 for tasks of different sizes", num_batches, fix))
    sizes = {leaf.shape[1] for leaf in tree_leaves(support) if leaf.dim() > 1}
    if bad := [size for size in sizes if size % num_batches]:
        fix = f"Use support_batches={_largest_divisor(bad[0], num_batches)}, say."
        raise ValueError(invalid("support_batches", f"divide the {bad[0]} support examples", num_batches, fix))


def _largest_divisor(number: int, at_most: int) -> int:
    candidates: Iterable[int] = range(min(number, at_most), 0, -1)
    return next(divisor for divisor in candidates if number % divisor == 0)
