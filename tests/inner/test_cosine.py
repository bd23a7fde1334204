import pytest
import torch

from metalearn import inner


def test_equals_torch():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=2.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 7, eta_min=0.2)
    rates = []
    for _ in range(8):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    ours = 2.0 * inner.Cosine(7, final=0.1)(torch.arange(8).double())
    torch.testing.assert_close(ours, torch.tensor(rates).double(), rtol=1e-6, atol=1e-9)


def test_it_stays_where_it_ends():
    assert inner.Cosine(2)(torch.tensor([2.0, 3.0, 4.0])).tolist() == [0, 0, 0]


BAD = [
    (lambda: inner.Cosine(-1), ValueError, "Cosine's num_steps must be positive and finite"),
    (lambda: inner.Cosine(10, final=2), ValueError, "Cosine's final must be from 0 to 1; got 2"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
