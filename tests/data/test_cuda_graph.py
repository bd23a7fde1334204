import copy
import pickle
import random

import numpy as np
import pytest
import torch

from metalearn import data

ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
SINUSOID = data.Sinusoid(5, 5)


def classes(device="cpu"):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (30, 20, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return data.ClassImages(images).to(device)


def test_something_else_is_refused():
    with pytest.raises(TypeError, match="CudaGraph's tasks must be a task distribution"):
        data.CudaGraph(classes())


def test_images_on_a_cpu_are_refused():
    with pytest.raises(ValueError, match="CudaGraph's images must be on a GPU; got cpu"):
        data.CudaGraph(data.EpisodeSampler(classes(), 5, 1, 5))


def test_tasks_for_a_cpu_are_refused():
    with pytest.raises(
        ValueError, match=r"must go to a GPU; got cpu. Pass sample\(4, device='cuda'\)"
    ):
        data.CudaGraph(SINUSOID).sample(4, device="cpu")


def test_workers_are_refused():
    with pytest.raises(
        ValueError, match="worker processes must draw on the CPU; got tasks on cuda for 1 workers"
    ):
        data.CudaGraph(SINUSOID).batches(4, num_workers=1)


def test_a_generator_of_ones_own_draws_as_without():
    tasks = data.CudaGraph(SINUSOID)
    ours, theirs = (
        each.sample(3, generator=torch.Generator().manual_seed(1)) for each in (tasks, SINUSOID)
    )
    torch.testing.assert_close(ours, theirs)


class TestReplays:
    """With recordings that compute: which of them is taken does not need a GPU."""

    @pytest.fixture(autouse=True)
    def _recordings(self, monkeypatch):
        self.made = []

        def recording(function, args, device):
            self.made.append(function)
            return lambda tensors: SINUSOID.draw(4, None, None)

        monkeypatch.setattr("metalearn.data._cuda_graph.Recording", recording)

    def test_every_size_is_recorded_once(self):
        tasks = data.CudaGraph(SINUSOID)
        for size in (4, 2, 4, 2):
            tasks.draw(size, None, torch.device("cuda:0"))
        assert len(self.made) == 2

    @pytest.mark.parametrize("draw", [lambda: torch.rand(1), random.random, np.random.rand])
    def test_what_draws_on_the_host_is_refused(self, draw):
        class Own(data.TaskDistribution):
            def draw(self, num_tasks, generator, device):
                draw()
                return SINUSOID.draw(num_tasks, torch.Generator(), None)

        data.CudaGraph(Own()).draw(4, None, torch.device("cuda:0"))
        with pytest.raises(
            ValueError,
            match="draw of Own must draw all random numbers on the GPU; got .* on the host",
        ):
            self.made[0]()

    def test_what_is_drawn_elsewhere_is_refused(self):
        class Own(data.TaskDistribution):
            def draw(self, num_tasks, generator, device):
                return SINUSOID.draw(num_tasks, torch.Generator(), torch.device("cpu"))

        data.CudaGraph(Own()).draw(4, None, torch.device("cuda:0"))
        with pytest.raises(ValueError, match="draw of Own must return tensors on the GPU; got cpu"):
            self.made[0]()

    @pytest.mark.parametrize(
        "again", [copy.deepcopy, lambda tasks: pickle.loads(pickle.dumps(tasks))]
    )
    def test_a_copy_records_for_itself(self, again):
        tasks = data.CudaGraph(SINUSOID)
        tasks.draw(4, None, torch.device("cuda:0"))
        assert again(tasks) == tasks
        again(tasks).draw(4, None, torch.device("cuda:0"))
        assert len(self.made) == 2


@ON_GPU
@pytest.mark.parametrize(
    "transform",
    [None, data.Compose(data.RandomFlip(), data.RandomCrop(2), data.Normalize((0.5,), (0.2,)))],
)
@pytest.mark.parametrize("sizes", [(5, 1, 3), ((2, 5), (1, 3), 3)])
def test_draws_what_the_distribution_would(sizes, transform):
    tasks = data.EpisodeSampler(classes("cuda"), *sizes, transform=transform)
    recorded = data.CudaGraph(tasks)
    draws = []
    for each in (tasks, recorded):
        torch.cuda.manual_seed(3)
        draws.append([each.sample(count) for count in (4, 4, 2, 4)])
    torch.testing.assert_close(draws[1], draws[0])
    assert not torch.equal(draws[1][0].support.x, draws[1][1].support.x)
