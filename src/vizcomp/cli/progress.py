"""How far a run is, for those who do not watch a terminal: a line every few seconds."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from vizcomp.batch.records import CodecRecord, DepthRecord, FileRecord
from vizcomp.errors import VizcompError

LINE_SECONDS = 10.0

Record = FileRecord | DepthRecord | CodecRecord


@dataclasses.dataclass(frozen=True, kw_only=True)
class Far:
    """How far a run is.

    Attributes:
        done: inputs so far, `failed` and `skipped` among them.
        total: of all inputs; None where that is not known yet.
        seconds: since the beginning.
        source_bytes, output_bytes: of the files that were written or kept; 0 where the command
            counts none.
    """

    done: int
    failed: int
    skipped: int
    total: int | None
    seconds: float
    source_bytes: int
    output_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """As a dict of JSON types."""
        return {**dataclasses.asdict(self), "photos_per_second": self.rate}

    @property
    def rate(self) -> float:
        """Inputs a second."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    def __str__(self) -> str:
        parts = [
            f"{self.done}" + (f" of {self.total}" if self.total is not None else "") + " photos",
            f"{self.rate:.1f}/s",
        ]
        if self.source_bytes:
            parts.append(f"{human_bytes(self.source_bytes)} -> {human_bytes(self.output_bytes)}")
        parts += [
            f"{count} {name}"
            for count, name in ((self.failed, "failed"), (self.skipped, "skipped"))
            if count
        ]
        if self.total and 0 < self.done < self.total:
            parts.append(f"about {(self.total - self.done) / self.rate:.0f} s left")
        return ", ".join(parts)


@contextlib.contextmanager
def lines(
    count: Callable[[], int], tell: Callable[[Far], None]
) -> Iterator[Callable[[Record], None]]:
    """Calls `tell` every `LINE_SECONDS` while the context lasts; gives what is to be called with
    each record.

    Args:
        count: how many inputs there are, about; asked once, when the first line is due.
    """
    done = failed = skipped = source = output = 0
    started, ended = time.monotonic(), threading.Event()

    def speak() -> None:
        total: int | None = None
        while not ended.wait(LINE_SECONDS):
            if total is None:
                # the run itself says what is wrong
                with contextlib.suppress(VizcompError, OSError):
                    total = count()
            if not ended.is_set():
                tell(
                    Far(
                        done=done,
                        failed=failed,
                        skipped=skipped,
                        total=total,
                        seconds=time.monotonic() - started,
                        source_bytes=source,
                        output_bytes=output,
                    )
                )

    def counted(record: Record) -> None:
        nonlocal done, failed, skipped, source, output
        done += 1
        failed += record.status == "failed"
        skipped += record.status == "skipped"
        if not isinstance(record, DepthRecord) and record.status in ("ok", "kept", "partial"):
            source += record.source_bytes
            output += record.output_bytes

    speaker = threading.Thread(target=speak, name="progress", daemon=True)
    speaker.start()
    try:
        yield counted
    finally:
        ended.set()
        speaker.join(timeout=1.0)


def human_bytes(count: int) -> str:
    """Bytes in the unit that reads best: 1234567 -> "1.23 MB"."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"
