"""Doctests of docstrings as blocks of code, which they are in Markdown only between fences."""

import re
from typing import Any

import griffe

DOCTEST = re.compile(r"^( *)>>> .*\n?(?:(?! *$).*\n?)*", re.MULTILINE)
"""From a prompt to the next empty line."""


class Doctests(griffe.Extension):
    """Put fences around every doctest."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change an object's docstring."""
        if obj.docstring:
            obj.docstring.value = DOCTEST.sub(fenced, obj.docstring.value)


def fenced(doctest: re.Match[str]) -> str:
    """Return a doctest between fences, as far indented as it is."""
    indent = doctest[1]
    return f"{indent}```pycon\n{doctest[0].rstrip()}\n{indent}```\n"
