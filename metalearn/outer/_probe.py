"""Eager runs on the first episodes, which find what shapes alone cannot show."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._checks import invalid
from metalearn._computable import computable
from metalearn._modules import call_model
from metalearn._random import random_numbers_kept
from metalearn._tasks import take
from metalearn._tree import tree_detach, tree_flatten, tree_leaves
from metalearn.functional import OnQuery, OnSupport
from metalearn.models import FrozenNorm
from metalearn.outer._base import MetaGradient
from metalearn.outer._captured import captured
from metalearn.outer._criterion_checks import check_label_axes, check_targets, check_weights, judges_targets
from metalearn.outer._per_task import unwrapped
from metalearn.outer._reverse_mode import ReverseMode
from metalearn.types import Batch, Episode, Estimate, Meta, Params, Problem


def check_losses(problem: Problem, meta: Meta, episodes: Episode, learner: nn.Module) -> None:
    """Compute the first task's losses at the start; without a query set, that of the support set alone.

    Raises:
        TypeError: If a loss is no tensor, or does not take the weights or the labels that are given.
        ValueError: If a loss cannot be computed, is no scalar or depends on a parameter that it is not given, labels
            have no axis of examples or one of any task is out of range, outputs and targets differ in shape, or the
            model writes into a buffer.
    """
    learned = {id(leaf) for leaf in tree_leaves(meta)}
    constants = {id(tensor) for tensor in (*learner.parameters(), *learner.buffers())} - learned
    names = {id(param): name for name, param in learner.named_parameters()}
    with torch.no_grad(), random_numbers_kept(tree_leaves(meta)[0].device), _buffers_unwritten(learner):
        for name, batch in zip(Episode._fields, episodes, strict=True):
            if name == "support" or tree_leaves(batch):
                foreign = _check_loss(name, problem, tree_detach(meta), episodes, batch)
                _check_captures(name, problem, [leaf for leaf in foreign if id(leaf) not in constants], names)


def check_gradient(
    problem: Problem, estimator: MetaGradient, meta: Meta, episode: Episode, key: Tensor, unlearned: list[str]
) -> None:
    """Estimate one task's meta-gradient eagerly.

    Raises:
        ValueError: If a learned parameter gets no gradient, or the model draws random numbers under an estimator that
            computes a loss twice.
    """
    if unlearned:
        fix = "Call .requires_grad_(True) before you build the learner, or .requires_grad_(False) now."
        raise ValueError(invalid("constants of the learner", "not require grad", unlearned, fix))
    with random_numbers_kept(key.device):
        check_rule(problem, meta, key)
        unused = _unused(problem, estimator, meta, episode)
        before = _generator_states(key.device)
        estimate = _estimate(problem, estimator, meta, episode, key)
        drew = any(not torch.equal(a, b) for a, b in zip(before, _generator_states(key.device), strict=True))
    for doubt in estimator.doubts(estimate.diagnostics):
        warnings.warn(doubt, stacklevel=2)
    if drew and estimator.repeats_losses:
        fix = "Use estimator=outer.Unrolled(), or switch dropout off with learner.eval()."
        got = "random draws in its forward pass"
        raise ValueError(invalid(f"model under {estimator}", "compute the same loss twice", got, fix))
    if nowhere := sorted(unused["support"] & unused["query"]):
        fix = "Call .requires_grad_(False) on them before building the learner, or use them in the model."
        raise ValueError(invalid("learned parameters", "get a gradient", f"none for {nowhere}", fix))
    reverse = unwrapped(estimator)
    if isinstance(reverse, ReverseMode) and (reverse.order == 1 or reverse.truncate is not None):
        _check_limited(problem, reverse, estimate, unused["query"])


def _check_limited(problem: Problem, estimator: ReverseMode, estimate: Estimate, not_in_query: set[str]) -> None:
    """Raise if what is left of the inner loop's derivative is too little for what is learned."""
    fix = f"Use outer.{type(estimator).__name__}(), of order 2 and not truncated."
    of_rule = tree_leaves(estimate.gradient.rule)
    if of_rule and not any(leaf.any() for leaf in of_rule):
        got = "zero for all of its meta-parameters"
        raise ValueError(invalid(f"{estimator}", f"give {problem.rule} a gradient", got, fix))
    # One of them may be zero for good reasons, as the last bias of a learned loss is; all of them at once may not.
    gradients = _named(estimate.gradient)
    if not_in_query and not any(gradients[name].any() for name in not_in_query):
        got = f"none for {sorted(not_in_query)}, which act through the inner loop alone"
        raise ValueError(invalid(f"{estimator}", "give all learned parameters a gradient", got, fix))


