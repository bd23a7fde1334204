import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.func import grad, vmap

import metalearn
from metalearn import functional, inner, outer
from metalearn.types import Batch, Episode
from tests.cases import keys, relative_difference


def padded():
    """Four examples of three classes, then one of a fourth class that is padding."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    return (
        logits,
        torch.tensor([2, 0, 1, 0, 3]),
        torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0], dtype=torch.float64),
    )


def test_padding_changes_neither_loss_nor_gradient():
    logits, target, weight = padded()
    logits[:, 3] = 9.0  # what a class that is absent says does not count
    of_all, of_real = logits.clone().requires_grad_(), logits[:4, :3].clone().requires_grad_()
    ours, theirs = (
        functional.cross_entropy(of_all, target, weight),
        F.cross_entropy(of_real, target[:4]),
    )
    torch.testing.assert_close(ours, theirs)
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(of_all.grad[:4, :3], of_real.grad)
    assert not of_all.grad[4].any()
    assert not of_all.grad[:, 3].any()
    expected = functional.accuracy(logits[:4, :3], target[:4])
    assert (
        functional.accuracy(logits, target, weight)
        == expected
        != functional.accuracy(logits[:4], target[:4])
    )


def test_weights_weigh():
    logits, target, _ = padded()
    weight = torch.tensor([3.0, 1.0, 2.0, 0.5, 1.0], dtype=torch.float64)
    each = F.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(
        functional.cross_entropy(logits, target, weight), (weight * each).sum() / weight.sum()
    )


@pytest.mark.parametrize("function", [functional.cross_entropy, functional.accuracy])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.zeros(5), torch.zeros(5).long()), ValueError, "what is judged must be output"),
        ((torch.zeros(5, 3), torch.zeros(4).long()), ValueError, r"got .*\(5, 3\).*\(4,\)"),
        ((torch.zeros(5, 3), [0] * 5), TypeError, "target must be a tensor"),
        (
            (torch.zeros(5, 3), torch.zeros(5).long(), torch.ones(2)),
            ValueError,
            r"'weight': \(2,\)",
        ),
        ((torch.zeros(5, 3, 2), torch.zeros(5).long()), ValueError, r"got .*\(5, 3, 2\).*\(5,\)"),
        (
            (torch.zeros(5, 7, 3), torch.zeros(5, 7).long()),
            ValueError,
            r"classes on axis 1: output.movedim\(-1, 1\)",
        ),
        (
            (torch.zeros(5, 3, 2), torch.zeros(5, 2).long(), torch.ones(5, 2)),
            ValueError,
            r"'weight': \(5, 2\)",
        ),
    ],
)
def test_bad_input(function, arguments, error, message):
    with pytest.raises(error, match=message):
        function(*arguments)


def test_labels_are_integers():
    with pytest.raises(
        TypeError, match=r"target must be of int64; got torch.float32. Write target.long\(\)"
    ):
        functional.cross_entropy(torch.zeros(5, 3), torch.zeros(5))


@pytest.mark.parametrize("value", ["void", 2.5, True, None])
@pytest.mark.parametrize("function", [functional.cross_entropy, functional.accuracy])
def test_a_label_to_ignore_is_an_int(function, value):
    with pytest.raises(
        TypeError, match=r"ignore_index must be an int; got .*\. Write ignore_index=255"
    ):
        function(torch.zeros(5, 3), torch.zeros(5).long(), ignore_index=value)


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1])
def test_a_label_to_ignore_fits_a_tensor(value):
    with pytest.raises(ValueError, match="ignore_index must be"):
        functional.cross_entropy(torch.zeros(5, 3), torch.zeros(5).long(), ignore_index=value)


PLACES = [(), (4,), (2, 3), (2, 1, 2)]
"""Axes of an example's labels."""


