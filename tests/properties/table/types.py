"""The types that the parts exchange: plain tuples, which what takes them checks."""

import torch
from hypothesis import strategies as st

from tests.cases import sine_episodes, sine_learner
from tests.properties.entry import Entry
from tests.properties.strategies import damaged, regressions

DEVICES = {"device": st.sampled_from(["cpu", torch.device("cpu")])}
WRONG_DEVICES = {"device": st.sampled_from(["gpu", "", -7, 3.5, torch.float32, None])}

ADAPTED = st.builds(lambda: sine_learner(num_steps=2).adapt(sine_episodes(num_tasks=2).support))
TWO_TASKS = regressions(num_tasks=st.just(2))


def shaped(output, /, argument, **_):
    assert output.shape[:1] == (2,)


def one_each(losses, /, **_):
    assert losses.shape == (2,)


def of_adapted(name):
    return lambda adapted, argument: getattr(adapted, name)(argument)


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
    "Adapted.__call__": Entry(
        of_adapted("__call__"),
        {"argument": TWO_TASKS.map(lambda episodes: episodes.query.x)},
        shaped,
        {"argument": damaged(TWO_TASKS.map(lambda episodes: episodes.query))},
        {"adapted": ADAPTED},
    ),
    "Adapted.loss": Entry(
        of_adapted("loss"),
        {"argument": TWO_TASKS.map(lambda episodes: episodes.query)},
        one_each,
        {"argument": damaged(TWO_TASKS.map(lambda episodes: episodes.query))},
        {"adapted": ADAPTED},
    ),
    "Adapted.__getitem__": Entry(
        of_adapted("__getitem__"), {"argument": st.integers(-2, 1)}, given={"adapted": ADAPTED}
    ),
}

EXCLUDED = {
    "Meta": "a plain tuple, made by learners",
    "Problem": "a plain tuple, made by learners",
    "Estimate": "a plain tuple, made by estimators",
    "Params": "the type of a dict",
    "PyTree": "the type of any tree",
}
