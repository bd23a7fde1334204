import math

import pytest
import torch

from metalearn import Evaluation, Summary, evaluate
from metalearn.analysis import StepsCurve, steps_curve
from tests.analysis.cases import learner, options, tasks


def test_is_evaluation_at_every_number_of_steps():
    curve = steps_curve(learner(), tasks(), [0, 1, 4], **options(40))
    assert list(curve.evaluations) == [0, 1, 4]
    for steps, evaluation in curve.evaluations.items():
        alone = evaluate(learner(), tasks(), num_steps=steps, **options(40))
        assert torch.equal(evaluation["accuracy"].values, alone["accuracy"].values)
        assert (evaluation.num_steps, evaluation.fingerprint) == (steps, alone.fingerprint)
    assert repr(curve).count("\n") == 2


def test_same_tasks_of_what_is_gone_after_one_pass():
    curve = steps_curve(learner(), tasks().batches(5), range(3), **options(12))
    assert len({evaluation.fingerprint for evaluation in curve.evaluations.values()}) == 1


def test_best_by_each_score():
    def evaluation(loss, accuracy):
        values = {"loss": loss, "accuracy": accuracy}
        return Evaluation(
            {name: Summary(torch.tensor([value])) for name, value in values.items()}, 1, 5, "none"
        )

    curve = StepsCurve(
        {0: evaluation(3.0, 0.1), 5: evaluation(1.0, 0.4), 10: evaluation(math.nan, 0.5)}
    )
    assert curve.best() == 5
    assert curve.best("loss", mode="max") == 0
    assert curve.best("accuracy", mode="max") == 10
    with pytest.raises(
        ValueError, match="mode must be given for a metric; got None. Write curve.best.'accuracy', "
    ):
        curve.best("accuracy")
    with pytest.raises(ValueError, match="mode must be one of"):
        curve.best("accuracy", mode="most")
    with pytest.raises(ValueError, match="score must be one of .* Did you mean 'accuracy'"):
        curve.best("acuracy", mode="max")


def test_steps_after_which_tasks_diverged_are_never_best():
    means = {0: math.nan, 1: 2.0, 2: 1.0, 3: math.nan}
    summaries = {steps: {"loss": Summary(torch.tensor([mean]))} for steps, mean in means.items()}
    curve = StepsCurve(
        {steps: Evaluation(scores, 1, steps, "none") for steps, scores in summaries.items()}
    )
    assert curve.best() == 2
    assert curve.best(mode="max") == 1


def test_plots():
    curve = steps_curve(learner(), tasks(), range(3), **options(4))
    ax = curve.plot(label="MAML")
    assert ax.lines[0].get_xdata().tolist() == [0, 1, 2]
    assert ax.get_legend_handles_labels()[1] == ["MAML"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("adaptation steps", "loss")


@pytest.mark.parametrize(
    ("steps", "error", "message"),
    [
        ([], ValueError, "steps must be at least one number"),
        ([-1], ValueError, "steps must be at least 0"),
        (1.5, TypeError, "steps must be an int; got 1.5. Write steps=range"),
    ],
)
def test_bad_input(steps, error, message):
    with pytest.raises(error, match=message):
        steps_curve(learner(), tasks(), steps, **options())
