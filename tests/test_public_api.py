"""Everything public has a docstring, and what builds the API pages sees what has none."""

import sys
from types import ModuleType

import griffe
import pytest

from benchmarks.pages import DOCS


@pytest.fixture
def hook(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(DOCS / "_hooks")
    yield __import__("public_api")
    del sys.modules["public_api"]


def test_everything_public_is_documented(hook):
    package = hook.load()
    names = [module.path for module in hook.public_modules(package)]
    assert {"metalearn", "metalearn.inner", "metalearn.types"} <= set(names)
    assert hook.undocumented(package) == []


def test_what_has_no_docstring_is_found(hook):
    code = '''
"""A package."""
__all__ = ["f", "g", "C"]
def f(): ...
def g():
    """Documented."""
def private(): ...
class C:
    """Documented."""
    def method(self): ...
    @property
    def size(self): ...
    def _private(self): ...
    def documented(self):
        """Documented."""
'''
    with griffe.temporary_visited_module(code, module_name="package") as module:
        assert hook.undocumented(module) == ["package.f", "package.C.method", "package.C.size"]


def test_a_module_says_what_is_public(hook):
    with (
        griffe.temporary_visited_module("x = 1", module_name="package") as module,
        pytest.raises(ValueError, match=r"package must have an __all__; got none\. List its public names in it\."),
    ):
        hook.exports(module)
