import torch.nn as nn

from metalearn._walk import each_module


def test_finds_what_modules_finds():
    shared = nn.Linear(2, 2)
    model = nn.Sequential(shared, nn.Sequential(nn.ReLU(), shared))
    model.register_module("absent", None)
    assert set(each_module(model)) == set(model.modules())
    assert list(each_module()) == []
