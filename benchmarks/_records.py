"""Results that are kept in a file each, and not computed again with the same settings."""

import json
from pathlib import Path
from typing import Any


def kept(path: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """Return what has been kept, if it was computed with these settings."""
    known = json.loads(path.read_text()) if path.exists() else {"settings": None}
    return known if known["settings"] == settings else None


def keep(path: Path, settings: dict[str, Any], record: dict[str, Any]) -> None:
    """Write a record beside its settings; a file is replaced only when all is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"settings": settings, **record}))
    part.replace(path)
