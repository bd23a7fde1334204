"""The learner as the ordinary module that it promises to be."""

import copy
import io
import pickle
from dataclasses import dataclass

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import functional, inner, models, outer, testing
from metalearn._tree import tree_detach
from metalearn.types import Batch, Carry, Episode
from tests.cases import RandomMask, keys, relative_difference, sine_episodes, sine_learner, task


def by_autograd(model, episodes, lr, num_steps):
    """Second-order MAML as everybody first writes it: a loop over tasks with create_graph."""
    total = 0.0
    names = [name for name, _ in model.named_parameters()]
    for index in range(len(episodes.support.x)):
        support, query = task(episodes, index)
        params = list(model.parameters())
        for _ in range(num_steps):
            call = dict(zip(names, params, strict=True))
            loss = F.mse_loss(torch.func.functional_call(model, call, (support.x,)), support.y)
            grads = torch.autograd.grad(loss, params, create_graph=True)
            params = [param - lr * grad for param, grad in zip(params, grads, strict=True)]
        call = dict(zip(names, params, strict=True))
        total = total + F.mse_loss(torch.func.functional_call(model, call, (query.x,)), query.y)
    return total / len(episodes.support.x)


def test_backward_gives_the_gradient_of_the_plain_loop(model, episodes):
    learner = outer.MAML(model, F.mse_loss, inner.SGD(0.01), num_steps=3)
    loss = learner(episodes)
    loss.backward()
    ours = {name: param.grad.clone() for name, param in model.named_parameters()}
    model.zero_grad()
    theirs = by_autograd(model, episodes, 0.01, 3)
    theirs.backward()
    assert loss.item() == pytest.approx(theirs.item(), rel=1e-12)
    for name, param in model.named_parameters():
        torch.testing.assert_close(ours[name], param.grad, rtol=1e-9, atol=1e-12)


def test_names():
    learner = sine_learner(inner.MetaSGD(0.01), fast=["4"])
    assert list(learner.state_dict()) == [
        *[f"model.{layer}.{kind}" for layer in (0, 2, 4) for kind in ("weight", "bias")],
        "rule.rate.4.weight",
        "rule.rate.4.bias",
    ]
    meta = learner.meta
    assert list(meta.init) == ["4.weight", "4.bias"]
    assert list(meta.shared) == ["model.0.weight", "model.0.bias", "model.2.weight", "model.2.bias"]


def test_print_shows_the_method():
    lines = repr(sine_learner()).splitlines()
    assert lines[1] == f"  rule=SGD(lr=0.01), num_steps=3, estimator={outer.Unrolled()}"
    assert lines[2] == "  fast=all 6 tensors"
    options = {
        "fast": ["2", "4"],
        "learn_init": "4",
        "chunk_size": 2,
        "estimator": outer.Stepwise(),
    }
    lines = repr(sine_learner(inner.MetaSGD(0.1), **options)).splitlines()
    assert lines[1].endswith(f"num_steps=3, estimator={outer.Stepwise()}, chunk_size=2")
    assert (
        lines[2]
        == "  fast=4 of 6 tensors: 2.weight, 2.bias, 4.weight, 4.bias, 2 starts not learned"
    )
    assert (
        sine_learner(fast="[02]*")
        .extra_repr()
        .endswith("fast=4 of 6 tensors: 0.weight, 0.bias, 2.weight, 2.bias")
    )
    many = sine_learner(fast=lambda name: name != "0.bias")
    assert many.extra_repr().endswith(
        "fast=5 of 6 tensors: 0.weight, 2.weight, 2.bias, ..., 4.bias"
    )


def test_estimate_has_a_loss_a_task(episodes):
    estimate = sine_learner().estimate(episodes)
    assert estimate.loss.shape == (3,)
    assert estimate.diagnostics["finite"].tolist() == [True] * 3
    assert not estimate.loss.requires_grad


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 100])
@pytest.mark.parametrize("rule", [inner.SGD(0.01), RandomMask(0.01)], ids=str)
def test_chunks_change_nothing(chunk_size, rule, episodes):
    whole = sine_learner(rule).estimate(episodes, keys())
    chunked = sine_learner(rule, chunk_size=chunk_size).estimate(episodes, keys())
    assert relative_difference(whole[:2], chunked[:2]) < 1e-12


