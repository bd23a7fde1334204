"""Rates that change with the number of the step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import check_function, invalid
from metalearn._fields import Check
from metalearn._tree import over_first_axes
from metalearn.inner._base import UpdateRule
from metalearn.inner._wrapper import Wrapper
from metalearn.types import Params, PyTree


def check_schedule(what: str, schedule: Any) -> None:
    """Raise unless `schedule` is a function of a tensor that acts on each element."""
    condition = "be a function of the step, a tensor of any shape"
    check_function(what, schedule, condition, fix="Write WarmUp(100), say.")
    fix = "Write lambda step: torch.where(step < 100, 1.0, 0.1), say, without if, max and math."
    at_once, *each = (
        _factors(what, schedule, steps, condition, fix)
        for steps in (torch.arange(2.0), torch.tensor(0.0), torch.tensor(1.0))
    )
    one_by_one = torch.stack(each)
    if not torch.allclose(at_once, one_by_one, equal_nan=True):
        got = f"{at_once.tolist()} for steps 0 and 1 at once, {one_by_one.tolist()} one by one"
        raise invalid(what, "act on each element of a tensor", got)


def _factors(what: str, schedule: Any, steps: Tensor, condition: str, fix: str) -> Tensor:
    """Return the schedule's factors for steps; raise unless they are of the steps' shape."""
    try:
        factors = schedule(steps)
    except (TypeError, ValueError, RuntimeError) as error:
        raise invalid(what, condition, f"{type(error).__name__}: {error}", fix) from error
    shape = tuple(steps.shape)
    if isinstance(factors, Tensor) and factors.shape == shape and factors.is_floating_point():
        return factors
    got = f"{brief(factors)} for steps of shape {shape}"
    raise invalid(what, "return a floating tensor of the step's shape", got, fix)


@dataclass(frozen=True)
class Scheduled(Wrapper):
    """A rule whose updates are multiplied by a function of the number of steps before.

    For every rule whose updates are proportional to its rate this schedules the rate, as
    `torch.optim.lr_scheduler.LambdaLR` does; the decay of `AdamW` is scheduled with it. The count
    of steps is part of the rule's state: it goes on where the state does.

    A schedule is a function of the number, from 0, such as `WarmUp(100, Cosine(900))`. It acts on
    each element of a tensor, since tasks may be computed at once. The numbers of one that is a
    frozen dataclass can be learned: `Learned(Scheduled(rule, WarmUp(100)), "schedule.num_steps")`.

    Args:
        rule: The rule.
        schedule: Returns the factor for a number of steps, both floating tensors of one shape.

    Raises:
        TypeError: If `rule` is not an update rule, or `schedule` not a function.
        ValueError: If `schedule` cannot be called with a tensor, returns something else, or mixes
            the elements of a tensor.

    >>> from metalearn.inner import SGD
    >>> halved = Scheduled(SGD(lr=0.1), lambda step: 0.5**step)
    """

    schedule: Annotated[Callable[[Tensor], Tensor], Check(check_schedule)]

    @property
    def elementwise(self) -> bool:
        """Whether the wrapped rule is."""
        return self.rule.elementwise

    def init_state(self, meta: PyTree, params: Params, key: Tensor) -> PyTree:
        """Return the wrapped rule's state, and the number of steps taken, one a task as its key."""
        like = next(iter(params.values()))
        # A count in bfloat16 stops at 256.
        dtype = torch.promote_types(like.dtype, torch.float32)
        count = like.new_zeros(key.shape, dtype=dtype)
        return {"count": count, "rule": self.rule.init_state(meta, params, key)}

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return the wrapped rule's update times the schedule's factor."""
        count, inside = state["count"], state["rule"]
        factor = self.schedule(count)
        updates, inside = self.rule.update(meta, grads, inside, params, loss, step)
        scaled = {
            name: over_first_axes(factor.to(update.dtype), update) * update
            for name, update in updates.items()
        }
        return scaled, {"count": count + 1, "rule": inside}

    def split_rate(self) -> tuple[float, UpdateRule]:
        """Return the wrapped rule's rate and the scheduled rule at rate 1."""
        return self._split_inside()
