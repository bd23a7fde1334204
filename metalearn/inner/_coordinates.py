"""All parameters as one vector, and other parts of rules that act on each element."""

import math

import torch
from torch import Tensor

from metalearn.types import Params


def flatten(tensors: Params, names: Params) -> Tensor:
    """Return all elements as one vector `[n]`, tensor by tensor in the order of `names`."""
    return torch.cat([tensors[name].reshape(-1) for name in names])


def unflatten(vector: Tensor, like: Params) -> Params:
    """Return the vector `[n]` as tensors named and shaped as `like`."""
    parts = vector.split([tensor.numel() for tensor in like.values()])
    return {name: part.reshape(like[name].shape) for name, part in zip(like, parts, strict=True)}


def preprocess(x: Tensor, p: float = 10.0) -> Tensor:
    """Return magnitude and sign of numbers of very different sizes, `[..., 2]`.

    (log|x| / p, sign x) where |x| >= exp(-p), else (-1, exp(p) x).

    References:
        Andrychowicz et al., "Learning to learn by gradient descent by gradient descent", NeurIPS
        2016, appendix A.
    """
    large = x.abs() >= math.exp(-p)
    # Where the logarithm is not used its argument is 1: the derivative at zero is infinite, and
    # 0 * inf is NaN.
    magnitude = torch.where(large, torch.where(large, x.abs(), 1.0).log() / p, -1.0)
    return torch.stack([magnitude, torch.where(large, x.sign(), math.exp(p) * x)], -1)


def init_linear(num_inputs: int, num_outputs: int, like: Tensor) -> Params:
    """Return a linear layer with `nn.Linear`'s random weights and a bias of zero."""
    bound = num_inputs**-0.5
    weight = like.new_empty(num_outputs, num_inputs).uniform_(-bound, bound)
    return {"weight": weight, "bias": like.new_zeros(num_outputs)}
