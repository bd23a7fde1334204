"""Whatever is passed to an entry point: it works, or says what was expected, what came, and the
fix."""

import importlib
import re
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

import metalearn

PLACES = (
    "",
    "data",
    "inner",
    "outer",
    "models",
    "functional",
    "baselines",
    "analysis",
    "rl",
    "search",
    "training",
    "types",
)
TABLES = {
    place: importlib.import_module(f"tests.properties.table.{place or 'top'}") for place in PLACES
}
ENTRIES = {
    f"{place}.{name}".lstrip("."): e
    for place, table in TABLES.items()
    for name, e in table.ENTRIES.items()
}

FORM = re.compile(r"\bmust\b.+; got .*\.", re.DOTALL)
"""What errors look like: `{what} must {condition}; got {value}. {fix}`."""


KINDS = (TypeError, ValueError, IndexError, OSError, RuntimeError)


def fine(error):
    """Say whether an error tells what is wrong: in the library's form, or as the system says what a
    file lacks."""
    of_system = isinstance(error, OSError) and error.errno is not None
    if isinstance(error, RuntimeError):
        return "NVIDIA" in str(error)  # a GPU that is not there
    return of_system or (isinstance(error, KINDS) and FORM.search(str(error)) is not None)


@pytest.mark.parametrize("name", ENTRIES)
@given(draws=st.data())
def test_a_call_works_or_says_what_is_wrong(name, draws):
    entry = ENTRIES[name]
    arguments, wrong = entry.drawn(draws.draw)
    error = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a warning flags what is not finite
            entry.works(entry.call(**arguments), **arguments)
    except KINDS as raised:
        error = raised
    assert error is None or fine(error), f"{type(error).__name__} of another form: {error}"
    assert error is None or wrong is not None or not entry.always, (
        f"plausible arguments are refused: {error}"
    )


@pytest.mark.parametrize("place", PLACES)
def test_every_public_callable_is_in_the_table(place):
    package = importlib.import_module(f"metalearn.{place}".rstrip(".")) if place else metalearn
    public = {name for name in package.__all__ if callable(getattr(package, name))}
    listed = {name.partition(".")[0] for name in TABLES[place].ENTRIES}
    excluded = TABLES[place].EXCLUDED.keys()
    assert public == listed | excluded
