import pytest
import torch

from metalearn import data


def test_has_a_task_of_every_distribution():
    parts = [data.Sinusoid(5, 4), data.Polynomial(3, 2, order=2)]
    episodes = data.Zipped(parts).sample(3, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    for index, tasks in enumerate(parts):
        alone = tasks.sample(3, generator=generator)
        torch.testing.assert_close(episodes.support.x[index], alone.support.x, rtol=0, atol=0)
        torch.testing.assert_close(episodes.query.y[index], alone.query.y, rtol=0, atol=0)


def test_is_sharded_as_a_whole():
    tasks = data.Zipped([data.Sinusoid(5, 4), data.Sinusoid(2, 3)])
    whole = tasks.sample(4, generator=torch.Generator().manual_seed(0))
    part = data.Shard(tasks, 2, 1).sample(2, generator=torch.Generator().manual_seed(0))
    for ours, all_of_them in zip(part.support.x, whole.support.x, strict=True):
        torch.testing.assert_close(ours, all_of_them[1::2], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        (data.Sinusoid(5, 5), TypeError, "must be a list of task distributions"),
        ([], ValueError, "must be at least one task distribution; got none"),
        ([data.Sinusoid(5, 5), 3], TypeError, "must be task distributions; got 3"),
    ],
)
def test_refuses(given, error, says):
    with pytest.raises(error, match=says):
        data.Zipped(given)
