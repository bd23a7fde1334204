"""The hooks of the site: docstrings of all that is public, doctests, the navigation, links,
formulas."""

import sys
from importlib import import_module
from types import SimpleNamespace

import griffe
import pytest

from benchmarks.pages import DOCS


@pytest.fixture
def hook(monkeypatch):
    """Import a hook by its name; some need what only the site does."""
    monkeypatch.syspath_prepend(DOCS / "_hooks")
    known = set(sys.modules)
    yield import_module
    for name in {path.stem for path in (DOCS / "_hooks").glob("*.py")} - known:
        sys.modules.pop(name, None)


def test_everything_public_is_documented(hook):
    public_api = hook("public_api")
    package = public_api.load()
    names = [module.path for module in public_api.public_modules(package)]
    assert {"metalearn", "metalearn.inner", "metalearn.types"} <= set(names)
    assert public_api.undocumented(package) == []


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
        assert hook("public_api").undocumented(module) == [
            "package.f",
            "package.C.method",
            "package.C.size",
        ]


def test_a_module_says_what_is_public(hook):
    with (
        griffe.temporary_visited_module("x = 1", module_name="package") as module,
        pytest.raises(
            ValueError,
            match=r"package must have an __all__; got none\. List its public names in it\.",
        ),
    ):
        hook("public_api").exports(module)


def test_doctests_are_fenced(hook):
    docstring = griffe.Docstring("Return x.\n\n>>> f(1)\n[2, 3]\n>>> g()\n\nMore.\n")
    hook("doctests").Doctests().on_instance(obj=SimpleNamespace(docstring=docstring))
    assert docstring.value == "Return x.\n\n```pycon\n>>> f(1)\n[2, 3]\n>>> g()\n```\n\nMore."


def test_fields_have_plain_types(hook):
    extensions = griffe.load_extensions(hook("field_types").FieldTypes)
    package = griffe.load("metalearn", search_paths=[DOCS.parent], extensions=extensions)
    rule = package["inner._learned_rate.LearnedRate"]
    assert [str(each.annotation) for each in rule.parameters][1:] == [
        "UpdateRule",
        "str",
        "int | None",
    ]
    assert [str(base) for base in package["inner._rated.Rated"].bases] == ["UpdateRule"]
    assert str(package["inner._sgd.SGD"].parameters["lr"].annotation) == "float"


def test_patterns_of_the_navigation(hook):
    pytest.importorskip("mkdocs")
    nav, found = (
        hook("nav"),
        ["tutorials/b.ipynb", "tutorials/sine.ipynb", "tutorials/a.ipynb", "index.md"],
    )
    section = {"Tutorials": "tutorials/*.ipynb"}
    assert nav.expand(section, found) == {"Tutorials": [found[1], found[0], found[2]]}
    assert nav.expand(section, ["index.md"]) is None
    assert nav.expand({"Home": "index.md"}, found) == {"Home": "index.md"}


def test_links_of_notebooks(hook, caplog):
    pytest.importorskip("mkdocs")
    notebook = SimpleNamespace(src_uri="tutorials/sine.ipynb", name="sine")
    methods = SimpleNamespace(url_relative_to=lambda other: "../methods.html")
    files = SimpleNamespace(get_file_from_path={"methods.md": methods}.get)
    html = (
        '<a href="../methods.md#estimators">a</a> <a href="gone.md">b</a> <a '
        'href="sine.ipynb">c</a>'
    )
    page = SimpleNamespace(file=notebook)
    assert hook("notebooks").on_page_content(html, page, files) == html.replace(".md#", ".html#")
    assert caplog.messages == [
        "tutorials/sine.ipynb links to tutorials/gone.md, which is not there"
    ]


def test_formulas(hook):
    pytest.importorskip("mkdocs")
    pytest.importorskip("latex2mathml")
    html = hook("notebooks").FORMULA.sub(
        hook("notebooks").drawn, "<p>$x$ costs 1 $</p><code>$y$ $</code>"
    )
    assert html.startswith("<p><math")
    assert html.endswith("costs 1 $</p><code>$y$ $</code>")


def test_names_in_code_become_links(hook):
    pytest.importorskip("mkdocs")
    link = '<autoref identifier="metalearn.inner.SGD"><code>inner.SGD(0.1)</code></autoref>'
    html = "<p><code>inner.SGD(0.1)</code> <code>torch.nn</code></p><a><code>SGD</code></a>"
    assert hook("api").on_page_content(html) == html.replace("<code>inner.SGD(0.1)</code>", link)
