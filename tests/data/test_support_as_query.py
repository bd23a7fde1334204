import pytest
import torch

from metalearn import data


def test_queries_are_what_is_adapted_to():
    tasks = data.Sinusoid(5, 3)
    generator = torch.Generator().manual_seed(0)
    ours = data.SupportAsQuery(tasks).sample(4, generator=generator)
    theirs = tasks.sample(4, generator=generator.manual_seed(0))
    for batch in ours:
        assert torch.equal(batch.x, theirs.support.x)
        assert torch.equal(batch.y, theirs.support.y)


def test_refuses_episodes():
    with pytest.raises(TypeError, match="be a task distribution"):
        data.SupportAsQuery(data.Sinusoid(5, 3).sample(2))


class Wrong(data.TaskDistribution):
    def draw(self, num_tasks, generator, device):
        return torch.zeros(num_tasks)


@pytest.mark.parametrize("around", [data.SupportAsQuery, lambda tasks: data.Shard(tasks, 2, 0)])
def test_says_whose_tasks_are_wrong(around):
    with pytest.raises(TypeError, match="draw of Wrong must return an Episode"):
        around(Wrong()).sample(2)
