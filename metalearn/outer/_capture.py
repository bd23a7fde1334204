"""A function of tensors as one flat graph, compiled: all that the library takes private in PyTorch.

`torch.compile` would do the same behind guards, frames and wrappers, which take longer than small
graphs.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from metalearn._modes import capturing

aten = torch.ops.aten
Flat = Callable[..., Sequence[Any]]
"""A function of tensors that returns tensors."""


def capture(
    function: Flat, tensors: Sequence[Tensor], what: str = "whole"
) -> tuple[Any, list[Tensor]]:
    """Return a function's operations as a graph, and the tensors that it reads beside arguments.

    Args:
        function: Of tensors, of which it may not read values: shapes alone are known.
        tensors: Arguments of the shapes that the graph is for.
        what: As in `capturing`.

    Returns:
        A graph of the arguments and of the other tensors, after them.
    """
    from torch.fx.experimental.proxy_tensor import make_fx  # takes seconds

    products = PRODUCTS if _are_on_cpu(tensors) else {}
    with capturing(what), torch.no_grad():
        graph = make_fx(
            function,
            decomposition_table=products,
            tracing_mode="fake",
            _allow_non_fake_inputs=True,
        )(*tensors)
    for node in graph.graph.nodes:
        node.meta.clear()  # fake tensors, and where in the code it was
    return graph, _with_constants_as_inputs(graph)


def runnable(graph: Any, tensors: Sequence[Tensor], options: Mapping[str, Any] | None) -> Flat:
    """Return what runs a graph, with the casts that it holds whatever autocast would do.

    Args:
        graph: The graph, which stays as it is.
        tensors: Its arguments.
        options: Those of `torch.compile(options=)`, beside the fastest, for inductor; None runs the
            graph as it is.
    """
    run: Flat = graph
    if options is not None:
        # On a CPU kernels are called from C++, which is faster.
        fastest = {"cpp_wrapper": True} if _are_on_cpu(tensors) else {}
        run = _compiled(graph, tensors, {**fastest, **options})
    return _in_own_precision(run)


def _compiled(graph: Any, tensors: Sequence[Tensor], options: dict[str, Any]) -> Flat:
    """Return a graph compiled by inductor."""
    from torch._guards import TracingContext, tracing
    from torch._inductor.compile_fx import compile_fx
    from torch._subclasses import FakeTensorMode
    from torch.fx import GraphModule
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    mode = FakeTensorMode(shape_env=ShapeEnv())
    if draws(graph):  # the same numbers as without compilation
        options = {"fallback_random": True, **options}
    # Under a tracing context, or inductor's cache would not be asked.
    with tracing(TracingContext(mode)), torch.no_grad(), torch._C._DisableAutocast():
        fakes = [mode.from_tensor(tensor, static_shapes=True) for tensor in tensors]
        own = GraphModule(graph, copy.deepcopy(graph.graph))
        return compile_fx(own, fakes, config_patches=options)  # type: ignore[return-value]


def draws(graph: Any) -> bool:
    """Return whether a graph draws from a generator."""
    seeded = torch.Tag.nondeterministic_seeded
    return any(seeded in getattr(node.target, "tags", ()) for node in graph.graph.nodes)


def _in_own_precision(run: Flat) -> Flat:
    """Return a graph's function that does the casts which it holds, whatever autocast would do."""
    if not torch._C._is_any_autocast_enabled():
        return run

    def without_autocast(*tensors: Tensor) -> Sequence[Any]:
        with torch._C._DisableAutocast():
            return run(*tensors)

    return without_autocast


def mark_as_stepped(optimizer: torch.optim.Optimizer) -> None:
    """Let schedulers, which warn of optimizers that have taken no step, know that this one has."""
    optimizer._opt_called = True  # type: ignore[attr-defined]


def has_hooks(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether hooks are registered on an optimizer's steps or its parameters' gradients."""
    from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

    on_steps = (
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or _global_optimizer_pre_hooks
        or _global_optimizer_post_hooks
    )
    params = (param for group in optimizer.param_groups for param in group["params"])
    return bool(on_steps) or any(
        param._backward_hooks or param._post_accumulate_grad_hooks for param in params
    )


def _are_on_cpu(tensors: Sequence[Tensor]) -> bool:
    return all(tensor.device.type == "cpu" for tensor in tensors)


def _with_constants_as_inputs(graph: Any) -> list[Tensor]:
    """Make the tensors that a graph holds arguments of it, so that what is written to is read."""
    nodes = [node for node in graph.graph.nodes if node.op == "get_attr"]
    names = list(dict.fromkeys(node.target for node in nodes))
    after = [node for node in graph.graph.nodes if node.op == "placeholder"][-1]
    for name in names:
        with graph.graph.inserting_after(after):
            after = graph.graph.placeholder(name)
        for node in nodes:
            if node.target == name:
                node.replace_all_uses_with(after)
                graph.graph.erase_node(node)
    graph.recompile()
    return [getattr(graph, name) for name in names]


def _has_side_of_one(left: Tensor, right: Tensor) -> bool:
    return 1 in (left.shape[-2], left.shape[-1], right.shape[-1])


def _product(left: Tensor, right: Tensor) -> Tensor:
    if left.shape[-1] == 1:
        return left * right
    return (left.unsqueeze(-1) * right.unsqueeze(-3)).sum(-2)


def _mm(left: Tensor, right: Tensor) -> Any:
    return _product(left, right) if _has_side_of_one(left, right) else NotImplemented


def _addmm(bias: Tensor, left: Tensor, right: Tensor, beta: Any = 1, alpha: Any = 1) -> Any:
    if beta == 1 and alpha == 1 and _has_side_of_one(left, right):
        return bias + _product(left, right)
    return NotImplemented


PRODUCTS: dict[Any, Callable[..., Any]] = {
    aten.mm.default: _mm,
    aten.bmm.default: _mm,
    aten.addmm.default: _addmm,
    aten.baddbmm.default: _addmm,
}
"""Products with a side of 1 as sums, which inductor fuses into what stands around them."""
