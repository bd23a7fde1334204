"""What a learner refuses of a call by shapes, dtypes, devices and the state of its modules."""

from enum import Enum
from typing import Any

import torch
import torch.nn as nn

from metalearn._checks import invalid
from metalearn._walk import modules_of, parts_of
from metalearn.functional._losses import is_of_model
from metalearn.models._batch_norm import Norms
from metalearn.outer._checks._episodes import (
    check_device,
    check_episodes,
    check_sets,
    check_task_axis,
    check_weights,
)
from metalearn.outer._checks._named import losses_on_sets
from metalearn.outer._checks._sharded import check_sharded
from metalearn.outer._checks._support_batches import (
    check_num_steps,
    check_support_batches,
    check_whole,
    examples_of,
)
from metalearn.outer._over_tasks import has_tables_of_one
from metalearn.types import Problem


class Purpose(Enum):
    """What a learner is called for."""

    META_GRADIENT = "a meta-gradient"
    LOSSES = "losses after adaptation"
    EPISODES = "a look at the episodes"
    ADAPTATION = "adaptation, without a query set"


def check_call(learner: Any, episodes: Any, purpose: Purpose) -> None:
    """Raise unless the episodes fit the learner in its present state."""
    if purpose is Purpose.ADAPTATION:
        batches = {"support": episodes.support}
        check_task_axis(batches)
    else:
        check_episodes(episodes)
        batches = episodes._asdict()
    check_sharded(learner, episodes)
    problem: Problem = learner.problem
    check_sets(problem, batches)
    check_device(batches, learner.device)
    check_support_batches(problem, episodes.support)
    if purpose is not Purpose.ADAPTATION:
        check_whole(problem, episodes)
    examples = examples_of(problem, episodes.support)
    check_weights({**batches, "support": examples})
    if purpose in (Purpose.META_GRADIENT, Purpose.LOSSES):
        check_num_steps(problem, episodes.support)
    check_norms(learner.model, problem, has_one=examples is episodes.support)
    check_under_vmap(learner)
    check_precision(learner.device.type, learner.dtype)
    if purpose is Purpose.META_GRADIENT:
        check_on_gpu(learner)


def check_on_gpu(learner: Any) -> None:
    """Raise if a learner that records a CUDA graph is not on a GPU."""
    if learner.cuda_graph and learner.device.type != "cuda":
        fix = "Write .to('cuda'), or call set_batching again, without cuda_graph."
        raise invalid("a learner with cuda_graph=True", "be on a GPU", learner.device, fix)


def check_under_vmap(learner: Any) -> None:
    """Raise for backward hooks and padded embeddings, which vmap would silently change."""
    if learner.batching == "loop":
        return
    if any(each._backward_hooks or each._backward_pre_hooks for each in modules_of(learner)):
        fix = "Remove them, or choose batching='loop'."
        raise invalid("modules under vmap", "have no hooks of the backward pass", "some", fix)
    losses = (learner.problem.support_loss, learner.problem.query_loss)
    if not all(map(is_of_model, losses)) and any(map(has_tables_of_one, parts_of(learner))):
        what = "embeddings in losses of your own under vmap"
        condition = "have no padding_idx and no scale_grad_by_freq"
        raise invalid(what, condition, "one that has", "Choose batching='loop'.")


def check_norms(model: nn.Module, problem: Problem, has_one: bool) -> None:
    """Raise if normalisation layers were replaced after the losses were made, or lack statistics.

    Args:
        model: The model.
        problem: What losses it has.
        has_one: Whether a support set is one batch, whose statistics a query set can have.
    """
    norms = Norms.of(model)
    if norms.by_support and not has_one:
        what, condition = "a support set that is batches of steps", "need no 'support' statistics"
        fix = "Choose models.use_batch_statistics(model, 'transductive'), say."
        raise invalid(what, condition, "a model that has them", fix)
    if any(on.loss.network.norms != norms for on in losses_on_sets(problem).values()):
        fix = "Call models.use_batch_statistics before you build the learner."
        raise invalid("model", "keep its normalisation layers in a learner", "others", fix)


def check_precision(device_type: str, dtype: torch.dtype) -> None:
    """Raise for float16 parameters or autocast: nothing here scales the gradient."""
    autocast = torch.is_autocast_enabled(device_type) and torch.get_autocast_dtype(device_type)
    if autocast == torch.float16:
        fix = f"Write torch.autocast({device_type!r}, torch.bfloat16)."
        raise invalid("autocast", "use bfloat16", "float16", fix)
    if dtype == torch.float16:
        condition = "be of bfloat16 or more bits"
        raise invalid("parameters", condition, "float16", "Write learner.float().")
