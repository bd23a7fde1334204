"""Arguments that all methods take, and errors that say what to write for others."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, Required, TypedDict, TypeVar

from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import did_you_mean, mistyped
from metalearn.functional import SupportBatches
from metalearn.outer._checks._siblings import where_it_is
from metalearn.outer._select import Selection
from metalearn.types import Params

RATE = "The rate is the rule's: write inner.SGD(lr=0.01)."
ORDER = "Write outer.FOMAML(model, criterion, rule, num_steps=5)"
ORDER += ", or estimator=outer.Unrolled(order=1)."
STEPS = "Write num_steps=5."
ELSEWHERE = {
    **dict.fromkeys(("inner_lr", "fast_lr", "alpha", "step_size"), RATE),
    "first_order": ORDER,
    **dict.fromkeys(("inner_steps", "num_inner_steps", "adaptation_steps"), STEPS),
}
"""What other libraries call an argument, with what to write here."""

METHODS: dict[str, list[str]] = {}
"""The arguments that each method takes."""

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
    start: Callable[..., Params] | None
    output: str | Callable[..., Any] | None
    batching: str
    chunk_size: int | None
    compile: bool | str | Mapping[str, Any]
    cuda_graph: bool
    check_model: bool


def method(build: Callable[P, T]) -> Callable[P, T]:
    """Make a method, or `MetaLearner.__init__`, explain arguments that are unknown or missing."""
    parameters = inspect.signature(build).parameters.values()
    options = list(Options.__annotations__)
    named = [options if each.kind is each.VAR_KEYWORD else [each.name] for each in parameters]
    taken = [argument for names in named for argument in names if argument != "self"]
    name = build.__qualname__.removesuffix(".__init__")
    METHODS[name] = taken

    @functools.wraps(build)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        for argument, value in kwargs.items():
            if argument not in taken:
                owner = where_it_is(argument, value, name, [*args, *kwargs.values()])
                fix = ELSEWHERE.get(argument) or owner or did_you_mean(argument, taken)
                what, condition = f"arguments of {name}", f"be among {', '.join(taken)}"
                raise mistyped(what, condition, brief(argument), fix)
        if "num_steps" not in kwargs:
            raise mistyped("num_steps", "be given", "none", f"Write {name}(..., num_steps=5).")
        return build(*args, **kwargs)

    return checked
