"""What a run has finished, so that a later one need not do it again: a small SQLite file in the
cache folder, one for each output folder.

A row stands for an output: which source it is of, by size, time and content; under which settings
it was made; what was written; and the record for the report. A row without a record is an output
that was begun. Only the process that hands out the work writes here, after the output has been
renamed into place: killed at any moment, the run has at worst to do again what was in hand.

Journals do not gather for ever: once a day at most, a run removes those that no run has used for
`KEEP_DAYS`, and sooner those whose output folder is gone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from vizcomp.files.place import cache_folder
from vizcomp.files.read import FileState, file_state
from vizcomp.files.store import AnyPath, StorePath, parse_place

KEEP_DAYS = 180  # without a run that used it
KEEP_DAYS_GONE = 14  # the same where the output folder is gone; its disk may only be unplugged
DAY = 86_400.0
SMALL_SOURCE = 1 << 18  # bytes; such a source is read again, since size and time may hide a change
LOCK_SECONDS = 10.0  # so long a journal that another program holds is waited for

Remembered = tuple[str, bytes | None]  # a record as JSON, and what else belongs to it

_VERSION = 2
_TABLE = """CREATE TABLE IF NOT EXISTS outputs (
    target BLOB PRIMARY KEY, source BLOB, settings TEXT,
    size INTEGER, mtime_ns INTEGER, sha256 TEXT,
    written BLOB, written_size INTEGER, written_mtime_ns INTEGER, written_sha256 TEXT,
    record TEXT, payload BLOB)"""
# parts of one long result, each by all that decides it
_PARTS_TABLE = "CREATE TABLE IF NOT EXISTS parts (key BLOB PRIMARY KEY, result BLOB)"
# of the outputs; no row where they are beside their inputs
_FOLDER_TABLE = "CREATE TABLE IF NOT EXISTS folder (path BLOB PRIMARY KEY)"

_BESIDE = "beside"


def place(folder: AnyPath | None) -> Path:
    """The path of an output folder's journal; not in it, since that is the user's. None: of outputs
    beside their inputs."""
    name = (
        _BESIDE
        if folder is None
        else hashlib.sha256(os.fsencode(str(folder.absolute()))).hexdigest()[:32]
    )
    return cache_folder() / "journals" / f"{name}.sqlite"


def prune(folder: Path, *, spare: Path | None = None) -> int:
    """Remove the journals of `folder` that are of no more use; in the one of outputs beside their
    inputs, the old rows.

    Returns how many journals went.

    Args:
        spare: the journal of the run that asks.

    After that, a run into the same folder skips the existing files instead of resuming; no file is
    deleted.
    """
    gone, now = 0, time.time()
    for path in folder.glob("*.sqlite"):
        if path.stem == _BESIDE:
            with (
                contextlib.suppress(sqlite3.Error),
                contextlib.closing(sqlite3.connect(path, timeout=0.1)) as base,
                base,
            ):
                base.execute(
                    "DELETE FROM outputs WHERE written_mtime_ns < ?",
                    (int((now - KEEP_DAYS * DAY) * 1e9),),
                )
            continue
        with contextlib.suppress(OSError):
            unused = now - max(p.stat().st_mtime for p in _files(path) if p.exists())
            if (
                path == spare
                or unused < KEEP_DAYS_GONE * DAY
                or (unused < KEEP_DAYS * DAY and not _folder_is_gone(path))
            ):
                continue
            for part in _files(path):
                part.unlink(missing_ok=True)
            gone += 1
    return gone


def _prune_daily(folder: Path, spare: Path) -> None:
    """`prune`, where none was in the last day."""
    mark = folder / ".pruned"
    with contextlib.suppress(OSError):
        if mark.exists() and abs(time.time() - mark.stat().st_mtime) < DAY:
            return
        mark.touch()
        prune(folder, spare=spare)


def _folder_is_gone(path: Path) -> bool:
    """Whether a journal is of a local folder that is there no more; False where that is unknown."""
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(path, timeout=0.1)) as base,
    ):
        rows = base.execute("SELECT path FROM folder").fetchall()
        names = [os.fsdecode(name) for (name,) in rows]
        return bool(names) and not any("://" in name or os.path.lexists(name) for name in names)
    return False


def _files(path: Path) -> list[Path]:
    """A journal and what SQLite keeps beside it."""
    return [path.with_name(path.name + end) for end in ("", "-wal", "-shm")]


class Journal:
    """The journal of an output folder.

    Args:
        folder: the output folder; None where outputs are beside their inputs.
        settings: all that decides what an output holds; another value is another output.

    A journal that is no database is begun anew. One that another program holds is waited for; what
    cannot be had or written is done without, which `problem` says: it must never stop a run.

    Attributes:
        problem: why nothing is remembered, "" where all is well.
    """

    def __init__(self, folder: AnyPath | None, settings: Mapping[str, Any]) -> None:
        self._folder = folder
        self._settings = hashlib.sha256(
            json.dumps(settings, sort_keys=True, default=str).encode()
        ).hexdigest()
        self._base: sqlite3.Connection | None = None
        self.problem = ""
        path = place(folder)
        for _ in range(2):
            try:
                self._open(path)
                return
            except (OSError, sqlite3.Error) as exc:
                self.close()
                self.problem = (
                    f"nothing is remembered for a later `resume`: {path} cannot be used:"
                    f" {str(exc).lower()}"
                )
                # a lock, a full disk: what it remembers is worth keeping
                if not _is_no_database(exc):
                    return
            for part in _files(path):
                with contextlib.suppress(OSError):
                    part.unlink()

    def _open(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._base = sqlite3.connect(path, isolation_level=None, timeout=LOCK_SECONDS)
        self._base.execute("PRAGMA journal_mode=WAL")
        # a killed process loses nothing; a power cut may cost work, not files
        self._base.execute("PRAGMA synchronous=OFF")
        if self._base.execute("PRAGMA user_version").fetchone() != (_VERSION,):
            self._base.execute("DROP TABLE IF EXISTS outputs")
        self._base.execute(_TABLE)
        self._base.execute(_PARTS_TABLE)
        self._base.execute(_FOLDER_TABLE)
        if self._folder is not None:
            self._base.execute(
                "INSERT OR IGNORE INTO folder VALUES (?)",
                (os.fsencode(str(self._folder.absolute())),),
            )
        self._base.execute(f"PRAGMA user_version={_VERSION}")
        os.utime(path)  # it is in use
        _prune_daily(path.parent, path)
        self.problem = ""

    def begun(self, target: AnyPath | bytes) -> bool:
        """Whether a file at this output may be replaced: an earlier run began it, or wrote it, and
        nobody changed it since."""
        rows = self._rows(
            "SELECT record, written, written_size, written_mtime_ns, written_sha256 FROM outputs"
            " WHERE target = ?",
            (self._key(target),),
        )
        if not rows:
            return False
        record, written, *of_written = rows[0]
        if record is None or written is None or isinstance(target, bytes):
            return True
        there = self._there(target, written)
        if not _same(there, *of_written):
            return _is_nothing(there) and _is_nothing(target)
        # a source that was kept has its own suffix
        return written == self._key(target) or _is_nothing(target)

    def unfinished(self) -> list[Path]:
        """Outputs that were begun and not finished, relative to the output folder where they are in
        it."""
        rows = self._rows("SELECT target FROM outputs WHERE record IS NULL", ())
        return [Path(os.fsdecode(target.split(b"\0")[0])) for (target,) in rows]

    def finished(
        self, source: AnyPath, target: AnyPath | bytes
    ) -> tuple[dict[str, Any], bytes | None] | None:
        """The record and the payload of an output that is done: same source by content, same
        settings, and still there as it was written (where it was written to a file of its own)."""
        rows = self._rows(
            "SELECT source, settings, size, mtime_ns, sha256, written, written_size,"
            " written_mtime_ns, written_sha256, record, payload FROM outputs WHERE target = ?",
            (self._key(target),),
        )
        if not rows or rows[0][-2] is None:
            return None
        name, settings, size, mtime_ns, sha256, written, *of_written, record, payload = rows[0]
        if settings != self._settings or name != os.fsencode(str(source.absolute())):
            return None
        if not _same(source, size, mtime_ns, sha256, thorough=size <= SMALL_SOURCE):
            return None
        if written is not None and not _same(self._there(target, written), *of_written):
            return None
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            fields = json.loads(record)
            return (fields, payload) if isinstance(fields, dict) else None
        return None

    def standing(self, source: AnyPath, target: AnyPath | bytes) -> str:
        """What is known of an output that exists.

        "same": of this source and these settings. "other": of this source as it was, or of other
        settings. "": nothing, or it is of another source.
        """
        rows = self._rows(
            "SELECT source, settings, size, mtime_ns, sha256, record FROM outputs WHERE target = ?",
            (self._key(target),),
        )
        if not rows:
            return ""
        name, settings, size, mtime_ns, sha256, record = rows[0]
        if record is None:
            return "other"  # begun by a run that was stopped
        if name != os.fsencode(str(source.absolute())):
            return ""
        unchanged = settings == self._settings and _same(
            source, size, mtime_ns, sha256, thorough=size <= SMALL_SOURCE
        )
        return "same" if unchanged else "other"

    def former(self, source: AnyPath, target: AnyPath) -> AnyPath | None:
        """Where an earlier run wrote an output of this source, if that is there as it was written:
        its suffix may be another."""
        rows = self._rows(
            "SELECT source, written, written_size, written_mtime_ns, written_sha256 FROM outputs"
            " WHERE target = ?",
            (self._key(target),),
        )
        if not rows or rows[0][0] != os.fsencode(str(source.absolute())) or rows[0][1] is None:
            return None
        there = self._there(target, rows[0][1])
        return there if _same(there, *rows[0][2:]) else None

    def begin(self, target: AnyPath | bytes) -> Remembered | None:
        """An output is about to be made. Where an earlier one was written stays known.

        Returns what was known of it, for `abandon`.
        """
        rows = self._rows(
            "SELECT record, payload FROM outputs WHERE target = ?", (self._key(target),)
        )
        self._rows(
            "INSERT INTO outputs (target) VALUES (?) ON CONFLICT (target) DO UPDATE SET record ="
            " NULL, payload = NULL",
            (self._key(target),),
        )
        return rows[0] if rows and rows[0][0] is not None else None

    def abandon(self, target: AnyPath | bytes, earlier: Remembered | None = None) -> None:
        """An output that was started will not be written: it is forgotten, or is again the
        `earlier` one, which still lies there."""
        if earlier is not None:
            self._rows(
                "UPDATE outputs SET record = ?, payload = ? WHERE target = ? AND record IS NULL",
                (*earlier, self._key(target)),
            )
            return
        self._rows("DELETE FROM outputs WHERE target = ? AND record IS NULL", (self._key(target),))

    def finish(
        self,
        target: AnyPath | bytes,
        source: AnyPath,
        source_state: FileState,
        *,
        record: Mapping[str, Any],
        written: AnyPath | None = None,
        written_state: FileState | None = None,
        payload: bytes | None = None,
    ) -> None:
        """An output was written.

        Args:
            written: where, if anywhere: a source that was kept keeps its own suffix.
            payload: what else is to be remembered.
        """
        self._rows(
            "INSERT OR REPLACE INTO outputs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(self._key(target), os.fsencode(str(source.absolute())), self._settings),
                *source_state,
                None if written is None else self._key(written),
                *(written_state or (None, None, None)),
                json.dumps(record),
                payload,
            ),
        )

    def remember(self, key: bytes, result: bytes) -> None:
        """A part of a result that has no files: `key` stands for all that decides it."""
        self._rows("INSERT OR REPLACE INTO parts VALUES (?, ?)", (key, result))

    def remembered(self, key: bytes) -> bytes | None:
        """What an earlier run found for that part."""
        rows = self._rows("SELECT result FROM parts WHERE key = ?", (key,))
        return rows[0][0] if rows else None

    def forget(self) -> None:
        """All parts that are remembered: the next result begins anew."""
        self._rows("DELETE FROM parts", ())

    def close(self) -> None:
        """Nothing more is to be written."""
        if self._base is not None:
            with contextlib.suppress(sqlite3.Error):
                self._base.close()
            self._base = None

    def _there(self, target: AnyPath | bytes, written: bytes) -> AnyPath:
        """Where the journal says that something was written."""
        if isinstance(target, StorePath) and self._key(target) == written:
            return target  # it may know from a listing what is there
        name = os.fsdecode(written)
        return parse_place(name) if self._folder is None or "://" in name else self._folder / name

    def _key(self, path: AnyPath | bytes) -> bytes:
        if isinstance(path, bytes):
            return path
        if self._folder is None:
            return os.fsencode(str(path.absolute()))
        below: AnyPath | PurePath = path
        with contextlib.suppress(ValueError):
            below = path.relative_to(self._folder)  # type: ignore[arg-type]  # of one kind, or it is not below
        return os.fsencode(str(below))

    def _rows(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        if self._base is None:
            return []
        try:
            return self._base.execute(statement, values).fetchall()
        except sqlite3.Error as exc:  # a full disk, or another run: go on without
            self.problem = f"nothing more is remembered for a later `resume`: {str(exc).lower()}"
            self.close()
            return []


def _is_nothing(path: AnyPath) -> bool:
    """Whether a file is not there, or empty, as a power cut may leave it."""
    try:
        return path.stat().st_size == 0
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _is_no_database(exc: BaseException) -> bool:
    """Whether SQLite says of a file that it is none of its own, or is damaged."""
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF in (
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CORRUPT,
    )


def _same(path: AnyPath, size: int, mtime_ns: int, sha256: str, *, thorough: bool = False) -> bool:
    """By content; size and time spare reading what was not touched, unless it is to be
    `thorough`."""
    try:
        if isinstance(path, StorePath):
            state = path.stat() if path.existed is not False else None
            return state is not None and (state.st_size, state.tag) == (size, sha256)
        stat = path.stat()
        if stat.st_size != size:
            return False
        return (stat.st_mtime_ns == mtime_ns and not thorough) or file_state(path)[2] == sha256
    except OSError:
        return False
