"""Files that are written completely or not at all."""

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
"""Seconds without writes after which a file counts as left by a killed process."""


@contextmanager
def whole_file(path: Path) -> Iterator[BufferedWriter]:
    """Open a new file that replaces `path` once all of it is on disk; its folder is created.

    If several processes write the same path, the last one's file stays. Links are followed.
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
    """Remove what killed processes left: files and folders untouched for an hour."""
    for part in folder.glob(pattern):
        try:
            last = max(file.stat().st_mtime for file in (part, *part.glob("*")))
        except FileNotFoundError:  # another process has just finished it
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
