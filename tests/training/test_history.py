import math

import torch

from metalearn import fit
from metalearn.training import History
from metalearn.training._history import _replaced
from tests.cases import sine_episodes, sine_learner


def history(loss, scores, num_diverged=(0, 0)):
    return History(
        torch.tensor(loss),
        torch.tensor(num_diverged),
        scores,
        [{"weight": torch.zeros(9)}],
        3.14159,
    )


def test_prints_as_one_line():
    printed = repr(history([1.0, 2.0], {1: 0.25, 2: 0.5}))
    assert (
        printed == "History(2 iterations, recent loss 1.5, best score 0.25 at iteration 1, 3.1 s)"
    )
    printed = repr(history([1.0, math.nan], {2: math.nan}, num_diverged=(0, 4)))
    assert (
        printed == "History(2 iterations, recent loss 1, no finite score, 4 diverged tasks, 3.1 s)"
    )
    assert repr(History()) == "History(0 iterations, 0.0 s)"


def test_replicas_print_their_mean():
    printed = repr(
        history(
            [[1.0, 2.0], [3.0, 4.0]], {1: [4.0, 2.0], 2: [5.0, 1.0]}, num_diverged=((0, 1), (0, 1))
        )
    )
    mean = "best score 2.5 in the mean of 2 replicas"
    assert printed == f"History(2 iterations, recent loss 2.5, {mean}, 2 diverged tasks, 3.1 s)"


def test_prints_while_it_is_made():
    learner, printed = sine_learner(), []
    optimizer = torch.optim.SGD(learner.parameters(), lr=1e-3)
    log = lambda progress: printed.append(repr(progress.history))  # noqa: E731
    fit(learner, sine_episodes(), optimizer, 2, callbacks=[log], progress=False)
    assert [line.partition(",")[0] for line in printed] == [
        "History(1 iterations",
        "History(2 iterations",
    ]
    assert "recent loss nan" not in printed[0]


def test_best_states_from_a_checkpoint_meet_replicas_on_another_device():
    new = {"weight": torch.zeros(2, 3, device="meta")}
    replaced = _replaced(
        {"weight": torch.zeros(2, 3)}, new, torch.tensor([True, False]), frozenset()
    )
    assert replaced["weight"].device.type == "meta"
