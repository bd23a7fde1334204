import copy

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import data, fit, inner, models, outer
from metalearn.outer._cuda_graph import Recorded
from metalearn.types import Episode
from tests.cases import relative_difference

ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
TASKS = data.Sinusoid(5, 5)


def build(model=None, rule=None, estimator=None, **options):
    torch.manual_seed(0)
    model = models.mlp(1, [8, 8], 1) if model is None else model
    rule, estimator = rule or inner.MetaSGD(0.01), estimator or outer.Unrolled()
    return outer.MetaLearner(model, F.mse_loss, rule, num_steps=2, estimator=estimator, **options)


def test_a_learner_on_a_cpu_is_told():
    learner = build(cuda_graph=True)
    with pytest.raises(
        ValueError, match=r"cuda_graph=True must be on a GPU; got cpu. Write .to\('cuda'\)"
    ):
        learner(TASKS.sample(2))
    learner.set_batching()
    assert learner(TASKS.sample(2)).isfinite()


def test_another_value_is_refused():
    with pytest.raises(TypeError, match="cuda_graph must be True or False; got 'yes'"):
        build(cuda_graph="yes")


def test_it_shows():
    assert "cuda_graph=True" in repr(build(cuda_graph=True))
    assert "cuda_graph" not in repr(build())


def test_what_records_graphs_of_its_own_is_refused():
    with pytest.raises(
        ValueError, match="record nothing; got mode='reduce-overhead'.*Leave cuda_graph out"
    ):
        build(cuda_graph=True, compile={"mode": "reduce-overhead"})


def test_adapting_on_a_cpu_needs_no_graph():
    learner = build(cuda_graph=True)
    assert learner.adapt(TASKS.sample(2).support).params
    with torch.no_grad():
        assert learner(TASKS.sample(2)).isfinite()


class TestWhatIsRecordedAnew:
    """With recordings that compute: which of them is taken does not need a GPU."""

    @pytest.fixture(autouse=True)
    def _recordings(self, monkeypatch):
        self.made = []

        class Computing:
            def __init__(self, function, args, device):
                self.function = function
                outer_self.made.append(self)

            def __call__(self, args):
                return self.function(*args)

        outer_self = self
        monkeypatch.setattr("metalearn.outer._cuda_graph.Recording", Computing)
        self.model = nn.Sequential(
            nn.Linear(1, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 1)
        )
        self.model.register_buffer("constant", torch.zeros(2))
        self.learner, self.step = build(self.model), Recorded(lambda learner, *args: args)

    def count(self, *args):
        before = len(self.made)
        self.step(self.learner, *args)
        return len(self.made) - before

    def test_nothing_if_only_values_differ(self):
        assert self.count(3, {"x": torch.zeros(2)}) == 1
        assert self.count(3, {"x": torch.ones(2)}) == 0

    @pytest.mark.parametrize(
        "other",
        [
            (4, {"x": torch.zeros(2), "y": torch.zeros(2)}),
            (3, {"x": torch.zeros(3), "y": torch.zeros(2)}),
            (3, {"x": torch.zeros(2).double(), "y": torch.zeros(2)}),
            (3, {"y": torch.zeros(2), "x": torch.zeros(2)}),
            (3, (torch.zeros(2), torch.zeros(2))),
            (3, [torch.zeros(2), torch.zeros(2)]),
        ],
    )
    def test_for_arguments_of_another_kind(self, other):
        args = 3, {"x": torch.zeros(2), "y": torch.zeros(2)}
        assert [self.count(*args), self.count(*other), self.count(*args)] == [1, 1, 0]

    def test_for_other_modes_and_precision(self):
        assert self.count() == 1
        self.learner.eval()
        assert self.count() == 1
        torch.backends.cudnn.allow_tf32 = not torch.backends.cudnn.allow_tf32
        try:
            assert self.count() == 1
        finally:
            torch.backends.cudnn.allow_tf32 = not torch.backends.cudnn.allow_tf32
        self.learner.train()
        assert self.count() == 0

    def test_in_place_of_the_last_for_another_estimator_or_other_constants(self):
        assert self.count() == 1
        self.learner.estimator = outer.Unrolled(order=1)
        assert self.count() == 1
        self.model.constant = torch.zeros(2)
        assert self.count() == 1
        self.model.constant.fill_(1)
        with torch.no_grad():
            self.model[0].weight.add_(1)
        assert self.count() == 0
        assert len(self.step._recordings) == 1


@ON_GPU
@pytest.mark.parametrize(
    ("estimator", "options"),
    [
        (outer.Unrolled(), {}),
        (outer.Unrolled(), {"chunk_size": 2}),
        (outer.Unrolled(), {"batching": "loop"}),
        (outer.Unrolled(multi_step=outer.MultiStep(3)), {}),
        (outer.Stepwise(), {}),
        (outer.Implicit(20.0), {"rule": inner.SGD(0.02)}),
        (outer.ParameterDifference(), {"rule": inner.SGD(0.01)}),
    ],
    ids=str,
)
def test_every_call_is_what_an_eager_one_is(estimator, options):
    eager = build(estimator=estimator, **options).to("cuda").double()
    recorded = copy.deepcopy(eager)
    recorded.set_batching(recorded.batching, recorded.chunk_size, cuda_graph=True)
    optimizers = [torch.optim.Adam(learner.parameters(), lr=0.01) for learner in (eager, recorded)]
    for num_tasks in (5, 5, 3, 5):
        episodes, keys = (
            TASKS.sample(num_tasks, device="cuda"),
            torch.arange(num_tasks, device="cuda"),
        )
        losses = []
        for learner, optimizer in zip((eager, recorded), optimizers, strict=True):
            optimizer.zero_grad()
            losses.append(learner(_double(episodes), keys=keys))
            losses[-1].backward()
            optimizer.step()
        torch.testing.assert_close(*losses)
        torch.testing.assert_close(recorded.diagnostics, eager.diagnostics)
    torch.testing.assert_close(recorded.state_dict(), eager.state_dict())


