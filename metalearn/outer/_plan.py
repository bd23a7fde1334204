"""Plan once, then run: a kind of call is checked when it is new, and its plan remembered.

The modules of a learner are walked once a call, to see whether anything is another than it was:
modes, what requires grad, hooks, layers, dtypes and devices. With the kind of the data this is the
key of a plan. What is checked when stands in `_checks/__init__.py`.
"""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._checks import message
from metalearn._layers import KNOWN, has_global_hooks, is_changed, layer_of
from metalearn._modes import in_transform
from metalearn._modules import TensorTree
from metalearn._tasks import num_tasks
from metalearn._tree import tree_leaves
from metalearn._walk import parts_of
from metalearn.functional import draw_keys
from metalearn.functional._losses import is_of_model
from metalearn.models import PerStepNorm
from metalearn.outer._checks._call import Purpose, check_call
from metalearn.outer._checks._episodes import check_keys
from metalearn.outer._checks._kind import check_kind
from metalearn.outer._estimates import Setup
from metalearn.outer._over_tasks import choose
from metalearn.outer._watch import Watch
from metalearn.types import Carry, Episode, Meta, Problem

MOST_PLANS, MOST_COMPILED, MOST_STATES = 1000, 32, 32
"""Numbers of plans, of plans that hold compiled graphs, and of states of the modules that are
remembered: texts may be of any length."""
MANY_COMPILED = 16
"""Number of compiled plans at which a learner warns that it compiles again and again."""
CALLS_ALONE = {*KNOWN, nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Module, TensorTree}
"""Modules that change nothing when they are called."""
AUTOCAST = ("cpu", "cuda", "mps", "xpu")
"""Kinds of devices that have it, each with a state of its own."""


@dataclass(frozen=True, eq=False)
class Plan:
    """How calls of one kind are run.

    Attributes:
        setup: Estimator, problem and how both are applied to tasks; the problem's losses need not
            look whether their model is as it was.
        run: `(learner, setup, meta, common, own, episodes, keys)`, returns the estimate.
        device: Where the learner is.
        writers: The modules whose attributes a call may change: all, or none.
        carry: What the estimator leaves of one task for the next meta-step; its shapes and dtypes.
        tracks: Whether the model has running statistics of its own for every inner step.
        source: The learner's problem, of which the setup's was made: it may have been replaced.
        meta: What is learned, if all of it is parameters, which a compiled plan watches; or None.
    """

    setup: Setup
    run: Callable[..., Any]
    device: torch.device
    writers: list[nn.Module]
    carry: Carry
    tracks: bool
    source: Problem
    meta: Meta | None

    @property
    def carries(self) -> bool:
        """Whether the estimator carries anything."""
        return bool(tree_leaves(self.carry))


