from functools import partial

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import data, inner, models, outer
from metalearn._tasks import take
from metalearn._tree import tree_detach
from tests.cases import sine_episodes

SGD = inner.SGD(0.01)


def build(method, **options):
    return method(models.mlp(1, [4, 4], 1).double(), F.mse_loss, SGD, **{"num_steps": 2, **options})


@pytest.mark.parametrize(
    ("method", "estimator", "fast"),
    [
        (outer.MAML, outer.Unrolled(), 6),
        (outer.FOMAML, outer.Unrolled(order=1), 6),
        (outer.ANIL, outer.Unrolled(), 2),
        (outer.Reptile, outer.ParameterDifference(), 6),
        (partial(outer.Reptile, keep_state=True), outer.ParameterDifference(keep_state=True), 6),
        (
            partial(outer.IMAML, strength=60.0, solver=outer.Direct()),
            outer.Implicit(60.0, outer.Direct()),
            6,
        ),
    ],
)
def test_choices(method, estimator, fast):
    if method is outer.ANIL:
        assert list(build(method).meta.init) == ["4.weight", "4.bias"]
    learner = build(method)
    assert learner.estimator == estimator
    assert len(learner.meta.init) == fast
    learner(sine_episodes()).backward()


def test_choices_can_be_changed():
    assert build(outer.MAML, estimator=outer.Stepwise()).estimator == outer.Stepwise()
    assert list(build(outer.ANIL, fast="0").meta.init) == ["0.weight", "0.bias"]


def test_the_head_is_the_last_that_can_be_learned():
    model = models.mlp(1, [4, 4], 1).double()
    model[4].requires_grad_(False)
    assert list(outer.ANIL(model, F.mse_loss, SGD, num_steps=1).meta.init) == ["2.weight", "2.bias"]


class Network(nn.Module):
    """Modules by name, in the order in which they are registered."""

    def __init__(self, **modules):
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)


def fast(model, **options):
    return list(outer.ANIL(model, F.mse_loss, SGD, num_steps=1, **options).meta.init)


@pytest.mark.parametrize("name", ["head", "fc", "classifier", "output"])
def test_the_head_is_the_child_of_its_name(name):
    assert fast(Network(**{name: nn.Linear(4, 1)}, body=nn.Linear(1, 4))) == [
        f"{name}.weight",
        f"{name}.bias",
    ]
    layers = nn.Sequential(
        nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 1, bias=False), nn.LayerNorm(1)
    )
    expected = [f"{name}.0.weight", f"{name}.2.weight", f"{name}.3.weight", f"{name}.3.bias"]
    assert fast(Network(body=nn.Linear(1, 4), **{name: layers})) == expected


def test_the_head_is_the_last_where_names_do_not_tell():
    assert fast(Network(last=nn.Linear(4, 1), body=nn.Linear(1, 4))) == ["body.weight", "body.bias"]


def test_one_of_two_heads_is_chosen_by_the_user():
    two = {"head": nn.Linear(4, 1), "fc": nn.Linear(4, 4), "body": nn.Linear(1, 4)}
    with pytest.raises(
        ValueError, match=r"head must be one module; got \['head', 'fc'\] by their names. Name what"
    ):
        fast(Network(**two))
    assert fast(Network(**two), fast="head") == ["head.weight", "head.bias"]
    two["head"].requires_grad_(False)
    assert fast(Network(**two)) == ["fc.weight", "fc.bias"]


@pytest.mark.parametrize("method", [outer.ANIL, outer.HyperRepresentation])
def test_a_normalisation_layer_is_no_head(method):
    model = nn.Sequential(nn.Linear(1, 4), nn.Sequential(nn.ReLU(), nn.LayerNorm(4)))
    with pytest.raises(
        ValueError, match="head must have a weight matrix; got '1.1', LayerNorm. Name what adapts"
    ):
        method(model, F.mse_loss, SGD, num_steps=1)
    assert len(fast(model, fast="1.1")) == 2


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (models.mlp(1, [4], 1), ["2.W.weight", "2.W.bias"]),
        (Network(head=nn.Linear(4, 1), body=nn.Linear(1, 4)), ["head.W.weight", "head.W.bias"]),
    ],
)
def test_the_head_of_a_t_net_is_without_t(model, expected):
    assert fast(inner.t_net(model)) == expected


def test_a_head_may_be_the_whole_model():
    head = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="HyperRepresentation's head must be a module of its own"):
        outer.HyperRepresentation(head, F.mse_loss, SGD, num_steps=1)
    assert head.weight.any()
    outer.HyperRepresentation(head, F.mse_loss, inner.MetaSGD(0.1), num_steps=1, fast="*")
    assert not head.weight.any()


def test_misspelt_arguments():
    with pytest.raises(
        TypeError,
        match="arguments of IMAML must be among .*; got 'strenght'. Did you mean 'strength'?",
    ):
        outer.IMAML(nn.Linear(1, 1), F.mse_loss, SGD, num_steps=1, strenght=2.0)
    with pytest.raises(
        TypeError, match=r"num_steps must be given; got none. Write MAML\(..., num_steps=5\)"
    ):
        outer.MAML(nn.Linear(1, 1), F.mse_loss, SGD)


