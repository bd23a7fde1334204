import torch

from metalearn.types import Batch, Episode


def test_batches_move_as_a_whole():
    batch = Batch({"a": torch.zeros(2), "b": torch.zeros(3)}, torch.zeros(1))
    moved = batch.to("meta")
    assert {leaf.device.type for leaf in (*moved.x.values(), moved.y)} == {"meta"}
    assert moved.weight == ()
    assert Episode(batch, batch).to("meta").query.y.device.type == "meta"
