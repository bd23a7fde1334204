"""What a learner refuses of support sets that are batches of steps, or are taken for such."""

from metalearn._checks import invalid
from metalearn._tree import tree_leaves, tree_names
from metalearn.functional import GivenBatches, OnSupport, SupportBatches
from metalearn.functional._losses import is_of_model
from metalearn.outer._checks._episodes import check_task_axis
from metalearn.types import Batch, Episode, Indexed, Problem


def check_support_batches(problem: Problem, support: Batch) -> None:
    """Raise unless the inner steps' batches can be made of the support sets."""
    batches = _batches_of(problem)
    takes_inputs = batches is None and is_of_model(problem.support_loss)
    if isinstance(support.x, Indexed) and (takes_inputs or isinstance(batches, GivenBatches)):
        fix = "Write support_batches=functional.IndexedBatches()."
        raise invalid("support.x", "be inputs of the model", "a types.Indexed", fix)
    if batches is not None:
        batches.check(support)


def check_whole(problem: Problem, episodes: Episode) -> None:
    """Raise if support sets have an axis more than query sets, as batches of steps have."""
    losses = problem.support_loss, problem.query_loss
    if not all(map(is_of_model, losses)) or _batches_of(problem) is not None:
        return
    support, query = map(tree_leaves, episodes)
    pairs = zip(support, query, strict=False)
    if (
        support
        and tree_names(episodes.support) == tree_names(episodes.query)
        and all(ours.dim() == theirs.dim() + 1 for ours, theirs in pairs)
    ):
        got = f"{tuple(support[0].shape)} and {tuple(query[0].shape)}"
        fix = "Write support_batches=functional.GivenBatches(), if they are batches of steps."
        raise invalid("support and query sets", "have examples of one rank", got, fix)


def examples_of(problem: Problem, support: Batch, axis: int = 1) -> Batch:
    """Return all examples of the support sets of tasks, or of one at `axis` 0."""
    batches = _batches_of(problem)
    return support if batches is None else batches.examples(support, axis)


def check_num_steps(problem: Problem, support: Batch, num_steps: int | None = None) -> None:
    """Raise unless there is a batch for every step, where support sets are batches of steps.

    Args:
        problem: What is minimised, in so many steps in training.
        support: The support sets.
        num_steps: The number of steps, which may leave batches over; None for that in training.
    """
    batches = _batches_of(problem)
    given = None if batches is None else batches.steps_of(support)
    if given is None or (num_steps is not None and num_steps <= given):
        return
    wanted = problem.num_steps if num_steps is None else num_steps
    if wanted != given:
        fix = f"Write num_steps={given}, or indices of {wanted} steps."
        if isinstance(batches, GivenBatches):
            fix = f"Write num_steps={given}, or data.windows(loader, num_steps={wanted}), or leave "
            fix += "out support_batches if all steps see the same examples."
        raise invalid("num_steps", f"be the {given} batches of the support set", wanted, fix)


def check_adaptation(problem: Problem, support: Batch, num_steps: int | None) -> None:
    """Raise unless support sets that are batches of steps are enough for `adapt`."""
    if _batches_of(problem) is not None:
        check_task_axis({"support": support})
        check_support_batches(problem, support)
        check_num_steps(problem, support, num_steps)


def _batches_of(problem: Problem) -> SupportBatches | None:
    loss = problem.support_loss
    return loss.batches if isinstance(loss, OnSupport) else None
