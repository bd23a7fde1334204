"""The last step's gradient by first derivatives, against the exact one through that step."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.func import functional_call

from metalearn import inner, outer, testing
from tests.cases import keys, relative_difference, sine_episodes, sine_learner
from tests.outer.ridge import EPISODE, META, curved, error, estimate_of, on_query, ridge


@dataclass(frozen=True)
class ByLoss(inner.UpdateRule):
    """Gradient descent with a rate that is proportional to the loss."""

    lr: float

    def update(self, meta, grads, state, params, loss, step):
        return {name: -self.lr * loss * grad for name, grad in grads.items()}, state


RULES = [inner.SGD(0.1), inner.Momentum(0.1), inner.Adam(0.1), inner.RMSProp(0.1), ByLoss(0.05)]


def through_the_last(rule, num_steps, support_loss=ridge):
    """Return the exact gradient to what is shared through the last step."""
    estimate = estimate_of(outer.Unrolled(truncate=1), num_steps, rule, support_loss)
    return estimate.gradient.shared


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("epsilon", [1e-3, 0.5])
def test_is_exact_through_the_last_step_on_a_quadratic(rule, epsilon):
    """Of Adam with its means from before that step as constants: SAMA's adaptation."""
    ours = estimate_of(outer.OneStep(epsilon), 5, rule).gradient.shared
    assert relative_difference(ours, through_the_last(rule, 5)) < 1e-9


def test_is_exact_of_a_single_step():
    ours = estimate_of(outer.OneStep(), 1).gradient.shared
    assert relative_difference(ours, estimate_of(outer.Unrolled(), 1).gradient.shared) < 1e-9


def test_of_gradient_descent_is_darts():
    """-lr times the difference of dL/dshared around the parameters before the step."""
    lr = 0.1
    estimate = estimate_of(outer.OneStep(), 3, inner.SGD(lr), curved)

    def slope(w):
        decay = META.shared["log_decay"]
        return torch.func.grad(lambda decay: curved({"w": w}, {"log_decay": decay}, EPISODE, 0))(
            decay
        )

    w = META.init["w"]
    for _ in range(3):
        before = w
        w = w - lr * torch.func.grad(lambda w: curved({"w": w}, META.shared, EPISODE, 0))(w)
    target = torch.func.grad(lambda w: on_query({"w": w}, {}, EPISODE))(w)
    h = 0.01 / target.norm()
    expected = -lr * (slope(before + h * target) - slope(before - h * target)) / (2 * h)
    assert relative_difference(estimate.gradient.shared["log_decay"], expected) < 1e-9


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_has_an_error_of_second_order(rule):
    expected = through_the_last(rule, 3, curved)
    errors = [
        relative_difference(
            estimate_of(outer.OneStep(epsilon), 3, rule, curved).gradient.shared, expected
        )
        for epsilon in (0.1, 0.05, 0.025)
    ]
    assert 3.8 < errors[0] / errors[1] < 4.2
    assert 3.9 < errors[1] / errors[2] < 4.1


def test_is_no_gradient_at_the_solution():
    """It ignores the curvature: at a solved problem it is off, as Implicit with one term is."""
    assert error(estimate_of(outer.OneStep(), 500)) > 0.1
    neumann = estimate_of(outer.Implicit(0.0, outer.Neumann(1, rate=0.2)), 500)
    ours = estimate_of(outer.OneStep(), 500)
    assert relative_difference(ours.gradient.shared, neumann.gradient.shared) < 1e-9


def test_of_no_gradient_is_zero():
    def nothing(params, shared, episode):
        return 0 * params["w"].sum()

    gradient = outer.meta_gradient(ridge, nothing, inner.SGD(0.1), outer.OneStep(), 2)
    assert not gradient(META, EPISODE, torch.tensor(0)).gradient.shared["log_decay"].any()


def test_goes_on_in_windows(episodes):
    """Of a linear head the loss is quadratic in what adapts, so that truncation is equalled."""
    rule, options = inner.Momentum(0.01), {"fast": "4", "learn_init": False, "num_steps": 2}
    ours, exact = (
        sine_learner(rule, estimator=outer.Continued(estimator), **options)
        for estimator in (outer.OneStep(), outer.Unrolled(truncate=1))
    )
    for _ in range(3):
        for learner in (ours, exact):
            learner.zero_grad()
            learner(episodes, keys=keys()).backward()
        grads = [[param.grad for param in learner.parameters()] for learner in (ours, exact)]
        assert relative_difference(*grads) < 1e-9
    assert ours.inner_models.age.tolist() == [6, 6, 6]
    assert relative_difference(ours.inner_models.params, exact.inner_models.params) < 1e-12


def test_memory_does_not_grow_with_the_steps():
    many, peaks = sine_episodes(num_tasks=4, k_shot=32), []
    for num_steps in (5, 25):
        learner = sine_learner(
            fast="4", learn_init=False, num_steps=num_steps, estimator=outer.OneStep()
        )
        learner.estimate(many)
        peaks.append(testing.peak_live_bytes(lambda learner=learner: learner.estimate(many)))
    assert peaks[1] <= 1.02 * peaks[0]


