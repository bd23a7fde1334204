import copy

import pytest
import torch

from metalearn import evaluate, outer
from metalearn.analysis import layer_ablation
from tests.analysis.cases import learner, options, tasks

BLOCKS = {"C1": ["features.0", "features.1"], "C2": ["features.3", "features.4"], "FC": "head"}


def test_is_evaluation_with_layers_frozen():
    whole, ablation = learner(), layer_ablation(learner(), tasks(), BLOCKS, **options())
    assert list(ablation.frozen) == list(ablation.alone) == ["C1", "C2", "FC"]
    assert torch.equal(
        ablation.whole["loss"].values, evaluate(whole, tasks(), **options())["loss"].values
    )
    losses = [
        e["loss"].values
        for e in (ablation.whole, *ablation.frozen.values(), *ablation.alone.values())
    ]
    assert all(not torch.equal(a, b) for i, a in enumerate(losses) for b in losses[:i])
    assert (
        len(
            {
                e.fingerprint
                for e in (ablation.whole, *ablation.frozen.values(), *ablation.alone.values())
            }
        )
        == 1
    )
    assert "accuracy" in ablation.whole
    assert repr(ablation).count("\n") == 6


def test_a_layer_alone_is_a_learner_whose_others_are_shared():
    given = learner()
    only = copy.deepcopy(given)
    alone = outer.MetaLearner(
        only.model,
        only.criterion,
        only.problem.rule,
        num_steps=2,
        fast=["features.3", "features.4"],
    )
    ablation = layer_ablation(given, tasks(), BLOCKS, **options())
    expected = evaluate(alone, tasks(), **options())["loss"].values
    torch.testing.assert_close(ablation.alone["C2"]["loss"].values, expected)


def test_one_layer_of_everything():
    given = learner()
    ablation = layer_ablation(given, tasks(), ["*"], num_steps=3, **options())
    assert torch.equal(ablation.alone["*"]["loss"].values, ablation.whole["loss"].values)
    start = evaluate(given, tasks(), num_steps=0, **options())
    torch.testing.assert_close(ablation.frozen["*"]["loss"].values, start["loss"].values)
    assert ablation.whole.num_steps == 3


def test_every_module_by_default():
    ablation = layer_ablation(learner(), tasks(), **options(2))
    assert list(ablation.alone) == ["features.0", "features.1", "features.3", "features.4", "head"]


def test_names_of_lists():
    ablation = layer_ablation(
        learner(), tasks(), ["features", ["features.0", "head"]], **options(2)
    )
    assert list(ablation.alone) == ["features", "features.0, head"]


def test_plots():
    ablation = layer_ablation(learner(), tasks(), BLOCKS, **options(2))
    ax = ablation.plot(score="accuracy")
    assert [label.get_text() for label in ax.get_xticklabels()] == ["C1", "C2", "FC"]
    assert len(ax.patches) == 6
    assert ax.patches[1].get_height() == pytest.approx(ablation.frozen["C2"]["accuracy"].mean)
    assert ax.patches[1].get_x() + ax.patches[1].get_width() == pytest.approx(1)
    assert ablation.plot(ax) is ax
    with pytest.raises(
        ValueError, match="score must be one of .'loss', 'accuracy'.; got 'acuracy'. Did you mean"
    ):
        ablation.plot(score="acuracy")


BAD = [
    (["haed"], ValueError, "got 'haed'. Did you mean"),
    ("head", TypeError, "layers must be a list or a dict of patterns; got 'head'. Write layers=["),
    ([3], TypeError, "layers must be a pattern, a predicate or a list of patterns"),
    (3, TypeError, "layers must be a list or a dict"),
    ([], ValueError, "layers must be at least one"),
]


@pytest.mark.parametrize(("layers", "error", "message"), BAD)
def test_bad_input(layers, error, message):
    with pytest.raises(error) as raised:
        layer_ablation(learner(), tasks(), layers, **options())
    assert message in str(raised.value)