def test_nan_is_reported_for_its_task(episodes):
    episodes.query.y[1, 0] = float("nan")
    estimate = sine_learner().estimate(episodes)
    assert estimate.diagnostics["finite"].tolist() == [True, False, True]
    assert estimate.loss.isnan().tolist() == [False, True, False]


class TestAutogradsRules:
    def test_backward_twice_raises(self, episodes):
        loss = sine_learner()(episodes)
        loss.backward()
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            loss.backward()

    def test_double_backward_raises(self, episodes):
        learner = sine_learner()
        params = list(learner.parameters())
        grads = torch.autograd.grad(learner(episodes) ** 2, params, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            grads[0].sum().backward()

    def test_forward_mode_raises(self, episodes):
        learner = sine_learner()
        names, params = zip(*learner.named_parameters(), strict=True)

        def loss(*params):
            return torch.func.functional_call(
                learner, dict(zip(names, params, strict=True)), (episodes,)
            )

        with pytest.raises(RuntimeError, match="has no forward-mode derivative"):
            torch.func.jvp(loss, params, params)

    def test_a_penalty_on_the_gradient_raises(self, episodes):
        learner = sine_learner()
        loss = learner(episodes)
        grads = torch.autograd.grad(loss, list(learner.parameters()), create_graph=True)
        penalty = sum(grad.square().sum() for grad in grads)
        with pytest.raises(RuntimeError, match="differentiate twice"):
            (loss + penalty).backward()

    def test_many_incoming_gradients_at_once(self, episodes):
        learner = sine_learner()
        loss, params = learner(episodes), list(learner.parameters())
        incoming = torch.tensor([1.0, 2.0], dtype=torch.float64)
        many = torch.autograd.grad(loss, params, incoming, retain_graph=True, is_grads_batched=True)
        for grad, both in zip(torch.autograd.grad(loss, params), many, strict=True):
            torch.testing.assert_close(both, torch.stack([grad, 2 * grad]))

    def test_gradients_accumulate_and_scale(self, episodes):
        learner = sine_learner()
        learner(episodes).backward()
        once = [param.grad.clone() for param in learner.parameters()]
        (2 * learner(episodes)).backward()
        assert (
            relative_difference([p.grad for p in learner.parameters()], [3 * g for g in once])
            < 1e-12
        )

    def test_hooks_run(self, episodes):
        learner, seen = sine_learner(), []
        first = next(learner.parameters())
        first.register_hook(lambda grad: seen.append("gradient"))
        first.register_post_accumulate_grad_hook(lambda param: seen.append("accumulated"))
        learner.register_forward_hook(lambda *_: seen.append("forward"))
        learner(episodes).backward()
        assert seen == ["forward", "gradient", "accumulated"]

    def test_no_grad_computes_the_loss_alone(self, episodes):
        class Raising(outer.Unrolled):
            def __call__(self, *_):
                raise AssertionError("a gradient was computed")

        expected = sine_learner()(episodes)
        with torch.no_grad():
            loss = sine_learner(estimator=Raising())(episodes)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
        assert loss.grad_fn is None

    @pytest.mark.parametrize("chunk_size", [None, 2])
    def test_no_grad_draws_the_same_keys(self, chunk_size, episodes):
        learner = sine_learner(RandomMask(0.1), chunk_size=chunk_size)
        learner(episodes)
        losses = []
        for enabled in (True, False):
            torch.manual_seed(3)
            with torch.set_grad_enabled(enabled):
                losses.append(learner(episodes).item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-12)

    def test_frozen_learner_still_adapts(self, episodes):
        learner = sine_learner().requires_grad_(False)
        loss = learner(episodes)
        assert not loss.requires_grad
        assert learner.adapt(episodes.support).loss(episodes.query).mean().item() == pytest.approx(
            loss.item()
        )

    def test_partly_frozen_learner_leaves_the_rest(self, episodes):
        learner = sine_learner()
        learner.model[0].requires_grad_(False)
        learner(episodes).backward()
        assert learner.model[0].weight.grad is None
        assert learner.model[2].weight.grad is not None

    def test_an_optimizer_step_lowers_the_loss(self, episodes):
        learner = sine_learner(inner.MetaSGD(0.01))
        optimizer = torch.optim.SGD(learner.parameters(), lr=1e-3)
        before = learner(episodes)
        before.backward()
        optimizer.step()
        assert learner(episodes) < before


class TestCopies:
    def test_deepcopy_is_independent(self, episodes):
        learner = sine_learner(inner.MetaSGD(0.01))
        copied = copy.deepcopy(learner)
        expected = learner(episodes)
        with torch.no_grad():
            for param in learner.parameters():
                param.zero_()
        assert torch.equal(copied(episodes), expected)

    @pytest.mark.parametrize("compile", [False, {"backend": "eager"}])
    def test_pickle(self, compile, episodes):
        learner = sine_learner(inner.MetaSGD(0.01), compile=compile)
        expected = learner(episodes)
        assert torch.equal(pickle.loads(pickle.dumps(learner))(episodes), expected)

    def test_state_dict_loads_into_the_plain_model(self, episodes, model):
        buffer = io.BytesIO()
        torch.save(sine_learner().state_dict(), buffer)
        buffer.seek(0)
        state = torch.load(buffer, weights_only=True)
        learner = outer.MAML(model, F.mse_loss, inner.SGD(0.01), num_steps=3)
        learner.load_state_dict(state)
        model.load_state_dict(
            {name.removeprefix("model."): tensor for name, tensor in state.items()}
        )

    def test_moves_between_dtypes(self):
        learner = sine_learner(inner.MetaSGD(0.01)).float()
        loss = learner(sine_episodes(dtype=torch.float32))
        loss.backward()
        assert {param.grad.dtype for param in learner.parameters()} == {torch.float32}


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(1, 1), nn.Linear(1, 1)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


class TestFastParameters:
    def test_shared_parameters_do_not_adapt_but_learn(self, episodes):
        learner = sine_learner(fast="4")
        adapted = learner.adapt(episodes.support)
        assert set(adapted.params) == {"4.weight", "4.bias"}
        learner(episodes).backward()
        assert all(param.grad.any() for param in learner.parameters())

    def test_unlearned_starts_become_buffers(self, episodes):
        learner = sine_learner(learn_init=["0", "2"])
        assert {"model.4.weight", "model.4.bias"} <= {name for name, _ in learner.named_buffers()}
        assert len(list(learner.parameters())) == 4
        before = learner.model[4].weight.clone()
        learner(episodes).backward()
        torch.optim.SGD(learner.parameters(), lr=0.1).step()
        assert torch.equal(learner.model[4].weight, before)
        assert isinstance(learner.adapt(episodes.support)[0][4].weight, nn.Parameter)

    def test_nothing_of_the_start_is_learned(self, episodes):
        learner = sine_learner(inner.MetaSGD(0.01), learn_init=False)
        assert [name.split(".")[0] for name, _ in learner.named_parameters()] == ["rule"] * 6
        learner(episodes).backward()

    def test_constants_stay_out(self, model, episodes):
        model[0].weight.requires_grad_(False)
        learner = outer.MAML(model, F.mse_loss, inner.SGD(0.01), num_steps=2)
        assert "0.weight" not in learner.meta.init
        learner(episodes).backward()
        assert model[0].weight.grad is None

    def test_tied_parameters_adapt_as_one(self, episodes):
        learner = outer.MAML(
            Tied().double(), F.mse_loss, inner.SGD(0.1), num_steps=2, fast="second.*"
        )
        assert list(learner.meta.init) == ["first.weight", "second.bias"]
        learner(episodes).backward()
        module = learner.adapt(episodes.support)[0]
        assert torch.equal(module.first.weight, module.second.weight)

    @pytest.mark.parametrize("fast", ["*", "second"])
    def test_tied_starts_stay_tied_when_they_move(self, fast, episodes):
        learner = outer.MAML(
            Tied(), F.mse_loss, inner.MetaSGD(0.1), num_steps=2, fast=fast, learn_init=False
        ).double()
        assert learner.model.first.weight is learner.model.second.weight
        module = learner.adapt(episodes.support)[0]
        assert torch.equal(module.first.weight, module.second.weight)

    @pytest.mark.parametrize("options", [{}, {"learn_init": False}])
    def test_tied_parameters_are_loaded_as_one(self, options, episodes):
        learner = outer.MAML(
            Tied().double(), F.mse_loss, inner.MetaSGD(0.1), num_steps=2, **options
        )
        before = learner(episodes)
        learner.load_state_dict(
            {name: tensor.clone() for name, tensor in learner.state_dict().items()}, assign=True
        )
        assert learner.model.first.weight is learner.model.second.weight
        assert torch.equal(learner(episodes), before)

    @pytest.mark.parametrize("method", [outer.MAML, outer.ANIL, outer.HyperRepresentation])
    def test_a_model_with_constant_starts_serves_one_learner(self, method):
        model = models.mlp(1, [4, 4], 1)
        outer.HyperRepresentation(model, F.mse_loss, inner.MetaSGD(0.1), num_steps=1)
        body = model[2].weight.clone()
        for of_user in (model, nn.Sequential(model), copy.deepcopy(model)):
            with pytest.raises(
                ValueError, match=r"model must be new; got one .*4.weight.* Build the model"
            ):
                method(of_user, F.mse_loss, inner.SGD(0.1), num_steps=1)
        assert torch.equal(model[2].weight, body)

    def test_tasks_that_took_no_step_share_no_memory(self, episodes):
        params = sine_learner().adapt(episodes.support, 0).params
        start = params["0.weight"][1].clone()
        params["0.weight"][0].zero_()
        assert torch.equal(params["0.weight"][1], start)


class TestProblems:
    def test_buffers_are_read(self, episodes):
        class Shifted(nn.Module):
            def __init__(self):
                super().__init__()
                self.linear = nn.Linear(1, 1).double()
                self.register_buffer("shift", torch.tensor(3.0, dtype=torch.float64))

            def forward(self, x):
                return self.linear(x) + self.shift

        model = Shifted()
        learner = outer.MAML(model, F.mse_loss, inner.SGD(0.01), num_steps=1)
        before = learner(episodes).item()
        model.shift.zero_()
        assert learner(episodes).item() != before

    def test_inputs_by_keyword(self, episodes):
        class Two(nn.Module):
            def __init__(self):
                super().__init__()
                self.linear = nn.Linear(1, 1).double()

            def forward(self, left, right):
                return self.linear(left) - right

        def with_keywords(batch):
            return Batch({"left": batch.x, "right": 0 * batch.x}, batch.y)

        keyed = Episode(with_keywords(episodes.support), with_keywords(episodes.query))
        torch.manual_seed(0)
        learner = outer.MAML(Two(), F.mse_loss, inner.SGD(0.01), num_steps=1)
        torch.manual_seed(0)
        plain = outer.MAML(nn.Linear(1, 1).double(), F.mse_loss, inner.SGD(0.01), num_steps=1)
        assert torch.equal(learner(keyed), plain(episodes))
        assert learner.adapt(keyed.support)(keyed.query.x).shape == (3, 4, 1)

    def test_weights_reach_the_criterion(self, model, episodes):
        def weighted(output, target, weight):
            return (weight[:, None] * (output - target) ** 2).sum() / weight.sum()

        def padded(batch):
            x, y = (
                torch.cat([part, torch.full_like(part, 100.0)], 1) for part in (batch.x, batch.y)
            )
            weight = torch.cat(
                [torch.ones_like(batch.x[..., 0]), torch.zeros_like(batch.x[..., 0])], 1
            )
            return Batch(x, y, weight)

        plain = outer.MAML(model, F.mse_loss, inner.SGD(0.01), num_steps=2)(episodes)
        ragged = Episode(padded(episodes.support), padded(episodes.query))
        learner = outer.MAML(model, weighted, inner.SGD(0.01), num_steps=2)
        assert learner(ragged).item() == pytest.approx(plain.item(), rel=1e-12)

    def test_learned_support_criterion(self, model, episodes):
        class Learned(nn.Module):
            def __init__(self):
                super().__init__()
                self.log_scale = nn.Parameter(torch.zeros((), dtype=torch.float64))

            def forward(self, output, target):
                return self.log_scale.exp() * F.mse_loss(output, target)

        learner = outer.MAML(
            model, F.mse_loss, inner.SGD(0.01), num_steps=2, support_criterion=Learned()
        )
        assert "support_criterion.log_scale" in dict(learner.named_parameters())
        learner(episodes, keys=keys()).backward()
        gradient = learner.support_criterion.log_scale.grad.item()
        losses = []
        for shift in (1e-5, -1e-5):
            learner.support_criterion.log_scale.data.fill_(shift)
            losses.append(learner(episodes, keys=keys()).item())
        assert gradient == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-6)

    def test_losses_of_ones_own(self, model, episodes):
        def support_loss(params, shared, episode, step):
            output = torch.func.functional_call(model, params, (episode.support.x,))
            return F.mse_loss(output, episode.support.y)

        def query_loss(params, shared, episode):
            return F.mse_loss(
                torch.func.functional_call(model, params, (episode.query.x,)), episode.query.y
            )

        own = outer.MAML(
            model,
            None,
            inner.SGD(0.01),
            num_steps=2,
            support_loss=support_loss,
            query_loss=query_loss,
        )
        usual = outer.MAML(model, F.mse_loss, inner.SGD(0.01), num_steps=2)
        assert torch.equal(own(episodes), usual(episodes))

    def test_a_loss_of_ones_own_may_be_a_module(self, model, episodes):
        class Penalised(nn.Module):
            def __init__(self):
                super().__init__()
                self.model = model  # its parameters are the learner's already
                self.log_decay = nn.Parameter(torch.zeros(2, dtype=torch.float64))

            def forward(self, params, shared, episode, step):
                output = torch.func.functional_call(self.model, params, (episode.support.x,))
                squares = torch.stack(
                    [params["4.weight"].square().sum(), params["4.bias"].square().sum()]
                )
                return (
                    F.mse_loss(output, episode.support.y) + (self.log_decay.exp() * squares).sum()
                )

        learner = outer.MAML(
            model, F.mse_loss, inner.SGD(0.01), num_steps=2, support_loss=Penalised()
        )
        assert list(learner.meta.shared) == ["support_loss.log_decay"]
        direction = torch.tensor([1.0, -0.5], dtype=torch.float64)
        gradient = learner.estimate(episodes).gradient.shared["support_loss.log_decay"]

        def loss(value):
            learner.support_loss.log_decay.data.copy_(value)
            return learner(episodes).detach()

        expected = testing.finite_difference(loss, torch.zeros(2, dtype=torch.float64), direction)
        assert (gradient @ direction).item() == pytest.approx(expected.item(), rel=1e-6)
        pickle.loads(pickle.dumps(learner.state_dict()))

    def test_a_loss_may_use_shared_parameters_of_the_model(self, model, episodes):
        class Penalised(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = model[0]

            def forward(self, output, target):
                return F.mse_loss(output, target) + 0.5 * self.body.weight.square().sum()

        plain = outer.ANIL(model, F.mse_loss, inner.SGD(0.01), num_steps=2)
        learner = outer.ANIL(
            model, Penalised(), inner.SGD(0.01), num_steps=2, support_criterion=F.mse_loss
        )
        gradients = []
        for each in (plain, learner):
            each.zero_grad()
            each(episodes).backward()
            gradients.append(model[0].weight.grad.clone())
        torch.testing.assert_close(gradients[1] - gradients[0], model[0].weight.detach())

    def test_support_batches_take_turns(self, model):
        episodes = sine_episodes(k_shot=6)
        learner = outer.MAML(model, F.mse_loss, inner.SGD(0.01), num_steps=4, support_batches=3)
        adapted = learner.adapt(episodes.support)
        params = dict(model.named_parameters())
        for step in range(4):
            part = slice(step % 3, None, 3)
            output = torch.func.functional_call(model, params, (episodes.support.x[0, part],))
            grads = torch.autograd.grad(
                F.mse_loss(output, episodes.support.y[0, part]), list(params.values())
            )
            params = {n: p - 0.01 * g for (n, p), g in zip(params.items(), grads, strict=True)}
        params = {name: param.detach() for name, param in params.items()}
        assert relative_difference({n: p[0] for n, p in adapted.params.items()}, params) < 1e-12

    def test_bf16_autocast(self):
        episodes = sine_episodes(dtype=torch.float32)
        learner = sine_learner().float()
        exact = learner.estimate(episodes)
        with torch.autocast("cpu", torch.bfloat16):
            loss = learner(episodes)
        loss.backward()
        grads = [param.grad for param in learner.parameters()]
        assert {grad.dtype for grad in grads} == {torch.float32}
        flat = torch.cat([grad.flatten() for grad in grads])
        of_exact = torch.cat([grad.flatten() for grad in exact.gradient.init.values()])
        assert F.cosine_similarity(flat, of_exact, dim=0) > 0.99
        assert loss.item() == pytest.approx(exact.loss.mean().item(), rel=0.05)

    def test_dropout_under_unrolled(self, episodes):
        model = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 1)).double()
        learner = outer.MAML(model, F.mse_loss, inner.SGD(0.01), num_steps=2)
        assert not torch.equal(learner(episodes), learner(episodes))
        learner.eval()
        assert torch.equal(learner(episodes), learner(episodes))


