"""The form in which the table lists entry points."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.properties.strategies import JUNK


def nothing(result, **arguments):
    """Whatever has come is fine."""


@dataclass(frozen=True)
class Entry:
    """One entry point, and the calls that are made of it.

    Attributes:
        call: Called with keyword arguments.
        arguments: Plausible values of each.
        works: Called with the result and the arguments; uses the result, and asserts what must hold
            of it. What it raises is judged like what the call raises.
        wrong: Further wrong values of some arguments, beside `strategies.JUNK`.
        given: What a method is called on, and the like: arguments that are never wrong.
        functions: Names of arguments that are functions of the user's own, so that what they raise
            is not ours.
        always: Whether plausible arguments must work whatever the others are.
    """

    call: Callable[..., Any]
    arguments: Mapping[str, SearchStrategy]
    works: Callable[..., None] = nothing
    wrong: Mapping[str, SearchStrategy] = field(default_factory=dict)
    given: Mapping[str, SearchStrategy] = field(default_factory=dict)
    functions: frozenset[str] = frozenset()
    always: bool = True

    def drawn(self, draw):
        """Draw arguments, all of them plausible or one of them wrong; return them and the name of
        that one."""
        arguments = draw(st.fixed_dictionaries(dict(self.arguments)), label="plausible")
        wrong = draw(st.sampled_from([None, *arguments]), label="wrong argument")
        if wrong is not None:
            junk = (
                JUNK.filter(lambda value: not callable(value)) if wrong in self.functions else JUNK
            )
            arguments[wrong] = draw(
                st.one_of(self.wrong[wrong], junk) if wrong in self.wrong else junk,
                label="wrong value",
            )
        return draw(st.fixed_dictionaries(dict(self.given))) | arguments, wrong
