"""Windows of loaders and of task distributions, against batches taken by hand."""

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset

from metalearn import data, evaluate, fit, functional, inner, models, outer
from metalearn._tree import tree_leaves, tree_map
from metalearn.data import MiniBatches, Sinusoid, windows
from metalearn.types import Batch
from tests.outer.cases import assert_refused

X = torch.arange(20.0)[:, None]
EXAMPLES = TensorDataset(X, 2 * X)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def loader(**options):
    return DataLoader(EXAMPLES, **{"batch_size": 4, "shuffle": True} | options)


def drawn(stream, count):
    return [next(stream) for _ in range(count)]


def equal(left, right):
    pairs = zip(tree_leaves(left), tree_leaves(right), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


def test_batches_follow_one_another_through_epochs():
    """Windows of three steps and a query batch, of epochs of five batches."""
    stream = windows(loader(shuffle=False), 3)
    episodes = drawn(stream, 5)
    rows = [torch.cat([support.x[0], query.x]) for support, query in episodes]
    expected = X.reshape(5, 4, 1).repeat(4, 1, 1).reshape(5, 4, 4, 1)
    assert torch.equal(torch.stack(rows), expected)
    assert all(equal(part.y, 2 * part.x) for episode in episodes for part in episode)
    assert [part.x.shape for part in episodes[0]] == [(1, 3, 4, 1), (1, 4, 1)]


def test_every_epoch_has_every_example_and_an_order_of_its_own():
    episodes = drawn(windows(loader(), 4, generator=seeded()), 6)
    epochs = [torch.cat([support.x[0], query.x]).flatten() for support, query in episodes]
    assert all(torch.equal(epoch.sort().values, X.flatten()) for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 6


def test_each_inner_problem_has_batches_of_its_own():
    support, query = next(windows(loader(shuffle=False), 1, num_tasks=2))
    assert support.x[:, 0, :, 0].tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert query.x[..., 0].tolist() == [[4, 5, 6, 7], [12, 13, 14, 15]]


def test_query_sets_may_have_a_source_of_their_own():
    held_out = DataLoader(TensorDataset(-X, X), batch_size=5)
    stream = windows(loader(shuffle=False), 5, num_tasks=2, query=held_out)
    support, query = next(stream)
    assert torch.equal(support.x, X.reshape(1, 5, 4, 1).repeat(2, 1, 1, 1))
    assert torch.equal(query.x, -X[:10].reshape(2, 5, 1))
    assert torch.equal(next(stream).query.x, -X[10:].reshape(2, 5, 1))


def test_a_seed_decides_whatever_else_is_drawn():
    streams = [windows(loader(), 2, generator=seeded(3)) for _ in range(2)]
    for _ in range(8):
        first = next(streams[0])
        torch.rand(3)
        assert equal(first, next(streams[1]))
    state = torch.get_rng_state()
    next(streams[0])
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(0)
    others = [drawn(windows(loader(), 2), 3) for _ in range(2)]
    assert not equal(*others)
    torch.manual_seed(0)
    assert equal(drawn(windows(loader(), 2), 3), others[0])


class Noisy(Dataset):
    """Examples with noise from the global generators of PyTorch and NumPy."""

    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return X[index] + torch.rand(1), X[index] + float(np.random.rand())


SOURCES = {
    "shuffled": loader,
    "one that has a generator": lambda: loader(generator=seeded(5)),
    "one whose sampler has": lambda: loader(
        shuffle=False, sampler=RandomSampler(EXAMPLES, generator=seeded(6))
    ),
    "noisy": lambda: DataLoader(Noisy(), batch_size=4, shuffle=True),
    "workers": lambda: DataLoader(Noisy(), batch_size=4, shuffle=True, num_workers=1),
    "a list": lambda: [Batch(X[start : start + 4]) for start in range(0, 20, 4)],
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("before", [0, 1, 4])
def test_goes_on_to_the_bit(source, before):
    make = SOURCES[source]
    stream = windows(make(), 2, query=make(), generator=seeded(1))
    drawn(stream, before)
    state = stream.state_dict()
    expected = drawn(stream, 4)
    other = windows(make(), 2, query=make(), generator=seeded(2))
    drawn(other, 2)
    other.load_state_dict(state)
    assert equal(drawn(other, 4), expected)
    stream.load_state_dict(state)
    assert equal(drawn(stream, 4), expected)


def learner_of_windows():
    batches = functional.GivenBatches()
    model = models.mlp(1, [4], 1)
    return outer.MAML(model, F.mse_loss, inner.SGD(1e-3), num_steps=3, support_batches=batches)


def trained(folder, num_iterations):
    torch.manual_seed(0)
    learner = learner_of_windows()
    stream = windows(DataLoader(Noisy(), batch_size=4, shuffle=True), 3, num_tasks=2)
    optimizer = torch.optim.Adam(learner.parameters(), 1e-3)
    options = {"checkpoint_dir": folder, "checkpoint_every": 1, "progress": False}
    history = fit(learner, stream, optimizer, num_iterations, **options)
    return history.loss, learner.state_dict()


@pytest.mark.parametrize("killed_after", [1, 3, 6])
def test_fit_goes_on_to_the_bit(tmp_path, killed_after):
    expected = trained(tmp_path / "whole", 8)
    trained(tmp_path / "killed", killed_after)
    assert equal(trained(tmp_path / "killed", 8), expected)


def test_a_checkpoint_of_a_loader_is_of_no_other_generators(tmp_path):
    learner = outer.MAML(models.mlp(1, [4], 1), F.mse_loss, inner.SGD(1e-3), num_steps=1)
    optimizer = torch.optim.Adam(learner.parameters(), 1e-3)
    episode = Sinusoid(3, 3).sample(1)
    options = {"checkpoint_dir": tmp_path, "progress": False}
    plain, own = (
        DataLoader([episode] * 3, None, shuffle=True, generator=each) for each in (None, seeded())
    )
    fit(learner, plain, optimizer, 1, **options)
    with pytest.raises(ValueError, match=r"must have 0 generators of their own"):
        fit(learner, own, optimizer, 2, **options)


def test_a_checkpoint_of_windows_is_of_no_other_batches(tmp_path):
    trained(tmp_path, 2)
    learner = learner_of_windows()
    optimizer = torch.optim.Adam(learner.parameters(), 1e-3)
    batches = [next(windows(loader(), 3))]
    with pytest.raises(ValueError, match=r"batches must be of the kind .*; got list"):
        fit(learner, batches, optimizer, 4, checkpoint_dir=tmp_path, progress=False)


def test_of_tasks():
    """Every batch is a new task's support set, and the last one's query set is the window's."""
    tasks = Sinusoid(k_shot=5, num_query=7)
    support, query = windows(tasks, 3).sample(2, generator=seeded())
    rows = tasks.sample(8, generator=seeded())
    assert torch.equal(support.x, rows.support.x.unflatten(0, (2, 4))[:, :3])
    assert torch.equal(query.y, rows.query.y[3::4])


def test_of_tasks_with_other_tasks_for_the_query_sets():
    generator, again = seeded(), seeded()
    train, held_out = Sinusoid(k_shot=5, num_query=7), Sinusoid(k_shot=1, num_query=4)
    support, query = windows(train, 3, query=held_out).sample(2, generator=generator)
    rows = train.sample(6, generator=again).support
    assert torch.equal(support.x, rows.x.unflatten(0, (2, 3)))
    assert torch.equal(query.x, held_out.sample(2, generator=again).query.x)


def test_a_learner_trains_on_mini_batches_of_images():
    classes = data.ClassImages(torch.randint(256, (4, 9, 8, 8), dtype=torch.uint8))
    batches = windows(MiniBatches(classes, 6), 2)
    learner = outer.MAML(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 4)),
        functional.cross_entropy,
        inner.SGD(0.1),
        num_steps=2,
        support_batches=functional.GivenBatches(),
    )
    optimizer = torch.optim.Adam(learner.parameters(), 1e-3)
    fit(learner, batches, optimizer, 3, meta_batch_size=2, progress=False)
    assert evaluate(learner, batches, num_tasks=3)["loss"].values.isfinite().all()


def test_examples_may_be_trees():
    def collate(items):
        return {"left": torch.stack(items), "right": torch.stack(items)}

    source = DataLoader(X, batch_size=4, collate_fn=collate)
    support, query = next(windows(source, 2))
    assert tree_map(lambda leaf: tuple(leaf.shape), support.x) == {
        "left": (1, 2, 4, 1),
        "right": (1, 2, 4, 1),
    }
    assert query.y == ()


SEEDED_LOADER = loader(generator=seeded())
BAD = {
    "one batch": (
        lambda: windows(X, 3),
        TypeError,
        "windows' source must be a DataLoader or an iterable of batches",
    ),
    "one batch of two parts": (
        lambda: windows(Batch(X, X), 3),
        TypeError,
        "Pass DataLoader(examples, batch_size=16, shuffle=True), say.",
    ),
    "columns": (
        lambda: windows({"x": X, "y": X}, 3),
        TypeError,
        "windows' source must be a DataLoader or an iterable of batches",
    ),
    "episodes": (
        lambda: next(windows([Sinusoid(1, 1).sample(2)], 3)),
        TypeError,
        "got an Episode. Pass the task distribution itself: windows(tasks, num_steps).",
    ),
    "a state of a loader without a generator": (
        lambda: windows(loader(generator=seeded()), 2).load_state_dict(
            windows(loader(), 2).state_dict()
        ),
        ValueError,
        "batches must have 0 generators of their own, as those of the state; got 1. "
        "Give the DataLoader a generator, or none, as it had when the state was saved.",
    ),
    "a common generator": (
        lambda: windows(SEEDED_LOADER, 3, query=SEEDED_LOADER),
        ValueError,
        "source and query of windows must draw from different generators",
    ),
    "no steps": (
        lambda: windows(loader(), 0),
        ValueError,
        "num_steps must be at least 1; got 0. Write windows(loader, num_steps=8), say.",
    ),
    "no steps of tasks": (lambda: windows(Sinusoid(1, 1), 0), ValueError, "must be at least 1"),
    "no inner problem": (lambda: windows(loader(), 2, num_tasks=0), ValueError, "num_tasks must"),
    "inner problems of tasks": (
        lambda: windows(Sinusoid(1, 1), 2, num_tasks=3),
        ValueError,
        "be left out of windows of a task distribution",
    ),
    "query sets of another kind": (
        lambda: windows(Sinusoid(1, 1), 2, query=loader()),
        TypeError,
        "windows' query must be a task distribution, as the source is",
    ),
    "query sets of tasks": (
        lambda: windows(loader(), 2, query=Sinusoid(1, 1)),
        TypeError,
        "windows' query must be a DataLoader",
    ),
    "a seed": (lambda: windows(loader(), 2, generator=0), TypeError, "generator must be a torch"),
    "batches of other sizes": (
        lambda: next(windows(loader(batch_size=8), 2)),
        ValueError,
        "batches of a window must be of one shape",
    ),
    "batches of too many parts": (
        lambda: next(windows([(X, X, X, X)], 2)),
        TypeError,
        "a batch of windows must be a Batch, (x, y), (x, y, weight) or x",
    ),
    "words": (lambda: next(windows(["ab"], 2)), TypeError, "of tensors [batch_size, ...]"),
    "nothing": (lambda: next(windows([], 2)), ValueError, "must come anew in every epoch"),
    "an iterator": (
        lambda: next(windows(iter([X]), 2)),
        ValueError,
        "Pass a list or a DataLoader, which can be started anew.",
    ),
    "another state": (
        lambda: windows(loader(), 2).load_state_dict({}),
        ValueError,
        "state of windows must be that of windows of ['source']",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    assert_refused(*BAD[case])
