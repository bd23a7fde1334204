"""Patterns that parameters' names match."""

from fnmatch import fnmatchcase


def matches(pattern: str, name: str) -> bool:
    """Return whether a pattern is of a parameter's name, or of a module that the parameter is in.

    >>> matches("*bias", "head.bias"), matches("head", "head.bias"), matches("he", "head.bias")
    (True, True, False)
    """
    # Errors and state_dict say "model.head.weight".
    patterns = (pattern, pattern.removeprefix("model."))
    return any(fnmatchcase(name, each) or fnmatchcase(name, each + ".*") for each in patterns)
