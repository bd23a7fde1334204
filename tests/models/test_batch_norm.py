"""Where batch normalisation takes its statistics from, through the learner: the models are small
Conv-4s."""

import copy

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import data, evaluate, fit, functional, inner, models, outer
from metalearn._tree import tree_leaves, tree_map
from metalearn.models import BatchNorm
from metalearn.types import Batch, Episode

SOURCES = ["transductive", "support", "per_step", "frozen"]
IMAGES = data.ClassImages(torch.randint(256, (8, 12, 8, 8), generator=torch.manual_seed(0)).byte())
TASKS = data.EpisodeSampler(IMAGES, n_way=3, k_shot=2, num_query=3)


def model_of(source, num_layers=2):
    torch.manual_seed(0)
    model = models.conv4(
        1, 3, num_filters=4, num_layers=num_layers, batch_statistics=source, num_steps=2
    ).double()
    with torch.no_grad():
        for param in model.parameters():
            param.add_(0.1 * torch.randn_like(param))
        for norm in model.modules():
            if isinstance(norm, models.FrozenNorm):
                norm.mean.normal_()
    return model


def learner_of(source, num_layers=2, **options):
    options = {
        "criterion": functional.cross_entropy,
        "rule": inner.SGD(0.3),
        "num_steps": 2,
        **options,
    }
    return outer.MAML(model_of(source, num_layers), **options)


def episodes_of(num_tasks=2):
    episodes = TASKS.sample(num_tasks, generator=torch.Generator().manual_seed(1))
    support, query = (batch._replace(x=batch.x.double()) for batch in episodes)
    return Episode(support, query)


@pytest.mark.parametrize("source", SOURCES)
def test_whether_a_prediction_depends_on_the_other_queries(source):
    learner = learner_of(source)
    episodes = episodes_of()
    for _ in range(3):  # so that running statistics are not the initial ones
        learner(episodes)
    learner.eval()
    adapted = learner.adapt(episodes.support)
    whole, alone = adapted(episodes.query.x), adapted(episodes.query.x[:, :1])
    assert torch.allclose(whole[:, :1], alone, rtol=1e-12) == (source != "transductive")
    assert models.batch_statistics(learner.model) == source


@pytest.mark.parametrize("source", SOURCES)
def test_one_adapted_model_predicts_as_all_do(source):
    learner = learner_of(source).eval()
    episodes = episodes_of()
    adapted = learner.adapt(episodes.support)
    expected, module = adapted(episodes.query.x), adapted[1]
    assert torch.allclose(module(episodes.query.x[1]), expected[1], rtol=1e-10)
    if source == "support":
        assert models.batch_statistics(module) == "frozen"
        assert models.batch_statistics(learner.model) == "support"


@pytest.mark.parametrize("source", SOURCES)
def test_vmap_loop_and_stepwise_agree(source):
    for options in ({}, {"estimator": outer.Stepwise()}):
        check_as_in_a_loop(source, 2, options)


@pytest.mark.parametrize("source", ["support", "per_step"])
def test_compiles_whole(source):
    check_as_in_a_loop(source, 1, {"compile": {"backend": "eager"}})


def check_as_in_a_loop(source, num_layers, options):
    episodes, keys = episodes_of(), torch.tensor([1, 2])
    expected = learner_of(source, num_layers, batching="loop").estimate(episodes, keys)
    estimate = learner_of(source, num_layers, **options).estimate(episodes, keys)
    for ours, theirs in zip(
        tree_leaves(estimate.gradient), tree_leaves(expected.gradient), strict=True
    ):
        assert torch.allclose(ours, theirs, rtol=1e-8, atol=1e-11)


def test_support_statistics_by_hand():
    model = models.use_batch_statistics(
        nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), "support"
    ).double()
    learner = outer.MAML(model, F.mse_loss, inner.SGD(0.1), num_steps=1)
    x, y = torch.randn(1, 5, 3).double(), torch.randn(1, 5, 4).double()
    adapted = learner.adapt(Batch(x, y), 0)
    hidden, queries = model[0](x[0]), torch.randn(1, 7, 3).double()
    expected = (model[0](queries[0]) - hidden.mean(0)) / (hidden.var(0, correction=0) + 1e-5).sqrt()
    assert torch.allclose(adapted(queries)[0], expected, rtol=1e-12)
    assert torch.equal(model(x[0]), nn.functional.batch_norm(hidden, None, None, training=True))


def test_running_statistics_are_those_of_their_step():
    learner = learner_of("per_step")
    norm, episodes = learner.model.features[1], episodes_of(1)
    conv = copy.deepcopy(learner.model.features[0])
    with torch.no_grad():
        before = conv(episodes.support.x[0])
    learner(episodes)
    rows, momentum = norm.mean, norm.momentum
    assert rows.shape == (3, 4)
    assert torch.allclose(rows[0], momentum * before.mean((0, 2, 3)))
    unbiased = before.transpose(0, 1).flatten(1).var(1)
    assert torch.allclose(norm.var[0], 1 - momentum + momentum * unbiased)
    after = learner.adapt(episodes.support)
    assert rows[1].any()
    with torch.no_grad():
        conv.weight.copy_(after.params["features.0.weight"][0])
        conv.bias.copy_(after.params["features.0.bias"][0])
        expected = conv(episodes.query.x[0]).mean((0, 2, 3))
    assert torch.allclose(rows[2], momentum * expected)


