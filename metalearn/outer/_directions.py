"""Directions in the space of all that is learned, and the gradient from slopes along them."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.func import vmap

from metalearn._checks import mistyped
from metalearn._tree import over_first_axes, tree_flatten, tree_leaves, tree_map, tree_unflatten
from metalearn.types import Episode, Meta, Params, Problem


def learned_of(problem: Problem, meta: Meta) -> Meta:
    """Return what is learned: all but the starts that are constants."""
    init = {name: param for name, param in meta.init.items() if name not in problem.constant}
    return meta._replace(init=init)


def completed(learned: Meta, init: Params) -> Meta:
    """Return what is learned together with starts that are not, of all those in `init`."""
    return learned._replace(init={**init, **learned.init})


def check_real(tree: Any, purpose: str) -> None:
    """Raise a TypeError if one of the numbers in a tree is complex.

    Args:
        tree: A pytree of tensors.
        purpose: What they would be wrong for.
    """
    if any(leaf.is_complex() for leaf in tree_leaves(tree)):
        fix = "Use outer.Stepwise(), or hold them as pairs: torch.view_as_complex(pairs)."
        raise mistyped("parameters", f"be real for {purpose}", "complex ones", fix)


def random_directions(draw: Callable[..., Tensor], like: Any, key: Tensor, count: int) -> Any:
    """Return random directions shaped as a tree, `[count, ...]`.

    Args:
        draw: Draws independent numbers: `(key, shape, stream, *, dtype) -> tensor`.
        like: The tree.
        key: Decides the numbers.
        count: Number of directions.
    """
    leaves, spec = tree_flatten(like)
    drawn = [
        draw(key, (count, *leaf.shape), stream, dtype=leaf.dtype)
        for stream, leaf in enumerate(leaves)
    ]
    return tree_unflatten(drawn, spec)


def over_points(function: Callable[..., Any], episode: Episode, *points: Any) -> Any:
    """Return `function(episode, *point)` of many points at once.

    Args:
        function: Of one task's episode and one point.
        episode: The task's data.
        points: Trees of tensors `[num_points, ...]`.
    """
    count = len(tree_leaves(points)[0])
    # The episode is expanded since nested vmaps of mse_loss fail on outputs with an axis that
    # targets lack.
    episodes = tree_map(lambda leaf: leaf.expand(count, *leaf.shape), episode)
    return vmap(function, randomness="different")(episodes, *points)


def zeros_along(like: Any, count: int) -> Any:
    """Return zeros shaped as a tree, `[count, ...]`."""
    return tree_map(lambda leaf: leaf.new_zeros(count, *leaf.shape), like)


def mean_along(slopes: Tensor, directions: Any) -> Any:
    """Return the mean over directions, of which each is scaled by its slope.

    Args:
        slopes: `[num_directions]`.
        directions: A tree of tensors `[num_directions, ...]`.
    """
    return tree_map(lambda move: (over_first_axes(slopes, move) * move).mean(0), directions)
