import pytest
import torch

from metalearn._layers import Memo


class Counted:
    """A computation that counts how often it is done."""

    def __init__(self, *tensors):
        self.tensors, self.count = tensors, 0

    def __call__(self):
        self.count += 1
        return torch.stack([tensor.sum() for tensor in self.tensors] or [torch.zeros(())]).sum()


def count(*calls, keeps_graphs=True):
    memo, counted = Memo(keeps_graphs), []
    for tensors in calls:
        counted.append(Counted(*tensors))
        torch.testing.assert_close(memo.recall(tensors, counted[-1]), Counted(*tensors)())
    return [each.count for each in counted]


def test_the_same_tensors_are_not_computed_with_again():
    x, weight = torch.rand(3), torch.rand(3, requires_grad=True)
    assert count((x, weight), (x, weight)) == [1, 0]
    assert count((x, weight.detach()), (x, weight.detach())) == [1, 0]


def test_a_graph_is_kept_if_it_may_be():
    x, weight = torch.rand(3), torch.rand(3, requires_grad=True)
    calls = (x, weight), (x, weight), (x,), (x,)
    assert count(*calls) == [1, 0, 1, 0]
    assert count(*calls, keeps_graphs=False) == [1, 1, 1, 0]


@pytest.mark.parametrize("others", [2, 0], ids=["more", "none"])
def test_another_number_of_tensors(others):
    x = torch.rand(3)
    assert count((x,), (x,) * others, (x,)) == [1, 1, 1]


def test_others_are():
    x, weight = torch.rand(4, 3), torch.rand(3, requires_grad=True)
    for other in (weight.clone(), weight.detach(), weight.detach().requires_grad_(), weight[:2]):
        assert count((x, weight), (x, other), (x, weight)) == [1, 1, 1]
    for view in (x[:2], x.mT, x.view(torch.int32)):
        assert count((x,), (view,)) == [1, 1]


def test_a_square_transposed_is():
    square = torch.rand(3, 3)
    assert count((square,), (square.mT,)) == [1, 1]


def test_what_was_written_to_is():
    memo, x = Memo(), torch.rand(3)
    memo.recall([x.detach()], x.sum)
    x.add_(1)
    torch.testing.assert_close(memo.recall([x.detach()], x.sum), x.sum())


def test_what_was_computed_without_a_graph_is():
    memo, weight = Memo(), torch.rand(3, requires_grad=True)
    with torch.no_grad():
        assert not memo.recall([weight], weight.sum).requires_grad
    assert memo.recall([weight], weight.sum).requires_grad


def test_inference_tensors_are_never_the_same_unless_they_are_one():
    with torch.inference_mode():
        x = torch.rand(3)
        assert count((x,), (x,), (x[:],)) == [1, 0, 1]


def test_the_last_result_is_gone_before_the_next_is_there():
    memo, x = Memo(), torch.rand(3)
    memo.recall([x], x.sum)

    def compute():
        assert memo._result is None
        return x.sum()

    memo.recall([x, x], compute)
