import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import inner, models, outer
from metalearn.analysis import layer_metrics
from metalearn.types import Batch
from tests.cases import keys, sine_episodes, sine_learner


def random(method, model, rule=None, **options):
    """Return a learner of a T-net whose tensors, logits too, are random."""
    torch.manual_seed(0)
    model = inner.t_net(model).double()
    learner = method(model, F.mse_loss, rule or inner.SGD(0.1), **{"num_steps": 1, **options})
    with torch.no_grad():
        for param in learner.parameters():
            param.copy_(torch.randn_like(param))
    return learner


def move(learner, x, y, **options):
    """Return how one step moves the output of a T-net of a single layer, and its slope there."""
    output = learner.model(x)
    slope = torch.func.grad(lambda at: F.mse_loss(at, y))(output.detach())
    adapted = learner.adapt(Batch(x[None], y[None]), **options)
    return adapted(x[None])[0] - output.detach(), slope, adapted


def test_a_t_net_moves_by_its_metric():
    """y moves by -lr T T^t grad_y x^t x, of one example and W without bias."""
    learner = random(outer.TNet, nn.Linear(3, 4, bias=False))
    x, y = torch.randn(1, 3, dtype=torch.float64), torch.randn(1, 4, dtype=torch.float64)
    moved, slope, _ = move(learner, x, y)
    layer = layer_metrics(learner).layers[""]
    torch.testing.assert_close(moved[0], -0.1 * layer.metric @ slope[0] * x.square().sum())
    assert layer.probabilities.tolist() == [1] * 4
    assert layer.dimension == 4
    torch.testing.assert_close(layer.masked_metric, layer.metric)


def test_an_mt_net_moves_by_the_metric_under_its_mask():
    learner = random(outer.MTNet, nn.Linear(3, 4, bias=False))
    x, y = torch.randn(1, 3, dtype=torch.float64), torch.randn(1, 4, dtype=torch.float64)
    layer, ranks = layer_metrics(learner).layers[""], set()
    for key in keys(6):
        moved, slope, adapted = move(learner, x, y, keys=key[None])
        mask = adapted.state["mask"]["W"][0]
        under = layer.under(mask)
        torch.testing.assert_close(moved[0], -0.1 * under @ slope[0] * x.square().sum())
        assert torch.linalg.matrix_rank(under) == mask.sum()
        ranks.add(int(mask.sum()))
    assert len(ranks) > 1


def test_the_masked_metric_is_the_mean_over_all_masks():
    layer = layer_metrics(random(outer.MTNet, nn.Linear(2, 3))).layers[""]
    mean, dimension = torch.zeros(3, 3, dtype=torch.float64), 0.0
    for bits in range(8):
        mask = torch.tensor([bits >> unit & 1 for unit in range(3)], dtype=torch.float64)
        probability = torch.where(mask > 0, layer.probabilities, 1 - layer.probabilities).prod()
        mean += probability * layer.under(mask)
        dimension += float(probability) * float(torch.linalg.matrix_rank(layer.under(mask)))
    torch.testing.assert_close(layer.masked_metric, mean)
    assert layer.dimension == pytest.approx(dimension)


def test_probabilities_are_those_of_the_logits():
    learner = random(outer.MTNet, models.mlp(1, [3], 1), inner.MetaSGD(0.1))
    metrics = layer_metrics(learner)
    fractions = inner.adapted_fraction(learner.meta.rule)
    for name, layer in metrics.layers.items():
        torch.testing.assert_close(layer.probabilities.mean(), fractions[f"{name}.W"].detach())
    assert list(metrics.layers) == ["0", "2"]


def test_spectra_are_squares_of_singular_values():
    layer = layer_metrics(random(outer.MTNet, nn.Conv2d(2, 5, 3))).layers[""]
    transform, root = layer.transform, layer.probabilities.sqrt()
    assert transform.shape == (5, 5)
    torch.testing.assert_close(layer.spectrum, torch.linalg.svdvals(transform).square())
    masked = torch.linalg.svdvals(transform * root).square()
    torch.testing.assert_close(layer.masked_spectrum, masked)


def test_layers_that_do_not_adapt_do_not_move():
    learner = random(outer.TNet, models.mlp(1, [3], 1), fast="2")
    layers = layer_metrics(learner).layers
    assert (layers["0"].dimension, layers["2"].dimension) == (0, 1)
    assert not layers["0"].masked_metric.any()


def test_masks_of_one_group():
    rule = inner.Groups({"0": inner.Masked(inner.SGD(0.1)), "*": inner.SGD(0.1)})
    learner = random(outer.TNet, models.mlp(1, [3], 1), rule)
    layers = layer_metrics(learner).layers
    zeta = learner.meta.rule[0]["mask"]["0.W"]["logits"]
    torch.testing.assert_close(layers["0"].probabilities, zeta.detach().sigmoid())
    assert layers["2"].probabilities.tolist() == [1]


def test_of_float32_in_float64_and_detached():
    learner = outer.TNet(inner.t_net(nn.Linear(1, 2)), F.mse_loss, inner.SGD(0.1), num_steps=1)
    layer = layer_metrics(learner).layers[""]
    with torch.no_grad():
        learner.model.T.weight.zero_()
    assert layer.metric.tolist() == [[1, 0], [0, 1]]
    assert layer.metric.dtype == torch.float64
    assert not layer.metric.requires_grad


def test_text_and_plot():
    metrics = layer_metrics(random(outer.MTNet, models.mlp(1, [3], 1)))
    first, second = str(metrics).splitlines()
    assert first.startswith(f"0: {metrics.layers['0'].dimension:.1f} of 3 dimensions, eigenvalues ")
    assert second.startswith("2: ")
    ax = metrics.plot()
    assert ax.get_yscale() == "log"
    solid, dashed, *rest = ax.get_lines()
    assert len(rest) == 2
    assert list(solid.get_ydata()) == metrics.layers["0"].masked_spectrum.tolist()
    assert list(dashed.get_ydata()) == metrics.layers["0"].spectrum.tolist()
    plain = layer_metrics(random(outer.TNet, models.mlp(1, [3], 1)))
    assert len(plain.plot().get_lines()) == 2


def adapting_t():
    model = inner.t_net(models.mlp(1, [2], 1))
    return layer_metrics(outer.MAML(model, F.mse_loss, inner.SGD(0.1), num_steps=1))


def layer():
    return layer_metrics(random(outer.TNet, nn.Linear(1, 2))).layers[""]


BAD = [
    (lambda: layer_metrics("learner"), TypeError, "learner must be a MetaLearner"),
    (lambda: layer_metrics(sine_learner()), ValueError, "Write outer.TNet(inner.t_net(model), "),
    (
        adapting_t,
        ValueError,
        "['0.T.weight', '2.T.weight'] among fast parameters. Write outer.TNet",
    ),
    (lambda: layer().under([1, 0]), TypeError, "mask must be a tensor"),
    (lambda: layer().under(torch.ones(3)), ValueError, "mask must be shaped (2,); got (3,)."),
    (
        lambda: layer_metrics(sine_learner().adapt(sine_episodes().support)),
        TypeError,
        "learner must be a MetaLearner",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
