"""Independent learners side by side in one step: 30 seeds for little more than one."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._attributes import attributes_of, deep_copied
from metalearn._checks import check_index, check_positive, invalid
from metalearn._modes import outside_inference_mode, untraced
from metalearn._modules import get_tensor, set_tensor
from metalearn._tree import over_first_axes, tree_detach, tree_leaves, tree_map
from metalearn.functional import OnQuery, OnSupport
from metalearn.models._batch_norm import Norms
from metalearn.outer._attach import attach, refuse_forward_mode
from metalearn.outer._attempts import attempts
from metalearn.outer._carry import Carried, places_of
from metalearn.outer._checks._call import Purpose
from metalearn.outer._checks._episodes import check_episodes
from metalearn.outer._compile import WholeStep
from metalearn.outer._compiled_step import CompiledStep, Owner
from metalearn.outer._estimates import Setup, marked, sum_common
from metalearn.outer._learner import MetaLearner, adapted_loss
from metalearn.outer._over_tasks import How, over_tasks
from metalearn.outer._plan import Plan, Plans
from metalearn.outer._signature import difference, learners_of, signature, tensors_of
from metalearn.types import Carry, Episode, Estimate, Meta, PyTree


class Replicas(nn.Module):
    """R learners that differ in their tensors alone, trained in one step, independently.

    Its parameters are theirs, stacked `[R, ...]` under their own names in `learner`, so that an
    elementwise optimizer such as SGD or Adam does to each what it would do to it alone. `fit`
    trains replicas as it trains a learner, each on `meta_batch_size` tasks of its own;
    `replicas[i]` is an ordinary learner. What an estimator carries from step to step starts anew.

    Args:
        learners: At least one learner, built by the same call; they are copied.

    Raises:
        TypeError: If they are no learners.
        ValueError: If there are none, they differ in more than what is learned, or they are not
            vmapped whole.

    >>> import torch.nn.functional as F
    >>> from metalearn import data, inner, models, outer
    >>> def seed():
    ...     return outer.MAML(models.mlp(1, [8], 1), F.mse_loss, inner.SGD(0.01), num_steps=1)
    >>> seeds = [seed() for _ in range(3)]
    >>> replicas = Replicas(seeds)
    >>> losses = replicas(data.Sinusoid(k_shot=5, num_query=5).sample(3 * 4))
    >>> losses.sum().backward()
    >>> losses.shape, replicas.learner.model[0].weight.grad.shape
    (torch.Size([3]), torch.Size([3, 8, 1]))
    """

    def __init__(self, learners: Sequence[MetaLearner]) -> None:
        super().__init__()
        learners = _checked(learners)
        self.learner = deep_copied(learners[0])
        self.learner.carry, self.learner.diagnostics = Carried(), {}
        self._count = len(learners)
        self.diagnostics: dict[str, Tensor] = {}
        for name in _learned_names(learners[0]):
            tensors = [get_tensor(learner, name) for learner in learners]
            _set_alike(self.learner, name, torch.stack([tensor.detach() for tensor in tensors]))
        self.set_batching(learners[0].compile_options, learners[0].cuda_graph)

    def __len__(self) -> int:
        """Return the number of replicas."""
        return self._count

    def __getitem__(self, index: int) -> MetaLearner:
        """Return a copy of one replica as a learner of its own."""
        check_index("index", index, len(self))
        index = range(len(self))[index]
        learner = deep_copied(self.learner)
        for name in _learned_names(learner):
            _set_alike(learner, name, get_tensor(learner, name).detach()[index].clone())
        learner.carry = learner.carry.part(index)
        return learner

    def extra_repr(self) -> str:
        """Return how many there are, for `print`."""
        return f"{len(self)} replicas"

    def set_batching(
        self, compile: bool | str | Mapping[str, Any] = False, cuda_graph: bool = False
    ) -> None:
        """Choose how the step of all replicas is run, as `MetaLearner.set_batching` does.

        Args:
            compile: Whether it is compiled as one graph; a dict has options of `torch.compile`.
            cuda_graph: Whether its kernels are recorded at the first call and replayed, on a GPU.

        Raises:
            TypeError: If an argument is of the wrong kind.
            ValueError: If both choices exclude one another.
        """
        self.learner.set_batching(compile=compile, cuda_graph=cuda_graph)
        self._plans = Plans(WholeStep(estimate_replicas, compile, cuda_graph), own=True)

    @property
    def constants(self) -> frozenset[str]:
        """Names in `state_dict` of what all replicas share."""
        return frozenset(f"learner.{name}" for name in _constants(self.learner))

    @property
    def carry(self) -> Carried:
        """What the replicas carry from step to step."""
        return self.learner.carry

    @property
    def cuda_graph(self) -> bool:
        """Whether the step of all replicas is recorded."""
        return self.learner.cuda_graph

    @property
    def device(self) -> torch.device:
        """Where the replicas' parameters are, and the episodes must be."""
        return self.learner.device

    def forward(self, episodes: Episode, *, keys: Tensor | None = None) -> Tensor:
        """Return every replica's mean query loss after adaptation, `[R]`, with its meta-gradient.

        Args:
            episodes: Tasks, with a leading task axis; the first of R equal parts is for the first
                replica, and so on.
            keys: The tasks' random keys `[num_tasks]`, int64; drawn from PyTorch's generator if not
                given.

        Raises:
            TypeError: If the episodes are of the wrong kind.
            ValueError: If the number of tasks is no multiple of R, or as a learner's `forward`.
        """
        if torch.is_inference_mode_enabled():
            return outside_inference_mode(self.forward, episodes, keys=keys)
        meta = self.learner.meta
        refuse_forward_mode(meta)
        if not (torch.is_grad_enabled() and any(leaf.requires_grad for leaf in tree_leaves(meta))):
            return adapted_losses(self, episodes, keys).mean(1)
        is_compiled = self.learner.compile_options is not False
        estimate = (untraced(self.estimate) if is_compiled else self.estimate)(episodes, keys)
        self._keep(None, episodes, keys, estimate.diagnostics, estimate.carry)
        return attach(estimate.loss.mean(1), meta, estimate.gradient)

    def estimate(self, episodes: Episode, keys: Tensor | None = None) -> Estimate:
        """Return every replica's meta-gradient as data: `MetaLearner.estimate`, `[R, ...]`.

        Args:
            episodes: Tasks, with a leading task axis, as for `forward`.
            keys: The tasks' random keys `[num_tasks]`, int64; drawn from PyTorch's generator if not
                given.

        Raises:
            TypeError: As `forward`.
            ValueError: As `forward`.
        """
        if torch.is_inference_mode_enabled():
            return outside_inference_mode(self.estimate, episodes, keys)
        meta = self.learner.meta
        for attempt in attempts(self.learner):
            with attempt, torch.no_grad():
                plan, keys, carry = self._prepared(self._plans, episodes, keys)
                with attributes_of(plan.writers):
                    estimate = plan.run(self.learner, plan.setup, meta, *carry, episodes, keys)
        return estimate

    def compiled_step(
        self, optimizer: torch.optim.Optimizer, max_grad_norm: float | None = None
    ) -> CompiledStep:
        """Return a function that takes a whole training iteration of all replicas, compiled.

        It is `MetaLearner.compiled_step`; its losses are `[R]`.

        Args:
            optimizer: `SGD`, `Adam` or `AdamW` of `torch.optim`, of the replicas' parameters.
            max_grad_norm: Bound on the norm of every replica's meta-gradient, positive.

        Raises:
            TypeError: If an argument is of the wrong kind.
            ValueError: If a graph cannot hold the optimizer's step, or hooks would not run.
        """
        owner = Owner(self, self.learner, len(self), estimate_replicas)
        return CompiledStep(owner, optimizer, max_grad_norm)

    def clip_grad_norm_(self, max_norm: float) -> Tensor:
        """Clip every replica's gradient to the norm `max_norm`, and return the norms, `[R]`."""
        check_positive("max_norm", max_norm)
        grads = [param.grad for param in self.parameters() if param.grad is not None]
        if not grads:
            return torch.zeros(len(self), device=self.device)
        squares = torch.stack([grad.reshape(len(self), -1).square().sum(1) for grad in grads])
        norms = squares.sum(0).sqrt()
        scales = (max_norm / (norms + 1e-6)).clamp(max=1)
        for grad in grads:
            grad.mul_(over_first_axes(scales, grad))
        return norms

    def _plan(
        self, plans: Plans, episodes: Episode, keys: Tensor | None, purpose: Purpose
    ) -> tuple[Plan, Tensor]:
        """Return the plan of a call and the tasks' keys, checked on the first replica."""
        num_tasks = check_episodes(episodes)
        if num_tasks % len(self):
            fix = f"Write tasks.sample({len(self)} * meta_batch_size)."
            raise invalid("tasks", f"be a multiple of the {len(self)} replicas", num_tasks, fix)
        return plans.of(self.learner, episodes, keys, purpose, lambda _: self[0])

    def _prepared(
        self, plans: Plans, episodes: Episode, keys: Tensor | None
    ) -> tuple[Plan, Tensor, Carry]:
        """Return the plan of a meta-step, the tasks' keys, and what is carried."""
        plan, keys = self._plan(plans, episodes, keys, Purpose.META_GRADIENT)
        return plan, keys, self._carried(plan, episodes, keys)

    def _keep(
        self, plan: Any, episodes: Any, keys: Any, diagnostics: dict[str, Tensor], carry: Carry
    ) -> None:
        """Keep what a meta-step leaves."""
        self.diagnostics = diagnostics
        if self.training:
            self.learner.carry.keep(carry)

    def _carried(self, plan: Plan, episodes: Episode, keys: Tensor) -> Carry:
        """Return what was carried: `[R, ...]`, of each problem's own `[R, tasks, ...]`."""
        learner, shape = self.learner, (len(self), len(keys) // len(self))
        if not plan.carries and learner.carry.is_empty:
            return Carry()

        def start() -> Carry:
            estimator, how = learner.estimator, How("vmap", own=True).of(len(keys))
            given = repeated(tree_detach(learner.meta), shape[1]), keys, (episodes, keys)
            each = over_tasks(estimator.init_carry, learner.problem, *given, how)
            each = tree_map(lambda leaf: leaf.unflatten(0, shape), each)
            own = estimator.populate(learner.problem, each.own, places_of(keys[: shape[1]]))
            return Carry(tree_map(lambda leaf: leaf[:, 0], each.common), own)

        carry = learner.carry(plan.carry, start, shape[1], shape[0])
        return tree_map(Tensor.contiguous, carry)


def adapted_losses(
    replicas: Replicas, episodes: Episode, keys: Tensor | None, num_steps: int | None = None
) -> Tensor:
    """Return every task's query loss after adaptation, `[R, tasks]`, without a gradient.

    Args:
        replicas: The replicas.
        episodes: Tasks, with a leading task axis, as for `Replicas.forward`.
        keys: The tasks' random keys `[num_tasks]`; drawn from PyTorch's generator if not given.
        num_steps: Number of adaptation steps, at least 0; as in training if not given.
    """
    plan, keys = replicas._plan(replicas._plans, episodes, keys, Purpose.LOSSES)
    problem = plan.setup.problem
    problem = problem if num_steps is None else problem._replace(num_steps=num_steps)
    loss, how = partial(adapted_loss, replicas.learner.estimator), plan.setup.how.of(len(keys))
    with torch.no_grad(), attributes_of(plan.writers):
        metas = repeated(tree_detach(replicas.learner.meta), len(keys) // len(replicas))
        losses: Tensor = over_tasks(loss, problem, metas, keys, (episodes, keys), how)
        return losses.unflatten(0, (len(replicas), -1))


def estimate_replicas(
    learner: MetaLearner,
    setup: Setup,
    meta: Meta,
    common: PyTree,
    own: PyTree,
    episodes: Episode,
    keys: Tensor,
) -> Any:
    """Estimate the meta-gradients of all replicas in one row of tasks, as `estimate_tasks` does.

    Returns:
        Mean gradients and sums of what tasks leave in common, `[R, ...]`; and losses, diagnostics
        and own carries, `[R, tasks, ...]`.
    """
    num_replicas = len(tree_leaves(meta)[0])
    num_tasks = setup.num_tasks // num_replicas
    per_task = episodes, keys, Carry(repeated(common, num_tasks), flattened(own))
    how = setup.how.of(setup.num_tasks)
    metas = repeated(meta, num_tasks)
    each = over_tasks(setup.estimator, setup.problem, metas, keys, per_task, how)
    each = marked(each, how.sums_shared)
    each = tree_map(lambda leaf: leaf.unflatten(0, (num_replicas, num_tasks)), each)
    gradient = tree_map(lambda leaf: leaf.mean(1), each.gradient)
    return (gradient, sum_common(each, axis=1)), (each.loss, each.diagnostics, each.carry.own)


def repeated(tree: Any, num_tasks: int) -> Any:
    """Return what is of every replica `[R, ...]` for each of its tasks, `[R * tasks, ...]`."""

    def repeat(leaf: Tensor) -> Tensor:
        return leaf[:, None].expand(-1, num_tasks, *leaf.shape[1:]).flatten(0, 1)

    return tree_map(repeat, tree)


def flattened(tree: Any) -> Any:
    """Return what is `[R, tasks, ...]` in one row."""
    return tree_map(lambda leaf: leaf.flatten(0, 1), tree)


def _learned_names(learner: MetaLearner) -> list[str]:
    """Return the names of all tensors in the learner's `Meta`."""
    meta = learner.meta
    rule = (f"rule.{name}" for name, _ in learner.rule.named_parameters())
    return [*(f"model.{name}" for name in meta.init), *meta.shared, *rule]


def _set_alike(learner: MetaLearner, name: str, tensor: Tensor) -> None:
    """Put a tensor in a place as what is there: a parameter or a buffer."""
    old = get_tensor(learner, name)
    is_parameter = isinstance(old, nn.Parameter)
    set_tensor(learner, name, nn.Parameter(tensor, old.requires_grad) if is_parameter else tensor)


def _checked(learners: Any) -> list[MetaLearner]:
    """Return learners as a list; raise unless they are ones that can be trained together."""
    fix = (
        "Write Replicas([build(seed) for seed in range(30)]), with criterion and rule defined "
        "outside of build."
    )
    learners = learners_of("Replicas", learners, fix)
    _check_same(learners, fix)
    return learners


def _check_same(learners: list[MetaLearner], fix: str) -> None:
    """Raise if learners differ in more than what is learned."""
    first = learners[0]
    if first.batching != "vmap" or first.chunk_size is not None:
        got = f"batching={first.batching!r}, chunk_size={first.chunk_size}"
        raise invalid("replicas' tasks", "be vmapped whole", got, "Leave both arguments out.")
    if Norms.of(first.model).by_step:
        got = "batch_statistics='per_step', whose running statistics are one learner's"
        raise invalid(
            "replicas' models", "keep no statistics", got, "Use 'support', or train one by one."
        )
    ours, constants = _settings(first), _constants(first)
    for index, learner in enumerate(learners[1:], 1):
        if (found := difference(ours, _settings(learner))) is not None:
            what, one, other = found
            got = f"{one} in learner 0 and {other} in learner {index}"
            raise invalid(f"learners' {what}", "be the same", got, fix)
        theirs = _constants(learner)
        if other := [name for name in constants if not constants[name].equal(theirs[name])]:
            got = f"another {other[0]} in learner {index} than in learner 0"
            raise invalid("learners", "share what is not learned", got, fix)


def _settings(learner: MetaLearner) -> dict[str, Any]:
    common = signature(learner)
    modules = {
        f"module {name}": _hyperparameters(module)
        for name, module in learner.named_modules()
        if name and name.partition(".")[0] != "carry"
    }
    how = learner.batching, learner.chunk_size, learner.compile_options, learner.cuda_graph
    return {**common, "losses": list(map(_kind, common["losses"])), "batching": how, **modules}


def _kind(function: Any) -> Any:
    """Return what tells functions apart: the type of those whose copies would seem to differ."""
    if isinstance(function, partial):
        return function.func, function.args, function.keywords
    is_built = isinstance(function, nn.Module | OnSupport | OnQuery)
    return type(function) if is_built else function


def _hyperparameters(module: nn.Module) -> dict[str, Any]:
    """Return a module's type and its numbers and names, such as the probability of dropout."""
    plain = {
        name: value for name, value in vars(module).items() if isinstance(value, int | float | str)
    }
    return {"type": type(module).__name__, **plain}


def _constants(learner: MetaLearner) -> dict[str, Tensor]:
    learned = {id(get_tensor(learner, name)) for name in _learned_names(learner)}
    return {name: tensor for name, tensor in tensors_of(learner) if id(tensor) not in learned}
