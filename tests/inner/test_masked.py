import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import functional, inner, models, outer
from tests.cases import sine_learner


def masks(rule, logit, num_keys=4000):
    """Return the masks of many tasks for one layer of five units, `[num_keys, 5]`."""
    params = {"layer.weight": torch.zeros(5, 2), "layer.bias": torch.zeros(5)}
    meta = rule.init_meta(params)
    meta["mask"]["layer"]["logits"].fill_(logit)
    sample = torch.func.vmap(lambda key: rule.init_state(meta, params, key)["mask"]["layer"])
    return sample(functional.draw_keys(num_keys, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("logit", [-1.0, 0.0, 2.0])
def test_units_are_updated_with_probability_sigmoid_of_the_logit(logit):
    drawn = masks(inner.Masked(inner.SGD(0.1)), logit)
    assert set(drawn.unique().tolist()) <= {0.0, 1.0}
    expected = torch.sigmoid(torch.tensor(logit)).expand(5)
    torch.testing.assert_close(drawn.mean(0), expected, atol=0.03, rtol=0)


def test_soft_masks_are_equation_11():
    key, logits = torch.tensor(5), torch.tensor([0.3, -1.0, 2.0])
    rule = inner.Masked(inner.SGD(0.1), temperature=0.7, hard=False)
    params = {"w": torch.zeros(3, 1)}
    state = rule.init_state({"mask": {"w": {"logits": logits}}, "rule": {}}, params, key)
    logistic = functional.uniform(key, (3,)).logit()  # the difference of two Gumbel variables
    g1, g2 = logistic, torch.zeros(3)
    top = torch.exp((logits + g1) / 0.7)
    torch.testing.assert_close(state["mask"]["w"], top / (top + torch.exp(g2 / 0.7)))


def test_hard_masks_have_the_gradient_of_soft_ones():
    params, key = {"w": torch.zeros(3, 1)}, torch.tensor(5)

    def mask(logits, hard):
        rule = inner.Masked(inner.SGD(0.1), hard=hard)
        return rule.init_state({"mask": {"w": {"logits": logits}}, "rule": {}}, params, key)[
            "mask"
        ]["w"].sum()

    logits = torch.tensor([0.3, -1.0, 2.0])
    hard, soft = (torch.func.grad(mask)(logits, kind) for kind in (True, False))
    torch.testing.assert_close(hard, soft)


def test_a_layers_weight_and_bias_share_a_mask(episodes):
    learner = sine_learner(inner.Masked(inner.SGD(0.1)), num_steps=3)
    adapted = learner.adapt(episodes.support)
    for layer in ("0", "2", "4"):
        mask = adapted.state["mask"][layer]
        for name in (f"{layer}.weight", f"{layer}.bias"):
            moved = (adapted.params[name] != learner.meta.init[name]).reshape(*mask.shape, -1)
            assert not moved[mask == 0].any()
    assert len({tuple(row) for row in adapted.state["mask"]["2"].tolist()}) > 1


def test_layers_have_masks_of_their_own():
    rule, params = (
        inner.Masked(inner.SGD(0.1)),
        {f"{layer}.weight": torch.zeros(64, 1) for layer in ("one", "two")},
    )
    mask = rule.init_state(rule.init_meta(params), params, torch.tensor(3))["mask"]
    assert not torch.equal(mask["one"], mask["two"])


def test_filters_and_odd_shapes_have_masks():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.scale = nn.Conv2d(1, 3, 3), nn.Parameter(torch.ones(()))
            self.recurrent = nn.LSTM(9, 2)

    params = dict(Odd().named_parameters())
    mask = inner.Masked(inner.SGD(0.1)).init_meta(params)["mask"]
    shapes = {layer: tuple(of["logits"].shape) for layer, of in mask.items()}
    assert shapes == {"scale": (), "conv": (3,), "recurrent": (8,)}


def test_a_bare_layer_has_one_mask():
    mask = inner.Masked(inner.SGD(0.1)).init_meta(dict(nn.Linear(2, 3).named_parameters()))["mask"]
    assert {layer: tuple(of["logits"].shape) for layer, of in mask.items()} == {"weight": (3,)}


def test_readable_names():
    learner = sine_learner(inner.Masked(inner.MetaSGD(0.1)))
    names = [name for name, _ in learner.rule.named_parameters()]
    assert "mask.0.logits" in names
    assert "rule.rate.0.weight" in names


def test_adapted_fraction_is_that_of_the_masks_that_are_drawn():
    rule = inner.Masked(inner.SGD(0.1))
    learner = sine_learner(rule)
    with torch.no_grad():
        learner.rule.mask.get_submodule("0").logits.copy_(torch.linspace(-2, 3, 6))
        learner.rule.mask.get_submodule("2").logits.fill_(-1.0)
    meta, params = learner.meta.rule, learner.meta.init
    keys = functional.draw_keys(4000, generator=torch.Generator().manual_seed(0))
    drawn = torch.func.vmap(lambda key: rule.init_state(meta, params, key)["mask"])(keys)
    ours = inner.adapted_fraction(meta)
    assert ours.keys() == drawn.keys() == {"0", "2", "4"}
    for layer, masks in drawn.items():
        torch.testing.assert_close(ours[layer], masks.mean(), atol=0.03, rtol=0)


def test_kept_fraction_is_the_printed_formula_of_figure_4():
    learner = sine_learner(inner.LearnedRate(inner.Clipped(inner.Masked(inner.SGD(0.1)), norm=1.0)))
    logits = torch.tensor([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0], dtype=torch.float64)
    with torch.no_grad():
        learner.rule.rule.mask.get_submodule("0").logits.copy_(logits)
    kept, adapted = (of(learner.meta.rule) for of in (inner.kept_fraction, inner.adapted_fraction))
    torch.testing.assert_close(kept["0"], (torch.exp(-logits) / (torch.exp(-logits) + 1)).mean())
    assert kept["2"] == kept["4"] == 0.5
    torch.testing.assert_close(kept, {layer: 1 - value for layer, value in adapted.items()})


def test_fractions_name_the_layers_of_a_t_net():
    model = inner.t_net(models.mlp(1, [3], 1))
    learner = outer.MTNet(model, F.mse_loss, inner.SGD(0.1), num_steps=1)
    assert list(inner.kept_fraction(learner.meta.rule)) == ["0.W", "2.W"]


def test_a_wrapped_rule_draws_numbers_of_its_own():
    rule, params = (
        inner.Masked(inner.Masked(inner.Masked(inner.SGD(0.1)))),
        {"w": torch.zeros(64, 1)},
    )
    state, drawn = rule.init_state(rule.init_meta(params), params, torch.tensor(1)), set()
    for _ in range(3):
        drawn.add(tuple(state["mask"]["w"].tolist()))
        state = state["rule"]
    assert len(drawn) == 3


BAD = [
    (
        lambda: inner.adapted_fraction(sine_learner().meta.rule),
        ValueError,
        "Pass learner.meta.rule of a learner",
    ),
    (
        lambda: inner.adapted_fraction(sine_learner()),
        ValueError,
        "have a mask in it; got MetaLearner",
    ),
    (
        lambda: inner.kept_fraction({"mask": {"0": {"logits": 3}}}),
        ValueError,
        "have a mask in it; got dict",
    ),
    (
        lambda: inner.Masked(inner.SGD(0.1), temperature=0.0),
        ValueError,
        "Masked(rule, temperature=1.0)",
    ),
    (lambda: inner.Masked(inner.SGD(0.1), hard=1), TypeError, "True or False"),
    (lambda: inner.Masked(0.1), TypeError, "Masked(SGD(lr=0.01), ...)"),
    (
        lambda: outer.MetaLearner(
            models.mlp(1, [3], 1),
            F.mse_loss,
            inner.Masked(inner.SGD(0.1)),
            num_steps=1,
            estimator=outer.ParameterDifference(),
        ),
        ValueError,
        "rule.mask.0.logits",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
