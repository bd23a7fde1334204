"""Keyed random numbers: uniform, independent, and the same to the bit however they are computed."""

import math

import pytest
import torch
from torch.func import vmap

from metalearn import functional


def draws(num_keys=2000, shape=(50,), stream=0, dtype=torch.float64):
    keys = functional.draw_keys(num_keys, generator=torch.Generator().manual_seed(0))
    return vmap(lambda key: functional.uniform(key, shape, stream, dtype=dtype))(keys)


class TestUniform:
    def test_moments(self):
        numbers = draws()
        error = 5 / math.sqrt(numbers.numel())
        assert abs(numbers.mean() - 1 / 2) < error * math.sqrt(1 / 12)
        assert abs(numbers.var() - 1 / 12) < error / 10
        assert numbers.min() > 0
        assert numbers.max() < 1

    def test_every_bin_is_equally_full(self):
        counts = torch.histc(draws(), bins=100, min=0, max=1)
        expected = counts.sum() / 100
        chi_square = ((counts - expected) ** 2 / expected).sum().item()
        assert chi_square < 99 + 5 * math.sqrt(2 * 99)

    @pytest.mark.parametrize("lag", ["counter", "key", "stream"])
    def test_neighbours_are_independent(self, lag):
        keys = torch.arange(1000)[:, None]
        numbers = functional.uniform(keys, (1000, 100), dtype=torch.float64)
        other = {
            "counter": numbers.roll(1, 1),
            "key": numbers.roll(1, 0),
            "stream": functional.uniform(keys, (1000, 100), stream=1, dtype=torch.float64),
        }[lag]
        correlation = ((numbers - 0.5) * (other - 0.5)).mean() * 12
        assert abs(correlation) < 5 / math.sqrt(numbers.numel())

    def test_low_and_high_halves_of_the_key_count(self):
        one, low, high = (functional.uniform(torch.tensor(key), (20,)) for key in (5, 6, 5 + 2**32))
        assert not torch.equal(one, low)
        assert not torch.equal(one, high)

    def test_is_the_same_everywhere(self):
        keys = torch.arange(4) * 2**40 + 17
        draw = lambda key: functional.uniform(key, (3, 2), stream=2)  # noqa: E731
        loop = torch.stack([draw(key) for key in keys])
        compiled = torch.compile(vmap(draw), backend="aot_eager", fullgraph=True)(keys)
        assert torch.equal(loop, vmap(draw)(keys))
        assert torch.equal(loop, vmap(draw, chunk_size=3)(keys))
        assert torch.equal(loop, compiled)

    @pytest.mark.inductor
    def test_is_the_same_under_inductor(self):
        keys = torch.arange(4) * 2**40 + 17
        draw = vmap(lambda key: functional.uniform(key, (3, 2), stream=2))
        assert torch.equal(draw(keys), torch.compile(draw, fullgraph=True)(keys))

    def test_streams_are_not_shifts_of_each_other(self):
        key = torch.tensor(3)
        first = set(functional.uniform(key, (20_000,), 0, dtype=torch.float64).tolist())
        for stream in (1, 2, 987, 17_711):
            other = set(functional.uniform(key, (20_000,), stream, dtype=torch.float64).tolist())
            assert len(first & other) < 5

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ((7, (3,)), TypeError, "Write torch.tensor(7)"),
            ((torch.tensor(7.0), (3,)), TypeError, "an int64 tensor"),
            ((torch.tensor(7), (3,), -1), ValueError, "stream must be at least 0"),
        ],
    )
    def test_bad_input(self, arguments, error, message):
        with pytest.raises(error) as raised:
            functional.uniform(*arguments)
        assert message in str(raised.value)

    def test_refuses_integer_results(self):
        with pytest.raises(ValueError, match="dtype must be one of"):
            functional.uniform(torch.tensor(7), (3,), dtype=torch.int64)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
    def test_is_open_in_every_dtype(self, dtype):
        numbers = draws(dtype=dtype)
        assert numbers.dtype == dtype
        assert numbers.min() > 0
        assert numbers.max() < 1

    def test_known_values(self):
        """A change of these numbers changes the results of everybody's seeds."""
        numbers = functional.uniform(torch.tensor(7), (3,), dtype=torch.float64)
        torch.testing.assert_close(
            numbers, torch.tensor(KNOWN, dtype=torch.float64), rtol=0, atol=1e-12
        )


KNOWN = [0.192584245814942, 0.221484675887041, 0.424863339285366]


def test_keys_come_from_the_generator():
    one, two = (
        functional.draw_keys(5, generator=torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert torch.equal(one, two)
    assert one.dtype == torch.int64
    assert len(set(one.tolist())) == 5


def test_derived_keys_are_keys_of_their_own():
    keys = functional.draw_keys(1000, generator=torch.Generator().manual_seed(0))
    derived = torch.cat([keys, functional.derive_key(keys), functional.derive_key(keys, 1)])
    assert len(derived.unique()) == 3000
    assert derived.min() >= 0
    assert derived.max() < 2**62
    twice = functional.derive_key(functional.derive_key(keys))
    assert not (twice == keys).any()


class TestNormal:
    def test_is_standard(self):
        x = functional.normal(torch.tensor(3), (100_000,), dtype=torch.float64)
        moments = [x.mean(), x.square().mean(), x.pow(3).mean(), x.pow(4).mean()]
        torch.testing.assert_close(
            torch.stack(moments), torch.tensor([0, 1, 0, 3]).double(), rtol=0.03, atol=0.03
        )

    def test_is_finite_and_keyed_in_every_precision(self):
        for dtype in (torch.float32, torch.bfloat16):
            x = functional.normal(torch.arange(4)[:, None], (4, 5000), dtype=dtype)
            assert x.dtype == dtype
            assert x.isfinite().all()
            assert not torch.equal(x[0], x[1])
