"""A compiled learner is never stale, and computes what an eager one does."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch._subclasses import FakeTensor

from metalearn import functional, inner, outer
from metalearn._tree import tree_map
from metalearn.outer import _compile, _plan
from metalearn.types import Batch, Episode
from tests.cases import relative_difference, sine_episodes

HOW = {"backend": "eager"}
"""A captured graph without inductor, whose own tests take minutes."""


class Scaled(nn.Module):
    """A model with all that may change about it: a buffer, settings, dropout, a frozen part."""

    def __init__(self):
        super().__init__()
        self.first, self.act, self.last = nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("scale", torch.full((1,), 2.0))
        self.offset, self.kind, self.powers, self.table = 0.5, "plain", (1, 2), [1.0]
        self.count = 1

    def forward(self, x):
        x = x * (3 if isinstance(self.count, float) else 1)
        x = x * getattr(self.act, "gain", 1)
        x = self.dropout(self.act(self.first(x))) if self.kind == "dropped" else self.first(x)
        x = self.act(x) * self.scale + self.offset
        return self.last(sum(x**power for power in self.powers)) * self.table[0]


def build(model=None, how=HOW, **options):
    torch.manual_seed(0)
    model = Scaled() if model is None else model
    options = {"num_steps": 2, **options}
    rule = options.pop("rule", inner.SGD(0.01))
    return outer.MetaLearner(model.double(), F.mse_loss, rule, compile=how, **options)


def keys(num_tasks=3):
    return functional.draw_keys(num_tasks, generator=torch.Generator().manual_seed(1))


def assert_fresh(learner, num_tasks=3, tolerance=1e-12):
    """Compare with an eager copy of what the learner is now."""
    eager = copy.deepcopy(learner)
    eager.set_batching(learner.batching, learner.chunk_size)
    episodes = tree_map(lambda leaf: leaf.to(learner.dtype), sine_episodes(num_tasks))
    for each in (eager, learner):
        each.estimate(episodes, keys(num_tasks))  # whose checks draw as well
    torch.manual_seed(3)
    expected = eager.estimate(episodes, keys(num_tasks))
    torch.manual_seed(3)
    got = learner.estimate(episodes, keys(num_tasks))
    assert relative_difference(got[:2], expected[:2]) < tolerance
    for param in learner.parameters():
        param.grad = None
    torch.manual_seed(3)
    learner(episodes, keys=keys(num_tasks)).backward()
    for name, param in learner.named_parameters():
        if param.requires_grad and name.removeprefix("model.") in expected.gradient.init:
            theirs = expected.gradient.init[name.removeprefix("model.")]
            assert relative_difference(param.grad, theirs) < max(tolerance, 1e-12)
    return got


def replaced_buffer(learner):
    learner.model.scale = torch.full((1,), 3.0).double()


def written_buffer(learner):
    learner.model.scale.mul_(5)


def loaded(learner):
    state = {name: value * 1.1 for name, value in learner.state_dict().items()}
    learner.load_state_dict(state)


def loaded_by_assignment(learner):
    state = {name: value * 1.1 for name, value in learner.state_dict().items()}
    learner.load_state_dict(state, assign=True)


def swapped_layer(learner):
    learner.model.act = nn.Sigmoid()


def hook(learner):
    learner.model.act.register_forward_hook(lambda module, args, output: output * 2)


def global_hook(learner):
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, args, output: output * 2 if isinstance(module, nn.Tanh) else None
    )
    return handle.remove


def moved(learner):
    learner.float()


def attribute(name, value):
    return lambda learner: setattr(learner.model, name, value)


def another_estimator(learner):
    learner.estimator = outer.Unrolled(order=1)


CHANGES = {
    "a replaced buffer": replaced_buffer,
    "a written buffer": written_buffer,
    "a buffer of another shape": lambda learner: setattr(
        learner.model, "scale", torch.full((8,), 3.0).double()
    ),
    "a buffer of another dtype": lambda learner: setattr(
        learner.model, "scale", torch.full((1,), 3)
    ),
    "a loaded state": loaded,
    "a state loaded by assignment": loaded_by_assignment,
    "a swapped layer": swapped_layer,
    "a hook": hook,
    "a hook of all modules": global_hook,
    "another dtype": moved,
    "a number": attribute("offset", 0.25),
    "a string": attribute("kind", "dropped"),
    "a tuple": attribute("powers", (1, 3)),
    "another list": attribute("table", [3.0]),
    "a number of another type": attribute("count", 1.0),
    "a new buffer": lambda learner: learner.model.act.register_buffer(
        "gain", torch.full((1,), 2.0).double()
    ),
    "another class": lambda learner: setattr(learner.model.act, "__class__", nn.Sigmoid),
    "a list's element": lambda learner: learner.model.table.__setitem__(0, 4.0),
    "another estimator": another_estimator,
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_seen(name):
    learner = build()
    before = assert_fresh(learner)
    undo = CHANGES[name](learner)
    try:
        after = assert_fresh(learner, tolerance=1e-4 if name == "another dtype" else 1e-12)
    finally:
        if undo is not None:
            undo()
    assert relative_difference(after[:1], before[:1]) > (1e-8 if name == "another dtype" else 1e-3)


def test_a_parameter_is_frozen_and_thawed():
    learner = build()
    assert_fresh(learner)
    learner.model.first.bias.requires_grad_(False)
    assert_fresh(learner)
    assert learner.model.first.bias.grad is None
    learner.model.first.bias.requires_grad_(True)
    assert_fresh(learner)
    assert learner.model.first.bias.grad is not None


def test_modes_are_seen_each_with_a_plan_of_its_own(monkeypatch):
    learner = build()
    learner.model.kind = "dropped"
    first = assert_fresh(learner)
    learner.eval()
    assert relative_difference(assert_fresh(learner)[:1], first[:1]) > 1e-3
    monkeypatch.setattr(_compile, "CapturedStep", None)  # nothing is captured again
    learner.train()
    assert relative_difference(assert_fresh(learner)[:1], first[:1]) == 0


def test_a_rule_is_read_anew():
    class Tempered(inner.UpdateRule):
        def __init__(self):
            self.lr = 0.01

        def update(self, meta, grads, state, params, loss, step):
            return {name: -self.lr * grad for name, grad in grads.items()}, state

    learner = build(rule=Tempered())
    before = assert_fresh(learner)
    learner.problem.rule.lr = 0.1
    assert relative_difference(assert_fresh(learner)[:1], before[:1]) > 1e-3


def test_what_a_rule_holds_is_read_anew():
    class Outer(inner.UpdateRule):
        def __init__(self, rule):
            self.rule = rule

        def update(self, meta, grads, state, params, loss, step):
            return self.rule.update(meta, grads, state, params, loss, step)

    class Tempered(inner.SGD):
        def update(self, meta, grads, state, params, loss, step):
            return {name: -self.lr * grad for name, grad in grads.items()}, state

    learner = build(rule=Outer(Tempered(0.01)))
    before = assert_fresh(learner)
    object.__setattr__(learner.problem.rule.rule, "lr", 0.1)
    assert relative_difference(assert_fresh(learner)[:1], before[:1]) > 1e-3


def test_a_tensor_that_a_rule_leaves_behind_compiles_nothing(monkeypatch):
    class Leaving(inner.UpdateRule):
        def update(self, meta, grads, state, params, loss, step):
            self.seen = loss
            return {name: -0.01 * grad for name, grad in grads.items()}, state

    learner, episodes = build(rule=Leaving()), sine_episodes(3)
    for _ in range(2):
        learner(episodes)
    monkeypatch.setattr(_compile, "CapturedStep", None)
    learner(episodes)


def test_equal_attributes_compile_nothing(monkeypatch):
    class Noting(nn.Linear):
        def forward(self, x):
            self.shape, self.pair, self.table = x.shape, [1, 2], {"a": 1}
            return super().forward(x)

    learner, episodes = build(Noting(1, 1)), sine_episodes(3)
    for _ in range(2):
        learner(episodes)
    monkeypatch.setattr(_compile, "CapturedStep", None)
    learner.model.pair, learner.model.table = [1, 2], {"a": 1}
    learner(episodes)


def test_a_call_under_a_transform_leaves_nothing_behind():
    learner, episodes = build(check_model=False), sine_episodes(3)
    pair = tree_map(lambda leaf: torch.stack([leaf, leaf]), episodes)
    for offset in (1.0, 2.0, 3.0):
        learner.model.offset = offset
        assert_fresh(learner)
        with torch.no_grad():
            torch.vmap(lambda x: learner(x, keys=keys()), randomness="different")(pair)
        assert_fresh(learner)


def test_adaptation_forgets_no_graph(monkeypatch):
    monkeypatch.setattr(_plan, "MOST_COMPILED", 2)
    learner = build()
    learner(sine_episodes(3))
    for num_tasks in range(1, 6):
        learner.adapt(sine_episodes(num_tasks).support)
    monkeypatch.setattr(_compile, "CapturedStep", None)
    learner(sine_episodes(3))


def test_a_criterion_reads_its_closure_when_it_runs():
    weight = torch.ones(1, dtype=torch.float64)
    torch.manual_seed(0)
    learner = outer.MAML(
        Scaled().double(),
        lambda output, y: (weight * (output - y) ** 2).mean(),
        inner.SGD(0.01),
        num_steps=1,
        compile=HOW,
    )
    episodes = sine_episodes(3)
    before = learner.estimate(episodes, keys()).loss
    weight.mul_(2)
    eager = copy.deepcopy(learner)
    eager.set_batching()
    after = learner.estimate(episodes, keys()).loss
    torch.testing.assert_close(after, eager.estimate(episodes, keys()).loss)
    assert not torch.allclose(before, after)


def test_two_learners_of_one_model():
    model = Scaled()
    one, two = build(model), build(model, num_steps=1)
    for learner in (one, two, one):
        assert_fresh(learner)
    with torch.no_grad():
        model.first.weight.mul_(2)
    for learner in (one, two):
        assert_fresh(learner)


def test_many_shapes_leave_few_plans_behind(monkeypatch):
    monkeypatch.setattr(_plan, "MOST_COMPILED", 4)
    learner, steps = build(num_steps=1), weakref.WeakSet()
    made = _compile.CapturedStep.__init__

    def counted(self, *args):
        steps.add(self)
        made(self, *args)

    monkeypatch.setattr(_compile.CapturedStep, "__init__", counted)
    for num_tasks in [*range(2, 12), 2]:
        learner(sine_episodes(num_tasks))
    gc.collect()
    assert len(steps) == 4
    assert_fresh(learner)


@pytest.mark.parametrize(
    "options",
    [{"chunk_size": 2}, {"chunk_size": 3}, {"batching": "loop"}, {"estimator": outer.Stepwise()}],
    ids=str,
)
def test_the_ways_of_running(options):
    learner = build(**options)
    for num_tasks in (3, 1, 3):
        assert_fresh(learner, num_tasks)


def test_a_learner_that_compiles_again_and_again_warns(monkeypatch):
    monkeypatch.setattr(_plan, "MANY_COMPILED", 3)
    learner, episodes = build(num_steps=1), sine_episodes(2)
    for offset in (1.0, 2.0):
        learner.model.offset = offset
        learner(episodes)
    learner.model.offset = 3.0
    with pytest.warns(UserWarning, match=r"be few; got 3 kinds, .* in 3 states.*in buffers"):
        learner(episodes)
    learner.model.offset = 4.0
    learner(episodes)


def test_autocast_is_part_of_the_kind():
    learner = build().float()
    assert_fresh(learner, tolerance=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        half = assert_fresh(learner, tolerance=0.5)
        again = assert_fresh(learner, tolerance=0.5)
    assert relative_difference(half[:2], again[:2]) == 0
    assert relative_difference(half[:2], assert_fresh(learner, tolerance=1e-4)[:2]) > 1e-3


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_have_plans_of_their_own(copied):
    learner = build()
    before = assert_fresh(learner)
    other = copied(learner)
    with torch.no_grad():
        other.model.scale.mul_(3)
    assert_fresh(other)
    assert relative_difference(assert_fresh(learner)[:1], before[:1]) == 0


class Two(nn.Linear):
    """A model that computes something else where it is captured."""

    def forward(self, x):
        return super().forward(x) * (2 if isinstance(x, FakeTensor) else 1)


@pytest.mark.filterwarnings("default::metalearn.outer.NotCompiledWarning")
def test_what_disagrees_is_not_used():
    learner = build(Two(1, 1), batching="loop")
    with pytest.warns(outer.NotCompiledWarning, match="off in float64"):
        learner(sine_episodes(2))
    assert_fresh(learner)


def test_in_a_program_that_is_compiled_itself():
    learner = build()
    learner.check_model = False
    eager = copy.deepcopy(learner)
    eager.set_batching()
    episodes = sine_episodes(3)
    expected = eager(episodes, keys=keys())
    learner(episodes)
    got = torch.compile(learner, backend="eager")(episodes, keys=keys())
    torch.testing.assert_close(got, expected)


def test_nothing_is_read_of_the_values_at_the_capture():
    learner = build()
    episodes = sine_episodes(3)
    learner.estimate(episodes, keys())
    others = tree_map(lambda leaf: leaf.flip(0) * 1.5, episodes)
    eager = copy.deepcopy(learner)
    eager.set_batching()
    got, expected = (each.estimate(others, keys()) for each in (learner, eager))
    assert relative_difference(got[:2], expected[:2]) < 1e-12


def strided(tree):
    """Return the same numbers in another order of memory."""
    return tree_map(lambda leaf: torch.stack([leaf, leaf], -1)[..., 0], tree)


@pytest.mark.inductor
def test_inductor_knows_strides():
    learner, eager = build(how=True), build(how=False)
    episodes, both = sine_episodes(3), torch.stack([keys(), keys() + 1], 1)
    expected = eager.estimate(episodes, keys())
    for each, its_keys in ((episodes, keys()), (strided(episodes), both[:, 0])):
        assert relative_difference(learner.estimate(each, its_keys)[:2], expected[:2]) < 1e-9
    for each in (learner, eager):
        for param in each.parameters():
            param.data = strided(param.data)
        each.model.scale = strided(each.model.scale * 2)
    got, expected = (each.estimate(episodes, keys()) for each in (learner, eager))
    assert relative_difference(got[:2], expected[:2]) < 1e-9


@pytest.mark.inductor
def test_inductor_carries():
    rule = inner.LearnedRate(inner.SGD(0.01), per="tensor")
    options = {"rule": rule, "estimator": outer.OnlineForwardMode(), "learn_init": False}
    learner, eager = (build(how=how, num_steps=1, **options) for how in (True, False))
    for _ in range(3):
        losses = [each(sine_episodes(3), keys=keys()) for each in (learner, eager)]
        torch.testing.assert_close(*losses)
    carried = [list(each.carry._own.buffers()) for each in (learner, eager)]
    assert relative_difference(*carried) < 1e-9


@pytest.mark.inductor
@pytest.mark.parametrize("num_tasks", [1, 3])
def test_inductor_draws_what_an_eager_step_draws(num_tasks):
    learner = build(how=True)
    learner.model.kind = "dropped"
    assert_fresh(learner, num_tasks, tolerance=1e-9)
    written_buffer(learner)
    assert_fresh(learner, num_tasks, tolerance=1e-9)


@pytest.mark.inductor
def test_inductor_on_convolutions():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, bias=False),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 2),
    ).double()
    x, y = torch.rand(2, 4, 1, 6, 6, dtype=torch.float64), torch.arange(2).repeat(2, 2)
    episodes = Episode(Batch(x, y), Batch(x.flip(1), y.flip(1)))
    learners = [
        outer.MAML(copy.deepcopy(model), F.cross_entropy, inner.SGD(0.1), num_steps=2, compile=how)
        for how in (True, False)
    ]
    got, expected = (learner.estimate(episodes, keys(2)) for learner in learners)
    assert relative_difference(got[:2], expected[:2]) < 1e-9


@pytest.mark.inductor
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD], ids=str)
def test_inductor_takes_the_optimizers_step(optimizer):
    ours, theirs = build(how=True), build(how=False)
    one, other = (optimizer(each.parameters(), lr=0.01) for each in (ours, theirs))
    step, episodes = ours.compiled_step(one, max_grad_norm=0.5), sine_episodes(3)
    for _ in range(3):
        loss = step(episodes, keys=keys())
        other.zero_grad()
        expected = theirs(episodes, keys=keys())
        expected.backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        other.step()
        torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close([*ours.parameters()], [*theirs.parameters()], rtol=1e-9, atol=1e-12)
    assert one.state_dict()["param_groups"] == other.state_dict()["param_groups"]
