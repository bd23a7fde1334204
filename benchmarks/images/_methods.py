"""The methods, each as a learner to train, what it trains on, and the learner to judge."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import baselines, data, inner, outer

Build = Callable[[nn.Module], outer.MetaLearner]
Judge = Callable[[outer.MetaLearner, data.EpisodeSampler], outer.MetaLearner]


REPTILE = inner.Adam(1e-3, betas=(0.0, 0.999))


def _same(learner: outer.MetaLearner, tasks: data.EpisodeSampler) -> outer.MetaLearner:
    return learner


@dataclass(frozen=True)
class Method:
    """One row of a table.

    Attributes:
        build: Makes the learner of a model.
        paper: The papers' accuracy in percent by problem, as they print it.
        sees: What it trains on: "episodes", "training sets" of episodes, these "each for four
            steps", or "mini-batches" of all classes.
        judged: Makes the learner to evaluate of the trained one and the tasks.
        model: Changes of the problem's model.
        lr: Rate of the outer optimizer at its start.
        optimizer: The outer optimizer.
        shots: Support images of a class in training, if not as many as in the problem.
        max_grad_norm: Bound on the norm of the meta-gradient.
        meta_batch_size: Tasks in a meta-step.
        steps_at_test: Inner steps at test, if not as many as in training.
    """

    build: Build
    paper: dict[str, str]
    sees: str = "episodes"
    judged: Judge = _same
    model: tuple[tuple[str, Any], ...] = ()
    lr: float = 3e-3
    optimizer: type[torch.optim.Optimizer] = torch.optim.Adam
    shots: int | None = None
    max_grad_norm: float | None = None
    meta_batch_size: int = 4
    steps_at_test: int | None = None


def of(method: Callable[..., outer.MetaLearner], rule: inner.UpdateRule, **options: Any) -> Build:
    """Return what makes the method's learner of a model, for classification."""

    def build(model: nn.Module) -> outer.MetaLearner:
        return method(model, F.cross_entropy, rule, **options)

    return build


def _ways(tasks: data.EpisodeSampler) -> int:
    assert isinstance(tasks.n_way, int)  # as it is in every problem
    return tasks.n_way


def _width(learner: outer.MetaLearner) -> int:
    head: Any = learner.model.get_submodule("head")
    return head.in_features if isinstance(head, nn.Linear) else head.centroids.shape[1]


def _reptile_at_test(learner: outer.MetaLearner, tasks: data.EpisodeSampler) -> outer.MetaLearner:
    return outer.Reptile(copy.deepcopy(learner.model), F.cross_entropy, REPTILE, num_steps=50)


def fine_tuned(learner: outer.MetaLearner, tasks: data.EpisodeSampler) -> outer.MetaLearner:
    body: Any = learner.model.get_submodule("features")
    return baselines.Finetuning(body, nn.Linear(_width(learner), _ways(tasks)).to(learner.device))


def by_centroids(learner: outer.MetaLearner, tasks: data.EpisodeSampler) -> outer.MetaLearner:
    body: Any = learner.model.get_submodule("features")
    return baselines.CentroidFinetuning(body, _width(learner), _ways(tasks)).to(learner.device)


def by_nearest(learner: outer.MetaLearner, tasks: data.EpisodeSampler) -> outer.MetaLearner:
    """Return what labels a query as the support example that is nearest in a trained body."""
    body: Any = learner.model.get_submodule("features")
    num_support = _ways(tasks) * int(tasks.k_shot)  # type: ignore[arg-type]
    return baselines.NearestNeighbour(body, _width(learner), _ways(tasks), num_support)


def _closed_form(head: Callable[..., outer.MetaLearner]) -> Build:
    """Return a builder of learners whose head a solver fits to a body's features."""

    def build(model: nn.Module) -> outer.MetaLearner:
        body, linear = model.get_submodule("features"), model.get_submodule("head")
        return head(body, linear.in_features, linear.out_features)

    return build


def cosine_pretraining(model: nn.Module) -> outer.MetaLearner:
    head: Any = model.get_submodule("head")
    model.add_module("head", baselines.CosineHead(head.in_features, head.out_features))
    return baselines.Pretraining(model)


def _proto_net(model: nn.Module) -> outer.MetaLearner:
    body, head = model.get_submodule("features"), model.get_submodule("head")
    return baselines.ProtoNet(body, head.in_features, head.out_features)  # type: ignore[arg-type]


