"""The eager run of one task before the first meta-step, which finds what shapes alone cannot show."""

from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from metalearn._checks import invalid
from metalearn._modules import call_model
from metalearn.functional import ModelLoss
from metalearn.outer._base import MetaGradient
from metalearn.types import Batch, Episode, Meta, Params, Problem


def probe(problem: Problem, estimator: MetaGradient, meta: Meta, episode: Episode, key: Tensor) -> None:
    """Run one task eagerly and raise for what would fail late, or pass silently.

    Raises:
        TypeError: If a loss returns no tensor.
        ValueError: If a loss is no scalar, a label is out of range, a parameter that is learned gets no gradient, or
            the model draws random numbers under an estimator that computes a loss twice.
    """
    device = key.device
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        _check_labels(problem, meta, episode)
        unused = _unused(problem, meta, episode)
        before = _generator_states(cuda)
        estimate = estimator(problem, meta, episode, key, estimator.init_carry(problem, meta, episode))
        drew = any(not torch.equal(a, b) for a, b in zip(before, _generator_states(cuda), strict=True))
    if drew and estimator.repeats_losses:
        fix = "Use estimator=outer.Unrolled(), or switch dropout off with learner.eval()."
        got = "random draws in its forward pass"
        raise ValueError(invalid(f"model under {estimator}", "compute the same loss twice", got, fix))
    in_query = unused["query"]
    if nowhere := sorted(unused["support"] & in_query):
        fix = "Call .requires_grad_(False) on them before building the learner, or use them in the model."
        raise ValueError(invalid("learned parameters", "get a gradient", f"none for {nowhere}", fix))
    gradients = _named(estimate.gradient)
    if in_query and not any(gradients[name].any() for name in in_query):
        fix = "Use an estimator of order 2."
        got = f"none for {sorted(in_query)}, which act through the inner loop alone"
        raise ValueError(invalid(f"{estimator}", "give all learned parameters a gradient", got, fix))


def _named(meta: Meta) -> dict[str, Tensor]:
    return {**{f"model.{name}": leaf for name, leaf in meta.init.items()}, **meta.shared}


def _unused(problem: Problem, meta: Meta, episode: Episode) -> dict[str, set[str]]:
    """Return the learned parameters that the support loss, and those that the query loss, does not depend on."""
    init = {name: leaf.detach().requires_grad_() for name, leaf in meta.init.items()}
    shared = {name: leaf.detach().requires_grad_() for name, leaf in meta.shared.items()}
    leaves = _named(Meta(init, shared, {}))
    with torch.enable_grad():
        losses = {
            "support": problem.support_loss(init, shared, episode, 0),
            "query": problem.query_loss(init, shared, episode),
        }
        return {name: _unreached(name, loss, leaves) for name, loss in losses.items()}


def _unreached(name: str, loss: Any, leaves: dict[str, Tensor]) -> set[str]:
    if not isinstance(loss, Tensor):
        fix = "Return the loss as a scalar tensor."
        raise TypeError(invalid(f"{name} loss", "be a tensor", type(loss).__name__, fix))
    if loss.dim() > 0:
        fix = "Average it: reduction='mean', or loss.mean()."
        raise ValueError(invalid(f"{name} loss", "be a scalar", f"shape {tuple(loss.shape)}", fix))
    if not loss.requires_grad:
        return set(leaves)
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {name for name, grad in zip(leaves, grads, strict=True) if grad is None}


def _check_labels(problem: Problem, meta: Meta, episode: Episode) -> None:
    """Raise if a class index has no logit: on a GPU that is an assertion that kills the process."""
    for name, loss in (("support", problem.support_loss), ("query", problem.query_loss)):
        batch: Batch = getattr(episode, name)
        model_loss = getattr(loss, "loss", None)
        if isinstance(model_loss, ModelLoss) and _takes_class_indices(model_loss.criterion, batch.y):
            tensors: Params = model_loss.model_tensors(meta.init, meta.shared)
            num_classes = call_model(model_loss.model, tensors, batch.x).shape[1]
            labels = batch.y[batch.y != getattr(model_loss.criterion, "ignore_index", -100)]
            if labels.numel() and not (labels.min() >= 0 and labels.max() < num_classes):
                fix = "Give the model n_way outputs."
                got = f"labels from {labels.min().item()} to {labels.max().item()}"
                condition = f"be below the model's {num_classes} outputs and at least 0"
                raise ValueError(invalid(f"{name} labels", condition, got, fix))


def _takes_class_indices(criterion: Any, target: Any) -> bool:
    known = criterion in (F.cross_entropy, F.nll_loss) or isinstance(criterion, nn.CrossEntropyLoss | nn.NLLLoss)
    return known and isinstance(target, Tensor) and not target.is_floating_point()


def _generator_states(cuda: list[torch.device]) -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in cuda)]
