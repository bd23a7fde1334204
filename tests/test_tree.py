from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn as nn

from metalearn import _tree
from metalearn.types import Batch, Meta


def test_names_follow_the_leaves():
    tree = Meta({"a.weight": torch.zeros(1)}, {}, {"rate": [torch.ones(1), torch.ones(2)]})
    assert _tree.tree_names(tree) == ["init.a.weight", "rule.rate.0", "rule.rate.1"]
    assert [len(leaf) for leaf in _tree.tree_leaves(tree)] == [1, 1, 2]


def test_arithmetic_keeps_the_structure():
    batch = Batch(torch.ones(2), {"y": torch.ones(3)})
    total = _tree.tree_add(batch, batch)
    assert isinstance(total, Batch)
    assert total.y["y"].tolist() == [2, 2, 2]
    assert _tree.tree_zeros_like(batch).x.tolist() == [0, 0]
    assert not _tree.tree_detach([torch.ones(1, requires_grad=True)])[0].requires_grad


def test_maps_every_kind_of_node():
    tree = Batch({"a": [torch.ones(1), (torch.ones(2),)]}, OrderedDict(b=torch.ones(3)))
    doubled = _tree.tree_map(lambda leaf, other: leaf + other, tree, tree)
    kinds = [type(node) for node in (doubled, doubled.x["a"], doubled.x["a"][1], doubled.y)]
    assert kinds == [Batch, list, tuple, OrderedDict]
    assert [leaf.tolist() for leaf in _tree.tree_leaves(doubled)] == [[2], [2, 2], [2, 2, 2]]


def test_leaves_may_be_of_subclasses():
    class Own(torch.Tensor):
        pass

    leaves = [torch.ones(1).as_subclass(Own), nn.Parameter(torch.ones(1)), True, np.float64(2)]
    tree = {"a": leaves[0], "b": (leaves[1], {"c": leaves[2]}), "d": leaves[3]}
    assert list(map(id, _tree.tree_leaves(tree))) == list(map(id, leaves))
    assert _tree.tree_map(type, tree) == {
        "a": Own,
        "b": (nn.Parameter, {"c": bool}),
        "d": np.float64,
    }


def test_fills_a_tree_in_the_order_of_its_leaves():
    tree = Meta(
        {"b": torch.ones(1), "a": torch.ones(2)}, {}, ([torch.ones(3)], {"r": torch.ones(4)})
    )
    assert _tree.tree_filled(tree, range(4)) == Meta({"b": 0, "a": 1}, {}, ([2], {"r": 3}))


@pytest.mark.parametrize(
    "other", [{"b": torch.ones(1)}, {}, (torch.ones(1),)], ids=["key", "missing", "kind"]
)
def test_trees_of_another_structure_are_refused(other):
    with pytest.raises(ValueError, match="mismatch|expected"):
        _tree.tree_add({"a": torch.ones(1)}, other)


def test_values_of_the_first_axes_broadcast_over_the_others():
    values, tensor = torch.tensor([1.0, 2.0]), torch.ones(2, 3, 1)
    assert (_tree.over_first_axes(values, tensor) * tensor).sum((1, 2)).tolist() == [3, 6]
    for same in (torch.tensor(2.0), torch.ones(2, 3, 1)):
        assert _tree.over_first_axes(same, tensor) is same
