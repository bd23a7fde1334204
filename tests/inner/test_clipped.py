import pytest
import torch

from metalearn import inner
from tests.cases import sine_learner


def test_clipping_matches_torch():
    grads = {"a": torch.tensor([3.0, -4.0]), "b": torch.tensor([[12.0]])}
    leaves = [torch.zeros_like(grad).requires_grad_() for grad in grads.values()]

    def clipped(**bound):
        rule = inner.Clipped(inner.SGD(1.0), **bound)
        updates, _ = rule.update({}, grads, (), grads, torch.tensor(0.0), 0)
        return [-update for update in updates.values()]

    for bound in (1.0, 100.0):
        for leaf, grad in zip(leaves, grads.values(), strict=True):
            leaf.grad = grad.clone()
        torch.nn.utils.clip_grad_norm_(leaves, bound)
        torch.testing.assert_close(clipped(norm=bound), [leaf.grad for leaf in leaves])
    torch.nn.utils.clip_grad_value_(leaves, 3.5)
    assert [part.tolist() for part in clipped(value=3.5)] == [[3, -3.5], [[3.5]]]


def test_norm_clipping_is_differentiable_at_a_zero_gradient():
    rule = inner.Clipped(inner.SGD(1.0), norm=1.0)

    def total(grad):
        return rule.update({}, {"w": grad}, (), {"w": grad}, torch.tensor(0.0), 0)[0]["w"].sum()

    assert torch.func.grad(total)(torch.zeros(3)).tolist() == [-1, -1, -1]


BAD = [
    (lambda: inner.Clipped(inner.SGD(0.1)), ValueError, "exactly one of value and norm"),
    (lambda: inner.Clipped(inner.SGD(0.1), value=1.0, norm=1.0), ValueError, "exactly one"),
    (
        lambda: inner.Clipped(inner.SGD(0.1), norm=-1.0),
        ValueError,
        "Clipped's norm must be positive",
    ),
    (lambda: inner.Clipped("sgd", norm=1.0), TypeError, "Clipped(SGD(lr=0.01), ...)"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)


def test_a_learned_bound(episodes):
    learner = sine_learner(inner.Learned(inner.Clipped(inner.SGD(0.01), norm=0.5), "norm"))
    learner(episodes).backward()
    assert learner.rule.norm.grad.abs() > 0
    plain = sine_learner(inner.Clipped(inner.SGD(0.01), norm=0.5))
    assert torch.equal(learner(episodes), plain(episodes))
