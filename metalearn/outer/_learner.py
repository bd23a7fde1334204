"""The learner: a module that turns episodes into a loss which carries the meta-gradient."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._attributes import attributes_kept, attributes_of
from metalearn._brief import brief
from metalearn._checks import check_bool, check_count, message
from metalearn._modes import outside_inference_mode, untraced
from metalearn._modules import TensorTree, get_tensor, set_constant, tie
from metalearn._sharded import is_sharded
from metalearn._tasks import in_chunks, take
from metalearn._tree import tree_detach, tree_leaves, tree_map
from metalearn._walk import holders_of
from metalearn.functional import SupportBatches
from metalearn.functional._support_batches import as_support_batches
from metalearn.inner import UpdateRule
from metalearn.models._batch_norm import tracking
from metalearn.outer._adapted import AdaptedModels
from metalearn.outer._attach import attach, refuse_forward_mode
from metalearn.outer._attempts import attempts, surroundings
from metalearn.outer._base import MetaGradient
from metalearn.outer._carry import Carried, places_of
from metalearn.outer._checks._call import Purpose
from metalearn.outer._checks._construction import (
    check_arguments,
    check_batching,
    check_criteria,
    check_estimator,
    check_fast,
    check_output,
    check_parameters,
    check_reaches,
    check_statistics,
    check_takes_steps,
)
from metalearn.outer._checks._episodes import check_batch, check_task_axis
from metalearn.outer._checks._named import any_key
from metalearn.outer._checks._options import method
from metalearn.outer._checks._start import check_models
from metalearn.outer._checks._support_batches import check_adaptation
from metalearn.outer._compile import WholeStep
from metalearn.outer._compiled_step import CompiledStep, Owner
from metalearn.outer._estimates import estimate_tasks
from metalearn.outer._over_tasks import How, over_tasks, spread
from metalearn.outer._plan import Plan, Plans
from metalearn.outer._problem import OWNERS, problem_of, shared_names
from metalearn.outer._select import Selection, select, shown, trainable
from metalearn.outer._unrolled import Unrolled
from metalearn.types import Batch, Carry, Episode, Estimate, Meta, Params, Problem, PyTree

AS_BUILT = ("model", *OWNERS, "output", "support_batches")
"""Attributes that the learner's losses were made of: assigning them later would change nothing."""