class Plans:
    """The plans of a learner, by what they depend on.

    Args:
        step: How a meta-step is run: a `WholeStep` or a `CompiledStep`.
        own: Whether every task has a `Meta` of its own.
    """

    def __init__(self, step: Any, own: bool = False) -> None:
        self.step, self._own = step, own
        self._plans: dict[Any, Plan] = {}
        self._passed: set[Any] = set()
        # With all that it tells by identity, so that no other one comes to have the same.
        self._states: dict[Any, tuple[int, list[nn.Module], Watch | None]] = {}
        self._watch: Watch | None = None
        self._now: tuple[int, list[nn.Module]] = 0, []
        self._last: tuple[list[Any], Plan | None] = [], None
        self._num_compiled = 0

    def of(
        self,
        learner: Any,
        episodes: Episode,
        keys: Tensor | None,
        purpose: Purpose,
        tried: Callable[[Any], Any] = lambda learner: learner,
    ) -> tuple[Plan, Tensor]:
        """Return the plan of a call, and the tasks' keys.

        Args:
            learner: The learner.
            episodes: The call's tasks; for adaptation with an empty query set.
            keys: The tasks' keys `[num_tasks]`; drawn if not given.
            purpose: What the call is for.
            tried: From the learner to the one that a new kind of call is tried on.

        Raises:
            TypeError: If the episodes are of the wrong kind.
            ValueError: If something is wrong with them, or ill posed.
        """
        state, modules = self._state(learner)
        key = [state, purpose, learner.check_model, learner.batching, learner.chunk_size]
        key += map(torch.is_autocast_enabled, AUTOCAST)
        key += map(torch.get_autocast_dtype, AUTOCAST)
        _read(episodes, key)
        if self.step.is_compiled:  # for these strides
            key += [leaf.stride() for leaf in tree_leaves(episodes) if isinstance(leaf, Tensor)]
        # Most calls are of the last one's kind, and hashing takes longer than comparing.
        plan = self._last[1] if key == self._last[0] else self._plans.get(tuple(key))
        if (
            plan is None
            or plan.source is not learner.problem
            or plan.setup.estimator is not learner.estimator
        ):
            check_call(learner, episodes, purpose)
            on = tried(learner)
            check_kind(learner, on, episodes, purpose, partial(self._once, state))
            carry = on._carry_of_one(episodes) if purpose is Purpose.META_GRADIENT else Carry()
            plan = self._planned(learner, episodes, modules, carry)
            self._make_room(purpose)
            self._plans[tuple(key)] = plan
        self._last = key, plan
        if keys is None:
            return plan, draw_keys(plan.setup.num_tasks, device=plan.device)
        check_keys(keys, plan.setup.num_tasks)
        return plan, keys.to(plan.device).contiguous()

    def _make_room(self, purpose: Purpose) -> None:
        """Forget the oldest plan if there are too many; warn of a learner that compiles often."""
        is_compiled = self.step.is_compiled and purpose is Purpose.META_GRADIENT
        alike = [key for key in self._plans if key[1] is purpose]
        if len(alike) >= (MOST_COMPILED if is_compiled else MOST_PLANS):
            del self._plans[alike[0]]
        self._num_compiled += is_compiled
        if is_compiled and self._num_compiled == MANY_COMPILED:
            got = f"{MANY_COMPILED} kinds, with modules and rule in {len(self._states)} states"
            fix = "Pad tasks of many sizes, and keep numbers that change in buffers."
            text = message("kinds of calls that are compiled", "be few", got, fix)
            warnings.warn(text, UserWarning, stacklevel=6)

    def _state(self, learner: Any) -> tuple[int, list[nn.Module]]:
        """Return the number of the modules' present state, and the modules: the one walk."""
        is_watched = self.step.is_compiled and not in_transform()
        if is_watched and self._watch is not None and self._watch.is_same():
            return self._now
        state, modules = _walk(parts_of(learner))
        if is_watched:
            self._watch = Watch(learner, modules)
            state = *state, *self._watch.settings
        if state not in self._states:
            if len(self._states) == MOST_STATES:
                for remembered in (self._states, self._plans, self._passed):
                    remembered.clear()
                self._last = [], None
            self._states[state] = len(self._states), modules, self._watch
        number, modules, _ = self._states[state]
        if is_watched:
            self._now = number, modules
        return number, modules

    def _once(self, state: int, what: Any, check: Callable[[], None]) -> None:
        """Run a check that costs a pass through the model, once for every state of the learner."""
        if (what, state) not in self._passed:
            check()
            self._passed.add((what, state))

    def _planned(
        self, learner: Any, episodes: Episode, modules: list[nn.Module], carry: Carry
    ) -> Plan:
        source, count = learner.problem, num_tasks(episodes)
        losses = _trusting(source.support_loss), _trusting(source.query_loss)
        problem = source._replace(support_loss=losses[0], query_loss=losses[1])
        how = choose(learner.estimator, source, learner.batching, self._own)
        in_chunks = learner.chunk_size is not None and learner.chunk_size < count
        run = self.step.for_kind(learner.chunk_size if in_chunks else None)
        return Plan(
            Setup(learner.estimator, problem, how, count),
            run,
            learner.device,
            writers=modules if any(map(_may_write, modules)) or has_global_hooks() else [],
            carry=carry,
            tracks=any(isinstance(module, PerStepNorm) for module in modules),
            source=source,
            meta=self._watched(learner.meta),
        )

    def _watched(self, meta: Meta) -> Meta | None:
        are_parameters = all(isinstance(leaf, nn.Parameter) for leaf in tree_leaves(meta))
        return meta if self.step.is_compiled and are_parameters else None

    def __deepcopy__(self, memo: Any) -> "Plans":
        return Plans(copy.deepcopy(self.step, memo), self._own)

    def __reduce__(self) -> Any:
        return Plans, (self.step, self._own)


def _may_write(module: nn.Module) -> bool:
    """Return whether calling a module may change an attribute, by itself or by a hook."""
    return type(module) not in CALLS_ALONE or is_changed(module)


def _walk(parts: list[nn.Module]) -> tuple[Any, list[nn.Module]]:
    """Return all that the plans of a learner with these parts depend on, and all modules.

    What else a layer computes with, such as its stride, is read when it is called.
    """
    state: list[Any] = [has_global_hooks()]
    modules, left = [], list(parts)
    while left:
        module = left.pop()
        own = vars(module)
        modules.append(module)
        state += (id(module), type(module), layer_of(module), is_changed(module))
        for param in own["_parameters"].values():
            if param is not None:
                state += (param.requires_grad, param.dtype, param.device)
        for name, value in own.items():
            if type(value) is bool:
                state += (name, value)
        left += [child for child in own["_modules"].values() if child is not None]
    return tuple(state), modules


def _read(tree: Any, key: list[Any]) -> None:
    """Append to a key what data are, but for their values."""
    if isinstance(tree, Tensor):
        key += (tree.shape, tree.dtype, tree.device, tree.requires_grad)
    elif isinstance(tree, dict):
        key += (type(tree), len(tree))
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
