"""What an earlier run finished, and what this one begins and ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vizcomp.batch.items import Item, Outcome
from vizcomp.batch.journal import Journal
from vizcomp.batch.settings import WhatIsThere
from vizcomp.errors import OutputError
from vizcomp.files.find import InputFile
from vizcomp.files.names import is_there
from vizcomp.files.store import AnyPath
from vizcomp.files.write import remove_leftovers


@contextlib.contextmanager
def open_log(
    folder: AnyPath | None,
    decides: Mapping[str, Any],
    settings: WhatIsThere,
    *,
    remember: bool = True,
) -> Iterator[Log]:
    """The log of a run into a folder (None: beside its inputs); a dry run has none.

    Args:
        decides: all that decides what an output holds.
        remember: False: it has none either.
    """
    journal = None if settings.dry_run or not remember else Journal(folder, decides)
    log = Log(journal, folder, resume=settings.resume, overwrite=settings.overwrite)
    if settings.resume:
        log.sweep()
    try:
        yield log
    finally:
        log.close()


class Log:
    """Which inputs need not be done, and which are done now; does nothing where no journal is kept.

    Args:
        kept: the journal, or None.
        root: the folder of all outputs; None where they are beside their inputs.
        resume: skip what an earlier run finished.
        overwrite: replace existing outputs, whoever wrote them.

    Attributes:
        left: outputs that were there and stayed, and are not known to be of this run's settings.
        reads: what makes a record of what the journal remembers; what it raises TypeError for is
            done again.
    """

    def __init__(
        self,
        kept: Journal | None,
        root: AnyPath | None = None,
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.journal = kept
        self._root = root
        self._resume = resume
        self._overwrite = overwrite
        self.left = 0
        self.reads: Callable[[dict[str, Any]], object] = dict

    def item(
        self,
        file: InputFile,
        target: AnyPath | None,
        key: bytes = b"",
        *,
        others: Sequence[AnyPath] = (),
        reads: Callable[[dict[str, Any]], object] | None = None,
    ) -> Item:
        """An input as it starts on its way: known from an earlier run, or begun now.

        Args:
            others: where else its output may be, before its format is chosen.
            reads: in place of the log's, for what is a part of an input.
        """
        if self.journal is None:
            return Item(file, target, self._root, key=key)
        name = target if target is not None else key
        begun = False
        if self._resume:
            finished = self.journal.finished(file.path, name)
            if finished is not None and _is_record(
                reads or self.reads, {**finished[0], "input": file.shown}
            ):
                record, payload = finished
                return Item(
                    file,
                    target,
                    self._root,
                    known={**record, "input": file.shown},
                    payload=payload,
                    key=key,
                )
            begun = self.journal.begun(name)
        fresh = False
        with contextlib.suppress(OutputError):  # its worker finds the same, and says it
            fresh = target is not None and not any(is_there(place) for place in (target, *others))
        same = False
        if target is not None and not fresh and not self._overwrite:
            standing = self.journal.standing(file.path, target)
            same = standing == "same"
            begun = begun or (standing == "other" and self.journal.begun(target))
        former = earlier = None
        if target is not None and (begun or self._overwrite or fresh):
            former = self.journal.former(file.path, target)
            earlier = self.journal.begin(target)
        return Item(
            *(file, target, self._root, begun, fresh),
            key=key,
            same=same,
            former=former,
            earlier=earlier,
        )

    def settle(self, item: Item, outcome: Outcome[Any]) -> None:
        """The outcome of an input is there: what was written is remembered, what was not is no
        longer begun."""
        if self.journal is None or item.known is not None:
            return
        name = item.target if item.target is not None else item.key
        if outcome.record.status == "skipped" and item.target is not None and not item.same:
            self.left += 1
        if outcome.source_state is not None and (
            outcome.written_state is not None or outcome.payload is not None
        ):
            self.journal.finish(
                name,
                item.file.path,
                outcome.source_state,
                written=outcome.written,
                written_state=outcome.written_state,
                record=outcome.record.to_dict(),
                payload=outcome.payload,
            )
            if (
                item.former is not None
                and outcome.written is not None
                and item.former != outcome.written
            ):
                # the result is there; the older one, of another suffix, is too
                with contextlib.suppress(OSError):
                    item.former.unlink()
        elif item.target is not None and outcome.record.status in ("failed", "skipped"):
            self.journal.abandon(item.target, item.earlier)

    def give_up(self, item: Item) -> None:
        """An input that was taken and then not begun."""
        if (
            self.journal is not None
            and item.known is None
            and item.target is not None
            and (item.earlier is not None or not item.replace)
        ):
            self.journal.abandon(item.target, item.earlier)

    @property
    def problem(self) -> str:
        """Why nothing is remembered for a later run, "" where all is well."""
        return self.journal.problem if self.journal is not None else ""

    def sweep(self) -> None:
        """Remove what an earlier run, killed while it wrote, left in the folders of the outputs
        that it had begun."""
        if self.journal is None:
            return
        base: AnyPath = self._root if self._root is not None else Path()
        folders = {(base / str(target)).parent for target in self.journal.unfinished()}
        for folder in folders | ({self._root} if self._root is not None else set()):
            remove_leftovers(folder)

    def close(self) -> None:
        """The run is over."""
        if self.journal is not None:
            self.journal.close()


def stayed(count: int) -> str:
    """What to say of outputs that were there, stayed, and are not known to be of this run."""
    which = "1 result exists and is" if count == 1 else f"{count} results exist and are"
    return (
        f"{which} not known to be of these photos and settings: `overwrite` replaces what is there,"
        " another `output` keeps it"
    )


def _is_record(reads: Callable[[dict[str, Any]], object], values: dict[str, Any]) -> bool:
    try:
        reads(values)
    except TypeError:
        return False
    return True
