import pytest
import torch

from metalearn._fingerprint import fingerprint
from metalearn._tasks import take
from metalearn.types import Batch, Episode


def images():
    x = torch.rand(3, 20, 3, 32, 32)
    y = torch.arange(5).repeat_interleave(4).repeat(3, 1)
    return Episode(
        Batch(x[:, ::2], y[:, ::2]),
        Batch(x[:, 1::2], y[:, 1::2], torch.ones(3, 10, dtype=torch.bool)),
    )


def test_depends_on_tasks_and_their_order_but_not_on_batches():
    episodes = images()
    whole = fingerprint(episodes)
    first, rest = take(episodes, slice(0, 1)), take(episodes, slice(1, 3))
    assert fingerprint(rest, fingerprint(first)) == whole
    assert fingerprint(first, fingerprint(rest)) != whole
    assert fingerprint(first) != whole


def test_sees_other_labels_other_images_and_a_turn_of_them():
    episodes = images()
    whole, (x, y, _) = fingerprint(episodes), episodes.support
    for batch in (
        Batch(x, y.flip(1)),
        Batch(x.flip(-1), y),
        Batch(x.flip(1), y),
        Batch(1 - x, y),
        Batch(x.double(), y),
    ):
        assert fingerprint(episodes._replace(support=batch)) != whole


def test_takes_scalars_and_every_dtype():
    for dtype in (torch.bfloat16, torch.float64, torch.uint8):
        data = torch.arange(4).to(dtype)
        assert fingerprint(Episode(Batch(data), Batch(data))) != fingerprint(
            Episode(Batch(data), Batch(data.flip(0)))
        )


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_of_sparse_tensors(layout):
    x = torch.zeros(3, 4, 5)
    x[:, :, 1] = torch.rand(3, 4)

    def of(x):
        return Episode(Batch(x.to_sparse(layout=layout)), Batch(x))

    whole = fingerprint(of(x))
    assert fingerprint(of(x.clone())) == whole
    assert fingerprint(take(of(x), slice(1, 3)), fingerprint(take(of(x), slice(0, 1)))) == whole
    for other in (x.flip(0), x.flip(1), x.flip(-1), 2 * x):
        assert fingerprint(of(other)) != whole
    if layout == torch.sparse_coo:
        whole = Batch(x.mT.to_sparse(2))
        assert fingerprint(Episode(whole, whole)) != fingerprint(Episode(whole, Batch(2 * whole.x)))