@pytest.mark.parametrize(
    ("argument", "fix"),
    [
        ("first_order", r"Write outer.FOMAML\(.*, or estimator=outer.Unrolled\(order=1\)\.$"),
        ("inner_lr", r"The rate is the rule's: write inner.SGD\(lr=0.01\)\.$"),
        ("fast_lr", "inner.SGD"),
        ("alpha", "inner.SGD"),
        ("adaptation_steps", r"Write num_steps=5\.$"),
    ],
)
def test_arguments_of_other_libraries(argument, fix):
    with pytest.raises(
        TypeError, match=f"arguments of MAML must be among .*; got '{argument}'. .*{fix}"
    ):
        outer.MAML(nn.Linear(1, 1), F.mse_loss, SGD, **{argument: 1})


def test_reptile_trains_on_parts_of_the_support_set():
    learner = build(outer.Reptile, support_batches=5)
    learner(sine_episodes(k_shot=5)).backward()


class TestHyperRepresentation:
    """The paper's four variants, each against its definition by plain autograd."""

    RATE = 0.1
    STEPS = 4

    def gradient(self, tasks, estimator):
        torch.manual_seed(0)
        model = models.mlp(1, [5, 4], 1).double()
        rule = inner.SGD(self.RATE)
        learner = outer.HyperRepresentation(
            model, F.mse_loss, rule, num_steps=self.STEPS, estimator=estimator
        )
        return model, learner.estimate(tasks).gradient.shared

    def expected(self, model, tasks, *, detach, on_support, every_step):
        body, params = model[:-1], list(model[:-1].parameters())
        total = 0.0
        for x, y, query_x, query_y in zip(*tasks.support[:2], *tasks.query[:2], strict=True):
            weight, bias = (
                torch.zeros(shape, dtype=torch.float64, requires_grad=True)
                for shape in ((1, 4), (1,))
            )
            losses = []
            for _ in range(self.STEPS):
                loss = F.mse_loss(F.linear(body(x), weight, bias), y)
                grads = torch.autograd.grad(loss, (weight, bias), create_graph=True)
                if detach:
                    grads = [grad.detach() for grad in grads]
                weight, bias = weight - self.RATE * grads[0], bias - self.RATE * grads[1]
                at, target = (x, y) if on_support else (query_x, query_y)
                losses.append(F.mse_loss(F.linear(body(at), weight, bias), target))
            total = total + (sum(losses) / len(losses) if every_step else losses[-1])
        return torch.autograd.grad(total / len(tasks.query.x), params)

    @pytest.mark.parametrize(
        ("estimator", "variant"),
        [
            # bilevel
            (outer.Unrolled(), {"detach": False, "on_support": False, "every_step": False}),
            # approximate
            (
                outer.Unrolled(truncate=0),
                {"detach": True, "on_support": False, "every_step": False},
            ),
            (
                outer.Stepwise(truncate=0),
                {"detach": True, "on_support": False, "every_step": False},
            ),
            # training sets only
            (outer.Unrolled(), {"detach": False, "on_support": True, "every_step": False}),
            (
                outer.Unrolled(truncate=0, multi_step=outer.MultiStep()),  # of all its steps
                {"detach": True, "on_support": True, "every_step": True},
            ),
        ],
    )
    def test_variants(self, estimator, variant):
        tasks = sine_episodes()
        given = tasks._replace(query=tasks.support) if variant["on_support"] else tasks
        model, ours = self.gradient(given, estimator)
        for left, right in zip(ours.values(), self.expected(model, tasks, **variant), strict=True):
            torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-12)

    def test_the_approximate_one_is_the_gradient_at_fixed_heads(self):
        """The query loss's own derivative: what is learned does not move the trained head, d w_T =
        0."""
        tasks = sine_episodes()
        model, ours = self.gradient(tasks, outer.Unrolled(truncate=0))
        body, rule = model[:-1], inner.SGD(self.RATE)
        torch.manual_seed(0)
        copy = models.mlp(1, [5, 4], 1).double()
        adapted = outer.HyperRepresentation(copy, F.mse_loss, rule, num_steps=self.STEPS).adapt(
            tasks.support
        )
        weights, biases = adapted.params["4.weight"], adapted.params["4.bias"]
        heads = zip(tasks.query.x, weights, biases, strict=True)
        outputs = torch.stack([F.linear(body(x), weight, bias) for x, weight, bias in heads])
        expected = torch.autograd.grad(F.mse_loss(outputs, tasks.query.y), list(body.parameters()))
        for left, right in zip(ours.values(), expected, strict=True):
            torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("estimator", [outer.Unrolled, outer.Stepwise])
    def test_the_approximate_one_gives_the_rate_no_gradient(self, estimator):
        tasks, model, rule = (
            sine_episodes(),
            models.mlp(1, [5, 4], 1).double(),
            inner.LearnedRate(inner.SGD(self.RATE)),
        )
        learner = outer.HyperRepresentation(model, F.mse_loss, rule, num_steps=self.STEPS)

        def to_the_rate(estimator):
            meta = tree_detach(learner.meta)
            return estimator(
                learner.problem, meta, take(tasks, 0), torch.tensor(0), ()
            ).gradient.rule["rate"]

        assert to_the_rate(estimator(truncate=0)) == 0
        assert to_the_rate(estimator(order=1)) != 0  # through the last steps
        with pytest.raises(
            ValueError, match="reach all that is learned, .* or a rule without meta-parameters"
        ):
            learner.estimator = estimator(truncate=0)

    def test_the_head_starts_at_zero_and_stays_there(self):
        learner = build(outer.HyperRepresentation)
        assert not any(start.any() for start in learner.meta.init.values())
        assert [name for name, _ in learner.named_parameters()] == [
            "model.0.weight", "model.0.bias", "model.2.weight", "model.2.bias",
        ]  # fmt: skip


