import torch

from metalearn.training._history import _replaced


def test_best_states_from_a_checkpoint_meet_replicas_on_another_device():
    new = {"weight": torch.zeros(2, 3, device="meta")}
    replaced = _replaced({"weight": torch.zeros(2, 3)}, new, torch.tensor([True, False]), frozenset())
    assert replaced["weight"].device.type == "meta"
