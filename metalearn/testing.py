"""Contract suites that any update rule and any estimator can be run through, a user's own included."""

import pickle
from collections.abc import Collection

from metalearn import inner, outer
from metalearn._contract import (
    CASES,
    check_close,
    check_estimate,
    check_exact,
    check_protocol,
    check_round_trips,
    finite_difference,
    require,
)
from metalearn._memory import peak_live_bytes

__all__ = ["check_update_rule", "check_meta_gradient", "finite_difference", "peak_live_bytes"]


def check_update_rule(rule: inner.UpdateRule, *, surrogate: Collection[str] = (), compile: bool = True) -> None:
    """Check that a rule keeps the protocol of `metalearn.inner.UpdateRule` and is differentiated exactly.

    In float64, on linear and convolutional layers with biases: updates are shaped as parameters, pure, and have finite
    derivatives at gradients of zero; `Unrolled` equals finite differences of a naive loop; `Stepwise`, order 1, a loop
    over tasks, chunks and the compiled step agree with it; meta-parameters survive pickling and `state_dict`; float32
    parameters stay float32.

    Args:
        rule: The rule.
        surrogate: Paths of meta-parameters, such as "mask", whose gradient is no derivative by design (straight-through
            estimators); finite differences are not asked of them.
        compile: Whether to trace it with `torch.compile` too, which takes a few seconds.

    Raises:
        AssertionError: If a check fails, with its name.

    >>> check_update_rule(inner.SGD(lr=0.1), compile=False)
    """
    surrogate = (surrogate,) if isinstance(surrogate, str) else surrogate
    for case in CASES:
        check_protocol(rule, case)
        for order in (1, 2):
            check_exact(rule, outer.Unrolled(order), case, order, surrogate)
            check_close(rule, case, {"estimator": outer.Unrolled(order)}, {"estimator": outer.Stepwise(order)})
        check_close(rule, case, {}, {"batching": "loop"})
        check_close(rule, case, {}, {"chunk_size": 1})
    check_round_trips(rule, CASES[0])
    if compile:
        check_close(rule, CASES[0], {"num_steps": 2}, {"num_steps": 2, "compile": {"backend": "eager"}})


def check_meta_gradient(estimator: outer.MetaGradient, *, order: int | None = 2, compile: bool = True) -> None:
    """Check that an estimator keeps the protocol of `metalearn.outer.MetaGradient`.

    In float64: the estimate is shaped as what it belongs to, finite, and zero where the estimator does not reach;
    the carry keeps its structure; vmap, a loop, chunks and the compiled step agree; it pickles; and its gradient
    equals finite differences of a naive loop.

    Args:
        estimator: The estimator.
        order: What its gradient is compared with: 2 for the exact gradient, 1 for the one that takes support
            gradients as constants, None for an estimator that approximates another.
        compile: Whether to trace it with `torch.compile` too, which takes a few seconds.

    Raises:
        AssertionError: If a check fails, with its name.

    >>> check_meta_gradient(outer.Stepwise(order=1), order=1, compile=False)
    """
    rule = inner.MetaSGD(0.1) if "rule" in estimator.reaches else inner.SGD(0.1)
    for case in CASES if "shared" in estimator.reaches else CASES[::2]:
        check_estimate(rule, estimator, case)
        if order is not None:
            check_exact(rule, estimator, case, order)
        check_close(rule, case, {"estimator": estimator}, {"estimator": estimator, "batching": "loop"})
        check_close(rule, case, {"estimator": estimator}, {"estimator": estimator, "chunk_size": 1})
    require(pickle.loads(pickle.dumps(estimator)) == estimator, "it equals its pickled copy", estimator)
    if compile:
        eager = {"estimator": estimator, "num_steps": 2}
        check_close(rule, CASES[0], eager, {**eager, "compile": {"backend": "eager"}})
