"""Results in one file each, computed once per setting, and tables of them."""

import json
import shlex
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from metalearn._files import whole_file

RECORD = "file of docs/records to write the table to, for benchmarks.pages"


def kept(path: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """Return what has been kept, if it was computed with these settings."""
    known = json.loads(path.read_text()) if path.exists() else {"settings": None}
    return known if known["settings"] == settings else None


def keep(path: Path, settings: dict[str, Any], record: dict[str, Any]) -> None:
    """Write a record beside its settings; a file is replaced only when all is written."""
    replace(path, json.dumps({"settings": settings, **record}))


def replace(path: Path, text: str) -> None:
    """Write a file that is there as a whole or not at all."""
    with whole_file(path) as stream:
        stream.write(text.encode())


@dataclass(frozen=True)
class Record:
    """A table as it is printed, and written into the docs by `benchmarks.pages`.

    Attributes:
        command: What was run.
        settings: On which device and how, by name. An "interval" is what +- means, and is printed
            below the table.
        columns: Their names; of the first, which names the rows, it may be empty.
        rows: Of each row its name and its cells.
    """

    command: str
    settings: dict[str, Any]
    columns: list[str]
    rows: list[list[str]]

    def __post_init__(self) -> None:
        if wrong := [row for row in self.rows if len(row) != len(self.columns)]:
            raise ValueError(
                f"rows must have {len(self.columns)} cells; got {wrong[0]}. Fill up with "
                "empty ones."
            )

    def markdown(self) -> str:
        """Return the table as lines of Markdown, and below it what its intervals are."""
        lines = [
            [f" {cell} " if cell else " " for cell in line] for line in (self.columns, *self.rows)
        ]
        head, *rows = (f"|{'|'.join(cells)}|" for cells in lines)
        below = ["", f"+-: {self.settings['interval']}."] if "interval" in self.settings else []
        return "\n".join([head, "|" + "---|" * len(self.columns), *rows, *below])

    def write(self, path: Path) -> None:
        """Write the table with a line for every row."""
        rows = ",\n".join(f"  {json.dumps(row)}" for row in self.rows)
        rest = {name: value for name, value in asdict(self).items() if name != "rows"}
        heads = [f" {json.dumps(name)}: {json.dumps(value)}," for name, value in rest.items()]
        replace(path, "\n".join(["{", *heads, ' "rows": [', rows, " ]", "}", ""]))

    @classmethod
    def read(cls, path: Path) -> "Record":
        """Return the table of a file."""
        return cls(**json.loads(path.read_text()))


def this_command() -> str:
    """Return the command that runs, as one would type it to run it again."""
    main = sys.modules["__main__"].__spec__
    name = "" if main is None else main.name.removesuffix(".__main__")
    pairs = zip(sys.argv, sys.argv[1:], strict=False)
    words = [
        word for before, word in pairs if "--record" not in (before, word) and word != "--show"
    ]
    return shlex.join(["python", "-m", name, *words])


def show(
    columns: list[str], rows: list[list[str]], settings: dict[str, Any], path: Path | None = None
) -> None:
    """Print a table as Markdown, and record it as the result of the command that runs."""
    record = Record(this_command(), {**settings, "torch": version("torch")}, columns, rows)
    print(record.markdown(), flush=True)
    if path is not None:
        record.write(path)
