import copy
import dataclasses

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import _tasks, evaluate, functional, inner, models, outer
from metalearn._layers import Inputs, Layers, _sequence
from metalearn._layers._convolution import convolve
from metalearn._tasks import take
from metalearn.types import Batch, Episode


class Unknown(nn.Module):
    """What is computed by `vmap`, or by the model itself."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)


def convolutions():
    body = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2)
    )
    more = [
        nn.Conv2d(4, 4, 3, stride=2, groups=2, bias=False),
        nn.BatchNorm2d(4, affine=False),
        nn.Tanh(),
    ]
    head = nn.Sequential(
        nn.AvgPool2d(1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3, bias=False)
    )
    return models.use_batch_statistics(nn.Sequential(body, *more, head))


def vectors_by_support():
    layers = (
        nn.Linear(4, 6),
        nn.BatchNorm1d(6),
        nn.GELU(),
        nn.Linear(6, 6),
        nn.BatchNorm1d(6, affine=False),
        nn.Linear(6, 3),
    )
    return models.use_batch_statistics(nn.Sequential(*layers), "support")


def mixed_norms():
    """A norm by the support set, which tells its examples' weights to the other one too."""
    norms = models.SupportNorm(6), nn.ReLU(), nn.Linear(6, 6), models.BatchNorm(6)
    return nn.Sequential(nn.Linear(4, 6), *norms, nn.Linear(6, 3))


MODELS = {
    "mlp": (lambda: models.mlp(1, [6, 6], 3), (1,)),
    "norms of vectors": (
        lambda: nn.Sequential(nn.Linear(4, 6), models.BatchNorm(6), nn.GELU(), nn.Linear(6, 3)),
        (4,),
    ),
    "conv4": (lambda: models.conv4(1, 3, num_filters=4, image_size=28), (1, 28, 28)),
    "conv4, pooled": (
        lambda: models.conv4(2, 3, num_filters=4, image_size=16, downsample="max_pool"),
        (2, 16, 16),
    ),
    "convolutions": (convolutions, (2, 12, 12)),
    "by support": (
        lambda: models.conv4(1, 3, num_filters=4, image_size=28, batch_statistics="support"),
        (1, 28, 28),
    ),
    "vectors by support": (vectors_by_support, (4,)),
    "vectors, mixed norms": (mixed_norms, (4,)),
}
FAST = {
    "weights alone": "*weight",
    "biases alone": "*bias",
    "the head": lambda name: name.endswith(LAST),
}
LAST = ("4.weight", "4.bias", "3.3.weight", "3.weight", "head.weight", "head.bias")
ESTIMATORS = [outer.Unrolled(), outer.Stepwise(), outer.Unrolled(order=1)]


def built(name):
    torch.manual_seed(0)
    return MODELS[name][0]().double()


def episodes(shape):
    torch.manual_seed(1)
    support, query = (
        Batch(torch.randn(3, n, *shape, dtype=torch.float64), torch.arange(3 * n).reshape(3, n) % 3)
        for n in (4, 6)
    )
    return Episode(support, query)


def gradients(model, shape, **options):
    learner = outer.MetaLearner(model, F.cross_entropy, inner.SGD(0.3), num_steps=2, **options)
    estimate = learner.estimate(episodes(shape))
    return estimate.loss, [*estimate.gradient.init.values(), *estimate.gradient.shared.values()]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=["unrolled", "stepwise", "order 1"])
