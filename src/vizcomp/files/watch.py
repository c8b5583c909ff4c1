"""Folders that fill: photos that are whole, as they arrive."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vizcomp.errors import InputError, SettingsError
from vizcomp.files.find import InputFile, OnProblem, find_inputs
from vizcomp.files.read import file_stamp
from vizcomp.files.store import is_url

SETTLE_SECONDS = 1.0
"""A file whose size and time of change stayed so long is whole."""

LOOK_SECONDS = 10.0
"""Folders are looked at so often even where nothing tells of a change, as on a disk of another
machine."""

LOOK_SECONDS_UNTOLD = 2.0
"""The same where `watchfiles` is not installed."""

PIECE_SECONDS = 0.1
"""A signal is answered after so long at most."""


class Watched:
    """Inputs that are watched.

    Args:
        inputs: folders, patterns or files on a disk, as `find.find_inputs` takes them; folders may
            be empty.
        report: as there.

    Raises:
        SettingsError: an input in a store, which tells of no changes. InputError: one that is not
            there.
    """

    def __init__(self, inputs: Sequence[str | Path], *, report: OnProblem | None = None) -> None:
        for item in inputs:
            if is_url(os.fspath(item)):
                raise SettingsError(
                    f"{item} cannot be watched",
                    "`watch` is for folders on a disk; run the command every hour",
                )
        self._inputs = inputs
        self._report = report
        self._growing: dict[bytes, tuple[tuple[int, int], float]] = {}
        self._taken: dict[bytes, tuple[int, int]] = {}
        for _ in find_inputs(inputs, may_be_none=True):
            break

    def rounds(self, stop: threading.Event) -> Iterator[list[InputFile]]:
        """Whenever photos are there that are whole and new, or were changed: those. It ends once
        `stop` is set."""
        while not stop.is_set():
            if whole := self.look():
                yield whole
            else:
                self._wait(stop)

    def look(self) -> list[InputFile]:
        """Photos that are whole and have not been given out as they are now."""
        now, whole = time.monotonic(), []
        growing = {}
        for file in self._found():
            key, stamp = os.fsencode(str(file.path)), file_stamp(file.path)
            if stamp is None or self._taken.get(key) == stamp:
                continue
            before, since = self._growing.get(key, (stamp, now))
            if before == stamp and stamp[0] > 0 and now - since >= SETTLE_SECONDS:
                self._taken[key] = stamp
                whole.append(file)
            else:
                growing[key] = (stamp, since if before == stamp else now)
        self._growing = growing  # what vanished is forgotten
        self._report = None  # a link that leads nowhere is told once
        return whole

    def _found(self) -> Iterator[InputFile]:
        try:
            yield from find_inputs(self._inputs, report=self._report, may_be_none=True)
        except InputError as exc:  # a folder that is gone for the moment
            if self._report is not None:
                self._report(exc)

    def _wait(self, stop: threading.Event) -> None:
        """Until something changes, or it is time to look again."""
        if self._growing:
            _pause(SETTLE_SECONDS / 2, stop)
            return
        watch = _watchfiles()
        folders = [folder for folder in map(_folder, self._inputs) if os.path.isdir(folder)]
        if watch is None or not folders:
            _pause(LOOK_SECONDS_UNTOLD, stop)
            return
        # no more watches, say: the clock is enough
        with contextlib.suppress(OSError, RuntimeError):
            milliseconds = round(LOOK_SECONDS * 1000)
            for _ in watch(
                *folders,
                rust_timeout=milliseconds,
                yield_on_timeout=True,
                raise_interrupt=True,
                debounce=200,
                stop_event=stop,
            ):
                return
        _pause(SETTLE_SECONDS / 2, stop)


def _pause(seconds: float, stop: threading.Event) -> None:
    """Sleep, in short pieces: `stop.wait` would hold a lock that a signal's handler wants for
    setting it."""
    until = time.monotonic() + seconds
    while not stop.is_set() and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, PIECE_SECONDS))


def _folder(item: str | Path) -> str:
    """The folder in which an input can change."""
    name = os.fspath(item)
    while name and not os.path.isdir(name):
        name = os.path.dirname(name)
    return name or "."


def _watchfiles() -> Any:
    try:
        from watchfiles import watch
    except ImportError:
        return None
    return watch
