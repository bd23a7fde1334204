"""Build a network's module and count its cost."""

from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._checks import check_choice, check_count, check_kind, invalid
from metalearn._random import random_numbers_kept
from metalearn.models._batch_statistics import BATCH_STATISTICS, use_batch_statistics
from metalearn.search._cell import Cell, Network
from metalearn.search._operators import OPERATORS


def build(
    network: Network,
    in_channels: int,
    num_classes: int,
    *,
    image_size: int = 28,
    batch_statistics: str = "transductive",
    num_steps: int | None = None,
) -> nn.Sequential:
    """Build a network's module; like `models.conv4` it supports vmap and second derivatives.

    A 3x3 convolution of stride 2 comes first, a ReLU and a spatial mean last. A cell projects both
    inputs to the network's number of filters by 1x1 convolutions. Separable convolutions are
    applied once, not twice as in PNAS.

    Args:
        network: The network.
        in_channels: Channels of an image, at least 1.
        num_classes: Number of outputs, at least 1.
        image_size: Height and width of an image in pixels, at least 2 to the power of the number of
            cells.
        batch_statistics: What normalises a query example, as in `models.use_batch_statistics`.
        num_steps: Number of inner steps, needed only for "per_step".

    Returns:
        A module from images `[num_examples, in_channels, image_size, image_size]` to logits
        `[num_examples, num_classes]`, with children `features` and `head`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a count is out of range, a choice is unknown, an operator changes the
            channels or the size, or the image is too small for the cells.

    References:
        Liu et al., "Progressive neural architecture search", ECCV 2018.
        Kim et al., "Auto-Meta: Automated gradient based meta learner search", 2018.

    >>> from metalearn.search import Block, Cell
    >>> network = Network(Cell([Block("sep_conv_3x3", -1, "max_pool_3x3", -2)]), num_filters=8)
    >>> build(network, 1, 5)(torch.zeros(10, 1, 28, 28)).shape
    torch.Size([10, 5])
    """
    check_kind("build's network", network, Network, "a Network", "Network(cell)")
    counts = {"in_channels": in_channels, "num_classes": num_classes, "image_size": image_size}
    for name, count in counts.items():
        check_count(f"build's {name}", count)
    check_choice("build's batch_statistics", batch_statistics, BATCH_STATISTICS)
    # The stem and the pooling halve the image num_cells times; as bits, to avoid huge powers.
    if image_size.bit_length() <= network.num_cells:
        condition = f"be at least 2 ** {network.num_cells}"
        fix = f"Use larger images, or num_cells={image_size.bit_length() - 1}."
        raise invalid("build's image_size", condition, image_size, fix)

    cells = Cells(network, in_channels)
    features = nn.Sequential(cells, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    head = nn.Linear(cells.out_channels, num_classes)
    module = nn.Sequential(OrderedDict(features=features, head=head))
    use_batch_statistics(module, batch_statistics, num_steps=num_steps)
    return module


class Cells(nn.Module):
    """A network's cells in sequence, each applied to the outputs of the two before it.

    Attributes:
        out_channels: Channels of the last cell's output.
    """

    def __init__(self, network: Network, in_channels: int) -> None:
        super().__init__()
        filters, inner = network.num_filters, network.num_filters * len(network.cell.outputs)
        stem = nn.Conv2d(in_channels, filters, 3, stride=2, padding=1, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(filters))
        widths = [filters, filters, *[inner] * network.num_cells]
        self.cells = nn.ModuleDict()
        # If cells skip the one before them, unused cells get no parameters.
        for index in sorted(reached(network)):
            before, last = widths[index : index + 2]
            self.cells[str(index)] = OneCell(network.cell, before, last, filters)
        self.num_cells, self.out_channels = network.num_cells, inner
        self.pool = nn.MaxPool2d(2, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the last cell's output."""
        before = last = self.stem(x)
        for index in range(self.num_cells):
            if index:
                before, last = self.pool(before), self.pool(last)
            name = str(index)
            before, last = last, self.cells[name](before, last) if name in self.cells else last
        return last


def reached(network: Network) -> set[int]:
    """Return the indices of the cells that the last one depends on, itself included."""
    inputs = {name for block in network.cell.blocks for name in block.inputs if name < 0}
    found: set[int] = set()
    new = {network.num_cells - 1}
    while new := {index for index in new if index >= 0} - found:
        found |= new
        new = {index + name for index in new for name in inputs}
    return found


class OneCell(nn.Module):
    """One cell: projections of the inputs that it uses, and its blocks."""

    def __init__(self, cell: Cell, before: int, last: int, channels: int) -> None:
        super().__init__()
        self.inputs = tuple(block.inputs for block in cell.blocks)
        self.outputs = cell.outputs
        used = {name for names in self.inputs for name in names}
        self.squeeze, self.operators = nn.ModuleDict(), nn.ModuleList()
        for name, width in ((-2, before), (-1, last)):
            if name in used:
                projection = nn.Conv2d(width, channels, 1, bias=False)
                layers = nn.ReLU(), projection, nn.BatchNorm2d(channels)
                self.squeeze[str(name)] = nn.Sequential(*layers)
        for block in cell.blocks:
            pair = (block.left_operator, block.right_operator)
            self.operators.append(nn.ModuleList(operator(name, channels) for name in pair))

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        """Return the output blocks' concatenation, `[n, channels * number, height, width]`."""
        given = {"-2": before, "-1": last}
        known = {int(name): squeeze(given[name]) for name, squeeze in self.squeeze.items()}
        for index, (pair, names) in enumerate(zip(self.operators, self.inputs, strict=True)):
            left, right = (op(known[name]) for op, name in zip(pair.children(), names, strict=True))
            known[index] = left + right
        return torch.cat([known[index] for index in self.outputs], 1)


def operator(name: str, channels: int) -> nn.Module:
    """Build an operator; raise unless it keeps an image's shape."""
    module = OPERATORS[name](channels)
    what, expected = f"operator {name!r}", "a function from channels to a module"
    check_kind(what, module, nn.Module, expected, "nn.Identity()")
    x = torch.zeros(2, channels, 4, 4)
    with torch.no_grad():
        shape = module.eval()(x).shape
    if shape != x.shape:
        fix = "Pad its convolutions by half of their kernels, with stride 1."
        raise invalid(what, f"keep the shape {tuple(x.shape)}", tuple(shape), fix)
    return module.train()


@dataclass(frozen=True)
class Cost:
    """A network's cost.

    Attributes:
        parameters: Number of parameters.
        multiply_adds: Number of multiply-adds in one image's forward pass, of convolutions and the
            head.
    """

    parameters: int
    multiply_adds: int


def cost(network: Network, in_channels: int, num_classes: int, *, image_size: int = 28) -> Cost:
    """Count a network's parameters and multiply-adds.

    Arguments and errors are as for `build`.

    >>> from metalearn.search import Block, Cell
    >>> cell = Cell([Block("conv_3x3", -1, "identity", -2)])
    >>> cost(Network(cell, num_cells=1, num_filters=2), 1, 5)
    Cost(parameters=93, multiply_adds=12162)
    """
    multiply_adds = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal multiply_adds
        # each weight is used once per output pixel
        if isinstance(module, nn.Conv2d | nn.Linear):
            multiply_adds += module.weight.numel() * output[0].numel() // output.shape[1]

    with random_numbers_kept(), torch.no_grad():  # the initial values do not matter
        model = build(network, in_channels, num_classes, image_size=image_size)
        for module in model.modules():
            module.register_forward_hook(count)
        # two images, since one alone has no batch statistics
        model(torch.zeros(2, in_channels, image_size, image_size))
    return Cost(sum(param.numel() for param in model.parameters()), multiply_adds)
