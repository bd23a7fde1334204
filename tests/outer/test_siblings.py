"""An argument that a method does not take, and another of ours does: the error says where, and how
to give it there."""

import copy
import inspect
import re

import pytest
import torch.nn as nn
import torch.nn.functional as F

from metalearn import inner, outer

GIVEN = {"model": nn.Linear(1, 1), "criterion": F.mse_loss, "rule": inner.SGD(0.1)}
METHODS = [
    "MetaLearner",
    "MAML",
    "FOMAML",
    "ANIL",
    "HyperRepresentation",
    "IMAML",
    "Reptile",
    "TNet",
    "MTNet",
]


def advice(method, argument, value, **given):
    """What comes after `got`."""
    with pytest.raises(
        TypeError, match=f"arguments of {method} must be among .*; got '{argument}'"
    ) as caught:
        getattr(outer, method)(**{**GIVEN, "num_steps": 2, **given}, **{argument: value})
    return str(caught.value).partition(f"got '{argument}'. ")[2]


CASES = [
    (
        ("MAML", "keep_state", True),
        "It is an argument of outer.Reptile: write outer.Reptile(model, criterion, rule, "
        "num_steps=..., keep_state=True).",
    ),
    (
        ("MetaLearner", "strength", 3.0),
        "It is an argument of outer.IMAML: write outer.IMAML(model, criterion, rule, "
        "num_steps=..., strength=3.0).",
    ),
    (
        ("MAML", "truncate", 2),
        "It is an argument of outer.Unrolled, outer.Stepwise: write outer.MAML(..., "
        "estimator=outer.Unrolled(truncate=2)).",
    ),
    (
        ("FOMAML", "multi_step", outer.MultiStep()),
        "It is an argument of outer.Unrolled, outer.Stepwise: write outer.MetaLearner(..., "
        "estimator=outer.Unrolled(multi_step=...)).",
    ),
    (
        ("FOMAML", "estimator", outer.Stepwise()),
        "It is an argument of outer.MetaLearner, outer.MAML, outer.ANIL and others: write "
        "outer.MetaLearner(model, criterion, rule, num_steps=..., estimator=...).",
    ),
    (
        ("MAML", "betas", (0.0, 0.999)),
        "It is an argument of inner.Adam, inner.AdamW: write inner.Adam(lr, betas=(0.0, 0.999)) as "
        "the rule.",
    ),
    (
        ("TNet", "temperature", 2.0),
        "It is an argument of inner.Masked: write inner.Masked(rule, temperature=2.0) as the rule.",
    ),
    (
        ("ANIL", "max_grad_norm", 10.0),
        "It is an argument of fit: write fit(learner, batches, optimizer, num_iterations, "
        "max_grad_norm=10.0).",
    ),
    (
        ("IMAML", "metrics", {}),
        "It is an argument of evaluate: write evaluate(learner, episodes, num_tasks=..., "
        "metrics=...).",
    ),
    (("MAML", "damping", 0.1), "It is an argument of outer.CG: write outer.CG(damping=0.1)."),
    (
        ("MAML", "floor", 0.1),
        "It is an argument of outer.MultiStep: write outer.MultiStep(floor=0.1).",
    ),
    (
        ("MAML", "num_query", 5),
        "It is an argument of data.Sinusoid, data.Polynomial, data.LinearClassification and "
        "others: write data.Sinusoid(k_shot, num_query=5).",
    ),
    (
        ("MAML", "lr", "x" * 50),
        "It is an argument of inner.SGD, inner.Momentum, inner.Nesterov and others: write "
        "inner.SGD(lr=...) as the rule.",
    ),
]


@pytest.mark.parametrize(("call", "expected"), CASES)
def test_it_is_said_where_an_argument_is(call, expected):
    assert advice(*call) == expected


def test_the_kinds_that_are_given_come_first():
    assert "write inner.Adam(lr=0.4) as the rule" in advice("MAML", "lr", 0.4, rule=inner.Adam(0.1))
    said = advice("MAML", "truncate", 2, estimator=outer.Stepwise())
    assert "estimator=outer.Stepwise(truncate=2))" in said


def test_a_misspelt_argument_of_its_own():
    assert advice("MetaLearner", "num_step", 2) == "Did you mean 'num_steps'?"
    assert advice("MetaLearner", "quux", 2) == ""
    with pytest.raises(
        TypeError,
        match=r"num_steps must be given; got none\. Write MetaLearner\(\.\.\., num_steps=5",
    ):
        outer.MetaLearner(*GIVEN.values())


class Own(outer.MetaLearner):
    """A learner of a user's own, with an argument of its own."""

    def __init__(self, *args, loud, **kwargs):
        super().__init__(*args, **kwargs)
        self.loud = loud


def test_a_subclass_takes_what_it_likes():
    assert Own(*GIVEN.values(), num_steps=2, loud=True).loud
    with pytest.raises(
        TypeError, match="arguments of MetaLearner must be among .*; got 'keep_state'. It is an arg"
    ):
        Own(*GIVEN.values(), num_steps=2, loud=True, keep_state=True)


def arguments(kind, package):
    """All arguments of what can be built of a kind, with values of theirs."""
    for name in package.__all__:
        owner = getattr(package, name)
        if isinstance(owner, type) and issubclass(owner, kind) and not inspect.isabstract(owner):
            for argument in inspect.signature(owner).parameters.values():
                yield argument.name, 0.1 if argument.default is argument.empty else argument.default


ESTIMATORS = dict(arguments(outer.MetaGradient, outer))
RULES = dict(arguments(inner.UpdateRule, inner))
VALUES = {
    "horizon": 4,
    "names": "lr",
    "norm": 1.0,
    "num_pairs": 4,
    "rules": {"*": inner.SGD(0.1)},
    "schedule": inner.WarmUp(5),
}
"""Values of arguments that take no number, or not any."""


@pytest.mark.parametrize(
    "argument", sorted({**ESTIMATORS, **RULES}.keys() - {"rule", "estimator", "num_steps"})
)
def test_every_argument_of_estimators_and_rules_is_found_and_the_advice_works(argument):
    value = {**RULES, **ESTIMATORS, **VALUES}[argument]
    said = advice("MAML", argument, value)
    if argument == "alpha":  # another library's rate
        assert "inner.SGD" in said
        return
    call = re.search(r"write (.*?)( as the rule)?\.$", said)[1]
    names = {
        **copy.deepcopy(GIVEN),
        "inner": inner,
        "outer": outer,
        "lr": 0.1,
        "strength": 2.0,
        "value": 1.0,
        "names": "lr",
        "num_pairs": 4,
        "std": 0.1,
        "horizon": 4,
    }
    # the start is not reached by estimators of hyperparameters
    of_hyperparameters = argument in ("weight", "staggered")
    given = "model, criterion, rule, num_steps=2" + ", learn_init=False" * of_hyperparameters
    call = call.replace("(...,", f"({given},").replace("num_steps=...", "num_steps=2")
    call = call.replace(f"{argument}=...", f"{argument}=given_value")
    made = eval(call, {**names, "estimator": outer.Unrolled(), "given_value": value})
    assert isinstance(made, outer.MetaLearner | inner.UpdateRule)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_says_it(method):
    assert advice(method, "betas", (0.0, 0.9)).startswith(
        "It is an argument of inner.Adam, inner.AdamW: write inner.Adam("
    )
