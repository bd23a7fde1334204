"""Rules as users write them: with annotations as texts, some of which only type checkers read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from metalearn import inner

if TYPE_CHECKING:
    from elsewhere import Schedule

Rate = Annotated[float, "per step"]


@dataclass(frozen=True)
class Scaled(inner.UpdateRule):
    lr: Rate = 0.1
    pair: tuple[float, float] = (1.0, 2.0)
    norm: float | None = None
    times: int = 1

    def update(self, meta, grads, state, params, loss, step):
        first, second = self.pair
        factor = -self.lr * self.times * first * second * (1.0 if self.norm is None else self.norm)
        return {name: factor * grad for name, grad in grads.items()}, state


@dataclass(frozen=True)
class Scheduled(Scaled):
    schedule: Schedule | None = None
    bias: float = 0.5

    def update(self, meta, grads, state, params, loss, step):
        return {name: self.bias * grad for name, grad in grads.items()}, state


@dataclass(frozen=True)
class Unchecked(inner.SGD):
    """With a `__post_init__` of its own."""

    twice: bool = 3

    def __post_init__(self):
        object.__setattr__(self, "twice", bool(self.twice))


@dataclass(frozen=True)
class Narrow(inner.Momentum):
    momentum: float = 0.5
    what: str = "narrow"
