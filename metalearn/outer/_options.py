"""What all methods leave to their users, and errors that name the method when an argument is misspelt."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, Required, TypedDict, TypeVar

from torch import Tensor

from metalearn._checks import did_you_mean, invalid
from metalearn.functional import SupportBatches
from metalearn.outer._select import Selection

RATE = "The rate is the rule's: write inner.SGD(lr=0.01)."
ORDER = "Write outer.FOMAML(model, criterion, rule, num_steps=5), or estimator=outer.Unrolled(order=1)."
STEPS = "Write num_steps=5."
ELSEWHERE = {
    **dict.fromkeys(("lr", "inner_lr", "fast_lr", "alpha", "step_size"), RATE),
    **dict.fromkeys(("first_order", "order"), ORDER),
    **dict.fromkeys(("inner_steps", "num_inner_steps", "adaptation_steps"), STEPS),
}
"""What other libraries call an argument, with the call that says it here."""

P = ParamSpec("P")
T = TypeVar("T")


class Options(TypedDict, total=False):
    """The arguments of `MetaLearner` that every method leaves to its user."""

    num_steps: Required[int]
    fast: Selection
    learn_init: Selection
    support_criterion: Callable[..., Tensor] | None
    support_loss: Callable[..., Tensor] | None
    query_loss: Callable[..., Tensor] | None
    support_batches: int | SupportBatches | None
    batching: str
    chunk_size: int | None
    compile: bool | Mapping[str, Any]
    cuda_graph: bool
    check_model: bool


def method(build: Callable[P, T]) -> Callable[P, T]:
    """Make a function that takes `Options` raise errors of its own for arguments that it does not take, or misses."""
    parameters = inspect.signature(build).parameters.values()
    own = [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    taken, name = [*own, *Options.__annotations__], getattr(build, "__name__", "method")

    @functools.wraps(build)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        for argument in kwargs:
            if argument not in taken:
                fix = ELSEWHERE.get(argument) or did_you_mean(argument, taken)
                raise TypeError(invalid(f"arguments of {name}", f"be among {', '.join(taken)}", repr(argument), fix))
        if "num_steps" not in kwargs:
            raise TypeError(invalid("num_steps", "be given", "none", f"Write {name}(..., num_steps=5)."))
        return build(*args, **kwargs)

    return checked
