"""Parameters in two parts, of which one may adapt while all tasks share the other."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from metalearn._brief import brief
from metalearn._checks import check_kind, did_you_mean, invalid, mistyped

EXAMPLE = 'split_parameters(model, {"0.weight": mask}), with mask[:8] = True'


class Split(nn.Module):
    """A parametrization of a tensor by the elements in a mask and the rest, two vectors."""

    places: Tensor
    """Where each element of the tensor is in the vector of both parts."""

    def __init__(self, tensor: Tensor, mask: Tensor) -> None:
        super().__init__()
        self.shape = tensor.shape
        chosen = mask.flatten()
        places = torch.where(chosen, chosen.cumsum(0), chosen.sum() + (~chosen).cumsum(0)) - 1
        self.register_buffer("places", places)
        self.rest = nn.Parameter(tensor.detach().flatten()[~chosen], tensor.requires_grad)

    def forward(self, original: Tensor) -> Tensor:
        """Return the tensor, of its elements in the mask."""
        return torch.cat([original, self.rest])[self.places].reshape(self.shape)

    def right_inverse(self, tensor: Tensor) -> Tensor:
        """Put a tensor's elements outside the mask into the rest, and return those in it."""
        elements = tensor.flatten()
        both = torch.empty_like(elements).scatter(0, self.places, elements)
        with torch.no_grad():
            self.rest.copy_(both[-len(self.rest) :])
        return both[: -len(self.rest)]


def split_parameters(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """Split parameters into elements that may adapt and elements that tasks share.

    The model is returned. It computes what it did, and `module.weight` is the whole tensor. Its
    elements in the mask are the parameter `<module>.parametrizations.weight.original`, so that
    `fast="*.original"` takes these alone, and the others `<module>.parametrizations.weight.0.rest`:
    learned by the outer loop without adapting, or constants after `requires_grad_(False)`. As
    parameters of their own they are exact in every rule and estimator: a norm to clip at, or a
    distance to the start, is of the fast elements alone.

    `torch.nn.utils.parametrize.remove_parametrizations(module, "weight")` makes a tensor whole
    again. Modules with parametrizations are saved by their `state_dict`; PyTorch does not pickle
    them.

    Args:
        model: A module. It is changed in place.
        masks: Masks by name of parameter, boolean: shaped as the parameter, or broadcast to it, as
            `[out, 1, 1, 1]` for some of the filters of a convolution.

    Raises:
        TypeError: If `model` is no module, `masks` no dict, or a mask no boolean tensor.
        ValueError: If a name is unknown or that of a tied, recurrent or parametrized tensor, or a
            mask has another shape or is the same everywhere. The model is then unchanged.

    References:
        Franceschi et al., "A bridge between hyperparameter optimization and learning-to-learn",
        2017 (section 4, in width).

    >>> filters = torch.arange(32)[:, None, None, None] < 8
    >>> model = split_parameters(nn.Sequential(nn.Conv2d(1, 32, 3)), {"0.weight": filters})
    >>> [(name, *param.shape) for name, param in model.named_parameters() if "weight" in name]
    [('0.parametrizations.weight.original', 72), ('0.parametrizations.weight.0.rest', 216)]
    """
    example = "the module itself: models.conv4(1, 5)"
    check_kind("split_parameters' model", model, nn.Module, "an nn.Module", example)
    if not isinstance(masks, Mapping):
        condition = "be a dict of masks by name"
        raise mistyped("split_parameters' masks", condition, brief(masks), f"Write {EXAMPLE}.")
    if not masks:
        raise invalid("split_parameters' masks", "be at least one", "none", f"Write {EXAMPLE}.")
    whole = {name: _as_mask(name, mask, _tensor(model, name)) for name, mask in masks.items()}
    for name, mask in whole.items():
        path, _, last = name.rpartition(".")
        owner = model.get_submodule(path)
        parametrize.register_parametrization(owner, last, Split(getattr(owner, last), mask))
    return model


def _tensor(model: nn.Module, name: Any) -> Tensor:
    """Return a parameter that can be split; raise if it cannot."""
    named = dict(model.named_parameters(remove_duplicate=False))
    if name not in named:
        wholes = {each.replace("parametrizations.", "") for each in named}
        fix = did_you_mean(name, named)
        if f"{name}.original" in wholes:
            fix = "It has a parametrization already: split it before, and once."
        raise invalid("split_parameters' masks", f"be of {list(named)}", brief(name), fix)
    condition = "be a tensor of its own that its module reads by name"
    owner = model.get_submodule(name.rpartition(".")[0])
    if is_lazy(named[name]):
        fix = "Call the model once on an example: model(x)."
        raise invalid("a parameter to split", "be initialised", f"{name!r}, which is lazy", fix)
    if aliases := [each for each in named if each != name and named[each] is named[name]]:
        fix = "Untie them, or leave it out."
        raise invalid("a parameter to split", condition, f"{name!r}, tied to {aliases}", fix)
    if isinstance(owner, nn.RNNBase):
        got, fix = f"{name!r} of {type(owner).__name__}", "Use its cell in a loop over time."
        raise invalid("a parameter to split", condition, got, fix)
    if "parametrizations" in name.split("."):
        fix = "Split it before, or leave it out."
        raise invalid("a parameter to split", condition, f"{name!r}, of a parametrization", fix)
    return named[name]


def _as_mask(name: str, mask: Any, tensor: Tensor) -> Tensor:
    """Return a mask in a tensor's shape and on its device; raise unless it splits the tensor."""
    what, shape = f"the mask of {name!r}", tuple(tensor.shape)
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = mask.dtype if isinstance(mask, Tensor) else brief(mask)
        fix = (
            "Write mask.bool()." if isinstance(mask, Tensor) else "Write torch.tensor(...).bool()."
        )
        raise mistyped(what, "be a boolean tensor", got, fix)
    try:
        whole = mask.to(tensor.device).expand(shape)
    except RuntimeError as error:
        fix = f"Write torch.ones({shape}, dtype=torch.bool), and False where tasks share it."
        if mask.shape == shape[:1]:
            fix = f"Write mask.reshape{(-1, *[1] * (len(shape) - 1))}."
        condition = f"be shaped {shape}, or broadcast to it"
        raise invalid(what, condition, tuple(mask.shape), fix) from error
    if whole.all() or not whole.any():
        got = "True everywhere" if whole.all() else "False everywhere"
        fix = f"Leave it out: fast={name!r} takes the whole tensor, another fast= none of it."
        raise invalid(what, "be True for some elements and False for others", got, fix)
    return whole
