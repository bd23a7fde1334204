"""What calls are made of: plausible arguments, and arguments of every wrong kind."""

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
from hypothesis import strategies as st

from metalearn import data, inner, models, outer
from metalearn._tree import tree_flatten, tree_unflatten
from metalearn.types import Batch, Episode

# Plausible values


COUNTS = st.integers(1, 4)
RATES = st.floats(1e-3, 0.3)
POSITIVE = st.floats(1e-2, 10)
BOOLS = st.booleans()
SEEDS = st.integers(0, 2**31)
KEYS = st.integers(0, 2**62 - 1).map(torch.tensor)
GENERATORS = st.one_of(st.none(), SEEDS.map(lambda seed: torch.Generator().manual_seed(seed)))
RANGES = st.tuples(st.floats(-3, 0), st.floats(0, 3))
SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)
FLOATING = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])
STATISTICS = st.sampled_from(["transductive", "support", "frozen"])
PATTERNS = st.sampled_from(["*", "2", "2.weight", "model.2", ["0", "2.bias"], True])
UNKNOWN_PATTERNS = st.sampled_from(
    ["", "3", "head", "[", ["2", "x"], ("2", 3), {"2"}, iter(["2"]), str.isupper]
)
RULES = st.sampled_from(
    [
        inner.SGD(0.01),
        inner.Momentum(0.01),
        inner.Adam(0.01),
        inner.MetaSGD(0.01),
        inner.Clipped(inner.SGD(0.1), norm=1),
        inner.LearnedRate(inner.SGD(0.1), "tensor", 2),
        inner.Masked(inner.SGD(0.1)),
        inner.LSTM(),
        inner.Turtle(hidden=(3,)),
    ]
)
PLAIN_RULES = st.sampled_from([inner.SGD(0.01), inner.Momentum(0.01), inner.RMSProp(0.01)])
ESTIMATORS = st.sampled_from(
    [
        outer.Unrolled(),
        outer.Stepwise(),
        outer.Unrolled(order=1),
        outer.Stepwise(truncate=1),
        outer.Implicit(2.0),
        outer.ParameterDifference(),
        outer.ForwardMode(),
        outer.ForwardGradient(2),
        outer.EvolutionStrategies(2),
        outer.ClipPerTask(outer.Unrolled(), 1.0),
    ]
)


def tensors(*shape, dtype=torch.float64, low=-1.0, high=1.0):
    """Uniform numbers of one shape, decided by a seed."""

    def draw(seed):
        unit = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return (low + (high - low) * unit).to(dtype)

    return SEEDS.map(draw)


@st.composite
def regressions(draw, num_tasks=COUNTS, nested=False, weighted=False):
    """Episodes of one input and one target, float64; `nested` puts the inputs in a dict."""
    tasks = draw(num_tasks)

    def batch():
        n = draw(COUNTS)
        x, y = draw(tensors(tasks, n, 1)), draw(tensors(tasks, n, 1))
        return Batch(
            {"input": x} if nested else x,
            y,
            *([torch.ones(tasks, n, dtype=x.dtype)] if weighted else []),
        )

    return Episode(batch(), batch())


@st.composite
def class_images(draw, channels=(1, 3)):
    """Images of 6x6 pixels, classes of one size or not."""
    shape = draw(st.sampled_from(channels)), 6, 6
    counts = draw(st.lists(st.integers(6, 8), min_size=3, max_size=5))
    return data.ClassImages(
        [draw(tensors(n, *shape, dtype=torch.uint8, low=0, high=256)) for n in counts]
    )


@st.composite
def classifications(draw):
    """Episodes of 3-way tasks of images, with weights where sizes vary."""
    sizes = draw(st.sampled_from([(3, 1), (3, 2), ((2, 3), 1), (3, (1, 2))]))
    tasks = data.EpisodeSampler(draw(class_images(channels=[1])), *sizes, num_query=2)
    return tasks.sample(draw(COUNTS), generator=torch.Generator().manual_seed(draw(SEEDS)))


def sines(num_query=3):
    """Synthetic tasks for a small network."""
    return st.builds(data.Sinusoid, k_shot=COUNTS, num_query=st.just(num_query))


class Junk:
    """An object of no kind that the library knows."""

    def __repr__(self):
        return "Junk()"


def _episode(x):
    return Episode(Batch(x, x), Batch(x, x))