def dense(places, ignored=-100, num_examples=6):
    """Logits of three classes and labels, of which about a third are ignored."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(num_examples, 3, *places, generator=generator, dtype=torch.float64)
    labels = torch.randint(-1, 3, (num_examples, *places), generator=generator)
    labels.view(-1)[:3] = torch.arange(3)  # all classes are there
    return logits, labels.where(labels >= 0, ignored)


@pytest.mark.parametrize("ignored", [-100, 255, 1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("places", PLACES)
def test_dense_labels_are_those_of_pytorch(places, weighted, ignored):
    logits, labels = dense(places, ignored)
    if weighted and not places and ignored == 1:
        return  # then class 1 has no weighted example
    weight = (torch.ones(6, dtype=torch.float64),) if weighted else ()
    ours = functional.cross_entropy(logits, labels, *weight, ignore_index=ignored)
    torch.testing.assert_close(ours, F.cross_entropy(logits, labels, ignore_index=ignored))
    judged = labels != ignored
    share = functional.accuracy(logits, labels, *weight, ignore_index=ignored)
    expected = (logits.argmax(1) == labels)[judged].double().mean()
    torch.testing.assert_close(share.double(), expected)


@pytest.mark.parametrize("places", PLACES)
def test_examples_of_weight_zero_are_left_out(places):
    logits, labels = dense(places)
    weight = torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    for function in (functional.cross_entropy, functional.accuracy):
        rest = function(logits[weight > 0], labels[weight > 0]).double()
        torch.testing.assert_close(function(logits, labels, weight).double(), rest)


@pytest.mark.parametrize("places", PLACES)
def test_a_weighted_mean_over_labels(places):
    logits, labels = dense(places, 255)
    weight = torch.tensor([3.0, 1.0, 2.0, 0.5, 1.0, 0.25], dtype=torch.float64)
    each = weight.view(6, *(1 for _ in places)) * (labels != 255)
    losses = F.cross_entropy(logits, labels, reduction="none", ignore_index=255)
    ours = functional.cross_entropy(logits, labels, weight, ignore_index=255)
    torch.testing.assert_close(ours, (each * losses).sum() / each.sum())
    right = logits.argmax(1) == labels
    ours = functional.accuracy(logits, labels, weight, ignore_index=255)
    torch.testing.assert_close(ours, (each * right).sum() / each.sum())


def test_nothing_to_judge_is_not_a_number():
    logits, labels = dense((2, 3))
    labels = torch.full_like(labels, -100)
    for weight in ((), (torch.ones(6),)):
        for function in (functional.cross_entropy, functional.accuracy):
            assert math.isnan(function(logits, labels, *weight))
    of_ours, of_theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    functional.cross_entropy(of_ours, labels).backward()
    F.cross_entropy(of_theirs, labels).backward()
    torch.testing.assert_close(of_ours.grad, of_theirs.grad, equal_nan=True)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("places", PLACES)
def test_second_derivatives_under_vmap(places, weighted):
    """Of the squared norm of the gradient to a factor of the logits, against double backward of one
    task at a time."""
    logits, labels = dense(places, 255, num_examples=12)
    logits, labels = logits.unflatten(0, (2, 6)), labels.unflatten(0, (2, 6))
    labels[:, :3].view(2, -1)[:, :3] = torch.arange(3)
    weight = torch.tensor(
        [[1.0, 2.0, 1.0, 0.0, 1.0, 0.5], [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]], dtype=torch.float64
    )
    factor = (
        torch.tensor([0.7, 1.1, -0.4], dtype=torch.float64)
        .view(3, *(1 for _ in places))
        .repeat(1, *places)
    )

    def loss(factor, logits, labels, weight):
        weights = (weight,) if weighted else ()
        return functional.cross_entropy(factor * logits, labels, *weights, ignore_index=255)

    def norm(factor, *task):
        return grad(loss)(factor, *task).square().sum()

    ours = vmap(grad(norm), (None, 0, 0, 0))(factor, logits, labels, weight)
    for task in range(2):
        x, y, w = logits[task], labels[task], weight[task]
        leaf = factor.clone().requires_grad_()
        w = (w if weighted else torch.ones_like(w)).view(6, *(1 for _ in places)) * (y != 255)
        plain = (
            w * F.cross_entropy(leaf * x, y, reduction="none", ignore_index=255)
        ).sum() / w.sum()
        (first,) = torch.autograd.grad(plain, leaf, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), leaf)
        torch.testing.assert_close(ours[task], second)


def segmentation(weighted, num_tasks=3):
    """Tasks of images with a label a pixel, 255 where there is none."""
    generator = torch.Generator().manual_seed(2)

    def batch():
        x = torch.randn(num_tasks, 4, 2, 3, 3, generator=generator, dtype=torch.float64)
        y = torch.randint(3, (num_tasks, 4, 3, 3), generator=generator)
        y[torch.rand(y.shape, generator=generator) < 0.3] = 255
        weight = torch.tensor([1.0, 2.0, 0.5, 0.0], dtype=torch.float64).repeat(num_tasks, 1)
        return Batch(x, y, weight) if weighted else Batch(x, y)

    return Episode(batch(), batch())


def segmenter(criterion, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 1)).double()
    return outer.MAML(model, criterion, inner.SGD(0.2), num_steps=2, **options)


OURS = partial(functional.cross_entropy, ignore_index=255)


def by_hand(output, target, weight=None):
    weight = torch.ones(len(target)).to(output) if weight is None else weight
    each = weight[:, None, None] * (target != 255)
    losses = -F.log_softmax(output, 1).gather(1, target.where(target != 255, 0)[:, None])[:, 0]
    return (each * losses).sum() / each.sum()


def test_accuracy_of_what_has_logits():
    logits, target = torch.randn(6, 3), torch.randint(3, (6,))
    output = SimpleNamespace(logits=logits, loss=None)
    assert functional.accuracy(output, target) == functional.accuracy(logits, target)


@pytest.mark.parametrize("options", [{}, {"batching": "loop"}, {"estimator": outer.Stepwise()}])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_learner_of_segmentation(weighted, options):
    episodes = segmentation(weighted)
    gradients = []
    for criterion, given in ((OURS, options), (by_hand, {"batching": "loop"})):
        estimate = segmenter(criterion, **given).estimate(episodes, keys(3))
        gradients.append([estimate.loss, estimate.gradient.init])
    assert relative_difference(*gradients) < 1e-12


@pytest.mark.parametrize("weighted", [False, True])
def test_an_evaluation_of_segmentation(weighted):
    episodes, learner = segmentation(weighted), segmenter(OURS)
    metrics = {"accuracy": partial(functional.accuracy, ignore_index=255), "by hand": by_hand}
    result = metalearn.evaluate(learner, [episodes], num_tasks=3, metrics=metrics)
    torch.testing.assert_close(result["loss"].values, result["by hand"].values)
    output, y = learner.adapt(episodes.support)(episodes.query.x), episodes.query.y
    weight = episodes.query.weight if weighted else torch.ones(3, 4, dtype=torch.float64)
    each = weight[..., None, None] * (y != 255)
    expected = ((output.argmax(2) == y) * each).flatten(1).sum(1) / each.flatten(1).sum(1)
    torch.testing.assert_close(result["accuracy"].values.double(), expected, rtol=1e-6, atol=0)


def test_labels_of_a_learner_that_are_neither_classes_nor_ignored():
    episodes = segmentation(False)
    with pytest.raises(
        ValueError, match="support labels must be below the model's 3 outputs.*to 255"
    ):
        segmenter(functional.cross_entropy)(episodes)
