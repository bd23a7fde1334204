"""Plan once, then run: a kind of call is checked when it is new, and its plan remembered.

The modules of a learner are walked once a call, to see whether anything is another than it was:
modes, what requires grad, hooks, layers, dtypes and devices. With the kind of the data this is the
key of a plan. What is checked when stands in `_checks/__init__.py`.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._layers import HOOKS, KNOWN, is_changed
from metalearn._modules import TensorTree
from metalearn._tasks import num_tasks, over_chunks
from metalearn._tree import tree_leaves
from metalearn.functional._losses import is_of_model
from metalearn.models import PerStepNorm
from metalearn.outer._checks._call import Purpose, check_call
from metalearn.outer._checks._episodes import check_keys
from metalearn.outer._checks._kind import check_kind
from metalearn.outer._compile import WholeStep
from metalearn.outer._estimates import Setup
from metalearn.outer._over_tasks import How, choose
from metalearn.types import Episode, Meta, Problem, PyTree

MOST = 1000
"""Number of plans that are remembered: texts may be of any length."""
AUTOCAST = ("cpu", "cuda", "mps", "xpu")
"""Kinds of devices that have it."""
PLAIN = (bool, int, float, str, tuple)
"""Types of the attributes that known layers compute with."""
WRITERS_OF_NOTHING = {*KNOWN, nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Module, TensorTree}


@dataclass(frozen=True, eq=False)
class Plan:
    """How calls of one kind are run.

    Attributes:
        problem: The learner's, whose losses need not look whether the model is as it was.
        how: How an estimator is applied to tasks.
        run: `(meta, common, own, episodes, keys)`, as `estimate_tasks` in chunks.
        device: Where the learner is.
        writers: The modules whose attributes a call may change.
        carries: Whether the estimator or the learner carries anything.
        tracks: Whether the model has running statistics of its own for every inner step.
        source: The learner's problem itself, which must still be this one.
        modules: All that was walked, so that no other module has the identity of one of them.
    """

    problem: Problem
    how: How
    run: Callable[..., Any]
    device: torch.device
    writers: list[nn.Module]
    carries: bool
    tracks: bool
    source: Problem
    modules: list[nn.Module]


class Plans:
    """The plans of a learner, by what they depend on.

    Args:
        step: How a meta-step is run: as it is, compiled or recorded.
        own: Whether every task has a `Meta` of its own.
    """

    def __init__(self, step: WholeStep, own: bool = False) -> None:
        self.step, self._own = step, own
        self._plans: dict[Any, Plan] = {}
        self._passed: set[Any] = set()

    def of(
        self,
        learner: Any,
        episodes: Episode,
        keys: Tensor | None,
        purpose: Purpose,
        subject: Callable[[Any], Any] = lambda learner: learner,
    ) -> tuple[Plan, Tensor]:
        """Return the plan of a call, and the tasks' keys.

        Args:
            learner: The learner.
            episodes: The call's tasks; for adaptation with an empty query set.
            keys: The tasks' keys `[num_tasks]`; drawn if not given.
            purpose: What the call is for.
            subject: From it to the learner that a new kind of call is tried on.

        Raises:
            TypeError: If the episodes are of the wrong kind.
            ValueError: If something is wrong with them, or ill posed.
        """
        key: list[Any] = [purpose, learner.check_model]
        modules = _walk([part for name, part in learner._modules.items() if name != "carry"], key)
        known = len(key)
        _read(episodes, key)
        plan = self._plans.get(hashed := tuple(key))
        if plan is None or plan.source is not learner.problem:
            check_call(learner, episodes, purpose)
            once, tried = partial(self._once, state=hashed[1:known]), subject(learner)
            check_kind(learner, tried, episodes, purpose, once)
            plan = self._planned(learner, tried, episodes, modules)
            if len(self._plans) >= MOST:
                self._plans.clear()
            self._plans[hashed] = plan
        count = len(tree_leaves(episodes)[0])
        if keys is None:
            # as functional.draw_keys, whose checks are for its users
            return plan, torch.randint(2**62, (count,), device=plan.device)
        check_keys(keys, count)
        return plan, keys.to(plan.device)

    def _once(self, what: Any, check: Callable[[], None], state: tuple[Any, ...]) -> None:
        """Run a check that costs a pass through the model, once for every state of the learner."""
        if (what, state) not in self._passed:
            check()
            self._passed.add((what, state))

    def _planned(
        self, learner: Any, tried: Any, episodes: Episode, modules: list[nn.Module]
    ) -> Plan:
        source, count = learner.problem, num_tasks(episodes)
        losses = _trusting(source.support_loss), _trusting(source.query_loss)
        problem = source._replace(support_loss=losses[0], query_loss=losses[1])
        how = choose(learner.estimator, source, learner.batching, self._own)
        setup = Setup(learner.estimator, problem, how, count)
        run = partial(self.step.for_shapes_of(episodes), learner, setup)
        if learner.chunk_size is not None and learner.chunk_size < count:
            run = partial(_run_in_chunks, run, learner.chunk_size)
        return Plan(
            problem,
            how,
            run,
            learner.device,
            writers=list(filter(_may_write, modules)),
            carries=not learner.carry.is_empty or tried.carries(episodes),
            tracks=any(isinstance(module, PerStepNorm) for module in modules),
            source=source,
            modules=modules,
        )

    def forget(self) -> None:
        """Forget the plans, but not what has been checked."""
        self._plans.clear()

    def __deepcopy__(self, memo: Any) -> "Plans":
        return Plans(copy.deepcopy(self.step), self._own)

    def __reduce__(self) -> Any:
        return Plans, (self.step, self._own)


def _may_write(module: nn.Module) -> bool:
    """Return whether calling a module may change its attributes, itself or by a hook."""
    return type(module) not in WRITERS_OF_NOTHING or is_changed(module)


def _run_in_chunks(
    run: Callable[..., Any], chunk_size: int, meta: Meta, common: PyTree, *per_task: Any
) -> Any:
    return over_chunks(partial(run, meta, common), per_task, chunk_size)


def _walk(parts: list[nn.Module], key: list[Any]) -> list[nn.Module]:
    """Append to a key all that a computation with modules depends on, and return the modules."""
    for hooks in HOOKS:
        key.append(bool(getattr(nn.modules.module, f"_global{hooks}")))
    modules, left = [], list(parts)
    while left:
        module = left.pop()
        modules.append(module)
        _describe(module, vars(module), key)
        left += [child for child in module._modules.values() if child is not None]
    return modules


def _describe(module: nn.Module, own: dict[str, Any], key: list[Any]) -> None:
    is_known = type(module) in KNOWN
    key += (id(module), "forward" in own, *map(bool, map(own.__getitem__, HOOKS)))
    for param in own["_parameters"].values():
        if param is not None:
            key += (param.requires_grad, param.dtype, param.device)
    types = PLAIN if is_known else (bool,)
    for name, value in own.items():
        if type(value) in types:
            key += (name, value)
    for buffer in own["_buffers"].values() if is_known else ():
        key.append(None if buffer is None else buffer.shape)


def _read(tree: Any, key: list[Any]) -> None:
    """Append to a key what data are, but for their values."""
    if isinstance(tree, Tensor):
        device = tree.device
        key += (tree.shape, tree.dtype, device, tree.requires_grad)
        if device.type in AUTOCAST:
            key += (torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type))
    elif isinstance(tree, dict):
        for name, part in tree.items():
            key.append(name)
            _read(part, key)
    elif isinstance(tree, tuple | list):
        key += (type(tree), len(tree))
        for part in tree:
            _read(part, key)
    else:
        key.append(type(tree))
        for leaf in tree_leaves(tree):
            if leaf is not tree:
                _read(leaf, key)


def _trusting(loss: Any) -> Any:
    """Return a loss that need not look whether its model is as it was, which the key says."""
    return replace(loss, loss=loss.loss.unchanged()) if is_of_model(loss) else loss