@pytest.mark.parametrize("name", MODELS)
class TestIsWhatVmapComputes:
    @pytest.mark.parametrize("batching", ["vmap", "loop"])
    def test_of_all_parameters(self, name, batching, estimator):
        options = {"batching": batching, "estimator": estimator, "support_batches": 2}
        known, unknown = (
            gradients(wrap(built(name)), MODELS[name][1], **options)
            for wrap in (nn.Sequential, Unknown)
        )
        torch.testing.assert_close(known, unknown, rtol=1e-11, atol=1e-13)

    @pytest.mark.parametrize("fast", FAST)
    def test_of_some(self, name, fast, estimator):
        known, unknown = (
            gradients(wrap(built(name)), MODELS[name][1], fast=FAST[fast], estimator=estimator)
            for wrap in (nn.Sequential, Unknown)
        )
        torch.testing.assert_close(known, unknown, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    ("estimator", "support"),
    [
        (outer.Unrolled(), 1),
        (outer.Unrolled(order=1), 1),
        (outer.Unrolled(multi_step=outer.MultiStep()), 1),
        (outer.Stepwise(), 1 + 3),
    ],
    ids=str,
)
def test_what_does_not_adapt_is_computed_once(estimator, support, monkeypatch):
    seen = []
    monkeypatch.setattr(
        _sequence, "convolve", lambda x, *rest: seen.append(len(x)) or convolve(x, *rest)
    )
    model = models.conv4(1, 3, num_filters=4, image_size=28).double()
    learner = outer.ANIL(model, F.cross_entropy, inner.SGD(0.3), num_steps=3, estimator=estimator)
    tasks = episodes((1, 28, 28))
    learner.estimate(tasks)  # the checks of a first call
    seen.clear()
    learner.estimate(tasks)
    # four convolutions of all tasks' images
    assert [seen.count(3 * 4), seen.count(3 * 6)] == [4 * support, 4]


