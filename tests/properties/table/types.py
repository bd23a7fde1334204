"""The types that the parts exchange: plain tuples, which what takes them checks."""

import torch
from hypothesis import strategies as st

from tests.properties.entry import Entry
from tests.properties.strategies import regressions

DEVICES = {"device": st.sampled_from(["cpu", torch.device("cpu")])}
WRONG_DEVICES = {"device": st.sampled_from(["gpu", "", -7, 3.5, torch.float32, None])}

ENTRIES = {
    "Batch.to": Entry(
        lambda batch, device: batch.to(device),
        DEVICES,
        wrong=WRONG_DEVICES,
        given={"batch": regressions().map(lambda episodes: episodes.support)},
    ),
    "Episode.to": Entry(
        lambda episodes, device: episodes.to(device),
        DEVICES,
        wrong=WRONG_DEVICES,
        given={"episodes": regressions()},
    ),
}

EXCLUDED = {
    "Meta": "a plain tuple, made by learners",
    "Indexed": "a plain tuple, which IndexedBatches checks",
    "Problem": "a plain tuple, made by learners",
    "Estimate": "a plain tuple, made by estimators",
    "Carry": "a plain tuple, made by estimators",
    "Adapted": "a plain tuple, made by estimators",
    "KeyedLoss": "a base class without arguments",
    "Params": "the type of a dict",
    "PyTree": "the type of any tree",
}
