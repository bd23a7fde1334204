"""The tutorials' code runs, with fewer iterations, and they are committed as they are written:
without outputs.

The cells run in this process, since a kernel for each notebook would import PyTorch each time; the
site executes them in kernels, in full. Every warning is an error here, as in all tests.
"""

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import matplotlib.pyplot as plt
import pytest
import torch

FOLDER = Path(__file__).parent.parent / "docs" / "tutorials"
NAMES = sorted(path.name for path in FOLDER.glob("*.ipynb"))
FEWER = {"num_iterations": 1, "num_tasks": 3, "num_seeds": 3, "num_powers": 2, "num_steps": 2}
"""What becomes of lines such as `num_iterations = 120`; nothing else is changed."""


def read(name):
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def fewer(source):
    for name, count in FEWER.items():
        source = re.sub(rf"^{name} = [\d_]+", f"{name} = {count}", source, flags=re.MULTILINE)
    return source


@pytest.fixture
def restored():
    yield
    plt.close("all")
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", NAMES)
def test_runs(name, restored, monkeypatch, capsys):
    plt.switch_backend("agg")
    module = ModuleType("tutorial")
    # its classes pickle, as those of a kernel do
    monkeypatch.setitem(sys.modules, "tutorial", module)
    cells = ["".join(cell["source"]) for cell in read(name)["cells"] if cell["cell_type"] == "code"]
    assert fewer("\n".join(cells)) != "\n".join(cells)
    for number, source in enumerate(cells):
        exec(compile(fewer(source), f"{name}, code cell {number}", "exec"), module.__dict__)
    printed = capsys.readouterr()
    assert printed.out
    assert not printed.err


@pytest.mark.parametrize("name", NAMES)
def test_is_committed_as_written(name):
    notebook = read(name)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook["cells"]:
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
    assert notebook["cells"][0]["source"][0].startswith("# ")
    assert sum(cell["cell_type"] == "code" for cell in notebook["cells"]) <= 12


def test_links_lead_somewhere():
    for name in NAMES:
        text = "".join(
            "".join(cell["source"])
            for cell in read(name)["cells"]
            if cell["cell_type"] == "markdown"
        )
        root = FOLDER.parent.parent
        assert all((FOLDER / target).exists() for target in re.findall(r"\]\(([\w./]+)\)", text))
        assert all(
            (root / path).exists()
            for path in re.findall(r"`((?:docs|examples|metalearn)/[\w./]+)`", text)
        )


def test_the_index_is_complete():
    assert NAMES == [
        "few_shot_images.ipynb",
        "meta_gradients.ipynb",
        "own_model.ipynb",
        "papers_table.ipynb",
        "policy_gradients.ipynb",
        "sine.ipynb",
        "update_rule.ipynb",
    ]
