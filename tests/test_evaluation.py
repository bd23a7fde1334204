import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import data, evaluate, evaluation, functional, inner, models, outer, testing
from metalearn._tasks import take
from metalearn.types import Episode
from tests.cases import sine_episodes, sine_learner

TASKS = data.Sinusoid(k_shot=5, num_query=5)


def sine():
    return outer.MAML(models.mlp(1, [8], 1), F.mse_loss, inner.SGD(0.01), num_steps=2)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_values_are_those_of_adapt():
    learner, episodes = sine_learner(), sine_episodes()
    evaluation = evaluate(learner, [episodes], num_tasks=3, num_steps=4)
    expected = learner.adapt(episodes.support, 4).loss(episodes.query)
    assert torch.equal(evaluation["loss"].values, expected)
    assert (evaluation.num_tasks, evaluation.num_steps) == (3, 4)
    assert evaluate(learner, [episodes], num_tasks=3).num_steps == 3


def test_active_dropout_is_warned_of_once():
    model = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    learner = outer.MAML(model, F.mse_loss, inner.SGD(0.01), num_steps=1)
    with pytest.warns(
        UserWarning, match=r"got an active Dropout\(p=0.5.* Call learner.eval\(\) first"
    ) as caught:
        evaluate(learner, TASKS, num_tasks=40)
    assert [warning.filename for warning in caught] == [__file__]
    with pytest.warns(UserWarning, match="Call learner.eval"):
        evaluate([learner, learner], TASKS, num_tasks=1)
    evaluate(learner.eval(), TASKS, num_tasks=1)
    learner.train()
    model[1].p = 0.0
    evaluate(learner, TASKS, num_tasks=1)


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
    assert "batch statistics: transductive" in str(evaluation)
    flat = outer.MAML(
        nn.Sequential(nn.Flatten(), nn.Linear(144, 3)), F.cross_entropy, inner.SGD(0.1), num_steps=1
    )
    assert not evaluate(flat, tasks, num_tasks=2, metrics=metrics).transductive


def test_memory_does_not_grow_with_tasks():
    model = models.mlp(1, [40, 40], 1)
    learner = outer.MAML(model, F.mse_loss, inner.SGD(0.01), num_steps=2)
    peaks = [
        testing.peak_live_bytes(
            lambda n=n: evaluate(learner, TASKS, num_tasks=n, generator=seeded())
        )
        for n in (100, 1000)
    ]
    assert peaks[1] < 1.05 * peaks[0]


def test_takes_one_batch_of_episodes_and_counts_integers():
    episodes = TASKS.sample(4)
    metrics = {
        "points": lambda output, y: len(y),
        "error": lambda output, y: (output - y).abs().mean().item(),
    }
    evaluation = evaluate(sine(), episodes, num_tasks=4, metrics=metrics)
    assert evaluation["points"].mean == 5
    assert evaluation["error"].values.shape == (4,)


def test_an_ensemble_is_judged_by_its_mean_output():
    episodes = TASKS.sample(4)
    learners, metrics = (
        [sine(), sine(), sine()],
        {"error": lambda output, y: (output - y).abs().mean()},
    )
    evaluation = evaluate(learners, episodes, num_tasks=4, num_steps=3, metrics=metrics)
    output = sum(learner.adapt(episodes.support, 3)(episodes.query.x) for learner in learners) / 3
    expected = (output - episodes.query.y).flatten(1)
    torch.testing.assert_close(evaluation["loss"].values, expected.square().mean(1))
    torch.testing.assert_close(evaluation["error"].values, expected.abs().mean(1))


def test_same_tasks_have_one_fingerprint_however_they_are_batched():
    whole = evaluate(sine(), TASKS, num_tasks=40, generator=seeded())
    assert (
        whole.fingerprint
        == evaluate(sine(), TASKS, num_tasks=40, num_steps=0, generator=seeded()).fingerprint
    )
    assert (
        whole.fingerprint != evaluate(sine(), TASKS, num_tasks=40, generator=seeded(1)).fingerprint
    )
    episodes = TASKS.sample(9)
    parts = [take(episodes, slice(0, 4)), take(episodes, slice(4, 9))]
    one, two = (evaluate(sine(), batches, num_tasks=9).fingerprint for batches in (episodes, parts))
    assert one == two