def test_running_statistics_rest_outside_of_training():
    learner, episodes = learner_of("per_step"), episodes_of()
    before = copy.deepcopy(learner.state_dict())
    learner.estimate(episodes)
    learner.eval()
    evaluate(learner, [episodes], num_tasks=2)
    learner(episodes).backward()
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.state_dict().items())
    assert not any("at_step" in name or "example_weight" in name for name in before)


def test_steps_beyond_those_of_training_use_the_last_row():
    learner, episodes = learner_of("per_step").eval(), episodes_of()
    assert learner.adapt(episodes.support, 5).loss(episodes.query).isfinite().all()


def test_adaptation_is_the_same_in_evaluation():
    learner, episodes = learner_of("per_step"), episodes_of()
    trained = learner.adapt(episodes.support).params
    adapted = learner.eval().adapt(episodes.support).params
    assert all(torch.equal(adapted[name], trained[name]) for name in trained)


def test_a_batch_that_is_not_finite_leaves_the_statistics_as_they_were():
    learner, episodes = learner_of("per_step"), episodes_of()
    learner(episodes)
    episodes.query.x[0, 0] = torch.inf
    before = learner.model.features[1].mean[2].clone()
    learner(episodes)
    assert torch.equal(learner.model.features[1].mean[2], before)
    assert learner.model.features[1].mean.isfinite().all()


def test_losses_of_ones_own_are_refused():
    with pytest.raises(ValueError, match=r"functional.OnQuery"):
        learner_of("support", query_loss=lambda params, shared, episode: 0)


def test_a_layer_that_does_more_is_refused():
    class Activated(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x).relu()

    with pytest.raises(
        TypeError, match=r"layer '0' must be a batch normalisation of PyTorch; got Activated"
    ):
        models.use_batch_statistics(nn.Sequential(Activated(2)))


def test_affine_parameters_of_each_step_learn():
    learner = learner_of("per_step", fast="head")
    learner(episodes_of()).backward()
    gradient = learner.model.features[1].weight.grad
    assert gradient.shape == (3, 4)
    assert all(row.any() for row in gradient)


def test_fit_and_evaluate_say_what_normalised():
    learner = learner_of("per_step").float()
    fit(
        learner,
        TASKS,
        torch.optim.Adam(learner.parameters()),
        2,
        meta_batch_size=2,
        validate=TASKS,
        progress=False,
    )
    with pytest.warns(
        UserWarning, match="model must be in evaluation mode, or the query batch normalises itself"
    ):
        assert evaluate(learner, TASKS, num_tasks=2).transductive
    assert evaluate(learner.eval(), TASKS, num_tasks=2).batch_statistics == "per_step"


@pytest.mark.parametrize("source", ["transductive", "support"])
def test_padded_tasks_equal_those_without_padding(source):
    sampler = data.EpisodeSampler(IMAGES, n_way=(2, 3), k_shot=(1, 3), num_query=2)
    padded = sampler.sample(6, generator=torch.Generator().manual_seed(1))
    padded = Episode(*(Batch(batch.x.double(), batch.y, batch.weight.double()) for batch in padded))
    keys, metrics = torch.arange(6), {"accuracy": functional.accuracy}
    learner = learner_of(source)
    ours = learner.estimate(padded, keys)
    measured = evaluate(learner, padded, num_tasks=6, metrics=metrics)
    sizes = set()
    gradients = []
    for task in range(6):
        support, query = (
            Batch(*(leaf[task][b.weight[task] > 0][None] for leaf in b[:2])) for b in padded
        )
        n_way = int(support.y.max()) + 1
        sizes.add((n_way, support.y.numel()))
        plain = learner_of(
            source, criterion=lambda output, y, n=n_way: F.cross_entropy(output[:, :n], y)
        )
        theirs = plain.estimate(Episode(support, query), keys[task : task + 1])
        gradients.append(theirs.gradient)
        assert torch.allclose(ours.loss[task], theirs.loss[0], rtol=1e-10)
        metric = {"accuracy": lambda output, y, n=n_way: functional.accuracy(output[:, :n], y)}
        alone = evaluate(plain, Episode(support, query), num_tasks=1, metrics=metric)
        assert measured["accuracy"].values[task].item() == pytest.approx(alone["accuracy"].mean)
    assert len(sizes) > 2
    mean = tree_map(lambda *leaves: torch.stack(leaves).mean(0), *gradients)
    for a, b in zip(tree_leaves(ours.gradient), tree_leaves(mean), strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-12)


