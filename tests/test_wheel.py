"""The wheel holds what the package needs and nothing else, and works without the repository."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
USE = """
import pathlib, metalearn
from metalearn.data._splits import class_names_of
print(pathlib.Path(metalearn.__file__).parent, len(class_names_of("cifar_fs", "train")))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The wheel, unpacked: that is all an installation of pure Python does."""
    pytest.importorskip("hatchling", reason="pip install .[dev]")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_holds_every_file_of_the_package_and_nothing_else(site):
    files = {path.relative_to(site) for path in site.rglob("*") if path.is_file()}
    packaged = {path for path in files if not path.parts[0].endswith(".dist-info")}
    source = ROOT / "metalearn"
    expected = {
        p.relative_to(ROOT)
        for p in source.rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    assert packaged == expected
    assert Path("metalearn/py.typed") in packaged
    assert any(path.suffix == ".json" for path in packaged)
    assert any(path.name == "LICENSE" for path in files)


def test_is_used_without_the_repository(site):
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-P", "-W", "error", "-c", USE]
    run = subprocess.run(
        command, cwd=site, env=environment, check=True, capture_output=True, text=True
    )
    assert run.stdout.split() == [str(site / "metalearn"), "64"]
