import pytest
import torch
import torch.nn.functional as F

from metalearn import functional


def padded():
    """Four examples of three classes, then one of a fourth class that is padding."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    return logits, torch.tensor([2, 0, 1, 0, 3]), torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0], dtype=torch.float64)


def test_padding_changes_neither_loss_nor_gradient():
    logits, target, weight = padded()
    logits[:, 3] = 9.0  # what a class that is absent says does not count
    of_all, of_real = logits.clone().requires_grad_(), logits[:4, :3].clone().requires_grad_()
    ours, theirs = functional.cross_entropy(of_all, target, weight), F.cross_entropy(of_real, target[:4])
    torch.testing.assert_close(ours, theirs)
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(of_all.grad[:4, :3], of_real.grad)
    assert not of_all.grad[4].any()
    assert not of_all.grad[:, 3].any()
    expected = functional.accuracy(logits[:4, :3], target[:4])
    assert functional.accuracy(logits, target, weight) == expected != functional.accuracy(logits[:4], target[:4])


def test_weights_weigh():
    logits, target, _ = padded()
    weight = torch.tensor([3.0, 1.0, 2.0, 0.5, 1.0], dtype=torch.float64)
    each = F.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(functional.cross_entropy(logits, target, weight), (weight * each).sum() / weight.sum())


@pytest.mark.parametrize("function", [functional.cross_entropy, functional.accuracy])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.zeros(5), torch.zeros(5).long()), ValueError, "what is judged must be output"),
        ((torch.zeros(5, 3), torch.zeros(4).long()), ValueError, r"got .*\(5, 3\).*\(4,\)"),
        ((torch.zeros(5, 3), [0] * 5), TypeError, "target must be a tensor"),
        ((torch.zeros(5, 3), torch.zeros(5).long(), torch.ones(2)), ValueError, r"'weight': \(2,\)"),
    ],
)
def test_bad_input(function, arguments, error, message):
    with pytest.raises(error, match=message):
        function(*arguments)


def test_labels_are_integers():
    with pytest.raises(TypeError, match=r"target must be of int64; got torch.float32. Write target.long\(\)"):
        functional.cross_entropy(torch.zeros(5, 3), torch.zeros(5))
