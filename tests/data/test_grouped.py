"""Groups of a table as tasks, against the table's own rows."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from metalearn import evaluate, fit, functional, inner, models, outer
from metalearn._tasks import take
from metalearn._tree import tree_leaves
from metalearn.data import Grouped
from tests.cases import relative_difference
from tests.outer.cases import assert_refused

pd = pytest.importorskip("pandas", reason="pip install .[integrations]")
datasets = pytest.importorskip("datasets", reason="pip install .[integrations]")

SIZES = {"ann": 2, "bob": 7, "cleo": 4, "dan": 9}


def table(sizes=SIZES, seed=0):
    """Rows in a random order, whose feature tells group and place."""
    rows = [(name, place) for name, size in sizes.items() for place in range(size)]
    order = np.random.default_rng(seed).permutation(len(rows))
    group = np.array([list(sizes).index(rows[i][0]) for i in order])
    place = np.array([rows[i][1] for i in order])
    return pd.DataFrame(
        {
            "client": [rows[i][0] for i in order],
            "value": 100.0 * group + place,
            "square": (100.0 * group + place) ** 2,
            "label": place % 2,
        }
    )


def grouped(source=None, **options):
    columns = {"by": "client", "x": ["value", "square"], "y": "label"}
    return Grouped(table() if source is None else source, **columns | options)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def there(batch, task):
    """Return the values of the examples of a task that are not padding."""
    return batch.x[task, batch.weight[task] > 0, 0].tolist()


def test_a_group_is_split_into_support_and_query_set():
    clients = grouped()
    assert clients.names == ("ann", "bob", "cleo", "dan")
    assert clients.sizes == SIZES
    (episodes,) = clients.each(generator=seeded())
    for task, (name, size) in enumerate(SIZES.items()):
        support, query = (there(batch, task) for batch in episodes)
        assert len(support) == max(round(size / 2), 1), name
        assert sorted(support + query) == [100.0 * task + place for place in range(size)]
    for batch in episodes:
        torch.testing.assert_close(batch.x[..., 1], batch.x[..., 0] ** 2)
        assert torch.equal(batch.y, (batch.x[..., 0] % 100).long() % 2)
        assert set(batch.weight.unique().tolist()) == {0.0, 1.0}


def test_padding_is_copies_of_a_tasks_own_rows():
    for episodes in grouped().each(2, generator=seeded()):
        for batch in episodes:
            groups = (batch.x[..., 0] // 100).long()
            assert (groups == groups[:, :1]).all()
            padding = batch.weight == 0
            first = batch.x[:, :1].expand_as(batch.x)
            assert torch.equal(batch.x[padding], first[padding])


@pytest.mark.parametrize("support", [0.01, 0.3, 0.99])
def test_both_sets_have_a_row_whatever_the_fraction(support):
    (episodes,) = grouped(support=support).each()
    sizes = [batch.weight.sum(1) for batch in episodes]
    assert torch.equal(sum(sizes), torch.tensor(list(SIZES.values())).float())
    expected = [min(max(round(support * size), 1), size - 1) for size in SIZES.values()]
    assert sizes[0].tolist() == expected


def test_a_seed_decides_and_every_draw_splits_anew():
    clients = grouped()
    draws = [clients.sample(5, generator=seeded(seed)) for seed in (3, 3, 4)]
    pairs = zip(*map(tree_leaves, draws[:2]), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
    assert relative_difference(*[draw.support.x.sum() for draw in draws[1:]]) > 0
    generator = seeded()
    splits = {tuple(there(next(clients.each(4, generator=generator)).support, 3)) for _ in range(9)}
    assert len(splits) == 9
    assert next(clients.batches(3, generator=seeded())).support.x.shape[0] == 3


def shares(clients, num_tasks=20_000):
    episodes = clients.sample(num_tasks, generator=seeded())
    groups = (episodes.support.x[:, 0, 0] // 100).long()
    return torch.bincount(groups, minlength=len(SIZES)) / num_tasks


def test_groups_are_drawn_uniformly_or_by_their_weights():
    clients = grouped()
    torch.testing.assert_close(shares(clients), torch.full((4,), 0.25), atol=0.015, rtol=0)
    by_size = torch.tensor(list(SIZES.values())) / sum(SIZES.values())
    weighted = clients.weighted(clients.sizes)
    torch.testing.assert_close(shares(weighted), by_size, atol=0.015, rtol=0)
    torch.testing.assert_close(shares(clients), torch.full((4,), 0.25), atol=0.015, rtol=0)
    few = weighted.select(["dan", "ann"])
    torch.testing.assert_close(
        shares(few), torch.tensor([2.0, 0.0, 0.0, 9.0]) / 11, atol=0.015, rtol=0
    )


def test_selected_groups_are_those_of_the_table():
    clients = grouped().select(["dan", "bob"])
    assert (clients.names, clients.sizes) == (("dan", "bob"), {"dan": 9, "bob": 7})
    (episodes,) = clients.each()
    both = [sorted(there(episodes.support, i) + there(episodes.query, i)) for i in range(2)]
    assert both == [[300.0 + i for i in range(9)], [100.0 + i for i in range(7)]]
    assert grouped().select("cleo").names == ("cleo",)


def test_groups_of_one_size_have_no_weights():
    clients = grouped(table({"a": 4, "b": 4}))
    episodes = clients.sample(3)
    assert [batch.weight for batch in episodes] == [(), ()]
    assert episodes.support.x.shape == (3, 2, 2)


SOURCES = {
    "pandas": table,
    "a Hugging Face data set": lambda: datasets.Dataset.from_pandas(table()),
    "its torch format": lambda: datasets.Dataset.from_pandas(table()).with_format("torch"),
    "a dict of arrays": lambda: {name: np.asarray(table()[name]) for name in table()},
    "a dict of lists": lambda: {name: table()[name].tolist() for name in table()},
}


@pytest.mark.parametrize("source", SOURCES)
def test_tables_of_any_kind_give_the_same(source):
    expected = grouped().sample(4, generator=seeded())
    ours = grouped(SOURCES[source]()).sample(4, generator=seeded())
    for one, other in zip(tree_leaves(ours), tree_leaves(expected), strict=True):
        assert torch.equal(one, other)
        assert one.dtype == other.dtype


def weighted_mse(output, target, weight):
    return (weight * (output - target).square().mean(-1)).sum() / weight.sum()


def test_a_padded_task_has_the_loss_that_it_has_alone(monkeypatch):
    torch.manual_seed(0)
    source = table()
    source["value"] /= 400
    clients = grouped(source, x=["value"], y=["square"])
    options = {"num_steps": 3, "rule": inner.SGD(1e-6)}
    model = models.mlp(1, [4], 1)
    padded = outer.MAML(model, weighted_mse, **options)
    alone = outer.MAML(model, F.mse_loss, **options)
    (episodes,) = clients.each(generator=seeded())
    losses = padded.estimate(episodes).loss
    for task in range(len(clients)):
        one = [
            batch._replace(
                x=batch.x[task : task + 1, batch.weight[task] > 0],
                y=batch.y[task : task + 1, batch.weight[task] > 0],
                weight=(),
            )
            for batch in episodes
        ]
        torch.testing.assert_close(losses[task], alone.estimate(type(episodes)(*one)).loss[0])


def test_trains_and_is_evaluated_by_name(tmp_path):
    torch.manual_seed(0)
    source = table()
    source["value"] /= 400
    clients = grouped(source, x=["value"])
    learner = outer.MAML(
        models.mlp(1, [8], 2),
        functional.cross_entropy,
        inner.SGD(0.1),
        num_steps=2,
        support_batches=functional.ShuffledBatches(2),
    )
    optimizer = torch.optim.Adam(learner.parameters(), 1e-2)
    fit(learner, clients.weighted(clients.sizes), optimizer, 3, meta_batch_size=2, progress=False)
    evaluation = evaluate(
        learner,
        clients.each(3, generator=seeded()),
        num_tasks=len(clients),
        metrics={"accuracy": functional.accuracy},
        task_names=clients.names,
        generator=seeded(),
    )
    for name in ("loss", "accuracy"):
        by_task = evaluation.by_task(name)
        assert list(by_task) == list(SIZES)
        assert list(by_task.values()) == evaluation[name].values.tolist()
    evaluation.save(tmp_path / "clients.json")
    loaded = type(evaluation).load(tmp_path / "clients.json")
    assert loaded.by_task("loss") == evaluation.by_task("loss")


def one_row():
    return grouped(table({"a": 3, "b": 1, "c": 1}))


def judged(**options):
    learner = outer.MAML(models.mlp(2, [2], 1), weighted_mse, inner.SGD(1e-9), num_steps=1)
    episodes = grouped(y=["label"]).each()
    return evaluate(learner, **{"episodes": episodes, "num_tasks": 4} | options)


BAD = {
    "no table": (lambda: grouped([1, 2]), TypeError, "Grouped's table must have columns by name"),
    "all": (lambda: grouped(support=1.0), ValueError, "be strictly between 0 and 1; got 1.0"),
    "single rows": (
        one_row,
        ValueError,
        "groups must have at least 2 rows; got 1 row of ['b', 'c']. Leave them out: "
        "table.groupby('client').filter(lambda rows: len(rows) > 1).",
    ),
    "single rows of a data set": (
        lambda: grouped(datasets.Dataset.from_pandas(table({"a": 3, "b": 1}))),
        ValueError,
        "Leave them out: table.filter(lambda row: counts[row['client']] > 1), with counts = "
        "collections.Counter(table['client']).",
    ),
    "single rows of a dict": (
        lambda: Grouped({"client": ["a", "a", "b"], "x": [1.0] * 3}, by="client", x="x", y="x"),
        ValueError,
        "got 1 row of ['b']. Leave them out of every column.",
    ),
    "no rows": (
        lambda: grouped(table({})),
        ValueError,
        "Grouped's table must have rows; got none.",
    ),
    "rows of another number": (
        lambda: Grouped({"client": ["a"] * 4, "x": [1.0] * 3}, by="client", x="x", y="x"),
        ValueError,
        "columns of Grouped must have 4 rows",
    ),
    "one number": (
        lambda: Grouped({"client": ["a"] * 4, "x": 1.0}, by="client", x="x", y="x"),
        ValueError,
        "column 'x' must have an entry a row",
    ),
    "weights of some": (
        lambda: grouped().weighted({"ann": 1.0, "eve": 1.0}),
        ValueError,
        "weights must be of every group; got others, or none, of ['bob', 'cleo', 'dan', 'eve']",
    ),
    "weights of zero": (
        lambda: grouped().weighted({**SIZES, "dan": 0}),
        ValueError,
        "weight of 'dan' must be positive and finite; got 0",
    ),
    "a list of weights": (lambda: grouped().weighted([1, 2]), TypeError, "be a mapping of numbers"),
    "unknown groups": (
        lambda: grouped().select(["bobby"]),
        ValueError,
        "names must be of the 4 groups; got ['bobby']. Did you mean 'bob'?",
    ),
    "a group twice": (lambda: grouped().select(["ann"] * 2), ValueError, "each at most once"),
    "no group": (lambda: grouped().select([]), ValueError, "each at most once; got none"),
    "no batch": (lambda: grouped().each(0), ValueError, "meta_batch_size must be at least 1"),
    "names of other tasks": (
        lambda: judged(task_names=["a", "b"]),
        ValueError,
        "task_names must be 4 names, each once; got 2. Pass task_names=clients.names",
    ),
    "a name twice": (
        lambda: judged(task_names=["a", "b", "c", "a"]),
        ValueError,
        "task_names must be 4 names, each once; got ['a'] twice",
    ),
    "names of random draws": (
        lambda: judged(episodes=grouped(), task_names=grouped().names),
        ValueError,
        "task_names must be of tasks in an order, not of random draws; got Grouped. "
        "Pass clients.each(), which has every task once, in this order.",
    ),
    "no names": (
        lambda: judged().by_task("loss"),
        ValueError,
        "Evaluation's task_names must be known; got None. Pass evaluate(..., task_names=[...]).",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    assert_refused(*BAD[case])


def test_a_criterion_that_is_a_sum_weighs_tasks_by_their_examples():
    """As the guide says: exactly what `weighted` gives in expectation."""
    torch.manual_seed(0)
    source = table()
    source["value"] /= 400
    clients = grouped(source, x=["value"], y=["value"])
    (episodes,) = clients.each(generator=seeded())
    model = models.mlp(1, [4], 1)

    def weighted_sum(output, target, weight):
        return (weight * (output - target).square().mean(-1)).sum()

    means, sums = (
        outer.MAML(model, criterion, inner.SGD(0.1), num_steps=2, support_criterion=weighted_mse)
        for criterion in (weighted_mse, weighted_sum)
    )
    losses, sizes = means.estimate(episodes).loss, episodes.query.weight.sum(1)
    torch.testing.assert_close(sums.estimate(episodes).loss, losses * sizes)
    keys = functional.draw_keys(4)
    ours = sums.estimate(episodes, keys).gradient.init
    for task, size in enumerate(sizes):
        one = take(episodes, slice(task, task + 1))
        theirs = means.estimate(one, keys[task : task + 1]).gradient.init
        ours = {name: grad - size / 4 * theirs[name] for name, grad in ours.items()}
    for grad in ours.values():
        torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=1e-6)