def test_every_part_of_a_support_set_is_computed():
    options = {"fast": "*head.*", "support_batches": 2}
    known, unknown = (
        gradients(wrap(built("conv4")), (1, 28, 28), **options) for wrap in (nn.Sequential, Unknown)
    )
    torch.testing.assert_close(known, unknown, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batching", [{}, {"batching": "loop"}, {"chunk_size": 2}], ids=str)
def test_adapted_models(name, batching):
    tasks, results = episodes(MODELS[name][1]), []
    for wrap in (nn.Sequential, Unknown):
        learner = outer.MAML(
            wrap(built(name)), F.cross_entropy, inner.SGD(0.3), num_steps=2, **batching
        )
        adapted = learner.adapt(tasks.support)
        with torch.no_grad():
            results.append((adapted(tasks.query), adapted.loss(tasks.query), learner(tasks)))
    torch.testing.assert_close(*results, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", ["mlp", "by support", "vectors by support"])
def test_adapted_models_do_without_vmap(name, monkeypatch):
    learner = outer.MAML(built(name), F.cross_entropy, inner.SGD(0.1), num_steps=2)
    tasks = episodes(MODELS[name][1])
    adapted = learner.adapt(tasks.support)
    monkeypatch.setattr(_tasks, "vmap_tasks", None)
    assert adapted(tasks.query).shape == (3, 6, 3)


class Distribution(nn.Linear):
    """A model whose output `vmap` cannot return."""

    def forward(self, x):
        return torch.distributions.Normal(super().forward(x), 1.0)


@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_an_output_of_any_kind_is_judged(batching):
    def criterion(output, y):
        return -output.log_prob(y[..., None].double()).mean()

    learner = outer.MAML(
        Distribution(1, 1).double(), criterion, inner.SGD(0.1), num_steps=1, batching=batching
    )
    tasks = episodes((1,))
    with torch.no_grad():
        expected = learner(tasks)
    torch.testing.assert_close(learner.adapt(tasks.support).loss(tasks.query).mean(), expected)
    torch.testing.assert_close(
        evaluate(learner, [tasks], num_tasks=3)["loss"].mean, expected.item()
    )


class Regularised(functional.OnQuery):
    """A loss of the user's own: that of the outputs is a part of it."""

    def __call__(self, params, shared, episode):
        return super().__call__(params, shared, episode) + 100


def test_a_subclass_of_a_loss_is_what_it_says():
    model = models.mlp(1, [5], 3).double()
    loss = Regularised(functional.ModelLoss(model, F.cross_entropy))
    learner = outer.MetaLearner(
        model, F.cross_entropy, inner.SGD(0.1), num_steps=1, query_loss=loss
    )
    tasks = episodes((1,))
    adapted = learner.adapt(tasks.support)
    with torch.no_grad():
        judged = adapted.loss_of(adapted(tasks.query), tasks.query)
        found = [learner(tasks), adapted.loss(tasks.query).mean(), judged.mean()]
    for each in (*found, learner(tasks)):
        assert 100 < each < 103


def test_a_query_loss_without_a_query_set():
    learner = outer.MetaLearner(
        models.mlp(1, [5], 3).double(),
        F.cross_entropy,
        inner.SGD(0.1),
        num_steps=1,
        query_loss=lambda params, shared, episode: params["0.weight"].square().sum(),
    )
    tasks = Episode(episodes((1,)).support, Batch(()))
    with torch.no_grad():
        without = learner(tasks)
    torch.testing.assert_close(without, learner(tasks).detach())


def test_a_query_loss_of_another_model_is_that_models():
    model, other = (
        nn.Sequential(nn.Linear(1, 5), act, nn.Linear(5, 3)).double()
        for act in (nn.ReLU(), nn.Tanh())
    )
    learner = outer.MAML(model, F.cross_entropy, inner.SGD(0.1), num_steps=1)
    tasks, query_loss = (
        episodes((1,)),
        functional.OnQuery(functional.ModelLoss(other, F.cross_entropy)),
    )
    adapted = dataclasses.replace(learner.adapt(tasks.support), query_loss=query_loss)
    expected = torch.stack(
        [query_loss(*take((adapted.params, {}, tasks), task)) for task in range(3)]
    )
    torch.testing.assert_close(adapted.loss(tasks.query), expected)
    torch.testing.assert_close(adapted.loss_of(adapted(tasks.query), tasks.query), expected)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_single_examples(name, batching):
    if "vectors" in name:
        pytest.skip("one vector has no variance")
    torch.manual_seed(1)
    x = torch.randn(3, 1, *MODELS[name][1], dtype=torch.float64)
    one = Episode(Batch(x, torch.tensor([[0], [1], [2]])), Batch(x, torch.tensor([[1], [0], [2]])))
    results = []
    for wrap in (nn.Sequential, Unknown):
        learner = outer.MAML(
            wrap(built(name)), F.cross_entropy, inner.SGD(0.3), num_steps=2, batching=batching
        )
        learner(one).backward()
        results.append([param.grad for param in learner.parameters()])
    torch.testing.assert_close(*results, rtol=1e-11, atol=1e-13)


def test_norms_of_one_channel():
    layers = [nn.Linear(1, 1), models.BatchNorm(1), nn.Tanh(), nn.Linear(1, 3)]
    for fast in ("*", "*0.weight"):
        known, unknown = (
            gradients(wrap(copy.deepcopy(nn.Sequential(*layers)).double()), (1,), fast=fast)
            for wrap in (nn.Sequential, Unknown)
        )
        torch.testing.assert_close(known, unknown, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("of_tasks", [False, True])
def test_statistics_of_a_support_set_in_bfloat16_are_precise(of_tasks):
    model = models.use_batch_statistics(nn.Sequential(nn.BatchNorm1d(2)), "support").bfloat16()
    x = (100 + torch.rand(1, 12, 2)).bfloat16()
    ours = Layers.of(model)({}, x if of_tasks else x[0], Inputs(of_tasks, num_support=8)).reshape(
        12, 2
    )
    support, query = x[0].double().split([8, 4])
    expected = (query - support.mean(0)) / (support.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(ours[8:].double(), expected, rtol=1e-2, atol=1e-2)


def test_replicas():
    learners = [
        outer.MAML(models.mlp(1, [5], 3).double(), F.cross_entropy, inner.SGD(0.1), num_steps=2)
        for _ in "ab"
    ]
    unknown = [
        outer.MAML(
            Unknown(copy.deepcopy(learner.model)), F.cross_entropy, inner.SGD(0.1), num_steps=2
        )
        for learner in learners
    ]
    tasks = episodes((1,))
    tasks = Episode(*(Batch(torch.cat([b.x, b.x[:1]]), torch.cat([b.y, b.y[:1]])) for b in tasks))
    first, second = (outer.Replicas(each) for each in (learners, unknown))
    for replicas in (first, second):
        replicas(tasks).sum().backward()
    grads = ([param.grad for param in replicas.parameters()] for replicas in (first, second))
    torch.testing.assert_close(*grads, rtol=1e-11, atol=1e-13)


def test_known_are_sequences_of_known_layers_each_used_once():
    class Own(nn.Linear):
        pass

    tied, alias = (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in "ab")
    alias.also = alias[0].weight
    tied[1].weight = tied[0].weight
    layer = nn.Linear(2, 2)
    assert Layers.of(nn.Sequential(nn.Sequential(nn.Linear(2, 3)), nn.ReLU()))
    unknown = [
        Own(2, 2),
        nn.Sequential(),
        tied,
        alias,
        nn.Sequential(layer, layer),
        nn.Dropout(),
        nn.BatchNorm1d(3),
        models.use_batch_statistics(nn.BatchNorm1d(3), "per_step", num_steps=1),
        nn.Conv2d(1, 2, 3, padding="same"),
        nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"),
        nn.MaxPool2d(2, return_indices=True),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(2),
        nn.utils.parametrizations.orthogonal(nn.Linear(2, 2)),
        nn.LazyLinear(2),
    ]
    assert [layer for layer in unknown if Layers.of(layer)] == []


def test_takes_examples_and_no_layer_that_was_changed():
    layers, images = Layers.of(models.mlp(2, [3], 1)), Layers.of(models.conv4(1, 2))
    assert layers.take(torch.zeros(5, 2), False)
    assert layers.take(torch.zeros(4, 5, 2), True)
    assert layers.take(torch.zeros(4, 7, 5, 2), True)
    assert images.take(torch.zeros(4, 5, 1, 28, 28), True)
    assert not layers.take(torch.zeros(2), False)
    assert not layers.take(torch.zeros(5, 2), True)
    assert not layers.take({"x": torch.zeros(5, 2)}, False)
    assert not images.take(torch.zeros(5, 1, 28, 28), True)

    handle = layers.model[0].register_forward_hook(lambda *_: None)
    assert not layers.take(torch.zeros(5, 2), False)
    handle.remove()
    assert layers.take(torch.zeros(5, 2), False)
    layers.model[1] = nn.Tanh()
    assert not layers.take(torch.zeros(5, 2), False)
    images.model.head.forward = lambda x: x
    assert not images.take(torch.zeros(4, 5, 1, 28, 28), True)


CHANGES = [
    lambda layers: setattr(layers[0], "padding_mode", "circular"),
    lambda layers: setattr(layers[0], "padding", "same"),
    lambda layers: setattr(layers[0], "__class__", type("Own", (nn.Conv2d,), {})),
    lambda layers: layers[1].register_buffer("running_mean", torch.zeros(4)),
    lambda layers: setattr(layers[1], "example_weight", torch.ones(5)),
    lambda layers: setattr(layers[3], "return_indices", True),
    lambda layers: setattr(layers[4], "output_size", 2),
    lambda layers: setattr(layers[5], "start_dim", 2),
]


@pytest.mark.parametrize("change", CHANGES)
def test_layers_that_were_changed_are_no_longer_known(change):
    layers = [
        nn.Conv2d(1, 4, 3),
        models.BatchNorm(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ]
    known, images = Layers.of(nn.Sequential(*layers)), torch.zeros(2, 1, 6, 6)
    assert known.take(images, False)
    change(layers)
    assert not known.take(images, False)


def test_hooks_of_all_modules_are_called():
    known = Layers.of(models.mlp(2, [3], 1))
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    taken = known.take(torch.zeros(5, 2), False)
    handle.remove()
    assert not taken
    assert known.take(torch.zeros(5, 2), False)


def test_a_layer_that_was_replaced_counts():
    model = models.mlp(1, [4], 3).double()
    learner = outer.MAML(model, F.cross_entropy, inner.SGD(0.1), num_steps=1)
    before = learner(episodes((1,)))
    model[1] = nn.Tanh()
    expected = outer.MAML(copy.deepcopy(model), F.cross_entropy, inner.SGD(0.1), num_steps=1)(
        episodes((1,))
    )
    torch.testing.assert_close(learner(episodes((1,))), expected)
    assert not torch.allclose(before, expected)


@pytest.mark.parametrize("shape", [(4, 5, 2), (4, 7, 5, 2)])
@pytest.mark.parametrize("bias", ["none", "shared", "own"])
@pytest.mark.parametrize("own_weight", [True, False])
def test_linear_of_examples_of_any_shape(shape, bias, own_weight):
    torch.manual_seed(0)
    layer, x = nn.Linear(2, 3, bias=bias != "none"), torch.randn(shape)
    tensors = {"weight": torch.randn(4, 3, 2)} if own_weight else {}
    tensors |= {"bias": torch.randn(4, 3)} if bias == "own" else {}
    expected = torch.func.vmap(lambda own, x: torch.func.functional_call(layer, own, (x,)))(
        tensors, x
    )
    torch.testing.assert_close(Layers.of(layer)(tensors, x, Inputs(of_tasks=True)), expected)