JUNK = st.sampled_from([
    *(lambda value=value: value for value in (
        None, True, False, -1, 0, 1, 3, 30, -0.5, 0.0, 0.5, 1.5, 1e300, math.nan, math.inf,
        -math.inf, 1j, range(3), "", "x", "0", "é\0", b"x", (), (1, 2), (2, 1), (1, 2, 3), (0, 0),
        ("a", "b"), torch.float16, torch.int64, Junk, nn.Linear, inner.SGD, np.float32(0.5),
        np.int64(2), np.array(["a"]), Path("absent"), torch.device("cpu"), len, str.upper,
        lambda: None, lambda *_: None, lambda x: x,
    )),
    Junk, list, dict, set, lambda: [1], lambda: [None], lambda: [0.1, math.nan],
    lambda: ["a", "a"], lambda: [[]], lambda: {"a": 1}, lambda: {0: None}, lambda: iter([1]),
    lambda: np.zeros(2), lambda: np.zeros((2, 2), np.uint8), lambda: torch.tensor(0.5),
    lambda: torch.tensor(2), lambda: torch.zeros(0), lambda: torch.zeros(2),
    lambda: torch.zeros(2, 3), lambda: torch.zeros(2, 3, 1, dtype=torch.float64),
    lambda: torch.zeros(2, 3).half(), lambda: torch.full((2, 3), math.nan),
    lambda: torch.zeros(2, 3, dtype=torch.complex64), lambda: torch.zeros(2, 3, dtype=torch.int64),
    lambda: torch.zeros(2, 3, dtype=torch.bool),
    lambda: torch.zeros(2, 2, 2, 2, dtype=torch.uint8), lambda: torch.zeros(2, 3, device="meta"),
    lambda: torch.zeros(2, 3, requires_grad=True), lambda: nn.Linear(1, 1),
    lambda: nn.LazyLinear(1), lambda: nn.LazyBatchNorm1d(), lambda: nn.Flatten(),
    lambda: models.mlp(1, [2], 1).double(), lambda: Batch(()), lambda: Batch(torch.zeros(2, 3)),
    lambda: Episode(Batch(()), Batch(())),
    lambda: _episode(torch.zeros(2, 3, 1, dtype=torch.float64)),
    lambda: Episode(torch.zeros(2, 3), torch.zeros(2, 3)),
    lambda: [_episode(torch.zeros(2, 3, 1, dtype=torch.float64))], lambda: [_episode(1)],
    lambda: torch.Generator(), lambda: data.Sinusoid(2, 2), lambda: inner.SGD(0.1),
    lambda: outer.Unrolled(),
    lambda: data.ClassImages(torch.zeros(3, 6, 1, 6, 6, dtype=torch.uint8), layout="CHW"),
]).map(lambda make: make())  # fmt: skip
"""One value of a wrong kind for most arguments."""


LEAVES = [
    lambda leaf: leaf[0],
    lambda leaf: leaf[:, :0] if leaf.dim() > 1 else leaf[:0],
    lambda leaf: leaf[:0],
    lambda leaf: torch.cat([leaf, leaf]),
    lambda leaf: torch.cat([leaf, leaf], min(1, leaf.dim() - 1)),
    lambda leaf: leaf.unsqueeze(-1),
    lambda leaf: leaf.flatten(),
    lambda leaf: leaf.sum(),
    lambda leaf: leaf.tolist(),
    lambda leaf: leaf.numpy(),
    lambda leaf: None,
    lambda leaf: (),
    lambda leaf: 1.0,
    lambda leaf: "x",
    lambda leaf: {"a": leaf},
    lambda leaf: (leaf, leaf),
    lambda leaf: Batch(leaf, leaf),
    lambda leaf: leaf.half(),
    lambda leaf: leaf.long(),
    lambda leaf: leaf.bool(),
    lambda leaf: leaf.float(),
    lambda leaf: leaf.to(torch.uint8),
    lambda leaf: leaf.to(torch.complex64),
    lambda leaf: leaf.to("meta"),
    lambda leaf: leaf.double().requires_grad_(),
    lambda leaf: leaf.double() * math.nan,
    lambda leaf: leaf.double() * 1e200,
    lambda leaf: leaf + 7,
    lambda leaf: -leaf - 1,
]
"""What can become of one tensor of an episode."""

NESTINGS = [
    lambda episode: tuple(episode),
    lambda episode: list(episode),
    lambda episode: episode._asdict(),
    lambda episode: episode.support,
    lambda episode: Episode(episode.support, ()),
    lambda episode: Episode(episode.support, None),
    lambda episode: Episode(episode.support, tuple(episode.query)),
    lambda episode: Episode(episode, episode),
    lambda episode: Batch(episode.support, episode.query),
    lambda episode: [episode, episode],
    lambda episode: Episode(Batch(()), episode.query),
    lambda episode: Episode(episode.support, Batch(())),
    lambda episode: Episode(episode.support, Batch(episode.query.x)),
    lambda episode: Episode(episode.support._replace(y=None), episode.query),
    lambda episode: Episode(episode.support._replace(weight=episode.support.y), episode.query),
]
"""What can become of its structure."""


@st.composite
def damaged(draw, episodes):
    """Episodes, or support sets, of which one tensor is another, or whose parts are put together
    otherwise."""
    whole = draw(episodes)
    if isinstance(whole, Episode) and draw(st.booleans()):
        return draw(st.sampled_from(NESTINGS))(whole)
    leaves, spec = tree_flatten(whole)
    place = draw(st.integers(0, len(leaves) - 1))
    leaves[place] = draw(st.sampled_from(LEAVES))(leaves[place])
    return tree_unflatten(leaves, spec)
