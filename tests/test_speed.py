"""What `benchmarks.speed` runs: every system computes the same gradient, in the order of the
parameters."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bilevel import _transformer
from benchmarks.peers._workload import Workload, arrays
from benchmarks.speed.__main__ import deviation
from benchmarks.speed._cases import CASES, ON_GPU, SCRIPTS
from benchmarks.speed._report import plot, rows

PEERS = Path(__file__).parents[1] / "benchmarks" / "peers"
SMALL_CONV4 = {"support": 5, "query": 5, "num_filters": 4}


@pytest.fixture
def systems(monkeypatch):
    """The scripts that need nothing but this library's environment."""
    monkeypatch.syspath_prepend(str(PEERS))
    return {
        name: importlib.import_module(name).build for name in ("autograd_loop", "use_metalearn")
    }


@pytest.mark.parametrize(
    ("workload", "names"),
    [
        (
            Workload("sine", 3, 2),
            ("autograd.grad loop", "Unrolled", "Stepwise", "Unrolled, loop", "Unrolled by vmap"),
        ),
        (Workload("first-order", 3, 2, method="fomaml"), ("autograd.grad loop", "Unrolled")),
        (
            Workload("Reptile", 3, 2, method="reptile"),
            ("autograd.grad loop", "ParameterDifference"),
        ),
        (
            Workload("images", 2, 1, **SMALL_CONV4),
            ("autograd.grad loop", "Unrolled", "Stepwise", "Unrolled by vmap"),
        ),
        (
            Workload("tokens", 1, 2, support=1, query=1, num_layers=1),
            ("autograd.grad loop", "Unrolled", "Stepwise", "Stepwise by blocks"),
        ),
        (Workload("LSTM", 2, 2, rule="lstm"), ("rule in a plain loop", "Unrolled", "Stepwise")),
        (Workload("TURTLE", 2, 2, rule="turtle"), ("rule in a plain loop", "Unrolled")),
        (Workload("seeds", 2, 2), ("autograd.grad loop", "30 seeds")),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_systems_agree(workload, names, systems):
    given = arrays(workload)
    gradients = []
    for name in names:
        script, variant = SCRIPTS[name]
        system = systems[script](workload, given, variant, "cpu")
        gradients.append(np.concatenate([leaf.ravel() for leaf in system.gradient()]))
        assert system.peak() > 0
    for gradient in gradients[1:]:
        np.testing.assert_allclose(gradient, gradients[0], rtol=1e-3, atol=1e-6)


def test_adam_by_hand_is_adam(systems):
    """To the digits that Adam leaves in float32: it divides gradients by themselves."""
    workload = Workload("tokens", 1, 2, support=8, query=1, num_layers=1, rule="adam", lr=1e-3)
    given = arrays(workload)
    loop = systems["autograd_loop"](workload, given, "loop", "cpu").gradient()
    ours = systems["use_metalearn"](workload, given, "Unrolled", "cpu").gradient()
    assert deviation(ours, loop) < 0.05


def test_the_floor_and_samplers_run(systems):
    conv4, sampling = (
        Workload("images", 2, 1, **SMALL_CONV4),
        Workload("sampling", 2, 0, 5, 10, 4, method="sample"),
    )
    systems["autograd_loop"](conv4, arrays(conv4), "floor", "cpu").step()
    (support, query) = systems["autograd_loop"](sampling, {}, "loop", "cpu").step()
    assert support.shape == (2, 5, 1, 28, 28)
    assert query.shape == (2, 10, 1, 28, 28)
    assert systems["use_metalearn"](sampling, {}, "", "cpu").step().query.x.shape == (
        2,
        10,
        1,
        28,
        28,
    )


def test_every_case_names_systems_that_are_there():
    assert all(name in SCRIPTS for _, names in (*CASES, *ON_GPU) for name in names)
    assert all((PEERS / f"{script}.py").exists() for script, _ in SCRIPTS.values())


def test_bilevel_report():
    records = [
        {"system": _transformer.LOOP, "median": 2.0, "deviation": 4e-7, "peak_bytes": 9_000_000},
        {"system": "Stepwise", "median": 3.0, "deviation": 4e-7, "peak_bytes": 1_000_000},
        {"system": "TorchOpt", "median": None, "error": "does not install"},
    ]
    for record in records[:2]:
        record["first_seconds"] = 4.0
    assert _transformer.rows(records) == [
        [_transformer.LOOP, "2.00 s", "1.00", "9 MB", "1/1.0", "4e-07", "4.0 s"],
        ["Stepwise", "3.00 s", "1.50", "1 MB", "1/9.0", "4e-07", "4.0 s"],
        ["TorchOpt", "failed: does not install", "", "", "", "", ""],
    ]
    assert all(
        name in SCRIPTS for name in (_transformer.EXACT, _transformer.LOOP, *_transformer.SYSTEMS)
    )


def test_report(tmp_path):
    records = [
        {"system": "higher", "median": 0.2, "deviation": 1e-7, "peak_bytes": 2_000_000},
        {"system": "Unrolled", "median": 0.1, "deviation": 2e-7, "peak_bytes": 1_000_000},
        {"system": "TorchOpt", "median": None, "error": "does not install"},
    ]
    assert rows(records) == [
        ["higher", "200.00 ms", "1.00", "1e-07", "2.0 MB"],
        ["Unrolled", "100.00 ms", "2.00", "2e-07", "1.0 MB"],
        ["TorchOpt", "failed: does not install", "", "", ""],
    ]
    plot({"W1": {"systems": records}}, tmp_path / "speed.png")
    assert (tmp_path / "speed.png").exists()
