import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import inner, models, outer
from metalearn._tree import tree_leaves, tree_map
from metalearn.types import Batch
from tests.cases import relative_difference, sine_learner

KINDS = [
    inner.KroneckerLinear(0.1),
    inner.KroneckerNetwork(0.1, num_layers=3),
    inner.KroneckerNetwork(0.1, normalise=True),
]


def count(rule, module):
    return sum(
        leaf.numel() for leaf in tree_leaves(rule.init_meta(dict(module.named_parameters())))
    )


def changed(rule, shape):
    """Return a gradient and random weights of the rule, with U of the gradient by the rule."""
    torch.manual_seed(0)
    grad = torch.randn(shape, dtype=torch.float64)
    weights = tree_map(torch.randn_like, rule.init_weights("w", grad))
    return grad, weights, rule.transform(weights, grad)


def test_linear_is_equation_5():
    grad, weights, transformed = changed(inner.KroneckerLinear(0.1, bias=True), (3, 4))
    matrix = torch.kron(weights["R"].T.contiguous(), weights["L"])
    vec = matrix @ grad.T.reshape(-1) + weights["b"].T.reshape(-1)  # vec stacks columns
    torch.testing.assert_close(transformed.T.reshape(-1), vec)


def test_network_is_equation_7():
    grad, weights, transformed = changed(
        inner.KroneckerNetwork(0.1, num_layers=2, activation="tanh"), (3, 4)
    )
    first, second = weights["layers"]
    expected = second["L"] @ torch.tanh(first["L"] @ grad @ first["R"]) @ second["R"]
    torch.testing.assert_close(transformed, expected)


@pytest.mark.parametrize("shape", [(3, 4), (5,), (5, 2, 3, 3)], ids=str)
@pytest.mark.parametrize(
    "options", [{"num_layers": 3, "activation": "identity"}, {"num_layers": 1}]
)
def test_a_chain_without_activation_is_one_pair_of_matrices(options, shape):
    torch.manual_seed(0)
    rule = inner.KroneckerNetwork(0.1, **options)
    grads = {"w": torch.randn(shape, dtype=torch.float64)}
    meta = tree_map(torch.randn_like, rule.init_meta(grads))
    linear, collapsed = rule.collapse(meta)
    seen = grads, (), grads, torch.zeros(()), 0
    ours, _ = linear.update(collapsed, *seen)
    theirs, _ = rule.update(meta, *seen)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert [leaf.shape for leaf in tree_leaves(collapsed)] == [
        leaf.shape for leaf in tree_leaves(linear.init_meta(grads))
    ]


def test_adapted_matrices_collapse_task_by_task(episodes):
    rule = inner.KroneckerNetwork(0.1, num_layers=3, activation="identity")
    xi = sine_learner(inner.SelfAdapting(rule, lr=0.1)).adapt(episodes.support).state["xi"]
    of_all = rule.collapse(xi)[1]
    of_one = rule.collapse(tree_map(lambda leaf: leaf[1], xi))[1]
    assert relative_difference(tree_map(lambda leaf: leaf[1], of_all), of_one) < 1e-12


@pytest.mark.parametrize(
    "options", [{"activation": "relu"}, {"activation": "identity", "normalise": True}]
)
def test_what_is_no_chain_is_not_collapsed(options):
    rule = inner.KroneckerNetwork(0.1, **options)
    with pytest.raises(ValueError, match=r'Write KroneckerNetwork\(0.1, 2, activation="identity"'):
        rule.collapse(rule.init_meta({"w": torch.zeros(2, 2)}))


def test_matrices_of_a_rule_in_another_one_collapse_as_the_error_says():
    rule = inner.KroneckerNetwork(0.1, activation="identity")
    learner = sine_learner(inner.LearnedRate(rule))
    for meta in (learner.meta.rule, sine_learner().meta.rule, learner):
        with pytest.raises(ValueError, match=r'meta must .* Pass .*, learner.meta.rule\["rule"\]'):
            rule.collapse(meta)
    assert rule.collapse(learner.meta.rule["rule"])[1].keys() == learner.meta.init.keys()