def test_the_code_of_imaml():
    """As its authors published it, not as the paper says."""
    code = {"proximal": "last_step", "system_strength": 12.0, "solver": outer.CG(5, damping=1.0)}
    learner = build(outer.IMAML, num_steps=17, **code)
    assert learner.estimator == outer.Implicit(2.0, outer.CG(5, damping=1.0), "last_step", 12.0)


def t_net():
    return inner.t_net(models.mlp(1, [4], 1))


@pytest.mark.parametrize("method", [outer.TNet, outer.MTNet])
def test_t_nets_adapt_all_but_t(method):
    learner = method(t_net(), F.mse_loss, inner.SGD(0.1), num_steps=2)
    assert set(learner.meta.init) == {"0.W.weight", "0.W.bias", "2.W.weight", "2.W.bias"}
    assert set(learner.meta.shared) == {"model.0.T.weight", "model.2.T.weight"}
    episodes = data.Sinusoid(3, 3).sample(2)
    learner(episodes).backward()
    assert all(param.grad.any() for param in learner.parameters())


@pytest.mark.parametrize(
    ("fast", "expected"), [("*", 4), (["2"], 2), (lambda name: name.startswith("0"), 2)]
)
def test_t_never_adapts(fast, expected):
    learner = outer.TNet(t_net(), F.mse_loss, inner.SGD(0.1), num_steps=1, fast=fast)
    assert len(learner.meta.init) == expected
    assert not any(".T." in name for name in learner.meta.init)


def test_mt_net_masks_its_rule_once():
    assert outer.MTNet(
        t_net(), F.mse_loss, inner.SGD(0.1), num_steps=1
    ).problem.rule == inner.Masked(inner.SGD(0.1))
    own = inner.Masked(inner.SGD(0.1), temperature=0.5)
    for rule in (own, inner.Clipped(own, norm=1.0)):
        assert outer.MTNet(t_net(), F.mse_loss, rule, num_steps=1).problem.rule is rule


def test_the_t_of_a_shared_layer_does_not_adapt():
    layer = nn.Linear(1, 1)
    learner = outer.TNet(
        inner.t_net(nn.Sequential(layer, nn.ReLU(), layer)), F.mse_loss, inner.SGD(0.1), num_steps=1
    )
    assert set(learner.meta.init) == {"0.W.weight", "0.W.bias"}


@pytest.mark.parametrize("method", [outer.TNet, outer.MTNet])
def test_t_nets_need_a_t(method):
    with pytest.raises(ValueError, match=r"Write TNet\(inner.t_net\(model\), ...\)"):
        method(models.mlp(1, [4], 1), F.mse_loss, inner.SGD(0.1), num_steps=1)
    with pytest.raises(TypeError, match="model must be an nn.Module"):
        method("mlp", F.mse_loss, inner.SGD(0.1), num_steps=1)


def test_an_untrained_t_net_is_maml():
    episodes = data.Sinusoid(3, 3).sample(2)
    losses = []
    for build in (
        lambda model: outer.TNet(inner.t_net(model), F.mse_loss, inner.SGD(0.1), num_steps=3),
        lambda model: outer.MAML(model, F.mse_loss, inner.SGD(0.1), num_steps=3),
    ):
        torch.manual_seed(0)
        losses.append(build(models.mlp(1, [4], 1))(episodes))
    torch.testing.assert_close(*losses)


def test_a_head_of_two_names_is_one():
    layer = nn.Linear(4, 1)
    assert fast(Network(body=nn.Linear(1, 4), head=layer, classifier=layer)) == [
        "head.weight",
        "head.bias",
    ]
    with pytest.raises(ValueError, match=r"Name what adapts: ANIL\(..., fast='output'\), say"):
        fast(Network(body=nn.Linear(1, 4), fc=nn.Linear(4, 4), output=nn.Linear(4, 1)))
