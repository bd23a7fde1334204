"""Calls of a model within contexts that make it one to differentiate twice, or to vmap."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from metalearn._modes import in_transform, is_captured
from metalearn._modules import Call, functional_call

Context: TypeAlias = Callable[[], AbstractContextManager[None]]
"""A function that returns a context."""
FUSED: Any = (
    F.scaled_dot_product_attention,
    F.multi_head_attention_forward,
    torch._native_multi_head_attention,
    torch._transformer_encoder_layer_fwd,
)
"""Functions with kernels that have no second derivative, and that `vmap` takes task by task."""
LOOKS: Any = (Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.item)
"""Functions that look at values."""


def plain_attention() -> AbstractContextManager[None]:
    """Let attention be computed by the kernel that has all derivatives."""
    context: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
    return context


class Seen(TorchFunctionMode):
    """A context in which it is seen what a model does that `vmap` minds.

    Attributes:
        contexts: Within what the model is to be called under `vmap`, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.contexts: dict[Context, None] = {}

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call the function."""
        if function in FUSED:
            self.contexts[plain_attention] = None
        elif function in LOOKS:
            self.contexts[as_traced] = None
        return function(*args, **(kwargs or {}))


@contextmanager
def as_traced() -> Iterator[None]:
    """Let `torch.compiler.is_compiling()` say yes where values cannot be looked at.

    Hugging Face's models branch on the values of masks unless they are traced.
    """
    if not (in_transform() or is_captured()):
        yield
        return
    compiler: Any = torch.compiler
    before = compiler._is_compiling_flag
    compiler._is_compiling_flag = True
    try:
        yield
    finally:
        compiler._is_compiling_flag = before


@dataclass(frozen=True)
class CallWithin:
    """A call within contexts.

    Attributes:
        contexts: Functions that return them.
        call: The call.
    """

    contexts: tuple[Context, ...]
    call: Call = functional_call

    def __call__(
        self,
        module: nn.Module,
        tensors: dict[str, Tensor],
        args: Any,
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Return what the module returns with these tensors."""
        with ExitStack() as stack:
            for context in self.contexts:
                stack.enter_context(context())
            return self.call(module, tensors, args, kwargs)


def contexts_of(call: Call) -> tuple[Context, ...]:
    """Return the contexts that a call is made in."""
    return call.contexts if isinstance(call, CallWithin) else ()
