import pytest
import torch

from metalearn import rl


def test_support_and_query_share_the_task_and_not_the_key():
    episodes = rl.UniformTasks((0.0, 2.0), (1.0, 3.0)).sample(
        5, generator=torch.Generator().manual_seed(0)
    )
    support, query = (batch.x for batch in episodes)
    assert torch.equal(support["task"], query["task"])
    assert not (support["key"] == query["key"]).any()
    assert len(set(support["key"].tolist())) == 5
    assert (
        (support["task"] >= torch.tensor([0.0, 2.0]))
        & (support["task"] <= torch.tensor([1.0, 3.0]))
    ).all()


def test_a_list_is_drawn_from():
    tasks = {"goal": torch.arange(3.0)[:, None], "mass": torch.arange(3.0)}
    drawn = (
        rl.FiniteTasks(tasks)
        .sample(50, generator=torch.Generator().manual_seed(0))
        .support.x["task"]
    )
    assert torch.equal(drawn["goal"][:, 0], drawn["mass"])
    assert set(drawn["mass"].tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: rl.FiniteTasks(torch.zeros(0, 2)),
            r"be the same number of at least 1; got \[\(0, 2\)\]\. Write Fin",
        ),
        (
            lambda: rl.FiniteTasks({}),
            r"be the same number of at least 1; got \[\]\. Write FiniteTasks",
        ),
        (
            lambda: rl.FiniteTasks([1, 2]),
            r"must be tensors with a leading axis of tasks; got \[1, 2\]",
        ),
        (
            lambda: rl.UniformTasks((), ()),
            "must be as long, and not empty; got .*Write UniformTasks",
        ),
        (lambda: rl.UniformTasks((0.0,), (1.0, 2.0)), "must be as long, and not empty"),
        (
            lambda: rl.UniformTasks((1.0,), (0.0,)),
            r"must be finite with low <= high.*; got \(1\.0, 0\.0\)",
        ),
        (lambda: rl.UniformTasks(0.0, 1.0), r"low must be a tuple of numbers; got 0\.0"),
    ],
)
def test_an_empty_distribution_is_named(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()