class MetaLearner(nn.Module):
    """A model that learns to learn: called on episodes, it returns their loss after adaptation.

    It is an ordinary module: `loss.backward()` puts the estimator's meta-gradient into the `.grad`
    of everything that is learned, for any optimizer to use. Its parameters are named
    `model.<name>`, `criterion.<name>` (so for `support_criterion`, `support_loss`, `query_loss` and
    `start`) and `rule.<path>`. Parameters that do not require grad at construction stay constants;
    buffers are read and never written. `diagnostics` holds those of the tasks of the last call that
    computed a meta-gradient.

    Args:
        model: Any module. It is wrapped, not copied.
        criterion: `(output, y) -> scalar`, a function or a module. None if both losses are given.
        rule: How a task's gradient becomes a parameter update.
        num_steps: Number of inner steps, at least 1; with `start=` at least 0, where it solves the
            inner problem itself.
        estimator: How the meta-gradient is estimated.
        fast: Which of the model's parameters adapt: a pattern such as "head.*", a module's name, a
            predicate on names, or a list of patterns. The others are shared by all tasks.
        learn_init: Which fast parameters have a learned start; the start of the others becomes a
            buffer.
        support_criterion: The inner loss, if it differs from `criterion`.
        support_loss: `(params, shared, episode, step) -> scalar`, in place of model and criterion
            in the inner loop: a function, or a module whose parameters are learned too.
        query_loss: `(params, shared, episode) -> scalar`, likewise in the outer loss.
        output: What of the model's output criteria and metrics see: the name of a field, such as
            "logits" of Hugging Face's models, or a function of the output. None for all of it.
        start: `(meta, support, key) -> params`, where inner problems start, in place of the learned
            initialisation: a function, or a module whose parameters are learned too. Of the key,
            with `functional.normal`, it is a fresh random initialisation.
        support_batches: Which support examples a step sees: a number of parts that the support set
            is dealt into, of which step t sees part `t % support_batches`, or a
            `functional.SupportBatches`, such as `SampledBatches(size)`, or `GivenBatches()` where
            episodes have one batch a step. None for all.
        batching: "vmap" over tasks, or "loop" for models that cannot be vmapped.
        chunk_size: Number of tasks computed at once; gradients are added up chunk by chunk. None
            for all.
        compile: Whether the meta-step is compiled: as one graph, "whole", or one inner step as one,
            "step", so that compiling takes no longer for more steps. True chooses by the number of
            layers and steps. A dict has options of `torch.compile`.
        cuda_graph: Whether the meta-step's kernels are recorded at the first call and replayed, on
            a GPU.
        check_model: Whether the model is compared, at a new kind of episodes, with a copy that
            holds the parameters which it is called with: one step on one task, as
            `testing.check_model` does.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a count is too low, a pattern matches nothing, the model is compiled or keeps
            running statistics, or the estimator gives no gradient to something that is learned.

    >>> import torch.nn.functional as F
    >>> from metalearn import data, inner, models
    >>> learner = MetaLearner(models.mlp(1, [8], 1), F.mse_loss, inner.SGD(lr=0.01), num_steps=2)
    >>> loss = learner(data.Sinusoid(k_shot=5, num_query=5).sample(3))
    >>> loss.backward()
    """

    @method
    def __init__(
        self,
        model: nn.Module,
        criterion: Callable[..., Tensor] | None,
        rule: UpdateRule,
        *,
        num_steps: int,
        estimator: MetaGradient = Unrolled(),
        fast: Selection = "*",
        learn_init: Selection = True,
        support_criterion: Callable[..., Tensor] | None = None,
        support_loss: Callable[[Params, Params, Episode, int], Tensor] | None = None,
        query_loss: Callable[[Params, Params, Episode], Tensor] | None = None,
        output: str | Callable[[Any], Any] | None = None,
        start: Callable[[Meta, Batch, Tensor], Params] | None = None,
        support_batches: int | SupportBatches | None = None,
        batching: str = "vmap",
        chunk_size: int | None = None,
        compile: bool | str | Mapping[str, Any] = False,
        cuda_graph: bool = False,
        check_model: bool = True,
    ) -> None:
        super().__init__()
        check_arguments(model=model, rule=rule, num_steps=num_steps, start=start)
        losses = criterion, support_criterion, support_loss, query_loss
        check_criteria(*losses, start, support_batches)
        check_output(output)
        self.output = output
        check_estimator(estimator)  # a module would not even reach the setter below
        check_bool("check_model", check_model)
        self.check_model = check_model
        self.model, self.criterion, self.support_criterion = model, criterion, support_criterion
        self.set_batching(batching, chunk_size, compile, cuda_graph)
        self.support_batches = as_support_batches(support_batches)
        self.support_loss, self.query_loss, self.start = support_loss, query_loss, start
        self.problem = problem_of(self, rule, num_steps)
        check_parameters(model)
        names = trainable(model)
        self._fast = select("fast", fast, names)
        check_fast(self._fast)
        is_none = learn_init is None or (isinstance(learn_init, Sequence) and not learn_init)
        learned = select(
            "learn_init",
            False if is_none else learn_init,
            {name: names[name] for name in self._fast},
        )
        self._shared = shared_names(self, self._fast)
        self.rule = TensorTree(
            rule.init_meta({name: get_tensor(model, name).detach() for name in self._fast})
        )
        fixed = [name for name in self._fast if name not in learned]
        self.problem = self.problem._replace(constant=frozenset(fixed))
        self.carry = Carried()
        self.diagnostics: dict[str, Tensor] = {}
        self.estimator = estimator
        for name in fixed:
            set_constant(model, name)
        self._tied = [aliases for aliases in names.values() if len(aliases) > 1]
        self.register_load_state_dict_post_hook(_tie_again)  # type: ignore[no-untyped-call]

    _plans: Plans

    @property
    def estimator(self) -> MetaGradient:
        """How the meta-gradient is estimated; another one may be assigned, and is checked."""
        return self._estimator

    @estimator.setter
    def estimator(self, estimator: MetaGradient) -> None:
        check_estimator(estimator)
        learned = {
            "init": [f"model.{name}" for name in self._fast if name not in self.problem.constant],
            "shared": self._shared,
            "rule": [f"rule.{name}" for name, _ in self.rule.named_parameters()],
        }
        if not self.num_steps:
            check_takes_steps(estimator, self.problem.rule, learned["rule"])
        check_reaches(estimator, self.problem.rule, learned)
        check_statistics(self.model, self.problem, estimator)
        estimator.check(self.problem, tree_detach(self.meta))
        self._estimator, self._plans = estimator, Plans(self._plans.step)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in AS_BUILT and "problem" in self.__dict__ and value is not getattr(self, name):
            fix = "Build a new learner: outer.MAML(model, ...)."
            raise AttributeError(
                message(f"learner's {name}", "stay what it was built with", "another one", fix)
            )
        if name == "compile":
            fix = "Write learner.set_batching(compile=True)."
            raise AttributeError(message("learner's compile", "be called", brief(value), fix))
        super().__setattr__(name, value)

    def set_batching(
        self,
        batching: str = "vmap",
        chunk_size: int | None = None,
        compile: bool | str | Mapping[str, Any] = False,
        cuda_graph: bool = False,
    ) -> None:
        """Choose how tasks are batched; `outer.compare_batching` says which choice is fastest.

        What is not given goes back to its default.

        Args:
            batching: "vmap" over tasks, or "loop".
            chunk_size: Number of tasks computed at once, at least 1; None for all.
            compile: Whether the meta-step is compiled: as one graph, "whole", or one inner step as
                one, "step". True chooses by the number of layers and steps. A dict has options of
                `torch.compile`. What cannot be captured is run as `torch.compile` does or as it is,
                with a `NotCompiledWarning`.
            cuda_graph: Whether the meta-step's kernels, compiled or not, are recorded at the first
                call and replayed, on a GPU. What the model does on the host, such as branches, and
                its modules' plain attributes are then what they were at that call.

        Raises:
            TypeError: If an argument is of the wrong kind.
            ValueError: If `batching` is unknown, `chunk_size` below 1, or two choices exclude one
                another.
        """
        check_batching(batching, chunk_size, compile, cuda_graph)
        self.batching, self.compile_options, self.cuda_graph = batching, compile, cuda_graph
        self.chunk_size = 1 if batching == "loop" else chunk_size
        self._plans = Plans(WholeStep(estimate_tasks, compile, cuda_graph))

    @property
    def num_steps(self) -> int:
        """Number of inner steps in training."""
        return self.problem.num_steps

    @property
    def device(self) -> torch.device:
        """Where the learner's parameters are, and the episodes must be."""
        return get_tensor(self.model, self._fast[0]).device

    @property
    def dtype(self) -> torch.dtype:
        """What the learner's fast parameters are of."""
        return get_tensor(self.model, self._fast[0]).dtype

    @property
    def meta(self) -> Meta:
        """Everything that is learned, and the starts that are not: the parameters themselves."""
        model = self.model  # nn.Module looks it up slowly
        init = {name: get_tensor(model, name) for name in self._fast}
        return Meta(init, {name: get_tensor(self, name) for name in self._shared}, self.rule())

    @property
    def _ddp_params_and_buffers_to_ignore(self) -> list[str]:
        """What DistributedDataParallel leaves alone: of frozen layers every process has a piece."""
        return [name for name, param in self.named_parameters() if is_sharded(param)]

    def forward(self, episodes: Episode, *, keys: Tensor | None = None) -> Tensor:
        """Return the mean query loss after adaptation, a scalar that carries the meta-gradient.

        Under `torch.no_grad()` it is that of the last step alone, without `multi_step` or what an
        estimator carries.

        Args:
            episodes: Tasks, with a leading task axis.
            keys: The tasks' random keys `[num_tasks]`, int64; drawn from PyTorch's generator if not
                given.

        Raises:
            TypeError: If the episodes are of the wrong kind.
            ValueError: If their shapes disagree, they require grad, or the first of them shows that
                the problem is ill posed.
        """
        if torch.is_inference_mode_enabled():
            return outside_inference_mode(self.forward, episodes, keys=keys)
        meta = self.meta
        refuse_forward_mode(meta)
        if not (torch.is_grad_enabled() and any(leaf.requires_grad for leaf in tree_leaves(meta))):
            return self._losses(episodes, keys).mean()
        # What is compiled anyway another torch.compile need not trace.
        run = self._estimate if self.compile_options is False else untraced(self._estimate)
        plan, keys, estimate = run(meta, episodes, keys)
        self._keep(plan, episodes, keys, estimate.diagnostics, estimate.carry)
        return attach(estimate.loss.mean(), meta, estimate.gradient)

    def estimate(self, episodes: Episode, keys: Tensor | None = None) -> Estimate:
        """Return the meta-gradient as data: a pure function of state, episodes and keys.

        Args:
            episodes: Tasks, with a leading task axis.
            keys: The tasks' random keys `[num_tasks]`, int64; drawn from PyTorch's generator if not
                given.

        Returns:
            The gradient, a mean over tasks; of the carry, the common part, a mean over the tasks
            that are finite, and every task's own; loss and diagnostics of every task,
            `[num_tasks]`. The diagnostic "finite" says which tasks' losses and gradients are.

        Raises:
            TypeError: If the episodes are of the wrong kind.
            ValueError: As `forward`.
        """
        if torch.is_inference_mode_enabled():
            return outside_inference_mode(self.estimate, episodes, keys)
        return self._estimate(self.meta, episodes, keys)[2]

    def compiled_step(
        self, optimizer: torch.optim.Optimizer, max_grad_norm: float | None = None
    ) -> CompiledStep:
        """Return a function of episodes that takes a whole training iteration, compiled.

        It computes the meta-gradient and takes the optimizer's step in one graph, which spares
        small models most of the time: `loss = step(episodes)`, or `step(episodes, keys=keys)`.
        It is compiled at the first call of a kind, whatever the learner's `compile` is.

        Args:
            optimizer: `SGD`, `Adam` or `AdamW` of `torch.optim`, of the learner's parameters. Its
                state and settings stay its own: schedulers and `state_dict` work as ever.
            max_grad_norm: Bound on the norm of the whole meta-gradient, positive; None for none.

        Raises:
            TypeError: If an argument is of the wrong kind.
            ValueError: If a graph cannot hold the optimizer's step, or hooks would not run.

        >>> import torch.nn.functional as F
        >>> from metalearn import data, inner, models
        >>> learner = MetaLearner(models.mlp(1, [8], 1), F.mse_loss, inner.SGD(0.01), num_steps=1)
        >>> step = learner.compiled_step(torch.optim.Adam(learner.parameters()))
        >>> loss = step(data.Sinusoid(k_shot=5, num_query=5).sample(3))  # doctest: +SKIP
        """
        return CompiledStep(Owner(self, self, None, estimate_tasks), optimizer, max_grad_norm)

    def check(self, episodes: Episode, keys: Tensor | None = None) -> Tensor:
        """Raise for what is wrong with the episodes or the problem, and return the keys.

        The problem itself is checked on the first task at the first call, by an eager
        meta-gradient.

        Args:
            episodes: Tasks, with a leading task axis.
            keys: The tasks' random keys `[num_tasks]`, int64; drawn from PyTorch's generator if not
                given.

        Raises:
            TypeError: If the episodes are of the wrong kind.
            ValueError: As `forward`.
        """
        if torch.is_inference_mode_enabled():
            return outside_inference_mode(self.check, episodes, keys)
        return self._plans.of(self, episodes, keys, Purpose.META_GRADIENT)[1]

    def check_episodes(self, episodes: Episode, keys: Tensor | None = None) -> Tensor:
        """Raise for wrong episodes or ill-posed losses, and return the keys: a part of `check`.

        Args:
            episodes: Tasks, with a leading task axis.
            keys: The tasks' random keys `[num_tasks]`, int64; drawn from PyTorch's generator if not
                given.

        Raises:
            TypeError: If the episodes are of the wrong kind.
            ValueError: If their shapes disagree, they require grad, or the first of them shows that
                a loss is ill posed.
        """
        if torch.is_inference_mode_enabled():
            return outside_inference_mode(self.check_episodes, episodes, keys)
        return self._plans.of(self, episodes, keys, Purpose.EPISODES)[1]

    @property
    def inner_models(self) -> AdaptedModels:
        """The models of inner problems that go on, where they are now.

        They do under `outer.Continued` and `outer.PersistentES`, of which these are the models that
        nothing perturbs. Entry i is the model of problem i; `age` and `state` are every problem's.
        Of one that has diverged, and starts again with the next call, the age is 0 and the model
        the last one that was finite.

        Raises:
            ValueError: If no problem goes on yet, or what is carried is another rule's.
        """
        meta, key = tree_map(torch.clone, tree_detach(self.meta)), any_key(self.device)
        state = self.problem.rule.init_state(meta.rule, meta.init, key)
        run = self.carry.own_like({"params": meta.init, "state": state, "age": key})
        return self._adapted(meta, support=Batch(()), **run)

    def adapt(
        self,
        support: Batch,
        num_steps: int | None = None,
        *,
        start: AdaptedModels | None = None,
        keys: Tensor | None = None,
    ) -> AdaptedModels:
        """Adapt to many tasks at once.

        Args:
            support: The tasks' support sets, with a leading task axis.
            num_steps: Number of inner steps, at least 0; as in training if not given.
            start: Models of as many tasks that go on from where they are, with their rules' states;
                None starts afresh.
            keys: The tasks' random keys `[num_tasks]`, int64; drawn from PyTorch's generator if not
                given.

        Returns:
            The adapted models, independent of the learner's further training but for running
            statistics of "per_step" normalisation, which are the learner's own.

        Raises:
            TypeError: If the support sets are of the wrong kind.
            ValueError: If their shapes disagree, they require grad, or `num_steps` is negative.
        """
        if torch.is_inference_mode_enabled():
            return outside_inference_mode(self.adapt, support, num_steps, start=start, keys=keys)
        check_batch("support", support)  # or else adapt(x, y) would hear of its number of steps
        if num_steps is not None:
            check_count("num_steps", num_steps, minimum=0)
        check_adaptation(self.problem, support, num_steps)
        num_steps = self.num_steps if num_steps is None else num_steps
        meta = tree_map(torch.clone, tree_detach(self.meta))

        before: PyTree = ()
        if start is not None:
            key = any_key(self.device)
            check_models(start, check_task_axis({"support": support}), meta, self.problem, key)
            before = start.params, start.state

        def adapt(problem: Problem, meta: Meta, given: Any, key: Tensor) -> tuple[Params, PyTree]:
            support, before = given
            if before:
                problem = problem._replace(resume=lambda *_: before)
            adapted = self.estimator.adapt(problem, meta, support, key, num_steps)
            return adapted.params, adapted.state

        alone = Episode(support, Batch(()))
        given = support, before
        adapted = self._of_tasks(adapt, meta, alone, keys, Purpose.ADAPTATION, given)
        params, state = tree_map(Tensor.contiguous, adapted)  # of no step, tasks share their memory
        age = torch.full((len(tree_leaves(params)[0]),), num_steps, device=self.device)
        age = age if start is None else start.age + age
        return self._adapted(meta, params, state, support, age)

    def _adapted(
        self, meta: Meta, params: Params, state: PyTree, support: Batch, age: Tensor
    ) -> AdaptedModels:
        batching = "loop" if self.estimator.traits.one_by_one else self.batching
        how, loss = (batching, self.chunk_size), self.problem.query_loss
        return AdaptedModels(params, meta.shared, state, support, self.model, loss, age, *how)

    def extra_repr(self) -> str:
        """Return what `print` shows of the method."""
        shared = sum(name.startswith("model.") for name in self._shared)
        method = f"rule={self.problem.rule}, num_steps={self.num_steps}, estimator={self.estimator}"
        how = {"compile": self.compile_options, "cuda_graph": self.cuda_graph}
        batching = {"batching": self.batching, "chunk_size": self.chunk_size, **how}
        others = "".join(
            f", {name}={value!r}"
            for name, value in batching.items()
            if value not in ("vmap", None, False)
        )
        starts = (
            f", {len(self.problem.constant)} starts not learned" if self.problem.constant else ""
        )
        return f"{method}{others}\nfast={shown(self._fast, len(self._fast) + shared)}{starts}"

    def _estimate(
        self, meta: Meta, episodes: Episode, keys: Tensor | None
    ) -> tuple[Plan, Tensor, Estimate]:
        """Return the plan of a call, the tasks' keys and the estimate."""
        for attempt in attempts(self):
            with attempt, torch.no_grad():
                plan, keys, carry = self._prepared(self._plans, episodes, keys)
                with attributes_of(plan.writers), surroundings(self.problem):
                    estimate = plan.run(self, plan.setup, meta, *carry, episodes, keys)
        return plan, keys, estimate  # type: ignore[return-value]

    def _prepared(
        self, plans: Plans, episodes: Episode, keys: Tensor | None
    ) -> tuple[Plan, Tensor, Carry]:
        """Return the plan of a meta-step, the tasks' keys, and what is carried."""
        plan, keys = plans.of(self, episodes, keys, Purpose.META_GRADIENT)
        return plan, keys, self._carried(plan, episodes, keys)

    def _keep(
        self,
        plan: Plan,
        episodes: Episode,
        keys: Tensor,
        diagnostics: dict[str, Tensor],
        carry: Carry,
    ) -> None:
        """Keep what a meta-step leaves."""
        self.diagnostics = diagnostics
        if self.training and plan.carries:
            self.carry.keep(carry)
        if self.training and plan.tracks:
            untraced(self._track)(episodes, keys)

    def _losses(self, episodes: Episode, keys: Tensor | None) -> Tensor:
        """Return every task's query loss after adaptation, without a gradient."""
        loss, meta = partial(adapted_loss, self.estimator), tree_detach(self.meta)
        return self._of_tasks(loss, meta, episodes, keys, Purpose.LOSSES, episodes)

    def _of_tasks(
        self,
        function: Callable[..., Any],
        meta: Meta,
        episodes: Episode,
        keys: Tensor | None,
        purpose: Purpose,
        data: PyTree,
    ) -> Any:
        """Return `function(problem, meta, data, key)` of every task, stacked."""
        for attempt in attempts(self):
            with attempt:
                plan, keys = self._plans.of(self, episodes, keys, purpose)

                def chunk(data: Any, keys: Tensor, plan: Plan = plan) -> Any:
                    how = plan.setup.how.of(len(keys))
                    metas = spread(meta, len(keys)) if how.own else meta
                    return over_tasks(function, plan.setup.problem, metas, keys, (data, keys), how)

                kept, around = attributes_of(plan.writers), surroundings(self.problem)
                with torch.no_grad(), kept, around:
                    results = in_chunks(chunk, (data, keys), self.chunk_size)
        return results

    def _carry_of_one(self, episodes: Episode) -> Carry:
        """Return what the estimator leaves of one task, as tensors without values."""
        key = any_key(self.device)
        with torch.no_grad(), attributes_kept(*holders_of(self)):
            meta, first = tree_detach(self.meta), take(episodes, 0)
            carry = self.estimator.init_carry(self.problem, meta, first, key)
            return tree_map(lambda leaf: leaf.to("meta"), carry)

    def _carried(self, plan: Plan, episodes: Episode, keys: Tensor) -> Carry:
        """Return what the estimator is given of earlier meta-steps."""
        if not plan.carries and self.carry.is_empty:
            return Carry()

        def start() -> Carry:
            how, given = How(self.batching).of(len(keys)), (episodes, keys)
            meta, init_carry = tree_detach(self.meta), self.estimator.init_carry
            each = over_tasks(init_carry, self.problem, meta, keys, given, how)
            own = self.estimator.populate(self.problem, each.own, places_of(keys))
            return Carry(take(each.common, 0), own)

        # A graph is compiled for strides, and a start may share memory among tasks.
        return tree_map(Tensor.contiguous, self.carry(plan.carry, start, len(keys), None))

    def _track(self, episodes: Episode, keys: Tensor) -> None:
        """Let the running statistics of the inner steps follow the first task."""
        meta = tree_detach(self.meta)
        with torch.no_grad(), tracking(self.model), attributes_kept(*holders_of(self)):
            episode, key = take((episodes, keys), 0)
            adapted_loss(self.estimator, self.problem.of_task(key), meta, episode, key)

    def _apply(self, *args: Any, **kwargs: Any) -> "MetaLearner":
        # Module._apply converts buffers one by one, which would untie tied starts that are not
        # learned.
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        _tie_again(self)
        return self


def adapted_loss(
    estimator: MetaGradient, problem: Problem, meta: Meta, episode: Episode, key: Tensor
) -> Tensor:
    """Return one task's query loss after adaptation."""
    adapted = estimator.adapt(problem, meta, episode.support, key, problem.num_steps)
    return problem.query_loss(adapted.params, adapted.shared, episode)


def _tie_again(learner: MetaLearner, *_: Any) -> None:
    """Make tied parameters one again, which `load_state_dict(assign=True)` loads one by one."""
    for names in learner._tied:
        tie(learner.model, names)
