import math

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import Evaluation, Summary, data, evaluate, functional, inner, models, outer, testing
from tests.cases import sine_episodes, sine_learner

TASKS = data.Sinusoid(k_shot=5, num_query=5)


def sine():
    return outer.MAML(models.mlp(1, [8], 1), F.mse_loss, inner.SGD(0.01), num_steps=2)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_summary_statistics():
    summary = Summary(torch.tensor([1.0, 2.0, 3.0, 10.0]))
    assert summary.mean == 4
    assert summary.median == 2.5
    assert summary.ci95 == pytest.approx(1.96 * torch.tensor([1.0, 2, 3, 10]).std().item() / 2)
    assert math.isnan(Summary(torch.ones(1)).ci95)


def test_values_are_those_of_adapt():
    learner, episodes = sine_learner(), sine_episodes()
    evaluation = evaluate(learner, [episodes], num_tasks=3, num_steps=4)
    expected = learner.adapt(episodes.support, 4).loss(episodes.query)
    assert torch.equal(evaluation["loss"].values, expected)
    assert (evaluation.num_tasks, evaluation.num_steps) == (3, 4)
    assert evaluate(learner, [episodes], num_tasks=3).num_steps == 3


@pytest.mark.parametrize("num_tasks", [1, 31, 32, 33, 100])
def test_counts_tasks_exactly(num_tasks):
    assert len(evaluate(sine(), TASKS, num_tasks=num_tasks)["loss"].values) == num_tasks
    assert len(evaluate(sine(), TASKS.batches(7), num_tasks=num_tasks)["loss"].values) == num_tasks


def test_is_reproducible_and_leaves_the_global_generator_alone():
    learner = sine()
    state = torch.get_rng_state()
    one, two = (evaluate(learner, TASKS, num_tasks=40, generator=seeded()) for _ in range(2))
    assert torch.equal(one["loss"].values, two["loss"].values)
    assert torch.equal(state, torch.get_rng_state())


def test_no_steps_is_the_start():
    learner = sine()
    episodes = TASKS.sample(10, generator=seeded())
    evaluation = evaluate(learner, [episodes], num_tasks=10, num_steps=0)
    expected = F.mse_loss(learner.model(episodes.query.x), episodes.query.y)
    assert evaluation["loss"].mean == pytest.approx(expected.item(), rel=1e-5)


def test_accuracy_and_transduction():
    images = torch.randint(0, 256, (6, 8, 12, 12), dtype=torch.uint8, generator=seeded())
    tasks = data.EpisodeSampler(data.ClassImages(images), n_way=3, k_shot=2, num_query=2)
    model = models.conv4(1, 3, num_filters=4, num_layers=2)
    learner = outer.MAML(model, F.cross_entropy, inner.SGD(0.1), num_steps=1)
    metrics = {"accuracy": functional.accuracy}
    evaluation = evaluate(learner, tasks, num_tasks=10, metrics=metrics, generator=seeded())
    assert list(evaluation) == ["loss", "accuracy"]
    assert evaluation.transductive
    assert "accuracy" in str(evaluation)
    assert "with query batch statistics" in str(evaluation)
    flat = outer.MAML(nn.Sequential(nn.Flatten(), nn.Linear(144, 3)), F.cross_entropy, inner.SGD(0.1), num_steps=1)
    assert not evaluate(flat, tasks, num_tasks=2, metrics=metrics).transductive


def test_memory_does_not_grow_with_tasks():
    model = models.mlp(1, [40, 40], 1)
    learner = outer.MAML(model, F.mse_loss, inner.SGD(0.01), num_steps=2)
    peaks = [
        testing.peak_live_bytes(lambda n=n: evaluate(learner, TASKS, num_tasks=n, generator=seeded()))
        for n in (100, 1000)
    ]
    assert peaks[1] < 1.05 * peaks[0]


def test_takes_one_batch_of_episodes_and_counts_integers():
    episodes = TASKS.sample(4)
    metrics = {"points": lambda output, y: len(y), "error": lambda output, y: (output - y).abs().mean().item()}
    evaluation = evaluate(sine(), episodes, num_tasks=4, metrics=metrics)
    assert evaluation["points"].mean == 5
    assert evaluation["error"].values.shape == (4,)


def test_prints_as_one_line():
    evaluation = Evaluation({"loss": Summary(torch.tensor([1.0, 3.0]))}, 2, 5, False)
    assert str(evaluation) == "loss 2 +- 2 (2 tasks, 5 steps, without query batch statistics)"
    assert len(evaluation) == 1


BAD = [
    ({"num_tasks": 0}, ValueError, "num_tasks must be at least 1; got 0"),
    ({"num_tasks": 2.5}, TypeError, "num_tasks must be an int"),
    ({"num_steps": -1}, ValueError, "num_steps must be at least 0; got -1"),
    ({"metrics": {"accuracy": 1}}, TypeError, 'metrics={"accuracy": functional.accuracy}'),
    ({"metrics": {"loss": F.mse_loss}}, TypeError, "a name other than 'loss'"),
    ({"num_tasks": 5, "episodes": [sine_episodes(dtype=torch.float32)]}, ValueError, "Write num_tasks=3."),
    ({"metrics": F.mse_loss}, TypeError, "metrics must be a dict of functions"),
    (
        {"metrics": {"error": lambda output, y: output - y}},
        ValueError,
        "metric 'error' must be a scalar; got shape (5, 1)",
    ),
    ({"episodes": [(1, 2)]}, TypeError, "an Episode of two Batches"),
    ({"episodes": 3}, TypeError, "be a task distribution or an iterable"),
    ({"learner": nn.Linear(1, 1)}, TypeError, "learner must be a MetaLearner"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_input(change, error, message):
    arguments = {"learner": sine(), "episodes": TASKS, "num_tasks": 3} | change
    learner, episodes = arguments.pop("learner"), arguments.pop("episodes")
    with pytest.raises(error) as raised:
        evaluate(learner, episodes, **arguments)
    assert message in str(raised.value)
