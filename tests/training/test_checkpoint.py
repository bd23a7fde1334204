"""A run that is killed goes on to the very numbers of one that is not."""

import multiprocessing
import os
import random
import signal
import time
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from metalearn import data, fit, inner, models, outer
from metalearn._described import described
from metalearn.training._interrupt import Interrupt
from metalearn.types import Batch, Episode
from tests.cases import sine_episodes, sine_learner

TASKS = data.Sinusoid(k_shot=5, num_query=5)
NUM_ITERATIONS = 60


class Noisy:
    """Batches whose order and values come from every global generator there is."""

    def __iter__(self):
        for index in torch.randperm(4).tolist():
            scale = 1 + 0.1 * random.random() + 0.1 * np.random.rand() + index
            episodes = sine_episodes(num_tasks=2)
            yield Episode(
                *(Batch((scale * batch.x).float(), batch.y.float()) for batch in episodes)
            )


def one_episode(index):
    return data.Sinusoid(5, 5).sample(1, generator=torch.Generator().manual_seed(index))


def loader():
    return DataLoader(
        torch.arange(7).tolist(), shuffle=True, batch_size=None, collate_fn=one_episode
    )


def run(folder, batches=TASKS, num_iterations=NUM_ITERATIONS, **options):
    """Train something with every kind of state: inner problems that go on, a mask, dropout,
    momentum, a schedule, a validation."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    model = nn.Sequential(nn.Linear(1, 6), nn.Dropout(0.1), nn.ReLU(), nn.Linear(6, 1))
    rule, estimator = inner.Masked(inner.SGD(0.01)), outer.Continued(outer.Unrolled(), horizon=4)
    learner = outer.MAML(model, F.mse_loss, rule, num_steps=1, estimator=estimator)
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-2)
    size = 2 if isinstance(batches, data.TaskDistribution) else None
    history = fit(
        learner,
        batches,
        optimizer,
        num_iterations,
        **{
            "meta_batch_size": size,
            "scheduler": CosineAnnealingLR(optimizer, NUM_ITERATIONS),
            "validate": TASKS,
            "validate_every": 7,
            "num_validation_tasks": 2,
            "keep_best": 2,
            "checkpoint_dir": folder,
            "checkpoint_every": 5,
            "progress": False,
        }
        | options,
    )
    return {
        "learner": learner.state_dict(),
        "optimizer": optimizer.state_dict()["state"],
        "history": [
            history.loss,
            history.num_diverged,
            torch.tensor(list(history.scores.values())),
        ],
        "best": history.best_states,
        "next": [torch.rand(3), torch.tensor(random.random()), torch.tensor(np.random.rand())],
    }


def assert_identical(ours, theirs):
    ours, theirs = (torch.utils._pytree.tree_flatten(tree) for tree in (ours, theirs))
    assert ours[1] == theirs[1]
    for one, other in zip(ours[0], theirs[0], strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))


class StopError(Exception):
    """What ends a run in its middle."""


def stop_at(iteration):
    def stop(progress):
        if progress.iteration == iteration:
            raise StopError

    return [stop]


@pytest.mark.parametrize(
    "batches", [TASKS, Noisy(), loader()], ids=["distribution", "iterable", "DataLoader"]
)
def test_goes_on_as_if_nothing_had_happened(batches, tmp_path):
    whole = run(None, batches)
    for iteration in (3, 13, 29, 55):
        with pytest.raises(StopError):
            run(tmp_path, batches, callbacks=stop_at(iteration))
    assert_identical(run(tmp_path, batches), whole)
    # finished: nothing is left to do
    assert_identical(run(tmp_path, batches)["history"], whole["history"])


def stamp(file):
    return file.stat().st_mtime_ns if file.exists() else None


def in_child(folder):
    torch.save(run(folder), folder / "result.part")
    (folder / "result.part").replace(folder / "result.pt")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a fork saves the import of PyTorch")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_survives_kill_9_at_any_moment(tmp_path):
    whole, delays, file = run(None), random.Random(0), tmp_path / "checkpoint.pt"
    kills = 0
    while not (tmp_path / "result.pt").exists():
        child = multiprocessing.get_context("fork").Process(target=in_child, args=(tmp_path,))
        child.start()
        before = stamp(file)
        while child.is_alive() and stamp(file) == before:
            time.sleep(0.001)
        time.sleep(delays.uniform(0, 0.03))
        child.kill()
        child.join()
        kills += child.exitcode == -signal.SIGKILL
    assert kills >= 3
    assert_identical(torch.load(tmp_path / "result.pt"), whole)


def test_replicas_and_a_plateau(tmp_path):
    def replicas(folder, **options):
        torch.manual_seed(0)
        built = [
            outer.MAML(models.mlp(1, [4], 1), F.mse_loss, inner.SGD(0.01), num_steps=1)
            for _ in range(2)
        ]
        both = outer.Replicas(built)
        optimizer = torch.optim.SGD(both.parameters(), lr=1e-3, momentum=0.9)
        plateau = ReduceLROnPlateau(optimizer, patience=0)
        options = {"validate": TASKS, "validate_every": 2, "num_validation_tasks": 2, **options}
        generator = torch.Generator().manual_seed(1)
        options |= {
            "meta_batch_size": 2,
            "scheduler": plateau,
            "generator": generator,
            "progress": False,
        }
        history = fit(
            both, TASKS, optimizer, 9, checkpoint_dir=folder, checkpoint_every=3, **options
        )
        return (
            both.state_dict(),
            history.loss,
            history.best_state,
            plateau.state_dict()["num_bad_epochs"],
        )

    whole = replicas(None)
    with pytest.raises(StopError):
        replicas(tmp_path, callbacks=stop_at(8))
    assert_identical(replicas(tmp_path), whole)


def test_what_an_estimator_carries(tmp_path):
    def reptile(folder, **options):
        rule = inner.Adam(1e-2, betas=(0.0, 0.999))
        learner = outer.Reptile(nn.Linear(1, 1), F.mse_loss, rule, num_steps=2, keep_state=True)
        optimizer = torch.optim.SGD(learner.parameters(), lr=0.5)
        options |= {
            "generator": torch.Generator().manual_seed(1),
            "checkpoint_dir": folder,
            "checkpoint_every": 2,
        }
        fit(learner, TASKS, optimizer, 5, meta_batch_size=2, progress=False, **options)
        return learner.state_dict()

    torch.manual_seed(0)
    whole = reptile(None)
    torch.manual_seed(0)
    with pytest.raises(StopError):
        reptile(tmp_path, callbacks=stop_at(4))
    assert_identical(reptile(tmp_path), whole)


def test_more_iterations_than_before(tmp_path):
    run(tmp_path, num_iterations=10)
    longer = run(tmp_path, num_iterations=14)
    assert longer["history"][0].shape == (14,)
    with pytest.raises(
        ValueError,
        match="num_iterations must be at least what the checkpoint has; got 12. Write num",
    ):
        run(tmp_path, num_iterations=12)


def interrupt_at(iteration):
    def interrupt(progress):
        if progress.iteration == iteration:
            os.kill(os.getpid(), signal.SIGINT)

    return [interrupt]


def test_ctrl_c_ends_with_a_checkpoint(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, checkpoint_every=1000, callbacks=interrupt_at(8))
    assert signal.getsignal(signal.SIGINT) is before
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["iteration"] == len(state["history"]["loss"]) == 8
    assert_identical(run(tmp_path), run(None))


def test_a_second_ctrl_c_does_not_wait():
    def twice():
        with Interrupt(True) as interrupt:
            signal.raise_signal(signal.SIGINT)
            assert interrupt.came
            signal.raise_signal(signal.SIGINT)

    # a shell starts jobs that ignore it
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            twice()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, inherited)


def test_losses_before_the_checkpoint_are_not_warned_of_again(tmp_path):
    broken = sine_episodes()
    broken.query.y[0, 0] = torch.nan

    def train(num_iterations):
        learner = sine_learner(estimator=outer.SkipDiverged(outer.Unrolled()))
        optimizer = torch.optim.SGD(learner.parameters(), lr=1e-3)
        batches = [broken, sine_episodes(), sine_episodes()]
        return fit(
            learner, batches, optimizer, num_iterations, checkpoint_dir=tmp_path, progress=False
        )

    with pytest.warns(
        RuntimeWarning, match="1 of 1 meta-losses were not finite, the first at iteration 1"
    ):
        train(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert train(3).loss.isnan().tolist() == [True, False, False]


def changed(tmp_path, change):
    file = tmp_path / "checkpoint.pt"
    content = bytearray(file.read_bytes())
    file.write_bytes(change(content))
    return file


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"something else",
        lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
    ],
    ids=["cut", "empty", "foreign", "a bit"],
)
def test_refuses_what_is_damaged(change, tmp_path):
    run(tmp_path, num_iterations=2)
    file = changed(tmp_path, change)
    content = file.read_bytes()
    with pytest.raises(
        ValueError, match=r"checkpoint .*checkpoint.pt must be whole; got .*Pass another folder"
    ):
        run(tmp_path)
    assert file.read_bytes() == content


def test_refuses_other_files(tmp_path):
    torch.save({"model": torch.zeros(2)}, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="must be a checkpoint of fit; got another file"):
        run(tmp_path)


class Code:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_executes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(Code(), tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="must be whole; got UnpicklingError"):
        run(tmp_path)
    assert not (tmp_path / "executed").exists()


def test_refuses_another_run(tmp_path):
    run(tmp_path, num_iterations=2)
    with pytest.raises(
        ValueError, match="generator in .* must be this run's; got none where this run has cpu"
    ):
        run(tmp_path, generator=torch.Generator())
    with pytest.raises(
        ValueError,
        match="steps in a validation in .* must be this run's; got None where this run has 3",
    ):
        run(tmp_path, num_validation_steps=3)
    with pytest.raises(
        ValueError,
        match="scheduler in .* must be this run's; got CosineAnnealingLR where .* NoneType",
    ):
        run(tmp_path, scheduler=None)
    learner = outer.MAML(models.mlp(1, [6], 1), F.mse_loss, inner.SGD(0.01), num_steps=1)
    optimizer = torch.optim.Adam(learner.parameters())
    with pytest.raises(
        ValueError, match=r"tensor model.0.weight in .* must be|tensor .* where this run has"
    ):
        fit(learner, TASKS, optimizer, 5, meta_batch_size=2, checkpoint_dir=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"rule": inner.SGD(0.02)},
            r"update rule in .* must be this run's; got SGD\(lr=0.01\) where .* SGD\(lr=0.02\)",
        ),
        (
            {"num_steps": 2},
            "number of inner steps in .* must be this run's; got 1 where this run has 2",
        ),
        ({"fast": "2"}, "fast parameters in .* must be this run's"),
    ],
)
def test_refuses_another_experiment_of_the_same_tensors(change, message, tmp_path):
    def train(rule=inner.SGD(0.01), num_steps=1, fast="*"):  # noqa: B008
        learner = outer.MetaLearner(
            models.mlp(1, [4], 1), F.mse_loss, rule, num_steps=num_steps, fast=fast
        )
        fit(
            learner,
            TASKS,
            torch.optim.Adam(learner.parameters()),
            2,
            meta_batch_size=2,
            checkpoint_dir=tmp_path,
        )

    train()
    train()
    with pytest.raises(ValueError, match=message):
        train(**change)


@dataclass(frozen=True)
class Named(inner.SGD):
    names: frozenset = frozenset({"a", "b", "c"})
    function: object = one_episode


def test_rules_are_described_the_same_in_every_process():
    assert described(Named(0.1)) == "Named(lr=0.1, names={'a', 'b', 'c'}, function=one_episode)"
    assert described(object()) == "<object object>"
    rule = inner.LearnedRate(inner.SGD(0.01))
    assert described(rule) == repr(rule)
    assert described(({"b", "a"}, [nn.Linear(1, 1)])) == "tuple({'a', 'b'}, list(['Linear']))"


def test_a_state_that_cannot_be_read_again_is_found_at_once(tmp_path):
    class Odd(torch.optim.SGD):
        def state_dict(self):
            return {**super().state_dict(), "odd": Code}

    learner = sine_learner()
    with pytest.raises(ValueError, match="must be whole"):
        fit(
            learner,
            sine_episodes(),
            Odd(learner.parameters(), lr=1e-3),
            5,
            checkpoint_dir=tmp_path,
            checkpoint_every=1,
            progress=False,
        )


@pytest.mark.parametrize(
    ("method", "criterion", "message"),
    [
        (
            outer.FOMAML,
            F.mse_loss,
            r"estimator in .* must be this run's; got Unrolled\(order=2.*Unrolled\(order=1",
        ),
        (
            outer.Reptile,
            F.mse_loss,
            "estimator in .* must be this run's; got Unrolled.* ParameterDifference",
        ),
        (
            outer.MAML,
            F.l1_loss,
            "losses in .* must be this run's; got .'mse_loss', .* where this run has .'l1_loss'",
        ),
    ],
)
def test_refuses_another_method(method, criterion, message, tmp_path):
    def train(method, criterion=F.mse_loss, wrapped=None):
        learner = method(models.mlp(1, [4], 1), criterion, inner.SGD(0.01), num_steps=1)
        learner.estimator = wrapped or learner.estimator
        options = {"meta_batch_size": 2, "checkpoint_dir": tmp_path, "progress": False}
        return fit(learner, TASKS, torch.optim.Adam(learner.parameters()), 2, **options)

    history = train(outer.MAML)
    assert torch.equal(
        train(outer.MAML, wrapped=outer.SkipDiverged(outer.Unrolled())).loss, history.loss
    )
    with pytest.raises(ValueError, match=message):
        train(method, criterion)


def test_a_refused_run_leaves_the_learner_as_it_was(tmp_path):
    run(tmp_path, num_iterations=4)
    learner = outer.MAML(models.mlp(1, [4], 1), F.mse_loss, inner.SGD(0.01), num_steps=1)
    fit(
        learner,
        TASKS,
        torch.optim.Adam(learner.parameters()),
        4,
        meta_batch_size=2,
        checkpoint_dir=tmp_path / "own",
    )
    anew = outer.MAML(models.mlp(1, [4], 1), F.mse_loss, inner.SGD(0.01), num_steps=1)
    before = {name: tensor.clone() for name, tensor in anew.state_dict().items()}
    groups = [{"params": [param]} for param in anew.parameters()]
    for optimizer, message in (
        (
            torch.optim.Adam(anew.parameters()),
            "num_iterations must be at least what the checkpoint has; got 2",
        ),
        (
            torch.optim.Adam(groups),
            "sizes of parameter groups in .* must be this run's; got .4. where this run has",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            fit(anew, TASKS, optimizer, 2, meta_batch_size=2, checkpoint_dir=tmp_path / "own")
    assert all(torch.equal(tensor, before[name]) for name, tensor in anew.state_dict().items())


def test_a_folder_that_cannot_be_written_is_found_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    seen = []
    with pytest.raises(
        ValueError, match="checkpoint_dir must be a folder that can be written; got .*file"
    ):
        run(tmp_path / "file" / "runs", callbacks=[seen.append])
    assert not seen


@pytest.mark.parametrize("kind", ["generator", "workers", "batch sampler"])
def test_a_loader_with_a_generator_of_its_own_goes_on(kind, tmp_path):
    def batches():
        generator = torch.Generator().manual_seed(1)
        episodes = list(map(one_episode, range(3)))
        if kind == "batch sampler":
            order = BatchSampler(RandomSampler(episodes, generator=generator), 1, False)
            return DataLoader(episodes, batch_sampler=order, collate_fn=lambda batch: batch[0])
        workers = 2 if kind == "workers" else 0
        return DataLoader(
            episodes, batch_size=None, shuffle=True, generator=generator, num_workers=workers
        )

    whole = run(None, batches(), num_iterations=8, validate=None)
    run(tmp_path, batches(), num_iterations=5, validate=None)
    assert_identical(run(tmp_path, batches(), num_iterations=8, validate=None), whole)
