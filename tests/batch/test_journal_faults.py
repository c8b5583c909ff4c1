"""A journal that is locked is waited for and kept; one that is no database is begun anew."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

import pytest

from vizcomp.batch import journal
from vizcomp.batch.journal import Journal, place
from vizcomp.batch.log import Log
from vizcomp.batch.loop import RunOptions, Verb, run_batch
from vizcomp.batch.records import DepthRecord

PART = b"remembered"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path / "cache"))
    made = Journal(tmp_path / "out", {})
    made.remember(PART, b"1")
    made.close()
    return tmp_path / "out"


def held(folder: Path) -> sqlite3.Connection:
    base = sqlite3.connect(place(folder), isolation_level=None, check_same_thread=False)
    base.execute("PRAGMA journal_mode=DELETE")
    base.execute("BEGIN EXCLUSIVE")
    return base


def test_a_journal_that_is_locked_for_two_seconds_is_waited_for(folder: Path) -> None:
    base = held(folder)
    release = threading.Timer(2.2, lambda: base.execute("COMMIT"))
    began = time.monotonic()
    release.start()
    other = Journal(folder, {})
    release.join()
    assert time.monotonic() - began > 2
    assert other.problem == ""
    assert other.remembered(PART) == b"1"
    other.close()
    base.close()


def test_a_journal_that_stays_locked_is_done_without_and_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "LOCK_SECONDS", 0.2)
    base = held(folder)
    other = Journal(folder, {})
    assert "locked" in other.problem
    assert other.remembered(PART) is None
    said: list[str] = []
    verb = Verb(record=DepthRecord, tasks=lambda items: [], work=list, on_crash=list)
    run_batch([], verb, Log(other), RunOptions(jobs=1, on_notice=said.append))
    assert said == [other.problem]
    other.close()
    base.execute("COMMIT")
    base.close()
    assert Journal(folder, {}).remembered(PART) == b"1"


@pytest.mark.parametrize(
    "content", [b"no database at all" * 100, b"SQLite format 3\0" + bytes(range(256)) * 20]
)
def test_a_journal_that_is_no_database_is_begun_anew(folder: Path, content: bytes) -> None:
    for end in ("-wal", "-shm"):
        place(folder).with_name(place(folder).name + end).unlink(missing_ok=True)
    place(folder).write_bytes(content)
    other = Journal(folder, {})
    assert other.problem == ""
    other.remember(PART, b"2")
    assert other.remembered(PART) == b"2"
    other.close()


def test_eval_says_that_nothing_is_remembered(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kit import picture
    from PIL import Image

    from vizcomp.evaluation.results import EvalSettings
    from vizcomp.evaluation.run import run_eval

    (tmp_path / "in").mkdir()
    Image.fromarray(picture(1)).save(tmp_path / "in" / "a.png")
    monkeypatch.setattr(journal, "LOCK_SECONDS", 0.2)
    base, said = held(folder), list[str]()
    settings = EvalSettings(
        classifiers=("watcher",), data=str(tmp_path / "in"), codecs=("djpeg",), baselines=()
    )
    run_eval(settings, jobs=1, output=folder, on_notice=said.append)
    assert ["locked" in text for text in said] == [True]
    base.execute("COMMIT")
    base.close()
