import copy

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils import parametrize

from metalearn import inner, models, outer
from metalearn._tasks import take
from metalearn._tree import tree_detach, tree_map
from tests.cases import EXACT_WAYS, keys, relative_difference, sine_episodes

ROWS = torch.arange(6)[:, None] < 2
"""Two of six rows of a matrix `[6, 6]`."""
SCATTERED = (torch.arange(36) % 5 == 0).reshape(6, 6)
FAST, REST = "2.parametrizations.weight.original", "2.parametrizations.weight.0.rest"


def split_learner(rule=None, mask=ROWS, **options):
    torch.manual_seed(0)
    return outer.MetaLearner(
        models.split_parameters(models.mlp(1, [6, 6], 1).double(), {"2.weight": mask}),
        F.mse_loss,
        rule or inner.SGD(0.05),
        **{"num_steps": 3, "fast": "*.original"} | options,
    )


class TwoMatrices(nn.Module):
    """The same model by hand: the first rows of a layer are a parameter of their own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, _, layer, _, self.last = models.mlp(1, [6, 6], 1).double()
        self.fast = nn.Parameter(layer.weight.detach()[:2].reshape(-1))
        self.rest = nn.Parameter(layer.weight.detach()[2:].reshape(-1))
        self.bias = layer.bias

    def forward(self, x):
        weight = torch.cat([self.fast, self.rest]).reshape(6, 6)
        return self.last(F.linear(self.first(x).relu(), weight, self.bias).relu())


def by_hand(rule=None, **options):
    return outer.MetaLearner(
        TwoMatrices(),
        F.mse_loss,
        rule or inner.SGD(0.05),
        **{"num_steps": 3, "fast": "fast"} | options,
    )


def gradient(learner):
    return learner.estimate(sine_episodes(), keys()).gradient


def assert_equal(learner, theirs):
    ours, theirs = gradient(learner), gradient(theirs)
    assert relative_difference(ours.init[FAST], theirs.init["fast"]) < 1e-10
    shared = {"0.weight": "first.weight", "2.bias": "bias", "4.weight": "last.weight"}
    for name, other in ({REST: "rest"} | shared).items():
        left, right = ours.shared[f"model.{name}"], theirs.shared[f"model.{other}"]
        assert relative_difference(left, right) < 1e-10
    if ours.rule:
        assert relative_difference(ours.rule, theirs.rule) < 1e-10


@pytest.mark.parametrize("options", EXACT_WAYS, ids=str)
def test_every_way_is_that_of_two_matrices(options):
    assert_equal(split_learner(**options), by_hand())


@pytest.mark.parametrize(
    "rule",
    [
        inner.Adam(0.05, eps=0.1),
        inner.LearnedRate(inner.SGD(0.05)),
        inner.MetaSGD(0.05),
        inner.Clipped(inner.Momentum(0.05), norm=0.1),
        inner.WeightDecay(inner.SGD(0.05), 0.1),
    ],
    ids=str,
)
def test_every_rule_is_that_of_two_matrices(rule):
    assert_equal(split_learner(rule), by_hand(rule))


@pytest.mark.parametrize(
    "estimator",
    [outer.Implicit(1.0, outer.CG(5)), outer.ForwardMode(), outer.Unrolled(order=1)],
    ids=lambda estimator: type(estimator).__name__,
)
def test_every_estimator_is_that_of_two_matrices(estimator):
    assert_equal(split_learner(estimator=estimator), by_hand(estimator=estimator))


def test_reptile_moves_the_elements_in_the_mask():
    learners = split_learner(), by_hand()
    for learner in learners:
        for name, param in learner.model.named_parameters():
            param.requires_grad_(name in (FAST, "fast"))
    ours, theirs = (
        gradient(outer.Reptile(learner.model, F.mse_loss, inner.SGD(0.05), num_steps=3)).init
        for learner in learners
    )
    assert relative_difference(ours[FAST], theirs["fast"]) < 1e-10


@pytest.mark.parametrize("mask", [ROWS, SCATTERED], ids=["rows", "scattered"])
def test_steps_leave_what_is_outside_the_mask(mask):
    """Against steps on the whole tensor whose updates are zero outside the mask, and the
    meta-gradient through them."""
    learner, one = split_learner(mask=mask), take(sine_episodes(), 0)
    torch.manual_seed(0)
    plain = models.mlp(1, [6, 6], 1).double()
    start = plain[2].weight.detach().requires_grad_()
    weight, others = start, tree_detach(dict(plain.named_parameters()))

    def loss(weight, batch):
        tensors = {**others, "2.weight": weight}
        return F.mse_loss(torch.func.functional_call(plain, tensors, batch.x), batch.y)

    for _ in range(3):
        (grad,) = torch.autograd.grad(loss(weight, one.support), weight, create_graph=True)
        weight = weight - 0.05 * (mask * grad)
    (expected,) = torch.autograd.grad(loss(weight, one.query), start)
    episodes = take(sine_episodes(), slice(0, 1))
    adapted, slope = learner.adapt(episodes.support)[0], learner.estimate(episodes).gradient
    torch.testing.assert_close(adapted[2].weight, weight, rtol=1e-12, atol=1e-12)
    whole = mask.expand(6, 6)
    assert torch.equal(adapted[2].weight[~whole], plain[2].weight[~whole])
    torch.testing.assert_close(slope.init[FAST], expected[whole])
    torch.testing.assert_close(slope.shared[f"model.{REST}"], expected[~whole])


def test_the_model_computes_what_it_did():
    torch.manual_seed(0)
    model = models.conv4(1, 5, num_filters=6, image_size=28)
    x = torch.randn(3, 1, 28, 28)
    before, state = model(x), copy.deepcopy(model.state_dict())
    names = [name for name, param in model.named_parameters() if param.dim() == 4]
    filters = torch.arange(6)[:, None, None, None] < 2
    split = models.split_parameters(model, dict.fromkeys(names, filters))
    assert split is model
    assert torch.equal(model(x), before)
    chosen = [name for name, _ in model.named_parameters() if name.endswith(".original")]
    assert len(chosen) == len(names)
    for name in names:
        path, _, last = name.rpartition(".")
        parametrize.remove_parametrizations(model.get_submodule(path), last)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_filters_adapt_in_some_layers():
    torch.manual_seed(0)
    model = models.conv4(1, 5, num_filters=4, image_size=28)
    names = [name for name, param in model.named_parameters() if param.dim() == 4]
    mask = torch.arange(4)[:, None, None, None] < 1
    learner = outer.MAML(
        models.split_parameters(model, dict.fromkeys(names, mask)),
        F.cross_entropy,
        inner.SGD(0.1),
        num_steps=1,
        fast=["*.original", "head"],
    )
    assert {name for name in learner.meta.init if "head" not in name} == {
        name.replace("weight", "parametrizations.weight.original") for name in names
    }


def test_a_rest_that_is_constant():
    torch.manual_seed(0)
    model = models.split_parameters(models.mlp(1, [6, 6], 1), {"2.weight": ROWS})
    model[2].parametrizations.weight[0].rest.requires_grad_(False)
    learner = outer.MAML(model, F.mse_loss, inner.SGD(0.1), num_steps=1, fast="*.original")
    assert FAST in learner.meta.init
    assert f"model.{REST}" not in learner.meta.shared


def test_an_assigned_tensor_goes_into_both_parts():
    model = models.split_parameters(models.mlp(1, [6, 6], 1), {"2.weight": SCATTERED})
    new = torch.arange(36.0).reshape(6, 6)
    model[2].weight = new
    assert torch.equal(model[2].weight, new)
    parts = dict(model.named_parameters())
    assert parts[FAST].tolist() == list(range(0, 36, 5))
    assert parts[REST].tolist() == [number for number in range(36) if number % 5]


def mlp():
    return models.mlp(1, [6, 6], 1)


def of(mask, name="2.weight", model=mlp):
    return lambda: models.split_parameters(model(), {name: mask})


def tied():
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    model[1].weight = model[0].weight
    return model


def split_already():
    return models.split_parameters(mlp(), {"2.weight": ROWS})


BAD = [
    (of(ROWS.float()), TypeError, "be a boolean tensor; got torch.float32. Write mask.bool()."),
    (of([True] * 6), TypeError, "the mask of '2.weight' must be a boolean tensor; got [True, "),
    (
        of(ROWS[:4]),
        ValueError,
        "be shaped (6, 6), or broadcast to it; got (4, 1). Write torch.ones(",
    ),
    (
        of(ROWS[None]),
        ValueError,
        "got (1, 6, 1). Write torch.ones((6, 6), dtype=torch.bool), and F",
    ),
    (of(ROWS[:, 0], "0.weight"), ValueError, "got (6,). Write mask.reshape(-1, 1)."),
    (of(ROWS & False), ValueError, "got False everywhere. Leave it out: fast='2.weight' takes"),
    (of(ROWS | True), ValueError, "got True everywhere. Leave it out"),
    (of(ROWS, "2.wieght"), ValueError, "Did you mean '2.weight'?"),
    (of(ROWS, 3), ValueError, "got 3"),
    (of(ROWS, "0.weight", tied), ValueError, "'0.weight', tied to ['1.weight']. Untie them"),
    (of(ROWS[:1], "weight_hh_l0", lambda: nn.GRU(1, 6)), ValueError, "of GRU. Use its cell"),
    (of(ROWS, "2.weight", split_already), ValueError, "It has a parametrization already: split"),
    (of(ROWS, FAST, split_already), ValueError, "of a parametrization. Split it before"),
    (of(ROWS, "weight", lambda: nn.LazyLinear(3)), ValueError, "Call the model once on an example"),
    (
        lambda: models.split_parameters(mlp(), {}),
        ValueError,
        "got none. Write split_parameters(mod",
    ),
    (lambda: models.split_parameters(mlp(), ROWS), TypeError, "be a dict of masks by name"),
    (lambda: models.split_parameters("mlp", {}), TypeError, "must be an nn.Module"),
    (
        lambda: outer.MAML(mlp(), F.mse_loss, inner.SGD(0.1), num_steps=1, fast={"2.weight": ROWS}),
        TypeError,
        "Write models.split_parameters(model, masks), and then fast='*.original'.",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)


def test_a_bad_mask_leaves_the_model_as_it_was():
    model = mlp()
    with pytest.raises(ValueError, match="everywhere"):
        models.split_parameters(model, {"2.weight": ROWS, "0.weight": ROWS | True})
    assert list(model.state_dict()) == list(mlp().state_dict())


def test_replicas_are_trained_together():
    learners = [split_learner(mask=mask) for mask in (ROWS, ROWS)]
    with torch.no_grad():
        learners[1].model[0].bias.add_(1)
    alone = [learner(sine_episodes(), keys=keys()) for learner in learners]
    twice = tree_map(lambda leaf: torch.cat([leaf, leaf]), (sine_episodes(), keys()))
    losses = outer.Replicas(learners)(twice[0], keys=twice[1])
    torch.testing.assert_close(losses, torch.stack(alone))


def test_replicas_of_other_masks_are_refused():
    with pytest.raises(ValueError, match="share what is not learned; got another .*places"):
        outer.Replicas([split_learner(mask=ROWS), split_learner(mask=ROWS.flip(0))])
