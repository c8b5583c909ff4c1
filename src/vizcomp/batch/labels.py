"""Labels that go with photos: written beside the results, moved as the photos' pixels were
(`djpeg --labels`).

One photo after the other comes by with its record, in the process that hands out the work. Labels
of YOLO and VOC are a file for each photo and are written at once; COCO's are one file, written at
the end.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

from vizcomp.batch.items import Item, one_line
from vizcomp.batch.journal import Journal
from vizcomp.batch.records import FileRecord
from vizcomp.batch.settings import BatchSettings
from vizcomp.datasets import voc_labels, yolo_labels
from vizcomp.datasets.coco_labels import CocoLabels
from vizcomp.datasets.moved_labels import Move, Result
from vizcomp.datasets.true_boxes import CLASSES, label_file, label_kind
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import InputError, SettingsError, VizcompError
from vizcomp.files.find import InputFile
from vizcomp.files.names import is_there
from vizcomp.files.place import disk_cause, printable
from vizcomp.files.read import file_state
from vizcomp.files.store import AnyPath
from vizcomp.files.write import write_atomic
from vizcomp.shards.shard import is_shard

FOLDER = "labels"  # below that of the results
_LOOK_AHEAD = 1000  # photos that tell whether the labels are of these photos


@dataclasses.dataclass
class LabelCounts:
    """Photos whose labels were written, that have none, whose labels were refused, and that were
    skipped or failed."""

    written: int = 0
    missing: int = 0
    refused: int = 0
    passed_over: int = 0


class Labels:
    """The labels of a run's photos.

    Args:
        place: a COCO file, or a folder of YOLO's or VOC's files.
        output: the folder of the results; labels are written below its sub-folder `labels`.
        settings: of the photos.
        batch: what may be replaced, and whether anything is written.

    Raises:
        InputError: there are no labels at this place, or broken ones.
        SettingsError: a folder of several kinds, or one that labels would be written into.
    """

    def __init__(
        self, place: Path, output: AnyPath, settings: DjpegSettings, batch: BatchSettings
    ) -> None:
        self._settings, self._batch = settings, batch
        self._output, self._folder = output, output / FOLDER
        self._place = place
        self.kind = label_kind(place)
        self.counts = LabelCounts()
        self.notices: list[str] = []
        self._journal: Journal | None = None
        self._coco = CocoLabels(place) if self.kind == "coco" else None
        self._moves: dict[int, tuple[Result, Move]] = {}
        inside = place if os.path.isdir(place) else place.parent
        if isinstance(output, Path) and inside.resolve() == (output / FOLDER).resolve():
            raise SettingsError(
                f"`labels` {printable(place)} lies where labels are written",
                "choose another output folder",
            )

    def checked(self, files: Iterable[InputFile]) -> Iterator[InputFile]:
        """The same photos, if any of the first has labels.

        Raises:
            InputError: none of them has.
        """
        files = iter(files)
        first = list(itertools.islice(files, _LOOK_AHEAD))
        if shard := next((file for file in first if is_shard(file.path)), None):
            raise SettingsError(
                f"`labels` are of photos that are files, and {shard.shown} holds many",
                "omit them, or unpack it",
            )
        if first and not any(self._has(file) for file in first):
            raise InputError(
                f"{printable(self._place)} has no labels of these photos, such as {first[0].shown}",
                "labels go by the names of photos: NAME.txt or NAME.xml in the same sub-folder, or"
                " file_name in COCO's file",
            )
        return itertools.chain(first, files)

    def remember_with(self, journal: Journal | None) -> None:
        """Where this run remembers what it wrote."""
        self._journal = journal

    def add(self, item: Item, record: FileRecord) -> FileRecord:
        """Write the labels of a photo, or keep them for `close`. Returns its record, with a notice
        where they were refused."""
        if not self._has(item.file):
            self.counts.missing += 1
            return record
        if record.status not in ("ok", "kept"):
            self.counts.passed_over += 1
            return record
        try:
            result = self._result(item, record)
            if self._coco is not None:
                for index in self._coco.images_of(item.file.path):
                    self._moves[index] = result, self._coco.move(index, result)
            else:
                self._write_one(item, result)
        except (ValueError, OSError, VizcompError) as exc:
            self.counts.refused += 1
            why = (
                one_line(exc)
                if isinstance(exc, VizcompError)
                else disk_cause(exc)
                if isinstance(exc, OSError)
                else str(exc)
            )
            return dataclasses.replace(
                record, notices=(*record.notices, f"its labels are not written: {why}")
            )
        self.counts.written += 1
        return record

    def close(self) -> None:
        """All photos came by: write what is one file for all of them."""
        if self._coco is None:
            self._copy_names()
        elif self._moves:
            self._write_coco(self._coco)

    def _copy_names(self) -> None:
        """The names of YOLO's classes, where they lie beside its labels."""
        source = self._place / CLASSES
        if self.kind != "yolo" or not self.counts.written or not os.path.isfile(source):
            return
        try:
            with source.open("rb") as file:
                self._write(self._folder / CLASSES, file.read(yolo_labels.MOST_BYTES), source)
        except (ValueError, OSError, VizcompError) as exc:
            self.notices.append(f"{CLASSES} is not copied: {exc}")

    def _write_coco(self, coco: CocoLabels) -> None:
        target = self._folder / self._place.name
        if self.counts.passed_over and is_there(target) and not self._may_replace(target):
            self.notices.append(
                f"{printable(target)} stays as it is: photos were skipped; use `resume` or"
                " `overwrite`"
            )
            return
        try:
            self._write(target, coco.moved(self._moves), self._place)
        except (ValueError, OSError, VizcompError) as exc:
            self.notices.append(f"labels are not written: {exc}")
            self.counts.refused, self.counts.written = self.counts.refused + self.counts.written, 0

    def _has(self, file: InputFile) -> bool:
        if self._coco is not None:
            return bool(self._coco.images_of(file.path))
        return self._file_of(file) is not None

    def _file_of(self, file: InputFile) -> Path | None:
        return label_file(self._place, self.kind, file.relative)

    def _result(self, item: Item, record: FileRecord) -> Result:
        target = item.target
        assert target is not None
        name = target.name
        if record.output is not None and PurePath(record.output).name != printable(PurePath(name)):
            name = PurePath(record.output).name  # a source that was kept has its own suffix
        return Result(
            name=item.file.relative.name,
            output=name,
            size=(record.width, record.height),
            orientation=record.orientation,
            output_size=(record.output_width, record.output_height),
            turned=record.status == "ok"
            and self._settings.metadata == "none"
            and not self._settings.lossless,
        )

    def _write_one(self, item: Item, result: Result) -> None:
        source = self._file_of(item.file)
        assert source is not None
        data = (
            yolo_labels.checked(source) if self.kind == "yolo" else voc_labels.moved(source, result)
        )
        assert item.target is not None
        below = item.target.parent.relative_to(self._output)  # type: ignore[arg-type]  # both of one kind
        folder = self._folder.joinpath(*PurePath(str(below)).parts)
        self._write(folder / (PurePath(result.output).stem + source.suffix), data, source)

    def _write(self, target: AnyPath, data: bytes, source: Path) -> None:
        if self._batch.dry_run or (is_there(target) and target.read_bytes() == data):
            return
        if is_there(target) and not self._may_replace(target):
            raise ValueError(f"{printable(target)} exists; `overwrite` replaces it")
        if self._journal is not None:
            self._journal.begin(target)
        write_atomic(target, data, below=self._output)
        if self._journal is not None:
            states = file_state(source), file_state(target)
            self._journal.finish(
                target, source, states[0], record={}, written=target, written_state=states[1]
            )

    def _may_replace(self, target: AnyPath) -> bool:
        resumed = self._batch.resume and self._journal is not None and self._journal.begun(target)
        return self._batch.overwrite or resumed

    def totals(self) -> dict[str, Any]:
        """For the report."""
        return {"kind": self.kind, **dataclasses.asdict(self.counts)}
