"""The problems of `benchmarks.bilevel`, and how its runs are judged."""

import math
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.bilevel import _race
from benchmarks.bilevel._problems import arrays, in_double, value
from benchmarks.peers._bilevel import PROBLEMS

PEERS = Path(__file__).parents[1] / "benchmarks" / "peers"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(PEERS))
    import bilevel_metalearn

    yield bilevel_metalearn
    for name in ("bilevel_metalearn", "_bilevel"):
        sys.modules.pop(name, None)


def test_the_value_of_the_quadratic_problem_has_a_closed_form():
    given = arrays("quadratic", 0)
    data = in_double(given)
    hyper = given["start"].astype(float)
    at = torch.linalg.solve(
        data["inner_params"],
        -(data["inner_cross"].T @ torch.from_numpy(hyper) + data["inner_linear_params"]),
    )
    found, solution = value("quadratic", hyper, data, given["params"].astype(float))
    torch.testing.assert_close(torch.from_numpy(solution), at, rtol=1e-3, atol=1e-4)
    exact = PROBLEMS["quadratic"].outer(torch.from_numpy(hyper), at, data).item()
    assert abs(found - exact) < 1e-4 * abs(exact)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("variant", ["Implicit, SOBA", "Penalty, one step", "Unrolled windows"])
@pytest.mark.filterwarnings("ignore:.*at its first call")
def test_a_few_steps_help(script, problem, variant):
    given = arrays(problem, 0)
    hyper = torch.from_numpy(given["start"].copy()).requires_grad_()
    params = torch.zeros(len(given["params"]))
    used = {name: torch.from_numpy(each) for name, each in given.items()}
    step = script.build(variant, PROBLEMS[problem], used, hyper, params)
    for _ in range(20):
        step()
    zeros = given["params"].astype(float)
    before, after = (
        value(problem, at.astype(float), in_double(given), zeros)[0]
        for at in (given["start"], hyper.detach().numpy())
    )
    assert after < before


def test_times_are_interpolated():
    run = _race.Run([0.0, 1.0, 3.0], [5.0, 4.0, 2.0], 10)
    assert [_race.time_to(run, loss) for loss in (5.0, 4.5, 3.0, 1.0)] == [0.0, 0.5, 2.0, math.inf]


def test_rows_compare_with_the_best_peer():
    ends = {"Betty, cg": 2.0, "BOAT, MESO": 3.0, "OneStep": 1.0}
    runs = {name: [_race.Run([0.0, 1.0], [4.0, end], 8)] for name, end in ends.items()}
    assert _race.rows({**runs, "Penalty": "died"}) == [
        ["Betty, cg", "2.0000", "8", "1.00"],
        ["BOAT, MESO", "3.0000", "8", "never"],
        ["OneStep", "1.0000", "8", "0.67"],
        ["Penalty", "failed: died", "", ""],
    ]


def test_all_systems_are_there(script):
    ours = {variant for at, variant in _race.SYSTEMS.values() if at == _race.OURS}
    assert {variant.removesuffix(", compiled") for variant in ours} <= script.VARIANTS.keys()
