"""Calls of a model within contexts that make it one to differentiate twice, or to vmap."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from metalearn._modules import Call, functional_call


def plain_attention() -> AbstractContextManager[None]:
    """Let attention be computed by the kernel that has all derivatives."""
    context: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
    return context


@contextmanager
def as_traced() -> Iterator[None]:
    """Let `torch.compiler.is_compiling()` say yes, so that a model looks at no values.

    Hugging Face's models branch on the values of masks unless they are traced.
    """
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

    contexts: tuple[Callable[[], AbstractContextManager[None]], ...]
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


def contexts_of(call: Call) -> tuple[Callable[[], AbstractContextManager[None]], ...]:
    """Return the contexts that a call is made in."""
    return call.contexts if isinstance(call, CallWithin) else ()
