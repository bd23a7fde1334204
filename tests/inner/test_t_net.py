import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import inner, models
from metalearn.inner._t_net import TLayer


def random_t_net():
    """Return a T-net of one layer with a random T, an input and a target."""
    torch.manual_seed(0)
    layer = inner.t_net(nn.Linear(3, 4).double())
    nn.init.normal_(layer.T.weight)
    return layer, torch.randn(1, 3, dtype=torch.float64), torch.randn(1, 4, dtype=torch.float64)


@pytest.mark.parametrize(
    "mask", [None, torch.tensor([1.0, 0.0, 1.0, 1.0]).double()], ids=["T-net", "MT-net"]
)
def test_a_step_is_equation_17_or_21(mask):
    layer, x, target = random_t_net()
    transform, lr = layer.T.weight.detach(), 0.1
    rule = inner.SGD(lr) if mask is None else inner.Masked(inner.SGD(lr))
    fast = {"W.weight": layer.W.weight.detach()}
    y = layer(x)

    def loss(params):
        return F.mse_loss(torch.func.functional_call(layer, params, x), target)

    state = () if mask is None else {"mask": {"W": mask}, "rule": ()}
    meta = {} if mask is None else {"mask": {}, "rule": {}}
    updates, _ = rule.update(meta, torch.func.grad(loss)(fast), state, fast, torch.tensor(0.0), 0)
    moved = torch.func.functional_call(
        layer, {"W.weight": fast["W.weight"] + updates["W.weight"]}, x
    )

    # The gradient to A = T W, taken with the product as the parameter.
    product = (transform @ layer.W.weight).detach().requires_grad_()
    bias = transform @ layer.W.bias.detach()
    (to_product,) = torch.autograd.grad(F.mse_loss(x @ product.T + bias, target), product)
    metric = transform @ transform.T if mask is None else transform @ torch.diag(mask) @ transform.T
    torch.testing.assert_close(moved, y - lr * (metric @ to_product @ x[0]))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (lambda: models.mlp(2, [5, 4], 3), (6, 2)),
        (lambda: models.conv4(1, 5, num_filters=4), (3, 1, 28, 28)),
        (lambda: nn.Sequential(nn.Conv1d(2, 3, 2), nn.Flatten()), (3, 2, 4)),
        (lambda: nn.Conv3d(1, 2, 2), (1, 1, 3, 3, 3)),
    ],
)
def test_computes_what_the_model_did(model, shape):
    torch.manual_seed(0)
    model, x = model(), torch.randn(shape)
    before = model(x)
    transformed = inner.t_net(model)
    torch.testing.assert_close(transformed(x), before)
    layers = [module for module in transformed.modules() if isinstance(module, TLayer)]
    assert layers
    for layer in layers:
        assert layer.T.bias is None
        assert layer.T.weight.shape[:2] == (layer.W.weight.shape[0],) * 2


def test_dtype_is_the_layers():
    assert inner.t_net(nn.Linear(2, 2).double()).T.weight.dtype == torch.float64


def test_a_shared_layer_shares_its_matrix():
    layer = nn.Linear(2, 2)
    model = inner.t_net(nn.Sequential(layer, nn.ReLU(), layer))
    assert model[0] is model[2]
    assert len(list(model.parameters())) == 3


def test_attention_still_works():
    attention = inner.t_net(nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0))
    assert attention(torch.randn(3, 1, 4)).shape == (3, 1, 4)


BAD = [
    (lambda: inner.t_net(nn.ReLU()), ValueError, "have linear or convolutional layers"),
    (lambda: inner.t_net(inner.t_net(nn.Linear(2, 2))), ValueError, "Call t_net once."),
    (lambda: inner.t_net("mlp"), TypeError, "be an nn.Module"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
