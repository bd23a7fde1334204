import pytest
import torch

from metalearn import data

TASKS = data.Sinusoid(5, 3)


@pytest.mark.parametrize("num_shards", [1, 2, 3])
def test_shards_are_the_whole_together(num_shards):
    whole = TASKS.sample(6, generator=torch.Generator().manual_seed(0))
    for index in range(num_shards):
        shard = data.Shard(TASKS, num_shards, index)
        part = shard.sample(6 // num_shards, generator=torch.Generator().manual_seed(0))
        assert torch.equal(part.query.y, whole.query.y[index::num_shards])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((TASKS.sample(2), 2, 0), TypeError, "Shard's tasks must be a task distribution"),
        ((TASKS, 0, 0), ValueError, "num_shards must be at least 1"),
        ((TASKS, 2, 2), ValueError, "index must be below num_shards=2; got 2"),
        ((TASKS, 2, -1), ValueError, "index must be at least 0"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        data.Shard(*arguments)