def test_weights_that_would_not_reach_a_layer_are_refused():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, track_running_stats=False))
    learner = outer.MAML(model, functional.cross_entropy, inner.SGD(0.1), num_steps=1)
    batch = Batch(torch.randn(1, 4, 3), torch.tensor([[0, 1, 0, 1]]), torch.ones(1, 4))
    with pytest.raises(
        ValueError,
        match=r"Write models.use_batch_statistics\(model, 'support'\), or 'transductive' as",
    ):
        learner(Episode(batch, batch))


def test_a_layer_of_its_own():
    x = torch.randn(6, 3, 4)
    norm = models.use_batch_statistics(nn.BatchNorm1d(3))
    assert isinstance(norm, BatchNorm)
    assert torch.equal(norm(x), norm.eval()(x))


def test_a_pretrained_layer_is_frozen_as_it_is():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).double()
    x = torch.randn(9, 1, 6, 6).double()
    model(x)
    expected = model.eval()(x)
    frozen = models.use_batch_statistics(copy.deepcopy(model), "frozen")
    assert torch.allclose(frozen.train()(x), expected, rtol=1e-12)
    assert models.running_statistics(frozen) == []
    assert models.use_batch_statistics(frozen, "frozen") is frozen
    again = models.use_batch_statistics(frozen)
    assert models.batch_statistics(again) == "transductive"


def test_a_layer_with_two_places_stays_one():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    model.append(model[1])
    assert models.use_batch_statistics(model, "support")[1] is model[3]
    assert models.running_statistics(model) == []


def test_replaced_layers_are_noticed():
    learner = learner_of("transductive")
    learner(episodes_of())
    models.use_batch_statistics(learner.model, "support")
    with pytest.raises(ValueError, match="before you build the learner"):
        learner.adapt(episodes_of().support)


def test_what_a_layer_had_is_kept():
    norm = nn.BatchNorm1d(3, affine=False, momentum=0.01, eps=0.1).double()
    frozen = models.use_batch_statistics(copy.deepcopy(norm), "frozen")
    assert (frozen.eps, frozen.mean.dtype) == (0.1, torch.float64)
    assert models.use_batch_statistics(norm, "per_step", num_steps=2).share == 0.01


def test_weights_that_come_later_are_checked_too():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).double()
    learner = outer.MAML(model, F.cross_entropy, inner.SGD(0.1), num_steps=1)
    episodes = episodes_of()
    learner(episodes)
    weighted = Episode(
        *(batch._replace(weight=torch.ones(batch.y.shape).double()) for batch in episodes)
    )
    with pytest.raises(TypeError, match="functional.cross_entropy"):
        learner(weighted)
    flat = Episode(*(batch._replace(weight=batch.weight[..., None]) for batch in weighted))
    with pytest.raises(ValueError, match="one number an example"):
        learner(flat)
    two = outer.MAML(
        model, lambda output, y: F.cross_entropy(output, y), inner.SGD(0.1), num_steps=1
    )
    with pytest.raises(TypeError, match="take the weights of the examples"):
        two(weighted)


BAD = [
    (
        lambda: models.use_batch_statistics(nn.BatchNorm1d(2), "suport"),
        ValueError,
        "Did you mean 'support'?",
    ),
    (lambda: models.use_batch_statistics(nn.BatchNorm1d(2), "per_step"), TypeError, "num_steps=5"),
    (
        lambda: models.use_batch_statistics(models.conv4(1, 2), "frozen"),
        ValueError,
        "layer 'features.1' must have statistics to be frozen",
    ),
    (lambda: models.use_batch_statistics(model_of("per_step")), ValueError, "Build the model anew"),
    (lambda: outer.Replicas([learner_of("per_step")]), ValueError, "keep no statistics"),
    (lambda: learner_of("per_step", num_steps=5), ValueError, "num_steps=5"),
    (
        lambda: learner_of("per_step", estimator=outer.EvolutionStrategies(2, inner=True)),
        ValueError,
        "Use batch_statistics='support'",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)


def test_frozen_statistics_that_nobody_has_set_are_warned_of():
    learner = learner_of("frozen")
    for norm in (learner.model.features[1], learner.model.features[4]):
        norm.mean.zero_()
    with pytest.warns(
        UserWarning,
        match=r"frozen statistics must be set; got those of new layers in \['features.1'",
    ):
        learner(episodes_of())


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (
            torch.zeros(4, 3),
            ValueError,
            r"must be \[n, 2, ...\], none of them empty; got shape \(4, 3\)",
        ),
        (torch.zeros(2), ValueError, r"got shape \(2,\)"),
        (torch.zeros(0, 2), ValueError, r"got shape \(0, 2\)"),
        (torch.zeros(4, 2).long(), TypeError, "must be a floating tensor; got torch.int64"),
        (None, TypeError, "must be a floating tensor; got None"),
    ],
)
@pytest.mark.parametrize(
    "norm", [models.BatchNorm(2), models.FrozenNorm(2), models.PerStepNorm(2, 1)]
)
def test_inputs_that_are_refused(norm, x, error, message):
    with pytest.raises(error, match=message):
        norm(x)
