"""Files that are there as a whole or not at all."""

import glob
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedWriter
from pathlib import Path

from metalearn._checks import invalid

ABANDONED = 3600
"""Seconds after which a file that nobody writes to any more is taken for that of a killed
process."""


@contextmanager
def whole_file(path: Path) -> Iterator[BufferedWriter]:
    """Open a new file beside `path`, whose folder is made; it replaces `path` when all of it is on
    the disk.

    Of several processes that write one path at a time, the last one's file stays. A link is
    followed.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_abandoned(path.parent, f"{glob.escape(path.name)}.*.part")
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    try:
        with part.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def clear_abandoned(folder: Path, pattern: str) -> None:
    """Remove the files and folders that killed processes have left: who still writes one does so
    once an hour.
    """
    for part in folder.glob(pattern):
        try:
            last = max(file.stat().st_mtime for file in (part, *part.glob("*")))
        except FileNotFoundError:  # somebody has just finished it
            continue
        if time.time() - last > ABANDONED:
            shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(
                missing_ok=True
            )


def check_writable(what: str, folder: Path) -> None:
    """Make a folder, and raise unless files can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise invalid(what, "be a folder that can be written", f"{folder}: {error}") from error
