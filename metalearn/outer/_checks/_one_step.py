"""One inner step on one task, as learners compute it and by hand in plain autograd."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from metalearn import inner
from metalearn._attributes import attributes_kept
from metalearn._random import random_numbers_kept
from metalearn._tree import tree_leaves, tree_map, tree_zeros_like
from metalearn.functional import grad_and_value
from metalearn.outer._checks._named import in_losses
from metalearn.outer._unrolled import Unrolled
from metalearn.types import Carry, Episode, Meta, Params, Problem

Results: TypeAlias = dict[str, Params]
"""Losses, and gradients by the names of parameters."""


class Probe(NamedTuple):
    """Where results are computed.

    Attributes:
        meta: Parameters of the support loss; one step later they are those of the query loss.
        moved_on: Parameters of the query loss instead, if no gradient is wanted.
        episode: One task.
        order: How many times losses are differentiated, as for `compare`.
        rate: Rate of the step.
        aliases: First names of shared tensors by all their names: gradients go by the first.
    """

    meta: Meta
    moved_on: Params
    episode: Episode
    order: int
    rate: float = 0.0
    aliases: Mapping[str, str] = {}


def kept(results: Callable[[Problem, Probe], Results], problem: Problem, probe: Probe) -> Results:
    """Return results, and leave generators and modules as they were, the same for both ways."""
    device = tree_leaves(probe.meta)[0].device
    with random_numbers_kept(device), attributes_kept(problem.support_loss, problem.query_loss):
        return tree_map(Tensor.detach, results(problem, probe))


def by_hand(problem: Problem, probe: Probe) -> Results:
    """Return losses and gradients before and after a gradient step, in plain autograd."""
    meta = tree_map(lambda leaf: leaf.detach().requires_grad_(probe.order > 0), probe.meta)
    params = probe.moved_on
    with torch.enable_grad():
        loss = problem.support_loss(meta.init, meta.shared, probe.episode, 0)
        results: Results = {"support loss": {"": loss}}
        if probe.order:
            grads = _gradient(loss, meta.init, create_graph=probe.order == 2)
            results["support gradient"] = grads
            params = {name: param - probe.rate * grads[name] for name, param in meta.init.items()}
        if tree_leaves(probe.episode.query):
            loss = problem.query_loss(params, meta.shared, probe.episode)
            results["query loss"] = {"": loss}
            if probe.order:
                gradient = _gradient(loss, in_losses(meta), create_graph=False)
                results["meta-gradient"] = _joined(gradient, probe.aliases)
    return results


def by_library(problem: Problem, probe: Probe) -> Results:
    """Return the same as learners compute it."""
    (init, shared, _), episode = probe.meta, probe.episode
    if not probe.order:
        return {
            "support loss": {"": problem.support_loss(init, shared, episode, 0)},
            "query loss": {"": problem.query_loss(probe.moved_on, shared, episode)},
        }
    with random_numbers_kept(tree_leaves(init)[0].device):
        grads, loss = grad_and_value(problem.support_loss)(init, shared, episode, 0)
    problem = problem._replace(rule=inner.SGD(probe.rate), num_steps=1)
    meta, key = Meta(init, shared, {}), torch.tensor(0)
    estimate = Unrolled(probe.order)(problem, meta, episode, key, Carry())
    return {
        "support loss": {"": loss},
        "query loss": {"": estimate.loss},
        "support gradient": grads,
        "meta-gradient": _joined(in_losses(estimate.gradient), probe.aliases),
    }


def _gradient(loss: Tensor, inputs: Params, create_graph: bool) -> Params:
    """Return a loss's gradient by name, zero where it does not depend on an input."""
    if not loss.requires_grad:
        return tree_zeros_like(inputs)
    of = list(inputs.values())
    grads = torch.autograd.grad(
        loss, of, retain_graph=True, create_graph=create_graph, materialize_grads=True
    )
    return dict(zip(inputs, grads, strict=True))


def _joined(gradients: Params, aliases: Mapping[str, str]) -> Params:
    """Return gradients with those of one tensor added up."""
    joined: Params = {}
    for name, gradient in gradients.items():
        first = aliases.get(name, name)
        joined[first] = joined[first] + gradient if first in joined else gradient
    return joined
