import json
import math
import re

import pytest
import torch

from metalearn import Evaluation, Summary


def evaluation(*values, fingerprint=7, **more):
    summaries = {
        name: Summary(torch.tensor(numbers)) for name, numbers in {"loss": values, **more}.items()
    }
    return Evaluation(summaries, len(values), 5, "none", fingerprint)


def test_prints_as_one_line():
    printed = Evaluation({"loss": Summary(torch.tensor([1.0, 3.0]))}, 2, 5, "none")
    assert str(printed) == "loss 2 +- 13 (95 % over 2 tasks, 5 steps, batch statistics: none)"
    assert repr(printed) == str(printed)
    assert repr([printed["loss"]]) == "[2 +- 13]"
    assert len(printed) == 1


def test_differences_are_paired():
    one = evaluation(1.0, 5.0, 9.0, accuracy=[0.0, 0.5, 1.0])
    two = evaluation(0.5, 4.5, 8.0, error=[0.0, 0.0, 0.0])
    compared = one.compare(two)
    assert list(compared) == ["loss"]
    assert compared["loss"].values.tolist() == [0.5, 0.5, 1.0]
    assert compared["loss"].ci95 < 0.1 * one["loss"].ci95
    assert (
        str(compared)
        == repr(compared)
        == "loss 0.6667 +- 0.72 (95 % over 3 tasks, 4.31 standard errors)"
    )


@pytest.mark.parametrize("fingerprints", [(1, 2), (None, None), (1, None)])
def test_only_the_same_tasks_are_compared(fingerprints):
    one, two = (evaluation(1.0, 2.0, fingerprint=fingerprint) for fingerprint in fingerprints)
    with pytest.raises(
        ValueError, match="Pass generator=torch.Generator\\(\\).manual_seed\\(0\\) to both calls"
    ):
        one.compare(two)
    with pytest.raises(TypeError, match="other must be an Evaluation; got float"):
        one.compare(1.0)


def test_a_saved_evaluation_is_the_same(tmp_path):
    path = tmp_path / "runs" / "maml.json"
    saved = evaluation(0.1, 1 / 3, math.inf, accuracy=[0.0, 1.0, math.nan])
    evaluation(9.0).save(path)
    saved.save(path)
    loaded = Evaluation.load(str(path))
    assert (str(loaded), loaded.fingerprint, list(loaded)) == (str(saved), 7, ["loss", "accuracy"])
    for name, summary in saved.items():
        torch.testing.assert_close(
            loaded[name].values, summary.values.double(), rtol=0, atol=0, equal_nan=True
        )
    assert [file.name for file in path.parent.iterdir()] == ["maml.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "maml.json"
    evaluation(1.0).save(path)
    with pytest.raises(TypeError):
        evaluation(2.0, fingerprint=object()).save(path)
    assert Evaluation.load(path)["loss"].mean == 1


OTHERS = {
    "no JSON": "not json",
    "JSON without the entry 'format'": "[1]",
    "JSON without the entry 'format': 'metalearn evaluation 2'": '{"loss": 1}',
    "entries ['num_steps'] missing and ['steps'] unknown": {"num_steps": "steps"},
    "entries ['task_names'] of another kind": {"task_names": [1, 2]},
    "3 tasks with numbers of {'loss': 2}": {"num_tasks": 3},
}


@pytest.mark.parametrize(("message", "change"), OTHERS.items())
def test_other_files_are_refused(message, change, tmp_path):
    path = tmp_path / "other.json"
    if isinstance(change, str):
        path.write_text(change)
    else:
        evaluation(1.0, 2.0).save(path)
        entries = json.loads(path.read_text())
        ((name, new),) = change.items()
        value = entries.pop(name)
        path.write_text(
            json.dumps({**entries, **({new: value} if isinstance(new, str) else {name: new})})
        )
    with pytest.raises(
        ValueError, match=re.escape(f"{path} must be a file of Evaluation.save; got {message}")
    ):
        Evaluation.load(path)
