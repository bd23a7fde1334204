"""Write the recorded tables into the pages of the docs: `python -m benchmarks.pages`.

A table that was measured is a file in docs/records: the command, the settings, and the cells as
they were printed. In a page its place is marked by `<!-- record: NAME -->`; the table below the
mark, and the line that says what its intervals are, are written from the record. What is between
`<!-- papers -->` and `<!-- end -->` is the list of `benchmarks.papers`.
"""

import re
from pathlib import Path

from benchmarks._records import Record
from benchmarks.papers.__main__ import listing

DOCS = Path(__file__).parents[1] / "docs"
MARKED = re.compile(r"<!-- record: ([\w-]+) -->\n(?:\n(?:\|.*\n)+)?(?:\n\+-: .*\n)?")
"""A mark, and the table and the line on intervals below it if there are any."""


LIST = re.compile(r"<!-- papers -->\n.*<!-- end -->", re.DOTALL)


def pages() -> list[Path]:
    """Return all pages in Markdown."""
    return sorted(DOCS.rglob("*.md"))


def written(page: str, records: Path = DOCS / "records") -> str:
    """Return a page with every marked table as its record has it."""
    page = LIST.sub(lambda _: f"<!-- papers -->\n\n{listing()}\n\n<!-- end -->", page)
    return MARKED.sub(
        lambda mark: f"{mark[0].splitlines()[0]}\n\n{read(records / f'{mark[1]}.json')}\n", page
    )


def read(path: Path) -> str:
    """Return a record's table as Markdown."""
    return Record.read(path).markdown()


def main() -> None:
    for path in pages():
        path.write_text(written(path.read_text()))


if __name__ == "__main__":
    main()