def test_each_of_several_conditions_is_as_if_alone():
    conditions = [(sine(), 0), (sine(), 3)]
    options = {"num_tasks": 40, "metrics": {}}
    together = evaluation.evaluate_each(conditions, TASKS, generator=seeded(), **options)
    for (learner, num_steps), result in zip(conditions, together, strict=True):
        alone = evaluate(learner, TASKS, num_steps=num_steps, generator=seeded(), **options)
        assert torch.equal(result["loss"].values, alone["loss"].values)
        assert (result.num_steps, result.fingerprint) == (num_steps, alone.fingerprint)


def flat_targets():
    support, query = sine_episodes(dtype=torch.float32)
    return Episode(support, query._replace(y=query.y[..., 0]))


def test_runs_under_inference_mode():
    learner, episodes = sine(), TASKS.sample(3)
    expected = evaluate(learner, [episodes], num_tasks=3, generator=seeded())
    with torch.inference_mode():
        found = evaluate(learner, [episodes], num_tasks=3, generator=seeded())
    assert torch.equal(found["loss"].values, expected["loss"].values)


def test_missing_metrics_are_named():
    with pytest.raises(
        KeyError, match=r"must be one of \['loss'\]; got 'los'. Did you mean 'loss'"
    ):
        evaluate(sine(), TASKS, num_tasks=2)["los"]


BAD = [
    ({"num_tasks": 0}, ValueError, "num_tasks must be at least 1; got 0"),
    ({"num_tasks": 2.5}, TypeError, "num_tasks must be an int"),
    ({"num_steps": -1}, ValueError, "num_steps must be at least 0; got -1"),
    ({"metrics": {"accuracy": 1}}, TypeError, 'metrics={"accuracy": functional.accuracy}'),
    ({"metrics": {"l1": nn.L1Loss}}, TypeError, "metric 'l1' must be a function"),
    (
        {"episodes": [flat_targets()], "num_tasks": 3},
        ValueError,
        "query outputs and targets must have one shape",
    ),
    ({"metrics": {"loss": F.mse_loss}}, ValueError, "a metric's name must be another than 'loss'"),
    (
        {"num_tasks": 5, "episodes": [sine_episodes(dtype=torch.float32)]},
        ValueError,
        "Write num_tasks=3.",
    ),
    ({"metrics": F.mse_loss}, TypeError, "metrics must be a dict of functions"),
    (
        {"metrics": {"error": lambda output, y: output - y}},
        ValueError,
        "metric 'error' must be a scalar; got shape (5, 1)",
    ),
    ({"episodes": [(1, 2)]}, TypeError, "an Episode of two Batches"),
    ({"episodes": 3}, TypeError, "be a task distribution or an iterable"),
    ({"learner": nn.Linear(1, 1)}, TypeError, "learner must be a MetaLearner"),
    ({"learner": [nn.Linear(1, 1)]}, TypeError, "learner must be a MetaLearner"),
    ({"learner": []}, ValueError, "learner must be at least one; got []. Pass [learner]."),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_input(change, error, message):
    arguments = {"learner": sine(), "episodes": TASKS, "num_tasks": 3} | change
    learner, episodes = arguments.pop("learner"), arguments.pop("episodes")
    with pytest.raises(error) as raised:
        evaluate(learner, episodes, **arguments)
    assert message in str(raised.value)


def test_metrics_take_what_the_tasks_have():
    episodes = sine_episodes()
    episodes = Episode(
        *(part._replace(weight=torch.ones_like(part.x[..., 0])) for part in episodes)
    )
    model, rule = models.mlp(1, [4], 1).double(), inner.SGD(0.01)
    learner = outer.MAML(
        model,
        lambda output, y, weight: (weight[:, None] * (output - y) ** 2).mean(),
        rule,
        num_steps=1,
    )
    two = {"error": lambda output, target: (output - target).abs().mean()}
    with pytest.raises(
        TypeError,
        match=(
            r"metric 'error' must take \(output, target, weight\); got weights, and \(output, "
            r"target\): too"
        ),
    ):
        evaluate(learner, episodes, num_tasks=3, metrics=two)
    three = {"error": lambda output, target, weight: (output - target).abs().mean()}
    assert evaluate(learner, episodes, num_tasks=3, metrics=three)["error"].values.shape == (3,)
    with pytest.raises(
        TypeError, match=r"metric 'error' must take \(output, target\); got none, and .*: missing"
    ):
        evaluate(sine_learner(), sine_episodes(), num_tasks=3, metrics=three)
    with pytest.raises(TypeError, match="metric 'text' must be a number; got 'x'. Return a number"):
        evaluate(
            sine_learner(),
            sine_episodes(),
            num_tasks=3,
            metrics={"text": lambda output, target: "x"},
        )
