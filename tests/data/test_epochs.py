import pytest
import torch
from torch.utils.data import DataLoader

from metalearn.data._epochs import Epochs

LOADER = DataLoader(torch.arange(6), batch_size=2, shuffle=True)


def epochs(seed=0):
    return Epochs(LOADER, torch.Generator().manual_seed(seed))


def test_an_epoch_follows_another():
    taken = torch.cat(epochs().take(9))
    assert all(part.sort().values.tolist() == list(range(6)) for part in taken.split(6))


def test_how_many_are_taken_at_once_changes_nothing():
    one = epochs()
    parts = [batch for count in (1, 4, 0, 2) for batch in one.take(count)]
    assert torch.equal(torch.cat(parts), torch.cat(epochs().take(7)))


def test_the_global_generator_is_neither_read_nor_advanced():
    expected = torch.cat(epochs().take(7))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert torch.equal(torch.cat(epochs().take(7)), expected)
    assert torch.equal(torch.get_rng_state(), state)


def test_goes_on_from_a_place():
    for before in range(5):
        one = epochs()
        one.take(before)
        place = one.state_dict()
        other = epochs(1)
        other.take(2)
        other.load_state_dict(place)
        assert torch.equal(torch.cat(one.take(5)), torch.cat(other.take(5)))
        assert one.state_dict()["taken"] == other.state_dict()["taken"]


def test_a_failing_batch_leaves_the_global_generator():
    state = torch.get_rng_state()
    failing = Epochs(DataLoader([torch.ones(1), None], shuffle=True), None)
    after = torch.get_rng_state()
    assert not torch.equal(state, after)  # one number has seeded it
    with pytest.raises(TypeError):
        failing.take(2)
    assert torch.equal(torch.get_rng_state(), after)
