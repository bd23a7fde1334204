"""The learner: a module whose forward pass turns episodes into a loss that carries the meta-gradient."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._checks import check_count
from metalearn._modules import TensorTree, get_tensor, set_tensor
from metalearn._tasks import map_tasks, over_chunks, take
from metalearn._tree import tree_detach, tree_leaves, tree_map, tree_pairs
from metalearn.functional import ModelLoss, OnQuery, OnSupport, draw_keys
from metalearn.inner import UpdateRule
from metalearn.outer._attach import attach
from metalearn.outer._base import MetaGradient
from metalearn.outer._compile import compile_whole
from metalearn.outer._learner_checks import (
    check_arguments,
    check_device,
    check_episodes,
    check_fast,
    check_keys,
    check_reaches,
    check_support_batches,
    check_task_axis,
)
from metalearn.outer._probe import probe
from metalearn.outer._select import Selection, select, trainable
from metalearn.outer._unrolled import Unrolled
from metalearn.types import Adapted, Batch, Episode, Estimate, Meta, Params, Problem, PyTree


class MetaLearner(nn.Module):
    """A model that learns to learn: calling it on episodes gives their mean query loss after adaptation.

    It is an ordinary module: `loss.backward()` puts the estimator's meta-gradient into the `.grad` of everything that
    is learned, for any optimizer to use. Its parameters are named `model.<name>`, `criterion.<name>`,
    `support_criterion.<name>` and `rule.<path>`. Parameters that do not require grad at construction stay constants;
    buffers are read and never written.

    Args:
        model: Any module. It is wrapped, not copied.
        criterion: `(output, y) -> scalar`, a function or a module. None if both losses are given.
        rule: How a task's gradient becomes a parameter update.
        num_steps: Number of inner steps, at least 1.
        estimator: How the meta-gradient is estimated.
        fast: Which of the model's parameters adapt: a pattern such as "head.*", a module's name, a predicate on
            names, or a list of patterns. The others are shared by all tasks.
        learn_init: Which fast parameters have a learned start; the start of the others becomes a buffer.
        support_criterion: The inner loss, if it differs from `criterion`.
        support_loss: `(params, shared, episode, step) -> scalar`, in place of model and criterion in the inner loop.
        query_loss: `(params, shared, episode) -> scalar`, likewise in the outer loss.
        support_batches: Number of parts that the support set is dealt into; step t sees part `t % support_batches`.
        batching: "vmap" over tasks, or "loop" for models that cannot be vmapped.
        chunk_size: Number of tasks computed at once; gradients are added up chunk by chunk. None for all.
        compile: Whether `torch.compile` compiles the whole meta-step; a dict is passed on as its options.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a count is below 1, a pattern matches nothing, the model keeps running statistics, or the
            estimator gives no gradient to something that is learned.

    >>> import torch.nn.functional as F
    >>> from metalearn import data, inner, models
    >>> learner = MetaLearner(models.mlp(1, [8], 1), F.mse_loss, inner.SGD(lr=0.01), num_steps=2)
    >>> loss = learner(data.Sinusoid(k_shot=5, num_query=5).sample(3))
    >>> loss.backward()
    """

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
        support_batches: int | None = None,
        batching: str = "vmap",
        chunk_size: int | None = None,
        compile: bool | Mapping[str, Any] = False,
    ) -> None:
        super().__init__()
        check_arguments(
            model=model,
            criteria=(criterion, support_criterion),
            losses=(support_loss, query_loss),
            rule=rule,
            num_steps=num_steps,
            estimator=estimator,
            support_batches=support_batches,
            batching=batching,
            chunk_size=chunk_size,
            compile=compile,
        )
        self.model, self.criterion, self.support_criterion = model, criterion, support_criterion
        self.estimator, self.batching, self.compile_options = estimator, batching, compile
        self.chunk_size = 1 if batching == "loop" else chunk_size
        self.support_batches = support_batches or 1
        self.problem = Problem(
            support_loss=support_loss
            or OnSupport(self._model_loss("support_criterion" if support_criterion else "criterion", support_batches)),
            query_loss=query_loss or OnQuery(self._model_loss("criterion")),
            rule=rule,
            num_steps=num_steps,
        )
        names = trainable(model)
        self._fast = select("fast", fast, names)
        check_fast(self._fast)
        learned = select("learn_init", learn_init, {name: names[name] for name in self._fast})
        self._shared = self._shared_names()
        self.rule = TensorTree(rule.init_meta({name: get_tensor(model, name).detach() for name in self._fast}))
        rule_names = [f"rule.{name}" for name, _ in self.rule.named_parameters()]
        check_reaches(estimator, {"init": learned, "shared": self._shared, "rule": rule_names})
        for name in set(self._fast) - set(learned):
            set_tensor(model, name, get_tensor(model, name).detach())
        self.carry: TensorTree | None = None
        self._loaded_carry: dict[str, Tensor] = {}
        self._probed: set[bool] = set()
        self._compiled: Callable[..., Any] | None = None

    @property
    def num_steps(self) -> int:
        """Number of inner steps in training."""
        return self.problem.num_steps

    @property
    def device(self) -> torch.device:
        """Where the learner's parameters are, and the episodes must be."""
        return get_tensor(self.model, self._fast[0]).device

    @property
    def meta(self) -> Meta:
        """Everything that is learned, and the starts that are not: the parameters themselves."""
        init = {name: get_tensor(self.model, name) for name in self._fast}
        return Meta(init, {name: get_tensor(self, name) for name in self._shared}, self.rule())

    def forward(self, episodes: Episode, *, keys: Tensor | None = None) -> Tensor:
        """Return the mean query loss after adaptation, a scalar that carries the meta-gradient.

        Args:
            episodes: Tasks, with a leading task axis.
            keys: The tasks' random keys `[num_tasks]`, int64; drawn from PyTorch's generator if not given.

        Raises:
            TypeError: If the episodes are of the wrong kind.
            ValueError: If their shapes disagree, they require grad, or the first of them shows that the problem is
                ill posed.
        """
        meta = self.meta
        if not (torch.is_grad_enabled() and any(leaf.requires_grad for leaf in tree_leaves(meta))):
            return self._query_losses(episodes, keys).mean()
        estimate = self.estimate(episodes, keys)
        if self.training and tree_leaves(estimate.carry):
            self.carry = TensorTree(estimate.carry, learned=False)
        pairs = [pair for pair in tree_pairs(meta, estimate.gradient) if pair[0].requires_grad]
        return attach(estimate.loss.mean(), *zip(*pairs, strict=True))

    def estimate(self, episodes: Episode, keys: Tensor | None = None) -> Estimate:
        """Return the meta-gradient as data: a pure function of the learner's state, the episodes and the keys.

        Args:
            episodes: Tasks, with a leading task axis.
            keys: The tasks' random keys `[num_tasks]`, int64; drawn from PyTorch's generator if not given.

        Returns:
            The gradient and the carry, means over tasks; loss and diagnostics of every task, `[num_tasks]`. The
            diagnostic "finite" says which tasks' losses and gradients are.

        Raises:
            TypeError: If the episodes are of the wrong kind.
            ValueError: As `forward`.
        """
        keys = self._check(episodes, keys)
        with torch.no_grad():
            meta, first = tree_detach(self.meta), take((episodes, keys), 0)
            if self.training not in self._probed:
                probe(self.problem, self.estimator, meta, *first)
                self._probed.add(self.training)
            carry = self._carry_at(meta, first[0])
            run = partial(self._estimate_function(), meta, carry)
            summed, (loss, diagnostics) = over_chunks(run, (episodes, keys), self.chunk_size)
            gradient, carry = tree_map(lambda total: total / len(keys), summed)
        return Estimate(gradient, loss, carry, diagnostics)

    def adapt(self, support: Batch, num_steps: int | None = None, *, keys: Tensor | None = None) -> Adapted:
        """Adapt to many tasks at once.

        Args:
            support: The tasks' support sets, with a leading task axis.
            num_steps: Number of inner steps, at least 0; as in training if not given.
            keys: The tasks' random keys `[num_tasks]`, int64; drawn from PyTorch's generator if not given.

        Returns:
            The adapted models, independent of the learner's further training.

        Raises:
            TypeError: If the support sets are of the wrong kind.
            ValueError: If their shapes disagree, they require grad, or `num_steps` is negative.
        """
        num_steps = self.num_steps if num_steps is None else num_steps
        check_count("num_steps", num_steps, minimum=0)
        keys = self._check_support(support, keys)
        with torch.no_grad():
            meta = tree_map(torch.clone, tree_detach(self.meta))

            def adapt(support: Batch, key: Tensor) -> Any:
                adapted = self.estimator.adapt(self.problem, meta, support, key, num_steps)
                return adapted.params, adapted.state

            def chunk(*per_task: Any) -> Any:
                return (), map_tasks(adapt, per_task, self.batching)

            _, (params, state) = over_chunks(chunk, (support, keys), self.chunk_size)
        query_loss = self.problem.query_loss
        return Adapted(params, meta.shared, state, support, self.model, query_loss, self.batching)

    def _query_losses(self, episodes: Episode, keys: Tensor | None) -> Tensor:
        self._check(episodes, keys)
        return self.adapt(episodes.support, keys=keys).loss(episodes.query)

    def _estimate_function(self) -> Callable[..., Any]:
        if self.compile_options is False:
            return self._estimate_chunk
        if self._compiled is None:
            self._compiled = partial(compile_whole(MetaLearner._estimate_chunk, self.compile_options), self)
        return self._compiled

    def _carry_at(self, meta: Meta, episode: Episode) -> PyTree:
        """Return what the last training step left behind, or what was loaded, or the estimator's start."""
        if self.carry is not None:
            return self.carry()
        start = self.estimator.init_carry(self.problem, meta, episode)
        if not self._loaded_carry:
            return start
        loaded = TensorTree(start, learned=False)
        loaded.load_state_dict(self._loaded_carry)
        return loaded()

    def _estimate_chunk(self, meta: Meta, carry: PyTree, episodes: Episode, keys: Tensor) -> Any:
        def estimate(episode: Episode, key: Tensor) -> Estimate:
            return self.estimator(self.problem, meta, episode, key, carry)

        each = map_tasks(estimate, (episodes, keys), self.batching)
        # A sum is finite only if all terms are, and one reduction a tensor is cheaper than testing each element.
        sums = [leaf.reshape(len(keys), -1).sum(1) for leaf in [*tree_leaves(each.gradient), each.loss]]
        diagnostics = {**each.diagnostics, "finite": torch.stack(sums).sum(0).isfinite()}
        return tree_map(lambda leaf: leaf.sum(0), (each.gradient, each.carry)), (each.loss, diagnostics)

    def _check(self, episodes: Episode, keys: Tensor | None) -> Tensor:
        check_episodes(episodes)
        check_device(episodes.query, self.device)
        return self._check_support(episodes.support, keys)

    def _check_support(self, support: Batch, keys: Tensor | None) -> Tensor:
        num_tasks = check_task_axis({"support": support})
        check_device(support, self.device)
        check_support_batches(support, self.support_batches)
        if keys is None:
            return draw_keys(num_tasks, device=self.device)
        check_keys(keys, num_tasks)
        return keys.to(self.device)

    def _model_loss(self, name: str, num_batches: int | None = None) -> ModelLoss:
        return ModelLoss(self.model, getattr(self, name), name, num_batches or 1)

    def _shared_names(self) -> list[str]:
        names = [f"model.{name}" for name in trainable(self.model) if name not in self._fast]
        for part in ("criterion", "support_criterion"):
            if isinstance(getattr(self, part), nn.Module):
                names += [f"{part}.{name}" for name in trainable(getattr(self, part))]
        return names

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # The structure of a carry is known only at the first episodes: until then a new learner keeps what it loads.
        if self.carry is None:
            inside = f"{prefix}carry."
            names = [name for name in state_dict if name.startswith(inside)]
            self._loaded_carry = {name.removeprefix(inside): state_dict.pop(name) for name in names}
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compiled": None}