class TestAdapt:
    def test_matches_inner_adapt(self, episodes):
        learner = sine_learner()
        adapted = learner.adapt(episodes.support, num_steps=4)
        one = inner.adapt(
            learner.problem._replace(num_steps=4),
            tree_detach(learner.meta),
            task(episodes),
            keys()[0],
        )
        assert relative_difference({n: p[0] for n, p in adapted.params.items()}, one.params) < 1e-12
        assert len(adapted) == 3
        assert repr(adapted) == "AdaptedModels(3 tasks, 6 parameter tensors)"

    def test_loss_and_outputs(self, episodes):
        learner = sine_learner()
        adapted = learner.adapt(episodes.support)
        losses = adapted.loss(episodes.query)
        assert losses.mean().item() == pytest.approx(learner(episodes).item(), rel=1e-12)
        outputs = adapted(episodes.query.x)
        assert outputs.shape == (3, 4, 1)
        assert F.mse_loss(outputs[1], episodes.query.y[1]).item() == pytest.approx(losses[1].item())
        assert not outputs.requires_grad

    def test_one_task_is_a_plain_module(self, episodes):
        learner = sine_learner(fast="4")
        adapted = learner.adapt(episodes.support)
        module = adapted[2]
        torch.testing.assert_close(module(episodes.query.x[2]), adapted(episodes.query.x)[2])
        module(episodes.query.x[2]).sum().backward()
        assert next(learner.parameters()).grad is None

    @pytest.mark.parametrize("num_steps", [0, 2])
    def test_is_independent_of_further_training(self, num_steps, episodes):
        learner = sine_learner(fast="4")
        adapted = learner.adapt(episodes.support, num_steps)
        before, module = adapted.loss(episodes.query), adapted[0]
        with torch.no_grad():
            for param in learner.parameters():
                param.zero_()
        assert torch.equal(adapted.loss(episodes.query), before)
        assert torch.equal(adapted[0][0].weight, module[0].weight)

    @pytest.mark.parametrize("batching", ["vmap", "loop"])
    @pytest.mark.parametrize("num_tasks", [1, 3])
    def test_refuses_other_numbers_of_tasks(self, batching, num_tasks):
        adapted = sine_learner(batching=batching).adapt(sine_episodes(num_tasks).support)
        other = sine_episodes(num_tasks + 1).query
        for call in (lambda: adapted(other.x), lambda: adapted.loss(other)):
            with pytest.raises(ValueError, match=f"leading axis of {num_tasks} tasks"):
                call()

    def test_refuses_what_is_no_batch_or_index(self, episodes):
        adapted = sine_learner().adapt(episodes.support)
        with pytest.raises(TypeError, match=r"Write adapted.loss\(episodes.query\)."):
            adapted.loss(episodes)
        with pytest.raises(ValueError, match=r"adapted\(episodes.query.x\)"):
            adapted(sine_episodes(2).query)
        with pytest.raises(TypeError, match="index must be an int"):
            adapted[0:2]
        with pytest.raises(IndexError):
            adapted[3]

    def test_chunks_bound_what_is_called(self, episodes):
        whole, chunked = (
            sine_learner(chunk_size=size).adapt(episodes.support) for size in (None, 2)
        )
        torch.testing.assert_close(
            whole.loss(episodes.query), chunked.loss(episodes.query), rtol=1e-13, atol=0
        )
        torch.testing.assert_close(
            whole(episodes.query.x), chunked(episodes.query.x), rtol=1e-13, atol=1e-13
        )

    def test_query_is_not_needed(self):
        support = sine_episodes().support
        assert sine_learner().adapt(support).params["0.weight"].shape == (3, 6, 1)


