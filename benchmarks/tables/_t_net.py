"""Lee and Choi's (2018) networks and methods for regression; tables as in arXiv:1801.05558v1."""

from functools import partial

import torch.nn as nn
import torch.nn.functional as F

from metalearn import inner, models, outer


def network() -> nn.Module:
    """Return the 40-40 network: weights of std 0.01, truncated at two of them, and zero biases."""
    cut = partial(nn.init.trunc_normal_, std=0.01, a=-0.02, b=0.02)
    return models.init_(models.mlp(1, [40, 40], 1), weights=cut, biases=nn.init.zeros_)


def build(seed: int, method: str, lr: float, compile: bool) -> outer.MetaLearner:
    """Return a learner to train with one inner step of rate `lr`."""
    options = {"num_steps": 1, "compile": compile}
    if method == "MT-net":
        return outer.MTNet(inner.t_net(network()), F.mse_loss, inner.SGD(lr), **options)
    if method == "T-net":
        return outer.TNet(inner.t_net(network()), F.mse_loss, inner.SGD(lr), **options)
    rule = inner.MetaSGD(lr) if method == "Meta-SGD" else inner.SGD(lr)
    return outer.MAML(network(), F.mse_loss, rule, **options)
