"""`fit(compile_step=True)` trains as `fit` does."""

import copy

import pytest
import torch
import torch.nn.functional as F

from metalearn import data, inner, models, outer
from metalearn.training import fit

TASKS = data.Sinusoid(5, 5)

pytestmark = pytest.mark.usefixtures("steps_as_they_are")


def sine(seed=0):
    torch.manual_seed(seed)
    return outer.MAML(models.mlp(1, [8], 1), F.mse_loss, inner.SGD(0.01), num_steps=2)


def fitted(learner, compile_step, num_iterations=6, **options):
    optimizer = torch.optim.Adam(learner.parameters(), 0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6)
    options = {"meta_batch_size": 2, "progress": False, "scheduler": scheduler, **options}
    options["generator"] = torch.Generator().manual_seed(1)
    history = fit(learner, TASKS, optimizer, num_iterations, compile_step=compile_step, **options)
    return history, optimizer


@pytest.mark.parametrize("max_grad_norm", [None, 0.5])
@pytest.mark.parametrize("replicas", [False, True])
def test_equals_fit(replicas, max_grad_norm):
    results = []
    for how in (True, False):
        learner = outer.Replicas([sine(0), sine(1)]) if replicas else sine()
        history, optimizer = fitted(
            learner, how, max_grad_norm=max_grad_norm, validate=TASKS, num_validation_tasks=4
        )
        state = optimizer.state_dict()
        results.append((history.loss, history.num_diverged, list(learner.parameters()), state))
    ours, theirs = results
    torch.testing.assert_close(ours[:3], theirs[:3])
    assert ours[3]["param_groups"] == theirs[3]["param_groups"]
    torch.testing.assert_close(ours[3]["state"], theirs[3]["state"])


def test_a_killed_run_goes_on(tmp_path):
    whole, parts = sine(), sine()
    first = copy.deepcopy(parts.state_dict())
    fitted(whole, True)
    fitted(parts, True, 3, checkpoint_dir=tmp_path)
    parts.load_state_dict(first)
    fitted(parts, True, checkpoint_dir=tmp_path)
    for left, right in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(left, right)


def test_refused():
    with pytest.raises(
        ValueError, match="go with a bare learner; got a learner in OptimizedModule"
    ):
        fitted(torch.compile(sine(), backend="eager"), True)
    with pytest.raises(TypeError, match="compile_step must be True or False"):
        fitted(sine(), "yes")
    learner = sine()
    optimizer = torch.optim.RMSprop(learner.parameters())
    with pytest.raises(ValueError, match="SGD, Adam or AdamW"):
        fit(learner, TASKS, optimizer, 1, meta_batch_size=2, compile_step=True)