class TestEstimator:
    """Another estimator may be assigned, and is checked like the first."""

    def test_of_another_kind_is_refused(self):
        learner = sine_learner()
        with pytest.raises(
            TypeError, match=r"estimator must be an estimator; got 'unrolled'. Pass one"
        ):
            learner.estimator = "unrolled"
        with pytest.raises(TypeError, match=r"Write Implicit\(...\)"):
            learner.estimator = outer.Implicit
        assert learner.estimator == outer.Unrolled()

    def test_must_reach_all_that_is_learned(self, episodes):
        learner = sine_learner(inner.LearnedRate(inner.SGD(0.01)))
        learner(episodes)
        with pytest.raises(ValueError, match="must reach all that is learned"):
            learner.estimator = outer.Implicit(2.0)

    def test_is_checked_at_the_first_call_again(self, episodes):
        model = nn.Sequential(nn.Linear(1, 6), nn.Dropout(), nn.Linear(6, 1)).double()
        learner = outer.MAML(model, F.mse_loss, inner.SGD(0.01), num_steps=1)
        learner(episodes)
        learner.estimator = outer.Stepwise(order=1)
        with pytest.raises(ValueError, match="compute the same loss twice"):
            learner(episodes)


class TestCarry:
    """A carry lives on from one training step to the next, in copies and in the state_dict."""

    @dataclass(frozen=True)
    class Counting(outer.Unrolled):
        """Counts meta-steps, by tasks of different weight so that the mean over tasks shows."""

        def init_carry(self, problem, meta, episode, key):
            return Carry({"steps": episode.support.x.new_zeros(())})

        def __call__(self, problem, meta, episode, key, carry):
            estimate = super().__call__(problem, meta, episode, key, carry)
            steps = carry.common["steps"]
            return estimate._replace(carry=Carry({"steps": steps + key.to(steps)}))

    @pytest.mark.parametrize("chunk_size", [None, 2])
    def test_is_the_mean_over_tasks(self, chunk_size, episodes):
        learner = sine_learner(estimator=self.Counting(), chunk_size=chunk_size)
        for _ in range(2):
            learner(episodes, keys=torch.tensor([1, 2, 6]))
        assert learner.state_dict()["carry.common.steps"] == 6

    def test_only_training_moves_it(self, episodes):
        learner = sine_learner(estimator=self.Counting())
        learner(episodes, keys=torch.ones(3, dtype=torch.int64))
        learner.estimate(episodes, keys())
        learner.eval()(episodes)
        with torch.no_grad():
            learner.train()(episodes)
        assert learner.carry.common.steps == 1

    def test_survives_saving(self, episodes):
        ones = torch.ones(3, dtype=torch.int64)
        learner, other = (
            sine_learner(estimator=self.Counting()),
            sine_learner(estimator=self.Counting()),
        )
        learner(episodes, keys=ones)
        other.load_state_dict(learner.state_dict())
        assert other.state_dict()["carry.common.steps"] == 1
        other(episodes, keys=ones)
        assert other.carry.common.steps == 2
        other.load_state_dict(learner.state_dict())
        assert other.state_dict()["carry.common.steps"] == 1
        other.load_state_dict(sine_learner(estimator=self.Counting()).state_dict())
        other(episodes, keys=ones)
        assert other.carry.common.steps == 1
        assert pickle.loads(pickle.dumps(learner)).carry.common.steps == 1

    def test_of_another_estimator_is_refused(self, episodes):
        learner, other = sine_learner(estimator=self.Counting()), sine_learner()
        learner(episodes)
        other.load_state_dict(learner.state_dict())
        with pytest.raises(
            ValueError, match=r"carry must be shaped as nothing; got .* learner.carry.reset\(\)"
        ):
            other(episodes)
        other.carry.reset()
        other(episodes)
        learner.estimator = outer.Unrolled(multi_step=outer.MultiStep(10))
        with pytest.raises(
            ValueError,
            match=r"carry must be shaped as {'common.value': \(\)}; got {'common.steps': \(\)}",
        ):
            learner(episodes)

    def test_most_learners_have_none(self, episodes):
        learner = sine_learner()
        learner(episodes)
        assert not any(name.startswith("carry") for name in learner.state_dict())


