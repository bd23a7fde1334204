"""Tasks of different sizes that a loader pads give what every task by itself has."""

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader

import metalearn
from metalearn import data, functional, inner, models, outer
from metalearn._tree import tree_leaves, tree_map
from metalearn.data import collate
from metalearn.types import Batch, Episode
from tests.cases import keys, relative_difference

SIZES = [(5, 4), (7, 4), (2, 9)]
"""Numbers of support and query examples."""
ONE_SIZE = [(5, 4)] * 3


def regressions(sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def batch(size):
        x = torch.rand(size, 1, generator=generator, dtype=torch.float64)
        return Batch(x, torch.sin(5 * x))

    return [Episode(batch(support), batch(query)) for support, query in sizes]


def classes(ways_and_shots, num_query=2):
    """Tasks whose classes are normal clouds of three features, class after class."""
    generator = torch.Generator().manual_seed(0)

    def batch(n_way, shots):
        labels = torch.arange(n_way).repeat_interleave(shots)
        x = torch.randn(len(labels), 3, generator=generator, dtype=torch.float64)
        return Batch(x + labels[:, None], labels)

    return [Episode(batch(way, shot), batch(way, num_query)) for way, shot in ways_and_shots]


def alone(task):
    """One task as a batch of one."""
    return tree_map(lambda leaf: leaf[None], task)


def weighted_mse(output, y, weight):
    return (weight * (output - y).square().mean(-1)).sum() / weight.sum()


def test_tasks_of_one_size_are_stacked_without_weights():
    tasks = regressions(ONE_SIZE)
    for ours, batches in zip(collate(tasks), zip(*tasks, strict=True), strict=True):
        assert torch.equal(ours.x, torch.stack([batch.x for batch in batches]))
        assert torch.equal(ours.y, torch.stack([batch.y for batch in batches]))
        assert ours.weight == ()


def test_support_and_query_are_padded_apart_with_weights_of_zero():
    tasks = regressions(SIZES)
    for name, most in (("support", 7), ("query", 9)):
        ours = getattr(collate(tasks), name)
        assert ours.x.shape == ours.y.shape == (3, most, 1)
        assert ours.weight.shape == (3, most)
        for index, task in enumerate(tasks):
            theirs = getattr(task, name)
            size = len(theirs.x)
            assert torch.equal(ours.x[index, :size], theirs.x)
            assert torch.equal(ours.y[index, :size], theirs.y)
            assert ours.weight[index].tolist() == [1] * size + [0] * (most - size)


@pytest.mark.parametrize("sizes", [[(5, 4), (7, 4)], [(5, 4), (5, 3)]])
def test_both_sets_have_weights_or_neither(sizes):
    episodes = collate(regressions(sizes))
    assert episodes.support.weight.shape == episodes.support.x.shape[:2]
    assert episodes.query.weight.shape == episodes.query.x.shape[:2]


def test_weights_that_are_there_are_kept():
    first, second = (task.support for task in regressions([(2, 1), (3, 1)]))
    own = torch.tensor([0.5, 2.0], dtype=torch.float64)
    tasks = [Episode(first._replace(weight=own), first), Episode(second, second)]
    support, query = collate(tasks)
    assert support.weight.tolist() == [[0.5, 2.0, 0.0], [1.0, 1.0, 1.0]]
    assert query.weight.tolist() == [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]
    of_one_size = collate([Episode(first._replace(weight=own), first)] * 2)
    assert of_one_size.support.weight.tolist() == [[0.5, 2.0]] * 2


def test_trees_arrays_and_labels_of_any_kind():
    def task(size):
        x = {
            "tokens": torch.arange(3, 3 + 2 * size).view(size, 2),
            "mask": np.ones((size, 2), bool),
        }
        x = x if size > 1 else dict(reversed(x.items()))
        return Episode(
            Batch(x, (torch.full((size, 2, 2), 1), torch.rand(size))), Batch(torch.zeros(2))
        )

    support, query = collate([task(1), task(3)])
    assert support.x["tokens"].tolist()[0] == [[3, 4]] * 3
    assert support.x["mask"].dtype == torch.bool
    assert support.y[0].shape == (2, 3, 2, 2)
    assert (support.y[0] == 1).all()  # valid labels in the padding too
    assert support.weight.tolist() == [[1, 0, 0], [1, 1, 1]]
    assert query.y == ()


def test_a_query_set_may_be_absent():
    tasks = [Episode(task.support, Batch(())) for task in regressions(SIZES)]
    assert tree_leaves(collate(tasks).query) == []


def regression_learner(criterion, **options):
    torch.manual_seed(0)
    return outer.MAML(
        models.mlp(1, [6], 1).double(), criterion, inner.SGD(0.1), num_steps=3, **options
    )


OPTIONS = [{}, {"batching": "loop"}, {"chunk_size": 2}, {"estimator": outer.Stepwise()}]


@pytest.mark.parametrize("options", OPTIONS)
def test_loss_and_gradient_of_regressions(options):
    tasks = regressions(SIZES)
    ours = regression_learner(weighted_mse, **options).estimate(collate(tasks), keys(3))
    each = [regression_learner(F.mse_loss).estimate(alone(task), keys(1)) for task in tasks]
    mean = tree_map(lambda *grads: sum(grads) / 3, *(one.gradient for one in each))
    assert relative_difference(ours.loss, torch.cat([one.loss for one in each])) < 1e-12
    assert relative_difference(ours.gradient, mean) < 1e-12


def classifier(num_classes, most=4, source=None, criterion=functional.cross_entropy, **options):
    """A classifier of so many classes, whose parameters are a part of those of one with more."""
    torch.manual_seed(0)
    body = nn.Linear(3, 8, bias=False), nn.BatchNorm1d(8) if source else nn.Identity(), nn.Tanh()
    model = nn.Sequential(*body, nn.Linear(8, most)).double()
    for name, param in model[3].named_parameters():
        setattr(model[3], name, nn.Parameter(param.detach()[:num_classes]))
    if source:
        models.use_batch_statistics(model, source)
    return outer.MAML(model, criterion, inner.SGD(0.1), num_steps=2, **options)


@pytest.mark.parametrize("source", [None, "support", "transductive"])
@pytest.mark.parametrize("options", OPTIONS)
def test_loss_and_gradient_of_ragged_ways_and_shots(options, source):
    ways = [2, 4, 3]
    tasks = classes(zip(ways, [3, 1, 2], strict=True))
    ours = classifier(4, source=source, **options).estimate(collate(tasks), keys(3))
    total = tree_map(torch.zeros_like, ours.gradient.init)
    for index, (way, task) in enumerate(zip(ways, tasks, strict=True)):
        one = classifier(way, source=source, criterion=F.cross_entropy).estimate(
            alone(task), keys(1)
        )
        torch.testing.assert_close(ours.loss[index], one.loss[0])
        for name, grad in one.gradient.init.items():
            total[name][: len(grad)] += grad / 3
    assert relative_difference(ours.gradient.init, total) < 1e-12


def test_metrics_of_an_evaluation():
    ways = [2, 4, 3]
    tasks = classes(zip(ways, [3, 1, 2], strict=True), num_query=5)
    metrics = {"accuracy": functional.accuracy}
    loader = DataLoader(tasks, batch_size=3, collate_fn=collate)
    ours = metalearn.evaluate(classifier(4), loader, num_tasks=3, metrics=metrics)
    for index, (way, task) in enumerate(zip(ways, tasks, strict=True)):
        one = metalearn.evaluate(classifier(way), alone(task), num_tasks=1, metrics=metrics)
        for name in ("loss", "accuracy"):
            torch.testing.assert_close(ours[name].values[index], one[name].values[0])


def test_padding_is_computed_with_like_the_task_itself():
    """Zeros have no logarithm, and minus infinity times a weight of zero is no number."""
    model = nn.Linear(1, 1).double()

    def of_logarithms(output, y, weight):
        return weighted_mse(output, y.log(), weight)

    tasks = [tree_map(lambda leaf: leaf.abs() + 0.1, task) for task in regressions(SIZES)]
    learner = outer.MAML(model, of_logarithms, inner.SGD(0.1), num_steps=2)
    gradient = learner.estimate(collate(tasks), keys(3)).gradient
    assert all(leaf.isfinite().all() for leaf in tree_leaves(gradient))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_trains(workers):
    learner, tasks = regression_learner(weighted_mse), regressions(SIZES)
    loader = DataLoader(tasks, batch_size=3, collate_fn=collate, num_workers=workers)
    optimizer = torch.optim.SGD(learner.parameters(), 0.1)
    loss = metalearn.fit(learner, loader, optimizer, 2, progress=False).loss[0]
    each = [regression_learner(F.mse_loss)(alone(task)).detach() for task in tasks]
    torch.testing.assert_close(loss.double(), sum(each) / 3, rtol=1e-6, atol=0)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("reader", ["fit", "evaluate"])
def test_what_cannot_be_stacked_is_told_of_collate(reader, workers):
    loader = DataLoader(regressions(SIZES[::-1]), batch_size=3, num_workers=workers)
    learner = regression_learner(F.mse_loss)
    message = (
        r"tasks of a DataLoader must be of one size, or padded; got .*\. "
        r"Write DataLoader\(tasks, batch_size=4, collate_fn=data\.collate\)\."
    )
    optimizer = torch.optim.SGD(learner.parameters(), 0.1)
    calls = {
        "fit": lambda: metalearn.fit(learner, loader, optimizer, 2, progress=False),
        "evaluate": lambda: metalearn.evaluate(learner, loader, num_tasks=3),
    }
    with pytest.raises(ValueError, match=message):
        calls[reader]()


@pytest.mark.parametrize("message", ["sensors must be of equal size", "no such file"])
def test_other_errors_of_a_loader_are_its_own(message):
    def read(tasks):
        raise RuntimeError(message)

    loader = DataLoader(regressions(SIZES), batch_size=3, collate_fn=read)
    with pytest.raises(RuntimeError, match=message):
        metalearn.evaluate(regression_learner(F.mse_loss), loader, num_tasks=3)


def test_a_generator_of_batches_can_be_read_on():
    batches = data.Sinusoid(3, 3).batches(2)
    torch.manual_seed(0)
    learner = outer.MAML(models.mlp(1, [6], 1), F.mse_loss, inner.SGD(0.1), num_steps=1)
    metalearn.evaluate(learner, batches, num_tasks=2)
    metalearn.fit(learner, batches, torch.optim.SGD(learner.parameters(), 0.1), 1, progress=False)
    assert isinstance(next(batches), Episode)


X = torch.zeros(2, 1)
GOOD = Episode(Batch(X, X), Batch(X, X))
LONGER = Episode(Batch(torch.zeros(3, 1), torch.zeros(3, 1)), Batch(X, X))


@pytest.mark.parametrize(
    ("tasks", "error", "message"),
    [
        (GOOD, TypeError, "episodes to collate must be a list of tasks; got Episode"),
        ([], ValueError, "episodes to collate must be at least 1 task; got none"),
        (
            [(X, X)],
            TypeError,
            r"must be an Episode of two Batches; got tuple\. Return Episode\(Batch",
        ),
        (
            [Episode((X, X), (X, X))],
            TypeError,
            "a task to collate must be an Episode of two Batches",
        ),
        ([Episode(Batch(None), Batch(X))], TypeError, "a task's data must be tensors; got None"),
        ([Episode(Batch("x"), Batch(X))], TypeError, "a task's data must be tensors; got 'x'"),
        (
            [GOOD, Episode(Batch({"a": X}, X), Batch(X, X))],
            ValueError,
            r"support\.x of all tasks must be a tensor; got one in task 0 and dict in task 1",
        ),
        (
            [Episode(Batch({"a": X}, X), Batch(X, X)), Episode(Batch({"b": X}, X), Batch(X, X))],
            ValueError,
            (
                r"support sets must be trees of one structure; got \['x\.a', 'y'\] in task 0 and "
                r"\['x\.b', 'y'\] in task 1"
            ),
        ),
        (
            [GOOD, GOOD, GOOD._replace(query=Batch(X))],
            ValueError,
            r"query\.y of all tasks must be a tensor; got one in task 0 and tuple in task 2",
        ),
        (
            [GOOD, GOOD._replace(query=Batch(X, X.double()))],
            ValueError,
            (
                r"query\.y of all tasks must have one dtype; got torch\.float32 in task 0 and "
                r"torch\.float64 in task 1"
            ),
        ),
        (
            [GOOD, GOOD._replace(support=Batch(torch.zeros(2, 3), X))],
            ValueError,
            (
                r"support\.x of all tasks must have one shape .*; got \(2, 1\) in task 0 and \(2, "
                r"3\) in task 1"
            ),
        ),
        (
            [GOOD, GOOD._replace(support=Batch(X.to("meta"), X))],
            ValueError,
            r"support\.x of all tasks must be on one device; got cpu in task 0 and meta in task 1",
        ),
        (
            [LONGER, Episode(Batch(X, torch.zeros(3, 1)), Batch(X, X))],
            ValueError,
            (
                r"support tensors of task 1 must agree on a number .*; got "
                r"\{'x': \(2, 1\), 'y': \(3, 1\)\}"
            ),
        ),
        (
            [LONGER, Episode(Batch(X[:0], X[:0]), Batch(X, X))],
            ValueError,
            "of at least 1, to be padded",
        ),
        (
            [GOOD, GOOD._replace(support=Batch(X, X, torch.ones(2, 1)))],
            ValueError,
            r"support\.weight of task 1 must be \[num_examples\]; got \[\(2, 1\)\]",
        ),
        (
            [GOOD, GOOD._replace(support=Batch(X, X, torch.ones(3)))],
            ValueError,
            r"support tensors of task 1 must agree .*'weight': \(3,\)",
        ),
    ],
)
def test_errors(tasks, error, message):
    with pytest.raises(error, match=message):
        collate(tasks)
