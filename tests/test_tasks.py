import pytest
import torch

from metalearn import _tasks


@pytest.mark.parametrize("count", [1, 2, 5])
def test_vmap_and_loop_agree(count):
    x = torch.arange(count * 3.0).reshape(count, 3)
    per_task = ({"x": x}, torch.arange(count))
    function = lambda tree, index: (tree["x"].sum(), {"scaled": tree["x"] * index})  # noqa: E731
    by_vmap, by_loop = (
        _tasks.map_tasks(function, per_task, batching) for batching in ("vmap", "loop")
    )
    assert torch.equal(by_vmap[0], by_loop[0])
    assert torch.equal(by_vmap[1]["scaled"], x * torch.arange(count)[:, None])


def test_what_cannot_be_vmapped_is_told_of_the_loop():
    with pytest.raises(RuntimeError, match="vmap") as raised:
        _tasks.map_tasks(lambda x: torch.ones(()) if x.sum().item() else x, (torch.ones(3, 2),))
    assert 'batching="loop"' in raised.value.__notes__[0]


@pytest.mark.parametrize("chunk_size", [None, 1, 2, 4, 5, 9])
def test_chunks_add_up(chunk_size):
    x, sizes = torch.arange(5.0), []

    def chunk(x):
        sizes.append(len(x))
        return x.sum(), {"square": x**2}

    total, stacked = _tasks.over_chunks(chunk, (x,), chunk_size)
    assert total == 10
    assert stacked["square"].tolist() == [0, 1, 4, 9, 16]
    assert max(sizes) == min(chunk_size or 5, 5)
    assert sum(sizes) == 5
