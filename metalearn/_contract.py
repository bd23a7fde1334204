"""What the contract suites of `metalearn.testing` check, on three small problems in float64."""

import pickle
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from metalearn import inner, outer
from metalearn._random import random_numbers_kept
from metalearn._tasks import take
from metalearn._tree import (
    tree_detach,
    tree_flatten,
    tree_leaves,
    tree_map,
    tree_names,
    tree_ravel,
    tree_unflatten,
)
from metalearn.functional import draw_keys
from metalearn.types import Batch, Episode, Estimate, Meta, Params, Problem, PyTree

EXACT = 1e-9
"""Relative difference allowed between two exact computations of a float64 gradient."""
DIFFERENCE = 1e-6
"""Relative difference allowed to central finite differences."""
STEP = 1e-7
"""Step of these differences, small so that it rarely crosses a kink of an activation."""
LOOP, CHUNKS, COMPILED = {"batching": "loop"}, {"chunk_size": 1}, {"compile": {"backend": "eager"}}
"""Options of a learner that must not change its estimates."""


@dataclass(frozen=True)
class Case:
    """A small smooth problem in float64: a model, two tasks, and the parameters that adapt."""

    name: str
    model: Callable[[], nn.Module]
    in_shape: tuple[int, ...]
    fast: str = "*"

    def learner(self, rule: inner.UpdateRule, **options: Any) -> outer.MetaLearner:
        options = {"num_steps": 3, "fast": self.fast, **options}
        with random_numbers_kept():
            torch.manual_seed(0)
            learner = outer.MetaLearner(self.model().double(), F.mse_loss, rule, **options)
            # away from special starts: zeros, identities, kinks of the activation
            with torch.no_grad():
                for param in learner.rule.parameters():
                    param.add_(0.05 * torch.randn_like(param))
        return learner

    def episodes(self) -> tuple[Episode, Tensor]:
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(2, 2, 4, *self.in_shape, generator=generator, dtype=torch.float64)
        y = torch.randn(2, 2, 4, 2, generator=generator, dtype=torch.float64)
        return Episode(Batch(x[0], y[0]), Batch(x[1], y[1])), draw_keys(2, generator=generator)


def _linear() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def _convolution() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(18, 2))


CASES = (
    Case("linear layers", _linear, (3,)),
    Case("a fast head on a shared body", _linear, (3,), fast="2"),
    Case("a convolution", _convolution, (1, 3, 3)),
)


def cases_of(estimator: outer.MetaGradient) -> tuple[Case, ...]:
    """Return the problems of which an estimator reaches all that is learned, and something."""
    if "shared" not in estimator.reaches:
        return CASES[::2]
    return CASES if estimator.reaches - {"shared"} else CASES[1:2]


def finite_difference(
    function: Callable[[Any], Tensor], at: Any, direction: Any, step: float = 1e-5
) -> Tensor:
    """Return the central difference of a function of a pytree along a direction.

    >>> at = torch.tensor(2.0).double()
    >>> finite_difference(lambda w: w**3, at, torch.tensor(1.0)).round(decimals=6)
    tensor(12., dtype=torch.float64)
    """
    ahead = function(tree_map(lambda leaf, move: leaf + step * move, at, direction))
    behind = function(tree_map(lambda leaf, move: leaf - step * move, at, direction))
    return (ahead - behind) / (2 * step)


