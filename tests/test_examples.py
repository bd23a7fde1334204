"""The README's example runs as written, and so do the scripts, with fewer iterations."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parent.parent


def test_readme_example(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert "range(10_000)" in code
    names: dict = {}
    exec(compile(code.replace("10_000", "3"), "README.md", "exec"), names)
    assert names["error"].shape == (100,)
    assert names["error"].isfinite().all()


def test_readme_begins_with_the_two_commands():
    first = re.search(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL).group(1)
    commands = [line.split("#")[0].strip() for line in first.splitlines()]
    assert commands == ["make demo", "make test"]
    assert all(
        re.search(rf"^{command.split()[1]}:", (ROOT / "Makefile").read_text(), re.M)
        for command in commands
    )


@pytest.fixture
def archive(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 28, 28), dtype=np.uint8)
    names = np.array([f"class {index}" for index in range(12)])
    np.savez(
        tmp_path / "images.npz",
        images=images,
        class_names=names,
        split=np.array(["train", "test"] * 6),
    )
    return str(tmp_path / "images.npz")


NEEDS = {"lightning_maml.py": "lightning", "accelerate_maml.py": "accelerate"}


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_scripts(script, archive, monkeypatch, capsys):
    if script in NEEDS:
        pytest.importorskip(NEEDS[script], reason="pip install .[integrations]")
    few = {
        "omniglot_anil.py": [archive, "1", "20"],
        "low_rank.py": [archive, "1", "2"],
        "data_cleaning.py": ["2", "5"],
        "data_rater.py": ["1", "2", "1"],
        "online_hyperparameters.py": ["50", "2", "1"],
        "learned_optimizer.py": ["1", "1"],
        "penalties.py": ["1"],
        "navigation.py": ["1", "2"],
    }
    words = few.get(script, ["2"])
    monkeypatch.setattr(sys, "argv", [script, *words])
    runpy.run_path(str(ROOT / "examples" / script), run_name="__main__")
    assert capsys.readouterr().out
    assert torch.is_grad_enabled()