IN_FEW_STEPS = {  # iMAML in the form of its authors' code, with 4 steps in place of 16
    "num_steps": 4,
    "strength": 1.0,
    "proximal": "last_step",
    "system_strength": 12.0,
    "solver": outer.CG(2, damping=1.0),
}


def _representation(rate: float = 0.1, **options: Any) -> Build:
    return of(outer.HyperRepresentation, inner.LearnedRate(inner.SGD(rate)), num_steps=5, **options)


def _of_trained_heads(**options: Any) -> Build:
    """Return a builder of representation learners with constant trained heads, no learned rate."""
    estimator = outer.Unrolled(truncate=0, **options)
    return of(outer.HyperRepresentation, inner.SGD(0.1), num_steps=5, estimator=estimator)


def methods(lr: float) -> dict[str, Method]:
    """Return the rows of a problem; `lr` is the default initial inner rate."""
    turtle = inner.LearnedRate(inner.Turtle(("grad",), lr=lr), per="tensor")

    def mt_net(model: nn.Module) -> outer.MetaLearner:
        return outer.MTNet(inner.t_net(model), F.cross_entropy, inner.SGD(lr), num_steps=1)

    def t_net(model: nn.Module) -> outer.MetaLearner:
        return outer.TNet(inner.t_net(model), F.cross_entropy, inner.SGD(lr), num_steps=1)

    return {
        "MAML": Method(
            of(outer.MAML, inner.LearnedRate(inner.SGD(lr), per="tensor"), num_steps=1),
            {"omniglot_5w1s": "98.7 +- 0.4", "omniglot_5w5s": "99.9 +- 0.1"},
        ),
        "MAML, fixed rate": Method(of(outer.MAML, inner.SGD(lr), num_steps=1), {}),
        "FOMAML": Method(
            of(outer.FOMAML, inner.SGD(lr), num_steps=1),
            {"omniglot_5w1s": "98.3 +- 0.5", "omniglot_5w5s": "99.2 +- 0.2"},
        ),
        "Reptile": Method(
            of(outer.Reptile, REPTILE, num_steps=5, support_batches=5, keep_state=True),
            {"omniglot_5w1s": "97.68", "omniglot_5w5s": "99.48"},
            judged=_reptile_at_test,
            optimizer=torch.optim.SGD,
            lr=1.0,
            shots=10,
        ),
        "ANIL": Method(of(outer.ANIL, inner.SGD(lr), num_steps=1), {}),
        "iMAML": Method(
            of(outer.IMAML, inner.SGD(0.3), **IN_FEW_STEPS),
            {"omniglot_5w1s": "99.16 +- 0.35", "omniglot_5w5s": "99.67 +- 0.12"},
        ),
        "Meta-SGD": Method(
            of(outer.MAML, inner.MetaSGD(lr), num_steps=1),
            {"omniglot_5w1s": "99.53 +- 0.26", "omniglot_5w5s": "99.93 +- 0.09"},
        ),
        "TURTLE": Method(of(outer.MAML, turtle, num_steps=1), {}),
        "MT-net": Method(mt_net, {"omniglot_5w1s": "99.5 +- 0.3"}),
        "T-net": Method(t_net, {}),
        "hyper-representation": Method(_representation(), {}),
        "hyper-representation, rate from 0.5": Method(_representation(0.5), {}),
        "hyper-representation, first order": Method(
            _representation(estimator=outer.Unrolled(order=1)), {}
        ),
        "hyper-representation, approximate": Method(_of_trained_heads(), {}),
        "hyper-representation, training sets": Method(_representation(), {}, "training sets"),
        "joint, training sets": Method(
            _of_trained_heads(multi_step=outer.MultiStep()), {}, "training sets"
        ),
        "ProtoNet": Method(_proto_net, {}, lr=1e-3),
        "ridge regression": Method(_closed_form(baselines.RidgeRegression), {}, lr=1e-3),
        "logistic regression": Method(_closed_form(baselines.LogisticRegression), {}, lr=1e-3),
        "finetuning": Method(baselines.Pretraining, {}, "mini-batches", fine_tuned, lr=1e-3),
        "centroid finetuning": Method(
            cosine_pretraining, {}, "mini-batches", by_centroids, lr=1e-3
        ),
        "nearest neighbour": Method(baselines.Pretraining, {}, "mini-batches", by_nearest, lr=1e-3),
        "from scratch": Method(baselines.TrainFromScratch, {}, "nothing"),
    }


METHODS = methods(0.4)
