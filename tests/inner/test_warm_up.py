import pytest
import torch

from metalearn import inner
from metalearn.inner._hyperparameters import replaced


def test_what_follows_starts_at_its_beginning():
    schedule = inner.WarmUp(2, lambda step: 8 * 0.5**step)
    assert schedule(torch.arange(6.0)).tolist() == [4, 8, 8, 4, 2, 1]


def test_it_is_continuous_in_the_number_of_steps():
    """So that the number can be learned: its derivative is that of differences."""
    steps, num_steps = torch.arange(8.0).double(), torch.tensor(2.5).double()

    def factors(num_steps):
        return replaced(inner.WarmUp(1, inner.Cosine(4)), {"num_steps": num_steps})(steps)

    slope = torch.func.jacrev(factors)(num_steps)
    expected = (factors(num_steps + 1e-6) - factors(num_steps - 1e-6)) / 2e-6
    torch.testing.assert_close(slope, expected, rtol=1e-6, atol=1e-9)


BAD = [
    (lambda: inner.WarmUp(0), ValueError, "WarmUp's num_steps must be positive and finite; got 0"),
    (lambda: inner.WarmUp(2, 3), TypeError, "WarmUp's then must be a function of the step"),
    (lambda: inner.WarmUp(2, lambda step: step[0]), ValueError, "a floating tensor of the step's"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
