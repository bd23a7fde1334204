import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import data, inner, models, outer
from metalearn.outer import BatchingTable, BatchingTime, NotCompiledWarning, compare_batching

TASKS = data.Sinusoid(5, 5)


def build(model=None, **options):
    model = models.mlp(1, [4], 1) if model is None else model
    return outer.MAML(model, F.mse_loss, inner.SGD(0.01), num_steps=1, **options)


def test_every_choice_is_timed_and_measured():
    learner = build()
    table = compare_batching(learner, TASKS.sample(8), compile={"backend": "eager"}, rounds=1)
    sizes = [(time.settings["batching"], time.settings["chunk_size"]) for time in table.times]
    assert sizes == 2 * [("vmap", None), ("vmap", 4), ("vmap", 2), ("loop", 1)]
    assert [bool(time.settings["compile"]) for time in table.times] == 4 * [False] + 4 * [True]
    assert all(
        0 < time.seconds < 60 and time.peak_bytes > 0 and not time.error for time in table.times
    )
    # all tasks' graphs live at once, or one's
    assert table.times[0].peak_bytes > table.times[3].peak_bytes
    assert repr(table).splitlines()[0].startswith("batching='vmap'")
    assert (learner.batching, learner.chunk_size, learner.compile_options) == ("vmap", None, False)


def test_the_fastest_that_fits():
    table = BatchingTable(
        [
            BatchingTime({"batching": "vmap"}, 0.1, 1000),
            BatchingTime({"batching": "vmap", "chunk_size": 2}, 0.2, 500),
            BatchingTime({"batching": "loop"}, error="RuntimeError: no\nreally"),
        ]
    )
    assert table.fastest() == {"batching": "vmap"}
    assert table.fastest(max_bytes=1000) == {"batching": "vmap"}
    assert table.fastest(max_bytes=999) == {"batching": "vmap", "chunk_size": 2}
    with pytest.raises(ValueError, match=r"max_bytes must allow one .*\[1000, 500\].*Stepwise"):
        table.fastest(max_bytes=10)
    assert str(table).splitlines()[2].endswith("failed: RuntimeError: no")


class Branching(nn.Linear):
    """A model whose path depends on values, which neither vmap nor torch.compile can follow."""

    def forward(self, x):
        return super().forward(x) * (2 if x.sum().item() > 0 else 1)


def test_a_choice_that_fails_says_why():
    table = compare_batching(
        build(Branching(1, 1), batching="loop"),
        TASKS.sample(4),
        compile={"backend": "eager"},
        rounds=1,
    )
    failed = {str(time.settings): bool(time.error) for time in table.times}
    assert [*failed.values()] == [True, True, False, True, True, True]
    assert table.fastest()["batching"] == "loop"


def test_what_cannot_be_compiled_says_which_part_and_runs():
    learner = build(Branching(1, 1), batching="loop", compile={"backend": "eager"})
    with pytest.warns(NotCompiledWarning, match=r"2 if x\.sum\(\)\.item\(\).*without compile"):
        loss = learner(TASKS.sample(2))
    assert loss.isfinite()
    learner(TASKS.sample(2))  # and warns once
    learner.set_batching("loop")
    assert learner(TASKS.sample(2)).isfinite()


def test_set_batching_does_what_the_constructor_does():
    torch.manual_seed(0)
    episodes, learner = TASKS.sample(4), build()
    reference = learner.estimate(episodes)
    for settings in ({"chunk_size": 2}, {"batching": "loop"}, {"compile": {"backend": "eager"}}):
        learner.set_batching(**settings)
        torch.testing.assert_close(learner.estimate(episodes).gradient, reference.gradient)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: compare_batching(outer.Replicas([build()]), TASKS.sample(2)),
            TypeError,
            r"replicas\[0\]",
        ),
        (
            lambda: compare_batching(models.mlp(1, [4], 1), TASKS.sample(2)),
            TypeError,
            "be a MetaLearner",
        ),
        (
            lambda: compare_batching(build(), TASKS.sample(2), chunk_sizes=[3]),
            ValueError,
            "at most the 2 tasks; got 3",
        ),
        (
            lambda: compare_batching(build(), TASKS.sample(2), chunk_sizes=[1]),
            ValueError,
            "the loop",
        ),
        (
            lambda: compare_batching(build(), TASKS.sample(2), rounds=0),
            ValueError,
            "rounds must be at least 1",
        ),
        (lambda: compare_batching(build(), "tasks"), TypeError, "Episode"),
        (lambda: build().set_batching("vamp"), ValueError, "Did you mean 'vmap'"),
        (lambda: build().set_batching(chunk_size=0), ValueError, "at least 1"),
        (
            lambda: build().set_batching("loop", chunk_size=4),
            ValueError,
            "chunk_size of a loop must be left out; got 4",
        ),
        (lambda: build().set_batching(compile="inductor"), TypeError, "backend"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