def _double(episodes):
    return Episode(*(batch._replace(x=batch.x.double(), y=batch.y.double()) for batch in episodes))


@ON_GPU
def test_losses_and_gradients_are_not_overwritten():
    learner = build(cuda_graph=True).to("cuda")
    first = learner.estimate(TASKS.sample(4, device="cuda"))
    kept = copy.deepcopy(first)
    second = learner.estimate(TASKS.sample(4, device="cuda"))
    torch.testing.assert_close(first, kept, rtol=0, atol=0)
    assert not torch.equal(first.loss, second.loss)


@ON_GPU
def test_fit_and_replicas():
    seeds = [build(cuda_graph=True).to("cuda") for _ in range(2)]
    for learner in (seeds[0], outer.Replicas(seeds)):
        optimizer = torch.optim.Adam(learner.parameters(), lr=0.01)
        validation = {"validate": TASKS, "validate_every": 25, "num_validation_tasks": 20}
        history = fit(
            learner, TASKS, optimizer, 50, meta_batch_size=4, progress=False, **validation
        )
        assert history.loss[-10:].mean() < history.loss[:10].mean()
    episodes, keys = TASKS.sample(8, device="cuda"), torch.arange(8, device="cuda")
    eager = [build().to("cuda") for _ in range(2)]
    recorded = outer.Replicas([build(cuda_graph=True).to("cuda") for _ in range(2)])
    expected = outer.Replicas(eager).estimate(episodes, keys)
    assert relative_difference(recorded.estimate(episodes, keys)[:2], expected[:2]) < 1e-5


@ON_GPU
def test_modes_and_constants_are_read_anew():
    model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 1))
    learner = build(model, cuda_graph=True, learn_init="0.*").to("cuda")
    episodes, keys = TASKS.sample(4, device="cuda"), torch.arange(4, device="cuda")
    trained = [learner.estimate(episodes, keys).loss for _ in range(2)]
    assert not torch.equal(*trained)  # dropout draws anew at every replay
    learner.eval()
    before = learner.estimate(episodes, keys).loss
    torch.testing.assert_close(learner.estimate(episodes, keys).loss, before)
    with torch.no_grad():
        learner.model[3].weight.mul_(2)
    in_place = learner.estimate(episodes, keys).loss
    learner.set_batching()
    torch.testing.assert_close(in_place, learner.estimate(episodes, keys).loss)
    learner.set_batching(cuda_graph=True)
    learner.estimate(episodes, keys)
    # so that they cannot come back to their places
    there = [tensor.data for tensor in learner.state_dict().values()]
    learner.cpu().to("cuda")
    assert there
    torch.testing.assert_close(learner.estimate(episodes, keys).loss, in_place)


@ON_GPU
def test_another_estimator_is_recorded_anew():
    learner = build(cuda_graph=True).to("cuda")
    episodes, keys = TASKS.sample(4, device="cuda"), torch.arange(4, device="cuda")
    second = learner.estimate(episodes, keys).gradient
    learner.estimator = outer.Unrolled(order=1)
    first = learner.estimate(episodes, keys).gradient
    assert relative_difference(first, second) > 1e-3
    learner.set_batching()
    assert relative_difference(learner.estimate(episodes, keys).gradient, first) < 1e-5


class Branching(nn.Linear):
    """A model whose path depends on values."""

    def forward(self, x):
        return super().forward(x) * (2 if x.sum().item() > 0 else 1)


@ON_GPU
def test_what_waits_for_the_gpu_is_told():
    learner = build(Branching(1, 1), batching="loop", cuda_graph=True).to("cuda")
    with pytest.raises(RuntimeError) as caught:
        learner(TASKS.sample(2, device="cuda"))
    assert "call set_batching again, without cuda_graph" in caught.value.__notes__[-1]
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert build(cuda_graph=True).to("cuda")(TASKS.sample(2, device="cuda")).isfinite()
    learner.set_batching("loop")
    assert learner(TASKS.sample(2, device="cuda")).isfinite()


@ON_GPU
def test_it_is_timed_on_a_gpu():
    table = outer.compare_batching(
        build().to("cuda"), TASKS.sample(4, device="cuda"), compile=False, rounds=1
    )
    assert [time.settings["cuda_graph"] for time in table.times] == 3 * [False] + 3 * [True]
    assert not any(time.error for time in table.times)


@ON_GPU
@pytest.mark.inductor
def test_a_compiled_step_is_recorded():
    learner = build(compile=True, cuda_graph=True).to("cuda")
    episodes, keys = TASKS.sample(4, device="cuda"), torch.arange(4, device="cuda")
    for _ in range(3):
        compiled = learner.estimate(episodes, keys)
    learner.set_batching()
    assert relative_difference(compiled[:2], learner.estimate(episodes, keys)[:2]) < 1e-4
