import copy

import pytest
import torch
import torch.nn.functional as F

from metalearn import data, evaluate, fit, functional, inner, models, outer
from tests.cases import sine_episodes

TURTLE = inner.Turtle(("grad", "grad_history"), hidden=(4,), lr=0.05)
TASKS = data.Zipped([data.Sinusoid(5, 5), data.Sinusoid(8, 6)])


def of_width(width, rule=TURTLE, **options):
    torch.manual_seed(width)
    model = models.mlp(1, [width], 1).double()
    return outer.MetaLearner(model, F.mse_loss, rule, **{"num_steps": 2} | options)


def sampled(num_tasks=3, seed=0):
    episodes = TASKS.sample(num_tasks, generator=torch.Generator().manual_seed(seed))
    return torch.utils._pytree.tree_map(torch.Tensor.double, episodes)


class Doubles(data.TaskDistribution):
    def draw(self, num_tasks, generator, device):
        return torch.utils._pytree.tree_map(
            torch.Tensor.double, TASKS.draw(num_tasks, generator, device)
        )


@pytest.mark.parametrize("rule", [TURTLE, inner.LSTM(0.05, hidden_size=3)], ids=str)
def test_the_gradient_to_the_rule_is_the_mean_of_all_learners(rule):
    mixture = outer.Mixture([of_width(4, rule), of_width(7, rule)])
    episodes, keys = sampled(), torch.arange(3)
    loss = mixture(episodes, keys=keys)
    loss.backward()
    estimates = [
        learner.estimate(
            outer._mixture.unzipped(episodes, index), functional.derive_key(keys, index)
        )
        for index, learner in enumerate(mixture)
    ]
    torch.testing.assert_close(loss.detach(), torch.cat([each.loss for each in estimates]).mean())
    ours = torch.utils._pytree.tree_map(lambda param: param.grad, mixture[0].meta.rule)
    expected = torch.utils._pytree.tree_map(
        lambda *parts: sum(parts) / 2, *(each.gradient.rule for each in estimates)
    )
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-14)
    for learner, each in zip(mixture, estimates, strict=True):
        own = learner.model[0].weight.grad
        torch.testing.assert_close(own, each.gradient.init["0.weight"] / 2, rtol=1e-12, atol=1e-14)


def test_the_rule_is_one():
    mixture = outer.Mixture([of_width(4), of_width(7)])
    names = {name for name, _ in mixture.named_parameters()}
    assert not any(name.startswith("learners.1.rule") for name in names)
    assert any(name.startswith("learners.0.rule") for name in names)
    copied = copy.deepcopy(mixture)
    assert copied[1].rule is copied[0].rule is not mixture[0].rule
    with torch.no_grad():
        next(mixture[0].rule.parameters()).add_(1)
    copied.load_state_dict(mixture.state_dict())
    torch.testing.assert_close(copied[1].meta.rule, mixture[0].meta.rule)


def trained(num_iterations, folder=None):
    options = {"estimator": outer.Continued(outer.Unrolled(), horizon=6)}
    mixture = outer.Mixture([of_width(4, **options), of_width(7, **options)])
    optimizer = torch.optim.Adam(mixture.parameters(), lr=1e-2)
    history = fit(
        mixture,
        Doubles(),
        optimizer,
        num_iterations,
        meta_batch_size=3,
        validate=lambda mixture: evaluate(mixture[1], [sine_episodes(2)], num_tasks=2)["loss"].mean,
        checkpoint_dir=folder,
        generator=torch.Generator().manual_seed(0),
        progress=False,
    )
    return history, mixture


def test_fit_trains_it_and_goes_on(tmp_path):
    history, mixture = trained(5)
    assert history.loss.isfinite().all()
    assert all(learner.inner_models.age.tolist() == [2, 6, 4] for learner in mixture)
    trained(2, tmp_path)
    resumed, other = trained(5, tmp_path)
    assert resumed.scores[5] == history.scores[5]
    torch.testing.assert_close(resumed.loss, history.loss, rtol=0, atol=0)
    for ours, theirs in zip(mixture.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_the_rule_is_taken_to_another_shape():
    mixture = outer.Mixture([of_width(4), of_width(7)])
    module = models.mlp(2, [3, 3], 2).double()
    optimizer = inner.as_optimizer(TURTLE, mixture[0].meta.rule, module.named_parameters())
    before = module[0].weight.detach().clone()
    module(torch.ones(5, 2, dtype=torch.float64)).square().mean().backward()
    optimizer.step()
    assert not torch.equal(module[0].weight, before)


@pytest.mark.parametrize(
    ("learners", "error", "says"),
    [
        (lambda: [], ValueError, "Mixture must be given at least one learner"),
        (lambda: [of_width(4), 3], TypeError, "Mixture must be given learners; got int"),
        (lambda: [of_width(4), of_width(5, inner.Turtle())], ValueError, "must be equal"),
        (lambda: [of_width(4)] * 2, ValueError, "be different ones; got one of them twice"),
        (
            lambda: [of_width(width, inner.MetaSGD(0.1)) for width in (4, 7)],
            ValueError,
            r"must fit every model; got rule.rate.0.weight of \[4, 1\] and \[7, 1\]",
        ),
    ],
)
def test_refuses_learners(learners, error, says):
    with pytest.raises(error, match=says):
        outer.Mixture(learners())


def test_refuses_episodes_that_are_not_zipped():
    mixture = outer.Mixture([of_width(4), of_width(7)])
    with pytest.raises(ValueError, match=r"must have tuples of 2; .* Sample them from data.Zipped"):
        mixture(sine_episodes(3))


def test_refuses_what_is_of_one_learner():
    mixture = outer.Mixture([of_width(4), of_width(7)])
    optimizer, options = torch.optim.SGD(mixture.parameters(), lr=0.1), {"meta_batch_size": 2}
    with pytest.raises(ValueError, match="validate of a mixture must be a function of it"):
        fit(mixture, Doubles(), optimizer, 1, validate=Doubles(), **options)
    with pytest.raises(ValueError, match="compile_step=True must go with one learner"):
        fit(mixture, Doubles(), optimizer, 1, compile_step=True, **options)
    with pytest.raises(TypeError, match=r"got Mixture. Take one, and the tasks .* mixture\[0\]"):
        evaluate(mixture, Doubles(), num_tasks=2)
