"""Files that are there as a whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedWriter
from pathlib import Path

from metalearn._checks import invalid


@contextmanager
def whole_file(path: Path) -> Iterator[BufferedWriter]:
    """Open a new file beside `path`, whose folder is made; it replaces `path` when all of it is on the disk.

    Of several processes that write one path at a time, the last one's file stays. A link is followed.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def check_writable(what: str, folder: Path) -> None:
    """Make a folder, and raise unless files can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(invalid(what, "be a folder that can be written", f"{folder}: {error}")) from error