class TestCompile:
    @pytest.mark.inductor
    @pytest.mark.parametrize("estimator", [outer.Unrolled(), outer.Stepwise()], ids=str)
    @pytest.mark.parametrize(
        "rule", [inner.SGD(0.01), inner.MetaSGD(0.01), RandomMask(0.01)], ids=str
    )
    def test_inductor_agrees(self, rule, estimator, episodes):
        compiled = sine_learner(rule, estimator=estimator, compile=True).estimate(episodes, keys())
        eager = sine_learner(rule, estimator=estimator).estimate(episodes, keys())
        assert relative_difference(compiled[:2], eager[:2]) < 1e-9


def test_convolutions_classify():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 10, 1, 14, 14, generator=generator, dtype=torch.float64)
    y = torch.arange(5).repeat(2, 2)
    episodes = Episode(Batch(x[:, :5], y[:, :5]), Batch(x[:, 5:], y[:, 5:]))
    model = models.conv4(1, 5, num_filters=4, num_layers=2).double()
    learner = outer.MAML(model, F.cross_entropy, inner.SGD(0.1), num_steps=2)
    learner(episodes).backward()
    before, after = (learner.adapt(episodes.support, num_steps) for num_steps in (0, 200))
    assert (after.loss(episodes.support) < 0.5 * before.loss(episodes.support)).all()
    outputs = after(episodes.support.x)
    assert min(functional.accuracy(outputs[i], episodes.support.y[i]) for i in range(2)) >= 0.8


class Decay(nn.Module):
    """A criterion that holds a parameter of the model."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def forward(self, output, target):
        return F.mse_loss(output, target) + 0.1 * self.weight.square().sum()


def test_a_criterion_may_not_hold_what_adapts():
    model = models.mlp(1, [6], 1)
    with pytest.raises(
        ValueError, match=r"criterion must hold no parameters that adapt; .*query_loss="
    ):
        outer.MAML(model, Decay(model[0].weight), inner.SGD(0.1), num_steps=1)
    outer.MAML(model, Decay(model[0].weight), inner.SGD(0.1), num_steps=1, fast="2")