def test_normalised_network_scales_with_the_gradient():
    rule = inner.KroneckerNetwork(0.1, normalise=True)
    grad, weights, transformed = changed(rule, (3, 4))
    torch.testing.assert_close(rule.transform(weights, 7 * grad), 7 * transformed)
    assert rule.transform(weights, 0 * grad).eq(0).all()


@pytest.mark.parametrize(
    ("shape", "matrix"), [((3, 4), (3, 4)), ((5,), (5, 1)), ((5, 2, 3, 3), (2, 9))], ids=str
)
def test_the_factor_of_a_normalised_network_has_the_shape_of_the_gradient_matrix(shape, matrix):
    rule = inner.KroneckerNetwork(0.1, normalise=True)
    grad, weights, transformed = changed(rule, shape)
    assert weights["factor"].shape == matrix
    plain = inner.KroneckerNetwork(0.1).transform(weights, grad / grad.norm())
    # the same one for every filter
    expected = grad.norm() * weights["factor"] * plain.reshape(-1, *matrix)
    torch.testing.assert_close(transformed, expected.reshape(shape))


@pytest.mark.parametrize("rule", KINDS[::2], ids=str)
def test_convolutions_share_their_matrices_among_filters(rule):
    grad, weights, transformed = changed(rule, (5, 2, 3, 3))
    layers = weights.get("layers", [weights])
    assert (layers[0]["L"].shape, layers[0]["R"].shape) == ((2, 2), (9, 9))
    if len(layers) == 1:
        each = [weights["L"] @ one.reshape(2, 9) @ weights["R"] for one in grad]
        torch.testing.assert_close(transformed, torch.stack(each).reshape(grad.shape))


@pytest.mark.parametrize(
    ("rule", "model", "expected"),
    [
        (inner.KroneckerLinear(1.0), models.linear_network(100, [], 1), 10_001),
        (inner.KroneckerNetwork(1.0), models.linear_network(100, [], 1), 20_002),
        (inner.KroneckerLinear(1.0), models.linear_network(784, [], 5), 614_681),
        (inner.KroneckerNetwork(1.0, num_layers=4), models.linear_network(784, [], 5), 2_458_724),
    ],
    ids=str,
)
def test_parameter_counts_of_the_paper(rule, model, expected):
    assert count(rule, model) == expected


class Cnn(nn.Sequential):
    """The paper's network: convolutions with batch normalisation, and a head on what is left of the
    image."""

    def __init__(self, in_channels, filters, num_layers, pixels=1):
        blocks = [
            nn.Sequential(
                nn.Conv2d(filters if index else in_channels, filters, 3), nn.BatchNorm2d(filters)
            )
            for index in range(num_layers)
        ]
        super().__init__(*blocks, nn.Linear(filters * pixels, 10))


@pytest.mark.parametrize(
    ("model", "base", "printed"),
    [
        (Cnn(1, 64, 4), 112_586, "267451"),
        (Cnn(1, 64, 2), 38_474, "134171"),
        (Cnn(3, 32, 4), 29_226, "69325"),
        (Cnn(3, 32, 2), 10_602, "35117"),
        (Cnn(3, 32, 4, pixels=25), 36_906, "2.63M"),
        (Cnn(3, 32, 2, pixels=25), 18_282, "2.60M"),
    ],
    ids=[
        "Omniglot 4",
        "Omniglot 2",
        "CIFAR-FS 4",
        "CIFAR-FS 2",
        "mini-ImageNet 4",
        "mini-ImageNet 2",
    ],
)
def test_parameter_counts_of_the_papers_networks(model, base, printed):
    assert sum(param.numel() for param in model.parameters()) == base
    ours = count(inner.KroneckerNetwork(0.5, num_layers=4, normalise=True), model)
    assert printed in (f"{ours}", f"{ours / 1e6:.2f}M")