def warn_of_new_statistics(model: nn.Module) -> None:
    """Warn of frozen statistics that nothing has set: layers with them normalise nothing."""
    norms = {name: norm for name, norm in model.named_modules() if isinstance(norm, FrozenNorm)}
    if new := [name for name, norm in norms.items() if not norm.mean.any() and (norm.var == 1).all()]:
        fix = "Load a pretrained model's with load_state_dict, or choose batch_statistics='support'."
        warnings.warn(invalid("frozen statistics", "be set", f"those of new layers in {new}", fix), stacklevel=2)


def check_rule(problem: Problem, meta: Meta, key: Tensor) -> Params:
    """Call the update rule once on gradients of zero, and return its updates.

    Raises:
        TypeError: If it does not return a dict of updates and the next state.
        ValueError: If the updates are not named and shaped as the parameters, the state changes its structure, or the
            rule depends on a parameter of its own that is not in `init_meta`.
    """
    zeros = {name: torch.zeros_like(param) for name, param in meta.init.items()}
    loss = key.new_zeros((), dtype=torch.float)

    def update() -> Any:
        state = problem.rule.init_state(meta.rule, meta.init, key)
        return problem.rule.update(meta.rule, zeros, state, meta.init, loss, 0), state

    (returned, state), foreign = captured(update)
    what = f"update of {problem.rule}"
    if not (isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[0], dict)):
        fix = "Write `return updates, state`."
        raise TypeError(invalid(what, "return a dict of updates and the next state", type(returned).__name__, fix))
    wanted, got = ({name: tuple(leaf.shape) for name, leaf in tree.items()} for tree in (meta.init, returned[0]))
    if wanted != got:
        fix = "Return {name: ... for name, grad in grads.items()}."
        raise ValueError(invalid(what, f"be named and shaped as the parameters, {wanted}", got, fix))
    if tree_flatten(returned[1])[1] != tree_flatten(state)[1]:
        fix = "Return the state as init_state shapes it."
        got_spec = tree_flatten(returned[1])[1]
        raise ValueError(invalid(f"state of {problem.rule}", "keep its structure", got_spec, fix))
    if foreign:
        own = f"one of shape {tuple(foreign[0].shape)}, which nothing would learn"
        fix = "Return it from init_meta and take it from meta, or detach it."
        raise ValueError(invalid(type(problem.rule).__name__, "hold no parameters but those of init_meta", own, fix))
    return returned[0]


def _check_loss(name: str, problem: Problem, meta: Meta, episodes: Episode, batch: Batch) -> list[Tensor]:
    """Compute a loss, and return the tensors that require grad which it depends on."""
    on = getattr(problem, f"{name}_loss")
    explained = partial(_explained, name, meta, batch)
    if isinstance(on, OnSupport | OnQuery):
        check_weights(on.loss, batch)
        if judges_targets(on.loss, batch.y):
            check_label_axes(name, on.loss.criterion, batch.y)
            with explained():
                tensors = on.loss.model_tensors(meta.init, meta.shared)
                output = call_model(on.loss.model, tensors, take(batch.x, 0))
            check_targets(name, on.loss.criterion, output, batch.y)
    with explained():
        step = [0] if name == "support" else []
        loss, foreign = captured(lambda: on(meta.init, meta.shared, take(episodes, 0), *step))
    _check_scalar(name, loss)
    return foreign


def _check_captures(name: str, problem: Problem, foreign: list[Tensor], names: dict[int, str]) -> None:
    """Raise if a loss depends on tensors that it is not given, which require grad and would never get one."""
    if foreign:
        on = getattr(problem, f"{name}_loss")
        what = f"model and {on.loss.name}" if isinstance(on, OnSupport | OnQuery) else f"{name}_loss"
        first = foreign[0]
        got = f"one of shape {tuple(first.shape)}, which nothing would learn"
        fix = "Pass an nn.Module that owns it, which is then learned, or detach it."
        if id(first) in names:
            got = f"{names[id(first)]}, whose gradient would be lost"
            fix = "Take it from the arguments of a support_loss or query_loss, or detach it."
        raise ValueError(invalid(what, "capture no parameters", got, fix))


