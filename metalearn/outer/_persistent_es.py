"""Evolution strategies in windows of inner problems that go on, without the bias of truncation."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metalearn import inner
from metalearn._fields import Checked, Count, Positive
from metalearn._tree import tree_add, tree_map, tree_zeros_like
from metalearn.functional import derive_key, normal
from metalearn.outer._base import MetaGradient, Traits
from metalearn.outer._continued import Continued, chosen
from metalearn.outer._directions import (
    check_real,
    completed,
    learned_of,
    mean_along,
    over_points,
    random_directions,
    zeros_along,
)
from metalearn.types import Carry, Episode, Estimate, Meta, Params, Problem, PyTree


class Particles(NamedTuple):
    """Where the runs at perturbed points stand: those of pair i are i and `num_pairs` + i.

    Attributes:
        params: Fast parameters `[2 num_pairs, ...]`.
        state: The rule's states, likewise.
        total: Sum of the directions of every pair since its runs started, `[num_pairs, ...]`,
            shaped as what is learned: the paper's xi, in units of the standard deviation.
        have_begun: Whether they have; if not they start with the next window. A scalar.
    """

    params: Params
    state: PyTree
    total: Meta
    have_begun: Tensor


@dataclass(frozen=True)
class PersistentES(MetaGradient, Checked):
    """Evolution strategies in windows of a run, unbiased for the whole run: PES.

    An inner problem goes on from call to call, `num_steps` inner steps each, as under `Continued`,
    which says what its horizon, its population of ages and its diagnostics are. Beside it go two
    particles for every pair, with parameters and a rule's state of their own. A window t draws a
    direction e_t from N(0, I) for every pair, from the task's key; the pair's particles take the
    window's steps with m + std e_t and m - std e_t in place of what is learned, m, on the same data
    and the same key. With L+ and L- their query losses at the window's end, the window's gradient
    is the mean over pairs of (e_1 + ... + e_t) (L+ - L-) / (2 std).

    These gradients of all windows of a run, from its start to its horizon, add up to one whose
    expectation, for constant m, is the gradient of the sum of the query losses at the windows'
    ends, smoothed by perturbations of every window; there is no division by the number of windows.
    A gradient of truncated windows, that of `Continued(Unrolled())`, leaves out what a window does
    to later ones. The variance grows with the number of windows since the start.

    Keys must be new in every window, as those are that a learner draws. A learned start is
    perturbed in the windows that start afresh, where alone it acts, and gets a gradient from all
    windows that follow. The query loss needs no derivative. `loss` and `learner.inner_models` are
    those of the run that nothing perturbs. A problem of which a particle diverges starts again.

    Args:
        num_pairs: Number of pairs of particles, at least 1. The variance falls with its inverse and
            grows with the number of learned numbers. Memory is that of 2 `num_pairs` tasks, and as
            many parameters and states are carried.
        std: Standard deviation of the perturbations, positive, in the units of what is learned.
        horizon: Number of inner steps after which a problem starts again, a multiple of
            `num_steps`.

    Raises:
        TypeError: If `num_pairs` or `horizon` is no int.
        ValueError: If a number is out of its range.

    References:
        Vicol et al., "Unbiased gradient estimation in unrolled computation graphs with persistent
        evolution strategies", ICML 2021.
    """

    num_pairs: Count
    std: Positive
    horizon: Count

    @property
    def traits(self) -> Traits:
        """First derivatives of the support loss alone."""
        return self._windows.traits

    def check(self, problem: Problem, meta: Meta) -> None:
        """Raise for a horizon that no window ends at, or complex numbers that are learned."""
        check_real(learned_of(problem, meta), "evolution strategies")
        self._windows.check(problem, meta)

    def init_carry(self, problem: Problem, meta: Meta, episode: Episode, key: Tensor) -> Carry:
        """Return a run that has not started yet, with its particles."""
        return self._windows.init_carry(problem, meta, episode, key)

    def populate(self, problem: Problem, own: PyTree, places: Tensor) -> PyTree:
        """Shorten every problem's first run, so that all ages will be there."""
        return self._windows.populate(problem, own, places)

    def __call__(
        self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: Carry
    ) -> Estimate:
        """Estimate the gradient of one window of one run."""
        return self._windows(problem, meta, episode, key, carry)

    @property
    def _windows(self) -> Continued:
        return Continued(Pairs(self.num_pairs, self.std), self.horizon)


@dataclass(frozen=True)
class Pairs(MetaGradient):
    """The estimator of one window, which carries the particles; fields as in `PersistentES`."""

    num_pairs: int
    std: float

    traits = Traits(differentiates=frozenset({"support"}), order=1)

    def init_carry(self, problem: Problem, meta: Meta, episode: Episode, key: Tensor) -> Carry:
        """Return particles that have not begun."""
        begun = problem.begin(meta, episode.support, key)
        params, state = zeros_along(begun, 2 * self.num_pairs)
        total = zeros_along(learned_of(problem, meta), self.num_pairs)
        have_begun = torch.zeros_like(key, dtype=torch.bool)
        return Carry(own=Particles(params, state, total, have_begun))

    def __call__(
        self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: Carry
    ) -> Estimate:
        """Estimate the gradient of one window."""
        particles: Particles = carry.own
        learned = learned_of(problem, meta)

        def run(episode: Episode, move: Meta, *particle: Any) -> tuple[Tensor, Params, PyTree]:
            at = completed(tree_map(lambda leaf, e: leaf + self.std * e, learned, move), meta.init)

            def resume(*start: Any) -> Any:
                return chosen(particles.have_begun, particle, start)

            window = problem._replace(resume=resume)
            params, shared, state = inner.adapt(window, at, episode, key)
            return problem.query_loss(params, shared, episode), params, state

        directions = self._directions(learned, particles, key)
        moves = tree_map(lambda e: torch.cat([e, -e]), directions)
        stand = particles.params, particles.state
        losses, params, state = over_points(run, episode, moves, *stand)
        ahead, behind = losses.chunk(2)
        total = tree_add(particles.total, directions)
        gradient = mean_along((ahead - behind) / (2 * self.std), total)
        own = Particles(params, state, total, torch.ones_like(particles.have_begun))

        ended = inner.adapt(problem, meta, episode, key)
        return Estimate(
            completed(gradient, tree_zeros_like(meta.init)),
            problem.query_loss(ended.params, meta.shared, episode),
            Carry(own=own),
            {},
            ended.params,
            ended.state,
        )

    def _directions(self, learned: Meta, particles: Particles, key: Tensor) -> Meta:
        """Return one direction for every pair; zero for a start that is not returned to."""
        directions: Meta = random_directions(normal, learned, derive_key(key), self.num_pairs)
        starts = tree_map(lambda e: torch.where(particles.have_begun, 0, e), directions.init)
        return directions._replace(init=starts)
