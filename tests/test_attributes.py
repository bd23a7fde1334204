"""What is put back of modules' plain attributes, and what is left."""

from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch
import torch.nn as nn

from metalearn._attributes import attributes_kept, deep_copied

NEW, OLD = torch.ones(2), torch.zeros(2)


@dataclass
class State:
    h: object = None
    log: list = field(default_factory=list)


class Holder(nn.Module):
    def __init__(self, value=None):
        super().__init__()
        self.value, self.linear = value, nn.Linear(1, 1)


def set_value(value):
    def change(module):
        module.value = value

    return change


CHANGES = {
    "an attribute": (lambda: None, set_value(NEW)),
    "a tensor": (lambda: OLD, set_value(NEW)),
    "a tuple": (lambda: (), set_value((1, NEW))),
    "a dict of tensors": (lambda: {}, set_value({"h": [NEW]})),
    "what may hold tensors": (lambda: None, set_value(SimpleNamespace(h=NEW))),
    "a list": (lambda: [1, OLD], lambda m: m.value.append(NEW)),
    "a list's entry": (lambda: [1, OLD], lambda m: m.value.__setitem__(0, NEW)),
    "a longer list": (lambda: [], lambda m: m.value.extend([NEW, 3])),
    "a deque": (lambda: deque([OLD], maxlen=1), lambda m: m.value.append(NEW)),
    "a dict": (lambda: {"a": OLD}, lambda m: m.value.update(a=NEW, b=NEW)),
    "an ordered dict": (lambda: OrderedDict(a=1), lambda m: m.value.update(b=NEW)),
    "a default dict": (lambda: defaultdict(list), lambda m: m.value["a"].append(NEW)),
    "a set": (lambda: {1}, lambda m: m.value.add(NEW)),
    "a list in a dict": (lambda: {"a": {"b": []}}, lambda m: m.value["a"]["b"].append(NEW)),
    "a list in a tuple": (lambda: ([],), lambda m: m.value[0].append(NEW)),
    "a dataclass": (State, lambda m: setattr(m.value, "h", NEW)),
    "a dataclass's list": (State, lambda m: m.value.log.append(NEW)),
    "a namespace": (lambda: SimpleNamespace(h=None), lambda m: setattr(m.value, "h", NEW)),
    "an unregistered module": (lambda: [Holder()], lambda m: setattr(m.value[0], "value", NEW)),
    "a registered module": (
        lambda: nn.ModuleList([Holder()]),
        lambda m: setattr(m.value[0], "value", NEW),
    ),
    "a layer": (lambda: None, lambda m: setattr(m.linear, "features", NEW)),
}


def shape(value):
    """Everything below a value, tensors by their identity."""
    if isinstance(value, nn.Module):
        return {
            name: shape(each)
            for name, each in {**vars(value), **value._modules}.items()
            if name != "_modules"
        }
    if isinstance(value, dict):
        return type(value), [(name, shape(each)) for name, each in value.items()]
    if isinstance(value, list | tuple | deque | set):
        return type(value), [shape(each) for each in value]
    if isinstance(value, State | SimpleNamespace):
        return shape(vars(value))
    return id(value)


@pytest.mark.parametrize("name", CHANGES)
def test_put_back(name):
    make, change = CHANGES[name]
    root = nn.Sequential(Holder(make()))
    value, before = root[0].value, shape(root)
    with attributes_kept(root):
        change(root[0])
        assert shape(root) != before
    assert shape(root) == before
    assert root[0].value is value


def test_new_attributes_are_dropped_after_errors_too():
    module = Holder()

    def fail():
        with attributes_kept(module):
            module.features = NEW
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not hasattr(module, "features")


def test_plain_values_are_left():
    module = Holder([0.5])
    with attributes_kept(module):
        module.value.append(0.25)
        module.calls, module.last, module.sizes = 3, "text", (1, 2)
        module.training = False
    assert (module.value, module.calls, module.last, module.sizes) == (
        [0.5, 0.25],
        3,
        "text",
        (1, 2),
    )
    assert not module.training


def test_what_refers_to_itself():
    module = Holder([])
    module.value.append(module.value)
    module.value.append(module)
    with attributes_kept(module):
        module.value.append(NEW)
    assert len(module.value) == 2


def test_what_a_dataclass_holds():
    @dataclass(frozen=True)
    class Loss:
        module: nn.Module

    loss = Loss(Holder())
    with attributes_kept(loss, None, len):
        loss.module.value = NEW
    assert loss.module.value is None


def test_copies_of_what_calls_have_left():
    module, h = Holder({"all": []}), torch.ones(2, requires_grad=True) * 3
    module.features, module.states = h, (h, [h])
    module.value["all"].append(h)
    other = deep_copied(module)
    for tensor in (other.features, other.states[0], other.states[1][0], other.value["all"][0]):
        assert tensor is other.features
        assert torch.equal(tensor, h)
        assert not tensor.requires_grad
    assert other.linear.weight is not module.linear.weight
    assert other.linear.weight.requires_grad
