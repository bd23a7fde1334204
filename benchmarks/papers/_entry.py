"""Tables and figures of the papers: what makes each, and how far it has been run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks._archives import FOLDERS
from benchmarks._records import Record
from benchmarks.papers._experiment import Table

RECORDS = Path(__file__).parents[2] / "docs" / "records"


@dataclass(frozen=True)
class Entry:
    """A table or figure.

    Attributes:
        name: Of its command.
        label: As its paper numbers it.
        what: What it shows.
        table: Makes it; None where there is nothing to run, as for a drawing.
        records: Names of the records that hold what has been run of it.
        elsewhere: The command that makes it, if that is another one.
        gpu: Whether its full length takes more than some days on a CPU.
    """

    name: str
    label: str
    what: str
    table: Callable[[], Table] | None = None
    records: tuple[str, ...] = ()
    elsewhere: str = ""
    gpu: bool = False

    @property
    def command(self) -> str:
        """What to type."""
        if self.table is None:
            return self.elsewhere
        data = "METALEARN_DATA=folder " * bool(self.archives)
        return f"{data}python -m benchmarks.papers {self.name}"

    @property
    def archives(self) -> tuple[str, ...]:
        """Images that it reads."""
        experiments = [] if self.table is None else self.table().experiments
        return tuple(dict.fromkeys(name for each in experiments for name in each.archives))

    def state(self, records: Path = RECORDS) -> str:
        """Return how far it has been run."""
        if self.table is None and not self.elsewhere:
            return "nothing to run"
        paths = [records / f"{record}.json" for record in self.records]
        found = [Record.read(path) for path in paths if path.exists()]
        if found:
            return "run in full" if all(map(self._is_full, found)) else "run at a fraction"
        shipped_by_none = [name for name in self.archives if name in FOLDERS]
        if shipped_by_none:
            return f"needs {' and '.join(shipped_by_none)}, which cannot be shipped"
        return "needs a GPU" if self.gpu else "not run"

    def _is_full(self, record: Record) -> bool:
        """Return whether all of its rows and columns have been run, at full length."""
        if record.settings.get("fraction", 1.0) < 1 or "minutes" in record.settings:
            return False
        if self.table is None:
            return True
        rows = {line[0]: dict(zip(record.columns, line, strict=True)) for line in record.rows}
        cells = [(each.row, column) for each in self.table().experiments for column in each.paper]
        return all(rows.get(row, {}).get(column) for row, column in cells)
