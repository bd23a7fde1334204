import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import baselines, data, inner, models, outer
from metalearn.baselines import Transfer
from metalearn.functional import uniform
from metalearn.types import Batch, Episode


def learner_of(num_steps=7, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    return outer.MetaLearner(
        model, F.mse_loss, inner.Adam(0.1), num_steps=num_steps, estimator=Transfer(**options)
    )


def episodes_of(num_tasks=3):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, num_tasks, 6, 3, generator=generator).double()
    y = torch.randn(2, num_tasks, 6, 2, generator=generator).double()
    return Episode(Batch(x[0], y[0]), Batch(x[1], y[1]))


def test_training_is_that_of_one_model_on_all_queries():
    learner, episodes = learner_of(), episodes_of()
    learner(episodes).backward()
    ours = [param.grad.clone() for param in learner.parameters()]
    model = learner.model
    loss = F.mse_loss(model(episodes.query.x.flatten(0, 1)), episodes.query.y.flatten(0, 1))
    for grad, expected in zip(
        ours, torch.autograd.grad(loss, list(model.parameters())), strict=True
    ):
        torch.testing.assert_close(grad, expected)


@pytest.mark.parametrize(
    ("num_steps", "select_every", "looks"), [(7, 3, [3, 6, 7]), (6, 25, [6]), (4, 1, [1, 2, 3, 4])]
)
def test_adaptation_is_torch_optim_on_mini_batches_and_keeps_the_best(
    num_steps, select_every, looks
):
    learner, episodes = (
        learner_of(num_steps, batch_size=2, select_every=select_every),
        episodes_of(),
    )
    keys = torch.tensor([3, 4, 5])
    adapted = learner.adapt(episodes.support, keys=keys)
    for task in range(3):
        model = learner_of().model
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        x, y = episodes.support.x[task], episodes.support.y[task]
        seen = {}
        for step in range(num_steps):
            chosen = (uniform(keys[task], (2,), stream=step, dtype=torch.float64) * 6).long()
            optimizer.zero_grad()
            F.mse_loss(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
            if step + 1 in looks:
                seen[F.mse_loss(model(x), y).item()] = [
                    param.detach().clone() for param in model.parameters()
                ]
        best = seen[min(seen)]
        for ours, expected in zip(adapted.params.values(), best, strict=True):
            torch.testing.assert_close(ours[task], expected)


def test_no_steps_change_nothing():
    learner, episodes = learner_of(), episodes_of()
    assert torch.equal(
        learner.adapt(episodes.support, 0).params["0.weight"][1], learner.model[0].weight
    )


def test_padded_tasks_adapt_as_without_padding():
    classes = data.ClassImages(
        torch.randint(256, (6, 9, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    )
    support = (
        data.EpisodeSampler(classes, 3, 2, 2)
        .sample(2, generator=torch.Generator().manual_seed(1))
        .support
    )
    x, y, keys = support.x.double(), support.y, torch.tensor([3, 4])

    def adapted(n_way, support):
        torch.manual_seed(2)
        model = models.conv4(1, 4, num_filters=3, num_layers=1).double()
        model.head.weight, model.head.bias = (
            nn.Parameter(param[:n_way]) for param in model.head.parameters()
        )
        estimator = Transfer(batch_size=3, select_every=2)
        learner = baselines.TrainFromScratch(
            model, rule=inner.Adam(0.1), num_steps=5, estimator=estimator
        )
        return learner.adapt(support, keys=keys).params

    expected = adapted(3, Batch(x, y))
    weight = torch.tensor([1.0] * 6 + [0.0] * 2).double().expand(2, -1)
    ours = adapted(
        4, Batch(torch.cat([x, x[:, :2]], 1), torch.cat([y, torch.full((2, 2), 3)], 1), weight)
    )
    for name, param in expected.items():
        torch.testing.assert_close(
            ours[name][:, :3] if name.startswith("head") else ours[name], param
        )


BAD = [
    (lambda: Transfer(batch_size=0), ValueError, "batch_size must be at least 1"),
    (
        lambda: outer.MetaLearner(
            nn.Linear(1, 1),
            F.mse_loss,
            inner.SGD(1.0),
            num_steps=1,
            support_batches=2,
            estimator=Transfer(),
        ),
        ValueError,
        "Leave it out: Transfer(batch_size=4, select_every=25) draws batches of 4.",
    ),
    (lambda: Transfer(select_every=2.5), TypeError, "select_every"),
    (lambda: baselines.Finetuning(nn.Linear, nn.Linear(1, 1)), TypeError, "body must be a module"),
    (lambda: baselines.ProtoNet(nn.Flatten(), 0, 5), ValueError, "num_features"),
    (lambda: baselines.CosineHead(4, 5, scale=-1), ValueError, "scale must be positive"),
    (lambda: data.MiniBatches("x", 4), TypeError, "ClassImages"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