FIRST_ORDER = [outer.OneStep(), outer.Penalty(10.0), outer.Implicit(0.0, outer.CG(2), epsilon=0.01)]


class TestWithoutSecondDerivatives:
    @pytest.mark.parametrize("batching", ["vmap", "loop"])
    @pytest.mark.parametrize("estimator", FIRST_ORDER, ids=str)
    @pytest.mark.filterwarnings("ignore:.*at its first call")
    def test_an_activation_without_them(self, estimator, batching, episodes):
        """`F.hardsigmoid`, whose slope of 1/6 is rounded to float32, against one by hand."""

        def learner(activation, estimator=estimator, batching=batching):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(1, 6), activation, nn.Linear(6, 1)).double()
            options = {"fast": "0", "learn_init": False, "num_steps": 3, "batching": batching}
            return outer.MetaLearner(
                model, F.mse_loss, inner.SGD(0.01), estimator=estimator, **options
            )

        class ByHand(nn.Module):
            def forward(self, x):
                return (x + 3).clamp(0, 6) / 6

        ours, same = (
            learner(activation).estimate(episodes, keys()).gradient.shared
            for activation in (nn.Hardsigmoid(), ByHand())
        )
        assert relative_difference(ours, same) < 1e-7
        for exact in (outer.Unrolled(), outer.Implicit(0.0)):
            with pytest.raises(ValueError, match="must have second derivatives"):
                learner(nn.Hardsigmoid(), exact, "loop")(episodes)

    @pytest.mark.parametrize("estimator", FIRST_ORDER, ids=str)
    @pytest.mark.filterwarnings("ignore:.*at its first call")
    def test_fused_attention(self, estimator, monkeypatch):
        """The learner calls the model as it is, by the kernel that has first derivatives alone."""

        class Attention(nn.Module):
            def __init__(self):
                super().__init__()
                self.embed, self.head = nn.Linear(1, 4), nn.Linear(4, 1)

            def forward(self, x):
                h = self.embed(x)[:, None]
                return self.head(F.scaled_dot_product_attention(h, h, h)[:, 0].mean(1))

        x, y = torch.randn(2, 1, 3, 5, 1), torch.randn(2, 1, 3, 1)
        episodes = type(EPISODE)(*(type(EPISODE.query)(x[i], y[i]) for i in range(2)))
        learner = outer.MetaLearner(
            Attention(),
            F.mse_loss,
            inner.SGD(0.1),
            num_steps=2,
            fast="embed",
            learn_init=False,
            batching="loop",
            estimator=estimator,
        )
        calls = []
        kernel = F.scaled_dot_product_attention

        def seen(*args, **kwargs):
            flags = torch.backends.cuda
            calls.append(flags.flash_sdp_enabled() or flags.mem_efficient_sdp_enabled())
            return kernel(*args, **kwargs)

        monkeypatch.setattr(F, "scaled_dot_product_attention", seen)
        learner(episodes).backward()
        assert all(calls)
        assert learner.model.head.weight.grad.any()

    def test_attention_in_a_loss_of_the_users(self):
        def support_loss(params, shared, episode, step):
            head = {name.removeprefix("model."): param for name, param in shared.items()}
            h = functional_call(nn.Linear(1, 4).double(), params, (episode.support.x,))[:, None]
            out = F.scaled_dot_product_attention(h, h, h)[:, 0].mean(1)
            return F.mse_loss(out @ head["scale"], episode.support.y)

        x, y = torch.randn(3, 5, 1).double(), torch.randn(3).double()
        episode = type(EPISODE)(type(EPISODE.query)(x, y), type(EPISODE.query)(x, y))
        meta = META._replace(
            init={"weight": torch.randn(4, 1).double(), "bias": torch.zeros(4).double()},
            shared={"model.scale": torch.ones(4).double()},
        )
        problem = support_loss, lambda *task: support_loss(*task, 0), inner.SGD(0.1)
        ours = outer.meta_gradient(*problem, outer.OneStep(), 2)(meta, episode, torch.tensor(0))
        with pytest.raises(RuntimeError, match="not implemented"):
            outer.meta_gradient(*problem, outer.Unrolled(), 2)(meta, episode, torch.tensor(0))
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            exact = outer.meta_gradient(*problem, outer.Unrolled(truncate=1), 2)
            expected = exact(meta, episode, torch.tensor(0)).gradient.shared
        assert relative_difference(ours.gradient.shared, expected) < 1e-3


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: outer.OneStep(0.0), ValueError, "OneStep's epsilon must be positive and finite"),
        (lambda: outer.OneStep("small"), TypeError, "OneStep's epsilon must be a number"),
        (
            lambda: sine_learner(estimator=outer.OneStep()),
            ValueError,
            "reaches shared only. Use an estimator that reaches them, as outer.Unrolled() does, or "
            "learn_init=False.",
        ),
        (
            lambda: sine_learner(
                inner.MetaSGD(0.1), fast="4", learn_init=False, estimator=outer.OneStep()
            ),
            ValueError,
            "or a rule without meta-parameters.",
        ),
    ],
)
def test_refuses(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
