import pytest
import torch.nn as nn

from metalearn.outer._select import select, trainable


def model():
    module = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    module["head"].weight = module["body"].weight
    module["scale"] = nn.PReLU()
    module["scale"].weight.requires_grad_(False)
    return module


NAMES = {
    "body.weight": ["body.weight", "head.weight"],
    "body.bias": ["body.bias"],
    "head.bias": ["head.bias"],
}


def test_trainable_parameters_with_their_aliases():
    assert trainable(model()) == NAMES


@pytest.mark.parametrize(
    ("selection", "chosen"),
    [
        ("*", list(NAMES)),
        (True, list(NAMES)),
        (False, []),
        ("head.*", ["body.weight", "head.bias"]),
        ("head", ["body.weight", "head.bias"]),
        ("*.bias", ["body.bias", "head.bias"]),
        ("model.head", ["body.weight", "head.bias"]),
        ("model.body.bias", ["body.bias"]),
        (["head.bias", "body.bias"], ["body.bias", "head.bias"]),
        (lambda name: name.startswith("head"), ["body.weight", "head.bias"]),
        ({"head.weight"}, ["body.weight"]),
    ],
)
def test_selections(selection, chosen):
    assert select("fast", selection, NAMES) == chosen


@pytest.mark.parametrize(
    ("selection", "error", "message"),
    [
        ("hed.bias", ValueError, "Did you mean 'head.bias'?"),
        (["head", "nothing"], ValueError, "got 'nothing'"),
        ([], ValueError, "fast='*' takes all"),
        ([1], TypeError, "a pattern, a predicate or a list of patterns"),
        (1.5, TypeError, "got 1.5"),
        (lambda name: False, ValueError, "at least one parameter"),
    ],
)
def test_bad_input(selection, error, message):
    with pytest.raises(error) as raised:
        select("fast", selection, NAMES)
    assert message in str(raised.value)
