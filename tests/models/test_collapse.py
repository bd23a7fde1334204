import copy

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils.parametrizations import orthogonal

from metalearn import inner, models, outer
from tests.cases import sine_episodes, sine_learner


def random(model):
    """Return a model in float64 whose tensors, matrices T too, are random."""
    torch.manual_seed(0)
    model = model.double()
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(torch.randn_like(param) / max(1, param[0].numel()) ** 0.5)
    return model


def assert_equal(model, shape, names):
    """Compare a model's outputs and their slope with those of its collapsed model; return this."""
    x, before = torch.randn(shape, dtype=torch.float64), copy.deepcopy(model.state_dict())
    collapsed = models.collapse(model)
    torch.testing.assert_close(collapsed(x), model(x), rtol=1e-12, atol=1e-12)
    assert list(collapsed.state_dict()) == names
    assert not {p.data_ptr() for p in collapsed.parameters()} & {
        p.data_ptr() for p in model.parameters()
    }
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert list(model.state_dict()) == list(before)
    return collapsed


def test_a_linear_network_is_one_matrix():
    model = random(models.linear_network(100, [64, 64, 64], 5))
    collapsed = assert_equal(model, (7, 100), ["0.weight"])
    product = model[3].weight @ model[2].weight @ model[1].weight @ model[0].weight
    torch.testing.assert_close(collapsed[0].weight, product)
    collapsed.load_state_dict(models.linear_network(100, [], 5).double().state_dict())


@pytest.mark.parametrize("biases", [(True, True), (True, False), (False, True)])
def test_biases_go_through_the_matrices_after_them(biases):
    first, second = (nn.Linear(3, 3, bias=bias) for bias in biases)
    assert_equal(random(nn.Sequential(first, second)), (4, 3), ["0.weight", "0.bias"])


def test_only_neighbours_are_joined_and_numbers_move_up():
    layers = nn.Linear(2, 3), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.Linear(5, 1)
    collapsed = assert_equal(
        random(nn.Sequential(*layers)), (6, 2), ["0.weight", "0.bias", "2.weight", "2.bias"]
    )
    assert [type(layer) for layer in collapsed] == [nn.Linear, nn.ReLU, nn.Linear]
    assert (collapsed[0].in_features, collapsed[0].out_features) == (2, 4)


def test_named_layers_keep_the_first_name():
    model = nn.Sequential()
    model.add_module("body", nn.Linear(2, 3))
    model.add_module("head", nn.Linear(3, 1))
    assert_equal(random(model), (6, 2), ["body.weight", "body.bias"])


@pytest.mark.parametrize(
    ("plain", "shape"),
    [
        (lambda: models.mlp(2, [5, 4], 3), (6, 2)),
        (lambda: models.conv4(1, 5, num_filters=4), (3, 1, 28, 28)),
        (lambda: models.resnet12(3, 5, widths=[2, 3]), (2, 3, 16, 16)),
        (lambda: nn.Sequential(nn.Conv1d(2, 3, 2, padding=1), nn.Flatten()), (3, 2, 4)),
        (lambda: nn.Conv3d(1, 2, 2, bias=False), (1, 1, 3, 3, 3)),
        (lambda: nn.Linear(3, 2), (4, 3)),
    ],
)
def test_a_t_net_is_its_plain_model(plain, shape):
    model = plain()
    names = list(model.state_dict())
    collapsed = assert_equal(random(inner.t_net(model)), shape, names)
    collapsed.load_state_dict(plain().state_dict())


def test_a_grouped_convolution_with_t_reads_all_channels():
    model = inner.t_net(nn.Conv2d(4, 6, 3, stride=2, groups=2, padding_mode="circular", padding=1))
    collapsed = assert_equal(random(model), (3, 4, 8, 8), ["weight", "bias"])
    assert collapsed.groups == 1
    assert collapsed.weight.shape == (6, 4, 3, 3)


def test_a_t_net_of_a_linear_network_is_one_matrix_too():
    assert_equal(random(inner.t_net(models.linear_network(3, [4], 2))), (5, 3), ["0.weight"])


def test_a_layer_in_two_places_stays_one():
    layer = nn.Linear(2, 2)
    model = random(inner.t_net(nn.Sequential(layer, nn.ReLU(), layer)))
    collapsed = assert_equal(model, (4, 2), ["0.weight", "0.bias", "2.weight", "2.bias"])
    assert collapsed[0] is collapsed[2]


def test_constants_stay_constant():
    layers = nn.Linear(2, 2).requires_grad_(False), nn.ReLU(), nn.Linear(2, 1)
    collapsed = models.collapse(nn.Sequential(inner.t_net(layers[0]), *layers[1:]))
    assert [param.requires_grad for param in collapsed.parameters()] == [False] * 2 + [True] * 2


@pytest.mark.parametrize("method", [outer.TNet, outer.MTNet])
def test_an_adapted_model(method):
    model = random(inner.t_net(models.mlp(1, [6], 1)))
    learner = method(model, F.mse_loss, inner.SGD(0.1), num_steps=2)
    episodes = sine_episodes()
    adapted = learner.adapt(episodes.support)
    collapsed = models.collapse(adapted[1])
    torch.testing.assert_close(
        collapsed(episodes.query.x[1]), adapted(episodes.query.x)[1], rtol=1e-12, atol=1e-12
    )
    assert list(collapsed.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    loss = F.mse_loss(collapsed(episodes.query.x[1]), episodes.query.y[1])
    assert all(grad.any() for grad in torch.autograd.grad(loss, list(collapsed.parameters())))


def test_layers_that_do_more_are_left():
    hooked = nn.Linear(2, 2)
    hooked.register_forward_hook(lambda module, args, output: 2 * output)
    layers = nn.Linear(2, 2), hooked, orthogonal(nn.Linear(2, 2)), nn.Linear(2, 1)
    model = nn.Sequential(*layers).double()
    assert_equal(model, (3, 2), list(model.state_dict()))


class Reversed(nn.Sequential):
    def forward(self, x):
        for layer in reversed(self):
            x = layer(x)
        return x


def test_a_sequence_with_a_forward_of_its_own_is_left():
    assert_equal(
        random(Reversed(nn.Linear(2, 2), nn.Linear(2, 2))),
        (3, 2),
        ["0.weight", "0.bias", "1.weight", "1.bias"],
    )


def hooked_t_net():
    model = inner.t_net(models.mlp(1, [2], 1))
    model[0].W.register_forward_hook(lambda *_: None)
    return model


BAD = [
    (
        sine_learner,
        ValueError,
        "got a learner. Write collapse(learner.model), or collapse(learner.ad",
    ),
    (lambda: sine_learner().adapt(sine_episodes().support), TypeError, "be an nn.Module"),
    (lambda: "mlp", TypeError, "collapse's model must be an nn.Module"),
    (hooked_t_net, ValueError, "got Linear in '0'. Remove hooks and parametrizations first."),
    (lambda: inner.t_net(orthogonal(nn.Linear(2, 2))), ValueError, "ParametrizedLinear in 'the m"),
]


@pytest.mark.parametrize(("make", "error", "message"), BAD)
def test_bad_input(make, error, message):
    with pytest.raises(error) as raised:
        models.collapse(make())
    assert message in str(raised.value)
