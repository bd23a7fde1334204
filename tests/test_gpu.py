"""On a GPU everything is what it is on a CPU, to rounding."""

import copy

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import baselines, data, evaluate, fit, functional, inner, models, outer
from metalearn._tree import tree_map
from metalearn.types import Batch, Episode
from tests.cases import sine_episodes

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

RULES = [
    inner.SGD(0.05),
    inner.Adam(0.01),
    inner.MetaSGD(0.05),
    inner.LSTM(),
    inner.Turtle(),
    inner.MetaCurvature(0.05),
]
ESTIMATORS = [
    outer.Unrolled(),
    outer.Unrolled(order=1),
    outer.Stepwise(),
    outer.Stepwise(segment=2),
    outer.Implicit(5.0, outer.CG(3)),
    outer.Implicit(5.0, outer.CG(3), epsilon=0.01),
    outer.ForwardMode(),
    outer.ForwardGradient(2),
    outer.ParameterDifference(),
    outer.EvolutionStrategies(),
    outer.PersistentES(4, 0.01, horizon=6),
]
NETWORKS = {
    "stride": {},
    "max_pool": {"downsample": "max_pool"},
    "support": {"batch_statistics": "support"},
}


def image_episodes(num_tasks=3):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(num_tasks, 15, 1, 16, 16, generator=generator, dtype=torch.float64)
    y = torch.arange(15).remainder(5).repeat(num_tasks, 1)
    return Episode(Batch(x[:, :5], y[:, :5]), Batch(x[:, 5:], y[:, 5:]))


def assert_same(learner, episodes, **batching):
    on_gpu = copy.deepcopy(learner).to("cuda")
    on_gpu.set_batching(**batching)
    keys = torch.arange(len(episodes.query.x))
    expected = learner.estimate(episodes, keys)
    got = on_gpu.estimate(tree_map(lambda leaf: leaf.to("cuda"), episodes), keys.to("cuda"))
    # The gradients of biases that batch normalisation makes idle are zero but for rounding.
    torch.testing.assert_close(
        tree_map(torch.Tensor.cpu, got[:2]), expected[:2], rtol=1e-8, atol=1e-12
    )


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_estimators(estimator):
    torch.manual_seed(0)
    rule = (
        inner.LearnedRate(inner.SGD(0.01))
        if isinstance(estimator, outer.ForwardMode)
        else inner.SGD(0.01)
    )
    model = models.mlp(1, [6, 6], 1).double()
    options = {"learn_init": False} if isinstance(estimator, outer.ForwardMode) else {}
    learner = outer.MetaLearner(
        model, F.mse_loss, rule, num_steps=3, estimator=estimator, **options
    )
    assert_same(learner, sine_episodes())


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_rules(rule, cuda_graph):
    torch.manual_seed(0)
    learner = outer.MAML(models.mlp(1, [6, 6], 1).double(), F.mse_loss, rule, num_steps=2)
    assert_same(learner, sine_episodes(), cuda_graph=cuda_graph)


@pytest.mark.parametrize(
    "batching", [{}, {"batching": "loop"}, {"cuda_graph": True}, {"chunk_size": 2}], ids=str
)
@pytest.mark.parametrize("network", NETWORKS)
def test_convolutions(network, batching):
    torch.manual_seed(0)
    model = models.conv4(1, 5, num_filters=6, image_size=16, **NETWORKS[network]).double()
    learner = outer.MAML(model, F.cross_entropy, inner.SGD(0.1), num_steps=2)
    assert_same(learner, image_episodes(), **batching)


@pytest.mark.parametrize("batching", [{}, {"batching": "loop"}], ids=str)
def test_normalisation_without_weights(batching):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6, affine=False, track_running_stats=False)
    layers = [
        nn.Conv2d(1, 6, 3, 2),
        norm,
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    ]
    learner = outer.MAML(
        nn.Sequential(*layers).double(), F.cross_entropy, inner.SGD(0.1), num_steps=2
    )
    assert_same(learner, image_episodes(), **batching)


def test_convolutions_that_tasks_share():
    torch.manual_seed(0)
    model = models.conv4(1, 5, num_filters=6, image_size=16).double()
    assert_same(outer.ANIL(model, F.cross_entropy, inner.SGD(0.1), num_steps=2), image_episodes())


def test_a_convolution_of_groups_and_holes():
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(1, 4, 3),
        nn.Tanh(),
        nn.Conv2d(4, 4, 3, dilation=2, groups=2),
        nn.AdaptiveAvgPool2d(1),
    ]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4, 5)).double()
    assert_same(outer.MAML(model, F.cross_entropy, inner.SGD(0.1), num_steps=2), image_episodes())


def test_a_residual_network():
    torch.manual_seed(0)
    model = models.resnet12(1, 5, widths=[4, 4, 4, 4]).double()
    assert_same(outer.MAML(model, F.cross_entropy, inner.SGD(0.1), num_steps=1), image_episodes())


def test_dropout_under_stepwise_is_that_of_unrolled():
    gradients = []
    for estimator in (outer.Stepwise(segment=2), outer.Unrolled()):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 1))
        options = {"num_steps": 5, "estimator": estimator}
        learner = outer.MetaLearner(model.double(), F.mse_loss, inner.SGD(0.1), **options)
        keys = torch.arange(3, device="cuda")
        gradients.append(learner.to("cuda").estimate(sine_episodes(3).to("cuda"), keys).gradient)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_training_and_evaluation():
    images = data.ClassImages(torch.randint(256, (12, 10, 28, 28), dtype=torch.uint8)).to("cuda")
    tasks = data.EpisodeSampler(images, n_way=5, k_shot=1, num_query=2)
    learner = outer.MAML(
        models.conv4(1, 5, num_filters=8), F.cross_entropy, inner.SGD(0.4), num_steps=1
    ).to("cuda")
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-3, fused=True)
    for cuda_graph in (False, True):
        learner.set_batching(cuda_graph=cuda_graph)
        assert (
            fit(learner, tasks, optimizer, 5, meta_batch_size=4, progress=False)
            .loss.isfinite()
            .all()
        )
    metrics = {"accuracy": functional.accuracy}
    on_gpu = evaluate(
        learner, tasks, num_tasks=20, metrics=metrics, generator=torch.Generator().manual_seed(0)
    )
    assert 0 < on_gpu["accuracy"].mean <= 1
    metric = baselines.ProtoNet(models.conv4(1, 5, num_filters=8).features, 8, 8).to("cuda")
    optimizer = torch.optim.Adam(metric.parameters())
    assert fit(metric, tasks, optimizer, 3, meta_batch_size=2, progress=False).loss.isfinite().all()


def test_bfloat16():
    learner = outer.MAML(
        models.conv4(1, 5, num_filters=8, image_size=16),
        F.cross_entropy,
        inner.SGD(0.1),
        num_steps=1,
    )
    episodes = tree_map(lambda leaf: leaf.to("cuda"), image_episodes())
    episodes = Episode(*(batch._replace(x=batch.x.float()) for batch in episodes))
    losses = {}
    for cuda_graph in (False, True):
        own = copy.deepcopy(learner).to("cuda")
        own.set_batching(cuda_graph=cuda_graph)
        optimizer = torch.optim.SGD(own.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            with torch.autocast("cuda", torch.bfloat16):
                losses[cuda_graph] = own(episodes)
            losses[cuda_graph].backward()
            optimizer.step()
        assert all(param.grad.dtype == torch.float32 for param in own.parameters())
    torch.testing.assert_close(losses[True], losses[False], rtol=0.05, atol=0.05)