@pytest.mark.parametrize(
    "rule",
    [
        inner.KroneckerLinear(0.05),
        inner.KroneckerLinear(0.05, bias=True),
        inner.MetaCurvature(0.05),
    ],
    ids=str,
)
def test_identity_start_is_gradient_descent(rule, episodes):
    ours, plain = (
        sine_learner(rule).adapt(episodes.support),
        sine_learner(inner.SGD(0.05)).adapt(episodes.support),
    )
    assert relative_difference(ours.params, plain.params) < 1e-12


def test_one_layer_normalised_is_gradient_descent_too(episodes):
    rule = inner.KroneckerNetwork(0.05, num_layers=1, normalise=True)
    ours, plain = (
        sine_learner(rule).adapt(episodes.support),
        sine_learner(inner.SGD(0.05)).adapt(episodes.support),
    )
    assert relative_difference(ours.params, plain.params) < 1e-12


def test_normalised_network_at_a_zero_gradient_has_finite_derivatives(episodes):
    learner = sine_learner(inner.KroneckerNetwork(0.05, normalise=True))
    with torch.no_grad():
        learner.model[0].bias.fill_(-1e3)  # no unit is alive
    assert all(leaf.isfinite().all() for leaf in tree_leaves(learner.estimate(episodes).gradient))


BAD = [
    (lambda: inner.KroneckerLinear(0.0), ValueError, "KroneckerLinear's lr must be positive"),
    (lambda: inner.KroneckerLinear(0.1, bias=1), TypeError, "be True or False"),
    (lambda: inner.KroneckerNetwork(0.1, num_layers=0), ValueError, "at least 1"),
    (lambda: inner.KroneckerNetwork(0.1, activation="tan"), ValueError, "Did you mean 'tanh'?"),
    (
        lambda: count(inner.KroneckerLinear(0.1), nn.Embedding(20_000, 2)),
        ValueError,
        "a side of 20,000 in 'weight', shaped (20000, 2). Leave the parameter out of fast=",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn, self.head = kind(2, 3, batch_first=True), nn.Linear(3, 1)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


@pytest.mark.parametrize(("kind", "gates"), [(nn.RNN, 1), (nn.GRU, 3), (nn.LSTM, 4)])
def test_recurrent_weights_are_matrices_of_stacked_gates(kind, gates):
    """One L for the rows of all gates, so that one gate's gradient can move another, and with
    random L and R the update of the loop by hand."""
    torch.manual_seed(0)
    learner = outer.MAML(
        Recurrent(kind).double(),
        F.mse_loss,
        inner.KroneckerLinear(0.1),
        num_steps=2,
        batching="loop",
    )
    shapes = {name: (of["L"].shape, of["R"].shape) for name, of in learner.meta.rule.items()}
    rows = 3 * gates
    assert shapes["rnn.weight_ih_l0"] == ((rows, rows), (2, 2))
    assert shapes["rnn.weight_hh_l0"] == ((rows, rows), (3, 3))
    with torch.no_grad():
        for param in learner.rule.parameters():
            param.copy_(torch.randn_like(param))
    x, y = torch.randn(1, 4, 5, 2, dtype=torch.float64), torch.randn(1, 4, 5, 1).double()
    params = {name: p.detach().clone() for name, p in learner.model.named_parameters()}
    for _ in range(2):
        params = {name: param.detach().requires_grad_() for name, param in params.items()}
        loss = F.mse_loss(torch.func.functional_call(learner.model, params, (x[0],)), y[0])
        grads = torch.autograd.grad(loss, list(params.values()))
        for (name, param), grad in zip(params.items(), grads, strict=True):
            matrix = grad.reshape(len(grad), -1)
            of = learner.meta.rule[name]
            params[name] = param - 0.1 * (of["L"] @ matrix @ of["R"]).reshape(param.shape)
    adapted = learner.adapt(Batch(x, y)).params
    expected = {name: param.detach()[None] for name, param in params.items()}
    assert relative_difference(adapted, expected) < 1e-12
