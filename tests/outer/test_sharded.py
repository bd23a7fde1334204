"""Frozen layers in pieces in two processes, around adapters that are whole: as in one process."""

from functools import partial

import pytest
import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from metalearn import evaluate, fit, inner, outer
from metalearn.types import Batch, Episode
from tests.cases import keys, task
from tests.two_processes import FORKED, assert_close, logs_of_two

ESTIMATORS = {
    "first order": outer.Unrolled(order=1),
    "second order": outer.Unrolled(),
    "stepwise": outer.Stepwise(),
    "going on": outer.Continued(outer.Stepwise(), horizon=6),
    "skipping": outer.SkipDiverged(outer.Unrolled()),
}


class Block(nn.Module):
    """A frozen layer and an adapter beside it."""

    def __init__(self, dim):
        super().__init__()
        self.base, self.adapter = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False)

    def forward(self, x):
        return x + torch.tanh(self.base(x) + self.adapter(x))


class Recomputed(Block):
    def forward(self, x):
        return checkpoint(super().forward, x, use_reentrant=False)


def model_of(block=Block):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), block(8), block(8), nn.Linear(8, 1)).double()
    for name, param in model.named_parameters():
        param.requires_grad_("adapter" in name)
    return model


def in_pieces(model, mesh, **options):
    for layer in model:
        whole = {param for param in layer.parameters() if param.requires_grad}
        fully_shard(layer, mesh=mesh, **{"ignored_params": whole} | options)
    return model


def learner_of(model, estimator=ESTIMATORS["second order"], batching="loop", **options):
    rule = inner.LearnedRate(inner.SGD(0.1))
    options = {"num_steps": 3, "estimator": estimator, "batching": batching} | options
    return outer.MetaLearner(model, F.mse_loss, rule, **options)


def episodes(num_tasks=4):
    generator = torch.Generator().manual_seed(1)

    def drawn(*shape):
        return torch.randn(num_tasks, *shape, generator=generator, dtype=torch.float64)

    return Episode(Batch(drawn(5, 3), drawn(5, 1)), Batch(drawn(6, 3), drawn(6, 1)))


def gradients(learner, part=slice(None)):
    for _ in range(2):  # of a window that goes on, too
        learner.zero_grad()
        learner(task(episodes(), part), keys=keys(4)[part]).backward()
    return [param.grad.clone() for param in learner.parameters() if param.requires_grad]


def trained(model, num_iterations, part=slice(None), wrap=lambda learner: learner, folder=None):
    learner = learner_of(model)
    optimizer = torch.optim.Adam(
        [param for param in learner.parameters() if param.requires_grad], lr=1e-2
    )
    batches, options = [task(episodes(), part)], {"checkpoint_dir": folder, "progress": False}
    history = fit(wrap(learner), batches, optimizer, num_iterations, **options)
    scores = evaluate(learner, [episodes()], num_tasks=4)["loss"].values
    adapted = learner.adapt(episodes().support)
    return history.loss, scores, adapted.params, adapted(episodes().query.x)


def refusal(call):
    try:
        call()
    except ValueError as error:
        return str(error)
    return "none"


def refusals(mesh):
    def called(model, **options):
        return refusal(partial(learner_of(model, **options), episodes()))

    pieces = partial(in_pieces, mesh=mesh)
    unit = outer.MAML(model_of(), F.mse_loss, inner.SGD(0.1), num_steps=1)
    shared = model_of()
    shared[0].requires_grad_()
    return {
        "vmap": called(pieces(model_of()), batching="vmap"),
        "compiled": called(pieces(model_of()), compile=True),
        "fast": called(pieces(model_of(), ignored_params=set())),
        "learned": called(pieces(shared, ignored_params=set()), fast="*adapter*"),
        "recomputed": called(pieces(model_of(Recomputed))),
        "copied": refusal(lambda: learner_of(pieces(model_of())).adapt(episodes().support)[0]),
        "unit": refusal(partial(fully_shard(unit, mesh=mesh).adapt, episodes().support)),
    }


def one_of_two(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    part, wrap = slice(rank, None, 2), DistributedDataParallel
    log = {
        "gradients": {
            name: gradients(wrap(learner_of(in_pieces(model_of(), mesh), estimator)), part)
            for name, estimator in ESTIMATORS.items()
        },
        "trained": trained(in_pieces(model_of(), mesh), 4, part, wrap),
        "stopped": trained(in_pieces(model_of(), mesh), 2, part, wrap, folder / "run"),
        "resumed": trained(in_pieces(model_of(), mesh), 4, part, wrap, folder / "run"),
        "refusals": refusals(mesh),
    }
    torch.save(log, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    return logs_of_two(one_of_two, folder)


pytestmark = FORKED


@pytest.mark.parametrize("name", ESTIMATORS)
def test_gradients_are_those_of_one_process(logs, name):
    expected = gradients(learner_of(model_of(), ESTIMATORS[name]))
    for log in logs:
        assert_close(log["gradients"][name], expected)


def test_training_is_that_of_one_process(logs):
    expected = trained(model_of(), 4)
    for log in logs:
        assert_close(log["trained"], expected)


def test_goes_on_from_a_checkpoint(logs):
    for log in logs:
        assert len(log["stopped"][0]) == 2
        torch.testing.assert_close(log["resumed"], log["trained"], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("what", "parts"),
    [
        ("vmap", ["layers in pieces must be called task by task", "Choose batching='loop'"]),
        ("compiled", ["layers in pieces must be called as they are", "set_batching('loop')"]),
        (
            "fast",
            ["must be whole; got ['model.1.adapter.weight", "(learner.model.1, ignored_params="],
        ),
        ("learned", ["'model.0.weight', 'model.0.bias']", "(learner.model.1, ignored_params="]),
        ("recomputed", ["one that computes a part again", "outer.Stepwise()"]),
        ("copied", ["must be whole in every process", "adapted(x)"]),
        ("unit", ["must be whole here", "learner.unshard()"]),
    ],
)
def test_refuses(logs, what, parts):
    for log in logs:
        assert all(part in log["refusals"][what] for part in parts), log["refusals"][what]
