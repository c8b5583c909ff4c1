"""What a fit has found so far, on the disk: an interrupted one goes on from there, and no answer is
asked for twice.

A row stands for a photo, by its content, and a setting. The order of the tests is written down
before the certify part is first looked at, and is never made again: what was seen of that part has
no say in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vizcomp.errors import OutputError
from vizcomp.files.place import cache_folder, printable

COMMIT_SECONDS = 1.0
KEEP_DAYS = 60  # without a run that used it

_TABLES = (
    (
        "CREATE TABLE IF NOT EXISTS rows (photo TEXT, setting TEXT, row TEXT, PRIMARY KEY (photo,"
        " setting))"
    ),
    "CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT)",
)


def key_of(*parts: Mapping[str, Any]) -> str:
    """24 hexadecimal digits for each part of what decides what a fit finds, joined by "-"."""
    return "-".join(
        hashlib.sha256(json.dumps(part, sort_keys=True, default=str).encode()).hexdigest()[:24]
        for part in parts
    )


class Memory:
    """The memory of one fit, in the cache folder.

    Args:
        key: of the fit, from `key_of`.
        resume: go on with what is there; otherwise what is there is forgotten.

    Attributes:
        found: whether there was something to go on with.
        others: whether there is something of a fit whose key has the same first part.

    Raises:
        OutputError: the cache folder cannot be written.
    """

    def __init__(self, key: str, *, resume: bool) -> None:
        self.path = cache_folder() / "fit" / f"{key}.sqlite"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _forget_old(self.path.parent, spare=self.path)
            if not resume:
                self.path.unlink(missing_ok=True)
            self.found = self.path.exists()
            first = key.partition("-")[0]
            self.others = any(
                path != self.path for path in self.path.parent.glob(f"{first}-*.sqlite")
            )
            self._base = sqlite3.connect(self.path, timeout=10.0)
            self._base.execute(
                "PRAGMA synchronous = OFF"
            )  # a crash of the machine costs a repetition, no more
            for table in _TABLES:
                self._base.execute(table)
            self._base.commit()
        except (OSError, sqlite3.Error) as exc:
            raise OutputError(
                f"{printable(self.path)} cannot be written: {exc}",
                "set VIZCOMP_CACHE to a folder that can",
            ) from exc
        self._committed = time.monotonic()

    def row(self, photo: str, setting: str) -> Any | None:
        """What was remembered of a photo under a setting, JSON types; None where nothing was."""
        found = self._base.execute(
            "SELECT row FROM rows WHERE photo = ? AND setting = ?", (photo, setting)
        ).fetchone()
        return None if found is None else json.loads(found[0])

    def add(self, photo: str, setting: str, row: Any) -> None:
        """Remember JSON types; they are on the disk some seconds later, or at `save`."""
        self._base.execute(
            "INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", (photo, setting, json.dumps(row))
        )
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            self.save()

    def note(self, name: str) -> Any | None:
        """A note of the fit as a whole, JSON types; None where there is none."""
        found = self._base.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        return None if found is None else json.loads(found[0])

    def write_note(self, name: str, value: Any) -> None:
        """Write a note, on the disk at once."""
        self._base.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, json.dumps(value)))
        self.save()

    def save(self) -> None:
        """All is on the disk after this."""
        self._base.commit()
        self._committed = time.monotonic()

    def close(self) -> None:
        """Save, and let the file go."""
        with contextlib.suppress(sqlite3.Error):
            self.save()
        self._base.close()


def _forget_old(folder: Path, *, spare: Path) -> None:
    for path in folder.glob("*.sqlite"):
        with contextlib.suppress(OSError):
            if path != spare and time.time() - path.stat().st_mtime > KEEP_DAYS * 86_400:
                path.unlink()
