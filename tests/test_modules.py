import copy
import pickle

import pytest
import torch
import torch.nn as nn

from metalearn import inner
from metalearn._modules import TensorTree, call_model, get_tensor, set_tensor
from tests.cases import sine_episodes, sine_learner


def test_tensor_tree_names_and_returns_its_leaves():
    tree = {"rate": {"0.weight": torch.ones(2), "0.bias": torch.ones(1)}, "net": [torch.zeros(3)]}
    module = TensorTree(tree)
    assert sorted(module.state_dict()) == ["net.0", "rate.0.bias", "rate.0.weight"]
    with torch.no_grad():
        module.get_parameter("net.0").add_(5)
    for same in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert list(same()) == ["rate", "net"]
        assert same()["net"][0].tolist() == [5, 5, 5]
        assert same()["rate"]["0.weight"].requires_grad


def test_tensor_tree_of_one_tensor_and_of_nothing():
    assert list(TensorTree(torch.ones(())).state_dict()) == ["value"]
    assert TensorTree(torch.ones(()))() == 1
    assert TensorTree({})() == {}


@pytest.mark.parametrize("leaf", [0.1, torch.tensor(1), None])
def test_tensor_tree_takes_floating_tensors(leaf):
    with pytest.raises(TypeError, match="leaf 'rate' must be a floating tensor"):
        TensorTree({"rate": leaf})


def test_set_tensor_turns_parameters_into_buffers_and_back():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    set_tensor(model, "0.weight", torch.zeros(2, 2))
    assert get_tensor(model, "1.weight") is get_tensor(model, "0.weight")
    assert [name for name, _ in model.named_parameters()] == ["0.bias", "1.bias"]
    assert set(model.state_dict()) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    set_tensor(model, "1.weight", nn.Parameter(torch.ones(2, 2)))
    assert "0.weight" in dict(model.named_parameters())


def test_a_dict_is_keyword_arguments():
    model = nn.Bilinear(1, 1, 1, bias=False)
    x = {"input1": torch.tensor([[2.0]]), "input2": torch.tensor([[3.0]])}
    assert call_model(model, {"weight": torch.ones(1, 1, 1)}, x).item() == 6


def test_a_learner_whose_model_was_changed_later():
    learner = sine_learner()
    inner.t_net(learner.model)
    with pytest.raises(
        ValueError, match=r"model must have the tensors .*; got none .*'0\.weight'\. .*deepcopy"
    ):
        learner(sine_episodes())


def test_a_replaced_parameter_keeps_its_place():
    model = nn.Linear(2, 2)
    set_tensor(model, "weight", nn.Parameter(torch.ones(2, 2)))
    assert [name for name, _ in model.named_parameters()] == ["weight", "bias"]
    set_tensor(model, "weight", torch.zeros(2, 2))
    assert [name for name, _ in model.named_buffers()] == ["weight"]
