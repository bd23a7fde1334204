import pytest
import torch

from metalearn import evaluate
from metalearn._modules import get_tensor
from metalearn._tree import tree_leaves
from metalearn.analysis import head_noise
from metalearn.analysis._head_noise import _perturbed
from tests.analysis.cases import learner, options, tasks
from tests.cases import sine_learner


def test_noise_of_nothing_is_evaluation_and_the_learner_is_left_alone():
    given = learner()
    before = [leaf.clone() for leaf in tree_leaves(given.meta)]
    noise = head_noise(given, tasks(), "head", [0, 0.1, 10.0], **options())
    assert all(torch.equal(a, b) for a, b in zip(before, tree_leaves(given.meta), strict=True))
    evaluations = list(noise.evaluations.values())
    alone = evaluate(given, tasks(), **options())
    assert torch.equal(evaluations[0]["loss"].values, alone["loss"].values)
    assert {each.fingerprint for each in evaluations} == {alone.fingerprint}
    assert evaluations[0]["loss"].mean < evaluations[2]["loss"].mean
    assert repr(noise).startswith("std 0: loss")


def test_noise_has_its_size_and_its_seed():
    given = learner()
    with torch.no_grad():
        for param in given.model.head.parameters():
            param.zero_()
    options_ = {"num_steps": 0, **options()}

    def losses(stds, **more):
        noise = head_noise(given, tasks(), "head", stds, **{**options_, **options(), **more})
        return [each["loss"].values for each in noise.evaluations.values()]

    one, again, other = losses([0.1]), losses([0.1]), losses([0.1], seed=1)
    assert torch.equal(one[0], again[0])
    assert not torch.equal(one[0], other[0])
    # Scores are linear in the head, so that their deviation from those of no noise doubles with it,
    # for small noise.
    start, small, double = losses([0, 1e-3, 2e-3])
    torch.testing.assert_close(double - start, 2 * (small - start), rtol=0.1, atol=2e-6)


def test_parameters_have_noise_of_their_own():
    given, names = sine_learner(), ["0.bias", "2.bias"]
    moved = _perturbed(given, names, 1.0, seed=0)
    one, other = (get_tensor(moved.model, name) - get_tensor(given.model, name) for name in names)
    assert not torch.isclose(one, other).any()


def test_frozen_parameters_do_not_adapt():
    free, held, start = (
        head_noise(learner(), tasks(), "head", [1.0], **options(), **more)
        .evaluations[1.0]["loss"]
        .values
        for more in ({}, {"frozen": "*"}, {"num_steps": 0})
    )
    assert not torch.equal(free, held)
    torch.testing.assert_close(held, start)


def test_plots():
    noise = head_noise(learner(), tasks(), "head", [0, 1], **options(2))
    ax = noise.plot(score="accuracy")
    assert ax.lines[0].get_xdata().tolist() == [0, 1]
    expected = [each["accuracy"].mean for each in noise.evaluations.values()]
    assert ax.lines[0].get_ydata().tolist() == pytest.approx(expected)


BAD = [
    ({"names": "haed"}, ValueError, "names must match a trainable parameter"),
    ({"frozen": "feature"}, ValueError, "frozen must match a trainable parameter"),
    (
        {"stds": [-1.0]},
        ValueError,
        "stds must be at least 0; got -1.0. Write stds=[0, 0.01, 0.1, 1], say.",
    ),
    ({"stds": []}, ValueError, "stds must be at least one number"),
    ({"stds": ["1"]}, TypeError, "stds must be a number"),
    ({"seed": -1}, ValueError, "seed must be at least 0"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_input(change, error, message):
    arguments = {"names": "head", "stds": [0.1], **options(), **change}
    with pytest.raises(error) as raised:
        head_noise(learner(), tasks(), **arguments)
    assert message in str(raised.value)
