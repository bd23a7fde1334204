"""Two processes under `DistributedDataParallel` do what one process does with all tasks."""

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from metalearn import data, fit, inner, outer
from tests.cases import keys, sine_episodes, sine_learner, task
from tests.two_processes import FORKED, assert_close, logs_of_two

TASKS = data.Sinusoid(k_shot=5, num_query=5)


def rates():
    return sine_learner(inner.MetaSGD(0.01), fast=["2", "4"])


def carrying():
    return sine_learner(inner.Adam(0.01), estimator=outer.ParameterDifference(keep_state=True))


def going_on():
    estimator = outer.Continued(outer.Unrolled(), horizon=9)
    return sine_learner(inner.LearnedRate(inner.Adam(0.01)), estimator=estimator)


def counted(batches):
    """Train a learner that counts its steps, and return the count."""
    estimator = outer.SkipDiverged(outer.Unrolled(multi_step=outer.MultiStep(10)))
    learner = sine_learner(estimator=estimator)
    wrapped = DistributedDataParallel(learner) if dist.is_initialized() else learner
    with pytest.warns(RuntimeWarning, match="3 of 3 meta-losses were not finite"):
        fit(wrapped, batches, torch.optim.SGD(learner.parameters(), lr=1e-3), 3, progress=False)
    return learner.carry.value.common.item()


def half_broken():
    """Four tasks, of which the first two diverge."""
    episodes = sine_episodes(num_tasks=4)
    episodes.support.y[:2] = torch.nan
    return episodes


def gradients(learner, part):
    learner(task(sine_episodes(num_tasks=4), part), keys=keys(4)[part]).backward()
    return [param.grad.clone() for param in learner.parameters()]


def training(learner, num_iterations, folder=None, **options):
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(1 + (dist.get_rank() if dist.is_initialized() else 0))
    options |= {"generator": generator, "checkpoint_dir": folder, "progress": False}
    history = fit(
        learner, AsDoubles(TASKS), optimizer, num_iterations, **{"meta_batch_size": 4} | options
    )
    return history.loss, [param.detach().clone() for param in learner.parameters()]


class AsDoubles(data.TaskDistribution):
    def __init__(self, tasks):
        self.tasks = tasks

    def draw(self, num_tasks, generator, device):
        return torch.utils._pytree.tree_map(
            torch.Tensor.double, self.tasks.draw(num_tasks, generator, device)
        )


def refusal(num_iterations=1, **options):
    try:
        training(DistributedDataParallel(sine_learner()), num_iterations, **options)
    except ValueError as error:
        return str(error)
    return None


def sharded(mesh):
    """Return the whole gradients of a learner whose parameters are sharded as one unit, and what
    `fit` says of it."""
    learner = fully_shard(rates(), mesh=mesh)
    pieces = gradients(learner, slice(dist.get_rank(), None, 2))
    with pytest.raises(TypeError) as raised:
        training(learner, 1)
    return [piece.full_tensor() for piece in pieces], str(raised.value)


def at_4(progress):
    return progress.iteration == 4


def one_of_two(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    alone, _ = dist.new_subgroups(1)
    mesh = init_device_mesh("cpu", (2,))
    if rank == 0:  # so that the two find different files in folders of their own
        training(DistributedDataParallel(sine_learner(), process_group=alone), 1, folder / "own 0")
    log = {
        "gradients": gradients(DistributedDataParallel(rates()), slice(2 * rank, 2 * rank + 2)),
        "training": training(DistributedDataParallel(rates()), 6),
        "stopped": training(DistributedDataParallel(rates()), 4, folder / "run"),
        "resumed": training(DistributedDataParallel(rates()), 6, folder / "run"),
        "carried": training(DistributedDataParallel(carrying()), 4),
        "population": training(DistributedDataParallel(going_on()), 5),
        "population stopped": training(DistributedDataParallel(going_on()), 3, folder / "windows"),
        "population resumed": training(DistributedDataParallel(going_on()), 5, folder / "windows"),
        "counted": counted([task(half_broken(), slice(2 * rank, 2 * rank + 2))]),
        "ended": training(
            DistributedDataParallel(rates()), 6, callbacks=[at_4] if rank == 1 else []
        ),
        "sharded": sharded(mesh),
        "odd": refusal(meta_batch_size=3),
        "not shared": refusal(folder=folder / f"own {rank}", num_iterations=2),
    }
    torch.save(log, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    # what PyTorch loads at its first gradient need not be loaded twice
    gradients(rates(), slice(0, 4))
    return logs_of_two(one_of_two, folder)


pytestmark = FORKED


def test_gradients_are_those_of_one_process(logs):
    expected = gradients(rates(), slice(0, 4))
    for log in logs:
        assert_close(log["gradients"], expected)


def test_sharded_parameters(logs):
    expected = gradients(rates(), slice(0, 4))
    for log in logs:
        assert_close(log["sharded"][0], expected)
        assert "fit's learner must be whole in every process" in log["sharded"][1]


def test_fit_does_what_one_process_does(logs):
    """The tasks are those of the first process's generator, whatever the other's is."""
    loss, parameters = training(rates(), 6)
    for log in logs:
        assert_close(log["training"], (loss, parameters))


def test_what_an_estimator_carries_is_the_mean_over_all_tasks(logs):
    expected = training(carrying(), 4)
    for log in logs:
        assert_close(log["carried"], expected)


def test_a_population_is_that_of_one_process(logs):
    """Of the four problems every process has two, whose ages are those of a population of four."""
    expected = training(going_on(), 5)
    for log in logs:
        assert_close(log["population"], expected)
        torch.testing.assert_close(log["population resumed"], log["population"], rtol=0, atol=0)


def test_diverged_tasks_of_one_process_leave_nothing_in_what_all_carry(logs):
    assert [log["counted"] for log in logs] == [counted([half_broken()])] * 2 == [3.0, 3.0]


def test_goes_on_from_a_checkpoint(logs):
    for log in logs:
        assert len(log["stopped"][0]) == 4
        torch.testing.assert_close(log["resumed"], log["training"], rtol=0, atol=0)


def test_a_callback_of_one_process_ends_the_run_of_all(logs):
    for log in logs:
        torch.testing.assert_close(log["ended"], log["stopped"], rtol=0, atol=0)


def test_shares_are_equal(logs):
    assert all(
        "meta_batch_size must be a multiple of the 2 processes; got 3. Write" in log["odd"]
        for log in logs
    )
    assert "meta_batch_size=4" in logs[0]["odd"]


def test_refuses_a_folder_that_is_not_shared(logs):
    assert all(
        "be there for all processes; got none for processes [1]. Pass a" in log["not shared"]
        for log in logs
    )