@contextmanager
def _explained(name: str, meta: Meta, batch: Batch) -> Iterator[None]:
    """Explain what a loss raises on the first task's data."""
    whose, beside = f"The first task's {name}", f", the model's parameters of {tree_leaves(meta.init)[0].dtype}"
    try:
        with computable(f"{name} loss", take(batch, 0), whose, beside):
            yield
    except TypeError as error:
        if not tree_leaves(batch.weight):
            raise
        fix = "Use functional.cross_entropy, or a criterion (output, target, weight) -> scalar."
        raise TypeError(invalid(f"{name} loss", "take the weights of the examples", error, fix)) from error


@contextmanager
def _buffers_unwritten(learner: nn.Module) -> Iterator[None]:
    """Raise if a buffer is written to or replaced, after all are put back."""
    places = {
        f"{path}.{name}".lstrip("."): (module, name, buffer, buffer._version, buffer.clone())
        for path, module in learner.named_modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    }
    written = []
    try:
        yield
    finally:
        for path, (module, name, buffer, version, value) in places.items():
            if module._buffers[name] is not buffer or buffer._version != version:
                written.append(path)
                module._buffers[name] = buffer.copy_(value)
    if written:
        fix = "Write models.use_batch_statistics(model, 'support'), or keep what it writes in an estimator's carry."
        raise ValueError(invalid("model", "leave its buffers as they are", f"writes into {written}", fix))


def _estimate(problem: Problem, estimator: MetaGradient, meta: Meta, episode: Episode, key: Tensor) -> Estimate:
    try:
        return estimator(problem, meta, episode, key, estimator.init_carry(problem, meta, episode))
    except RuntimeError as error:
        if "vmap" in str(error) or "Batching rule" in str(error):
            fix = "Use an estimator that differentiates task by task, such as outer.Stepwise()."
            raise ValueError(invalid(f"model under {estimator}", "be one that vmap can trace", error, fix)) from error
        if "is not implemented" not in str(error):
            raise
        kernels = "torch.nn.attention.sdpa_kernel(SDPBackend.MATH)"
        if "cudnn_rnn" in str(error):
            kernels = "torch.backends.cudnn.flags(enabled=False)"
        fix = f"The model has them in `with {kernels}:`, or use order 1."
        raise ValueError(invalid("model", "have second derivatives", error, fix)) from error


def _check_scalar(name: str, loss: Any) -> None:
    if not isinstance(loss, Tensor):
        fix = "Return the loss as a scalar tensor."
        raise TypeError(invalid(f"{name} loss", "be a tensor", type(loss).__name__, fix))
    if loss.dim() > 0:
        fix = "Average it: reduction='mean', or loss.mean()."
        raise ValueError(invalid(f"{name} loss", "be a scalar", f"shape {tuple(loss.shape)}", fix))


def _named(meta: Meta) -> dict[str, Tensor]:
    return {**{f"model.{name}": leaf for name, leaf in meta.init.items()}, **meta.shared}


def _unused(problem: Problem, estimator: MetaGradient, meta: Meta, episode: Episode) -> dict[str, set[str]]:
    """Return the learned parameters that the support loss, and those that the query loss, does not depend on.

    Of a loss that needs no derivative nothing is known.

    Raises:
        ValueError: If the support loss needs a derivative and has none.
    """
    init = {name: leaf.detach().requires_grad_() for name, leaf in meta.init.items()}
    shared = {name: leaf.detach().requires_grad_() for name, leaf in meta.shared.items()}
    leaves = _named(Meta(init, shared, {}))
    unused: dict[str, set[str]] = {"support": set(), "query": set()}
    with torch.enable_grad():
        if "support" in estimator.differentiates:
            steps = range(problem.num_steps)  # of which each may have a loss of its own
            unused["support"] = set.intersection(
                *(_unreached(problem.support_loss(init, shared, episode, step), leaves) for step in steps)
            )
            if unused["support"] >= {f"model.{name}" for name in init}:
                fix = "Use the model's output in it, or estimator=outer.EvolutionStrategies(inner=True)."
                got = "none for any parameter that adapts"
                raise ValueError(invalid("support loss", "have a derivative", got, fix))
        if "query" in estimator.differentiates:
            unused["query"] = _unreached(problem.query_loss(init, shared, episode), leaves)
    return unused


def _unreached(loss: Tensor, leaves: dict[str, Tensor]) -> set[str]:
    """Return the names that a loss has no gradient for, of tensors that go by no other name which it has one for."""
    if not loss.requires_grad:
        return set(leaves)
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    reached = {_place(leaf) for leaf, grad in zip(leaves.values(), grads, strict=True) if grad is not None}
    return {name for name, leaf in leaves.items() if _place(leaf) not in reached}


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.stride()


def _generator_states(device: torch.device) -> list[Tensor]:
    cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *cuda]
