import functools
import threading
from collections import OrderedDict, deque, namedtuple
from enum import Enum

import torch
import torch.nn as nn

from metalearn._copies import copied

Pair = namedtuple("Pair", "left right")


class Mode(Enum):
    ON = 1


class Slotted:
    __slots__ = ("tensor",)


class Holder:
    def __init__(self, tensor):
        self.tensor = tensor


class Net(nn.Module):
    """A module that refers to its weight and to itself in every way that is followed."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2, bias=False)
        weight = self.layer.weight
        self.listed, self.mapped, self.paired = (
            [weight],
            OrderedDict(weight=weight),
            Pair(weight, (weight, 1)),
        )
        self.held, self.method = Holder(weight), self.layer.forward
        self.partial, self.closure = (
            functools.partial(torch.add, weight, alpha=2),
            lambda x: weight + self.layer.weight + x,
        )
        self.default = self.made(weight)
        self.shared, self.mode, self.lock, self.slotted = (
            torch.ones(2, 2),
            Mode.ON,
            threading.Lock(),
            Slotted(),
        )
        self.slotted.tensor = weight
        self.itself = [self]

    @staticmethod
    def made(weight):
        def default(x, of=weight, *, alike=(weight,)):
            return of + alike[0] + x

        return default


def test_every_reference_is_to_the_copy():
    net, ones = Net(), torch.ones(2, 2)
    copy = copied(net, lambda tensor: ones if tensor is net.layer.weight else tensor)
    assert copy is not net
    assert type(copy) is Net
    for tensor in (
        copy.layer.weight,
        copy.listed[0],
        copy.mapped["weight"],
        copy.paired.left,
        copy.held.tensor,
        copy.slotted.tensor,
    ):
        assert tensor is ones
    assert copy.paired.right[0] is ones
    assert copy.method.__self__ is copy.layer
    assert copy.itself[0] is copy
    zeros = torch.zeros(2, 2)
    for call, expected in (
        (copy.closure, 2.0),
        (copy.default, 2.0),
        (lambda x: copy.partial(ones), 3.0),
    ):
        assert torch.equal(call(zeros), torch.full((2, 2), expected))
    assert torch.equal(copy.layer(ones), torch.full((2, 2), 2.0))


def test_what_is_not_replaced_is_shared_and_the_original_is_as_it_was():
    net = Net()
    before = dict(vars(net))
    copy = copied(net, lambda tensor: tensor)
    assert copy.layer.weight is net.layer.weight
    assert copy.shared is net.shared
    assert copy.mode is Mode.ON
    assert copy.lock is net.lock
    assert copy.slotted.tensor is net.slotted.tensor
    copy.listed.append(3)
    copy.held.tensor = None
    assert len(net.listed) == 1
    assert net.held.tensor is net.layer.weight
    assert {name: id(value) for name, value in vars(net).items()} == {
        name: id(value) for name, value in before.items()
    }


def test_hooks_run_on_the_copy_and_write_into_it():
    net = nn.Sequential(nn.Linear(1, 1))
    net.seen = []
    net[0].register_forward_hook(lambda module, inputs, output: net.seen.append(module))
    copy = copied(net, lambda tensor: tensor)
    copy(torch.ones(1, 1))
    assert copy.seen == [copy[0]]
    assert net.seen == []


LAYER = nn.Linear(1, 1)


def test_global_modules_of_functions_are_copied_with_what_refers_to_them():
    net = nn.Module()
    net.layer, net.function = LAYER, lambda x: LAYER(x)
    copy = copied(net, lambda tensor: torch.zeros_like(tensor))
    assert copy.function.__globals__["LAYER"] is copy.layer
    assert copy.function(torch.ones(1, 1)) == 0
    assert net.function(torch.zeros(1, 1)) == LAYER.bias


class Slots(nn.Module):
    __slots__ = ("extra",)


class Stage:
    __slots__ = ("layer",)


SENTINEL = object()


class Closing:
    """What is closed with the object must not be closed with a copy."""

    closed = 0

    def __init__(self):
        self.handle = 1

    def __del__(self):
        Closing.closed += 1


def test_members_of_sets_deques_and_slots_are_copied():
    net = nn.Module()
    net.layer, net.stage, net.slots = nn.Linear(1, 1), Stage(), Slots()
    net.deque, net.set, net.frozen = deque([net.layer]), {net.layer}, frozenset([net.layer])
    net.stage.layer = net.slots.extra = net.layer
    net.sentinel, net.closing = SENTINEL, Closing()
    copy = copied(net, lambda tensor: tensor)
    assert copy.layer is not net.layer
    for members in (copy.deque, copy.set, copy.frozen, [copy.stage.layer], [copy.slots.extra]):
        assert list(members) == [copy.layer]
    assert copy.sentinel is SENTINEL
    assert copy.closing is net.closing
    del copy
    assert Closing.closed == 0


def test_functions_within_functions_name_global_modules_too():
    net = nn.Module()
    net.layer, net.function = LAYER, lambda x: (lambda y: LAYER(y))(x)
    copy = copied(net, lambda tensor: torch.zeros_like(tensor))
    assert copy.function(torch.ones(1, 1)) == 0