def _naive_loop(
    problem: Problem,
    meta: Meta,
    episode: Episode,
    key: Tensor,
    constants: list[dict[str, Any]] | None = None,
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Adapt by a plain loop that shares no code with the engine.

    Arguments of `update` in `constants`, one dict per step, replace what the loop computes. The
    query loss is returned with everything that the rule saw at each step.
    """
    params, state, record = meta.init, problem.rule.init_state(meta.rule, meta.init, key), []
    for step in range(problem.num_steps):
        seen = {"params": params, **_gradient(problem, params, meta.shared, episode, step)}
        record.append(seen | (constants[step] if constants else {}))
        grads, at, loss = (record[step][name] for name in ("grads", "params", "loss"))
        updates, state = problem.rule.update(meta.rule, grads, state, at, loss, step)
        params = {name: param + updates[name] for name, param in params.items()}
    return problem.query_loss(params, meta.shared, episode), record


def _gradient(
    problem: Problem, params: Params, shared: Params, episode: Episode, step: int
) -> dict[str, Any]:
    with torch.enable_grad():
        leaves = {name: param.detach().requires_grad_() for name, param in params.items()}
        loss = problem.support_loss(leaves, shared, episode, step)
        grads = torch.autograd.grad(loss, list(leaves.values()))
    return {"grads": dict(zip(leaves, grads, strict=True)), "loss": loss.detach()}


def check_exact(
    rule: inner.UpdateRule,
    estimator: outer.MetaGradient,
    case: Case,
    order: int,
    surrogate: Collection[str] = (),
) -> None:
    """Compare an estimate with the naive loop's central differences, field by field of `Meta`."""
    learner = case.learner(rule)
    episode, key = take(case.episodes(), 0)
    problem, meta = learner.problem, tree_detach(learner.meta)
    carry = estimator.init_carry(problem, meta, episode, key)
    gradient = estimator(problem, meta, episode, key, carry).gradient
    constant = rule.as_values | ({"grads", "loss"} if order == 1 else set())
    _, record = _naive_loop(problem, meta, episode, key)
    constants = [{name: seen[name] for name in constant} for seen in record]
    generator = torch.Generator().manual_seed(2)

    def random(leaf: Tensor) -> Tensor:
        return torch.randn(leaf.shape, generator=generator).to(leaf)

    for field in Meta._fields:
        part, exact = getattr(meta, field), getattr(gradient, field)
        direction = tree_map(random, part)
        if field == "rule":
            direction = _zero_at(direction, surrogate)
        if not tree_leaves(part):
            continue

        def query_loss(part: Any, field: str = field) -> Tensor:
            return _naive_loop(problem, meta._replace(**{field: part}), episode, key, constants)[0]

        expected = finite_difference(query_loss, part, direction, STEP)
        (slope, _), (along, _) = tree_ravel(exact), tree_ravel(direction)
        close = abs(slope @ along - expected) <= DIFFERENCE * (slope.norm() + 1e-3)
        what = f"the gradient of {estimator} to {field} equals finite differences"
        require(close, what, case.name, rule, slope @ along, expected)


def _zero_at(tree: Any, paths: Collection[str]) -> Any:
    """Return the tree with zeros below the paths."""
    names = tree_names(tree)
    leaves, spec = tree_flatten(tree)
    for path in paths:
        below = [f"{name}.".startswith(f"{path}.") for name in names]
        require(any(below), f"surrogate {path!r} is a path of meta-parameters", names)
        leaves = [0 * leaf if zero else leaf for leaf, zero in zip(leaves, below, strict=True)]
    return tree_unflatten(leaves, spec)


def check_close(
    rule: inner.UpdateRule, case: Case, options: dict[str, Any], others: dict[str, Any]
) -> None:
    """Compare the estimates of two learners, the second with `others` among its options."""
    vectors = []
    for given in (options, options | others):
        estimate = case.learner(rule, **given).estimate(*case.episodes())
        vectors.append([*tree_leaves(estimate.gradient), estimate.loss])
    distance = max((a - b).norm() / (b.norm() + EXACT) for a, b in zip(*vectors, strict=True))
    what = f"{options or 'the default'} and {others} agree"
    require(distance <= EXACT, what, case.name, rule, distance)


def check_compiled(rule: inner.UpdateRule, case: Case, options: dict[str, Any]) -> None:
    """Capture the meta-step as one graph, and compare its estimate with the eager one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", outer.NotCompiledWarning)
            check_close(rule, case, options, COMPILED)
    except outer.NotCompiledWarning as warning:
        require(False, "the meta-step can be captured as one graph", case.name, rule, warning)


def check_protocol(rule: inner.UpdateRule, case: Case) -> None:
    for dtype in (torch.float64, torch.float32):
        meta = tree_detach(case.learner(rule).to(dtype).meta)
        first = _dtypes(rule.init_meta(meta.init))
        what = f"init_meta returns tensors of the parameters' dtype {dtype}"
        require(first <= {dtype}, what, rule, first)
        state = rule.init_state(meta.rule, meta.init, torch.tensor(3))
        arguments = meta.rule, meta.init, state, meta.init, torch.tensor(0.5, dtype=dtype)
        for step in range(2):
            _check_update(rule, arguments, step, dtype)
    _check_zero_gradients(rule, case)
    if rule.elementwise:
        _check_elementwise(rule, case)
    gradient = case.learner(rule).estimate(*case.episodes()).gradient.rule
    named = zip(tree_names(gradient), tree_leaves(gradient), strict=True)
    lost = [name for name, leaf in named if not leaf.any()]
    require(not lost, "every meta-parameter of the rule gets a gradient", case.name, rule, lost)


Arguments: TypeAlias = tuple[PyTree, Params, PyTree, Params, Tensor]
"""Those of `update`, but for the step."""


def _check_update(
    rule: inner.UpdateRule, arguments: Arguments, step: int, dtype: torch.dtype
) -> None:
    before = tree_map(torch.clone, arguments)
    got = rule.update(*arguments, step)
    is_pair = isinstance(got, tuple) and len(got) == 2 and isinstance(got[0], dict)
    require(is_pair, "update returns a dict of updates and the next state", rule, type(got))
    again = rule.update(*arguments, step)
    (updates, next_state), (meta, params, state, *_) = got, arguments
    require(_same(before, arguments), "update leaves its arguments as they are", rule)
    require(_same(got, again), "update is a function of its arguments alone", rule)
    names = set(updates)
    require(names == set(params), "updates are named as the parameters", rule, names)
    shapes = {name: update.shape == params[name].shape for name, update in updates.items()}
    require(all(shapes.values()), "updates are shaped as the parameters", rule, shapes)
    kept = tree_flatten(next_state)[1] == tree_flatten(state)[1]
    require(kept, "the state keeps its structure", rule)
    dtypes = _dtypes((got, meta))
    require(dtypes == {dtype}, f"everything is of the parameters' dtype {dtype}", rule, dtypes)


def _check_elementwise(rule: inner.UpdateRule, case: Case) -> None:
    """Require that an elementwise rule makes of two tasks at once what it makes of each."""
    meta, keys = tree_detach(case.learner(rule).meta), torch.tensor([3, 4])
    params = [meta.init, tree_map(lambda leaf: 2 * leaf + 1, meta.init)]

    def made(of_rule: PyTree, params: Params, key: Tensor) -> Any:
        state = rule.init_state(of_rule, params, key)
        loss = key.to(torch.float64)
        return state, rule.update(of_rule, params, state, params, loss, 1)

    each = [made(meta.rule, of_one, key) for of_one, key in zip(params, keys, strict=True)]
    both = tree_map(lambda leaf: torch.stack([leaf, leaf]), meta.rule)
    stacked = tree_map(lambda *leaves: torch.stack(leaves), *params)
    got, expected = made(both, stacked, keys), tree_map(lambda *t: torch.stack(t), *each)
    close = [
        ours.shape == theirs.shape and torch.allclose(ours, theirs, 1e-9, 1e-12)
        for ours, theirs in zip(tree_leaves(got), tree_leaves(expected), strict=True)
    ]
    require(all(close), "an elementwise rule does to many tasks what it does to each", rule)


def _check_zero_gradients(rule: inner.UpdateRule, case: Case) -> None:
    """Differentiate two updates at gradients of zero, as dead units have."""
    meta = tree_detach(case.learner(rule).meta)
    zeros, loss = tree_map(torch.zeros_like, meta.init), torch.tensor(0.5).double()

    def updates(rule_meta: Any, grads: Params, params: Params) -> list[Params]:
        state, taken = rule.init_state(rule_meta, params, torch.tensor(3)), []
        for step in range(2):
            update, state = rule.update(rule_meta, grads, state, params, loss, step)
            taken.append(update)
        return taken

    def total(*args: Any) -> Tensor:
        return torch.stack([leaf.sum() for leaf in tree_leaves(updates(*args))]).sum()

    at = meta.rule, zeros, meta.init
    what = "an update is what is added to the parameters, not the new ones"
    require(not _same(updates(*at)[0], meta.init), what, rule)
    derivatives = torch.func.grad(total, argnums=(0, 1, 2))(*at)
    what = "its derivatives are finite at gradients of zero"
    require(_is_finite(derivatives), what, case.name, rule)


def check_round_trips(rule: inner.UpdateRule, case: Case) -> None:
    require(pickle.loads(pickle.dumps(rule)) == rule, "it equals its pickled copy", rule)
    learner, other = case.learner(rule), case.learner(rule)
    with torch.no_grad():
        for param in learner.parameters():
            param.add_(1)
    other.load_state_dict(learner.state_dict())
    require(_same(other.meta, learner.meta), "meta-parameters survive state_dict", rule)
    other = pickle.loads(pickle.dumps(learner))
    require(_same(other.meta, learner.meta), "a learner survives pickling", rule)


def check_estimate(rule: inner.UpdateRule, case: Case, options: dict[str, Any]) -> None:
    learner, estimator = case.learner(rule, **options), options["estimator"]
    episode, key = take(case.episodes(), 0)
    problem, meta = learner.problem, tree_detach(learner.meta)
    carry = estimator.init_carry(problem, meta, episode, key)
    estimate: Estimate = estimator(problem, meta, episode, key, carry)
    pairs = {"gradient": (estimate.gradient, meta), "carry": (estimate.carry, carry)}
    for what, trees in pairs.items():
        (ours, spec), (theirs, expected) = map(tree_flatten, trees)
        require(
            spec == expected, f"the {what} is structured as what it belongs to", estimator, spec
        )
        shaped = [leaf.shape for leaf in ours] == [leaf.shape for leaf in theirs]
        require(shaped, f"the {what} is shaped as what it belongs to", estimator)
    require(estimate.loss.shape == (), "the loss is a scalar", estimator, estimate.loss.shape)
    require(_is_finite(estimate), "the estimate is finite", estimator)
    for field in Meta._fields:
        zero = not any(leaf.any() for leaf in tree_leaves(getattr(estimate.gradient, field)))
        absent = field not in estimator.reaches or not tree_leaves(getattr(meta, field))
        require(zero == absent, f"{field} gets a gradient if and only if it is reached", estimator)
    adapted = estimator.adapt(problem, meta, episode.support, key, 0)
    require(_same(adapted.params, meta.init), "no steps of adaptation change nothing", estimator)


def _dtypes(tree: Any) -> set[torch.dtype]:
    return {leaf.dtype for leaf in tree_leaves(tree)}


def _is_finite(tree: Any) -> bool:
    return all(leaf.isfinite().all() for leaf in tree_leaves(tree))


def _same(left: Any, right: Any) -> bool:
    pairs = zip(tree_leaves(left), tree_leaves(right), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


def require(holds: Any, what: str, *got: Any) -> None:
    if not holds:
        raise AssertionError(f"{what}: does not hold for {', '.join(map(str, got))}")
