"""What `encode` does with images that go into a pack."""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from vizcomp.batch.encode import EncodeTask, check_encoder, encode_crashed, encode_some
from vizcomp.batch.groups import CodecRun, codec_totals, failed_record, grouped
from vizcomp.batch.items import Item, Outcome
from vizcomp.batch.log import Log, open_log
from vizcomp.batch.loop import RunOptions, Verb, run_batch
from vizcomp.batch.record_list import Records
from vizcomp.batch.records import CodecRecord
from vizcomp.batch.settings import EncodeSettings, deciding_settings
from vizcomp.errors import InputError, OutputError, SettingsError, VizcompError
from vizcomp.files.find import InputFile
from vizcomp.files.names import is_folder, is_there
from vizcomp.files.place import printable
from vizcomp.files.store import AnyPath
from vizcomp.files.write import check_output_folder, write_atomic
from vizcomp.neural.models import model_path
from vizcomp.vzc.fields import check_name
from vizcomp.vzc.pack_blocks import PackEntry
from vizcomp.vzc.packs import PackWriter


def run_encode_pack(
    files: Iterable[InputFile],
    output: AnyPath,
    settings: EncodeSettings,
    options: RunOptions = RunOptions(),  # noqa: B008 - it is frozen
    *,
    names: bool = True,
    with_model: bool = False,
) -> CodecRun:
    """Write photos into one pack. An image in a folder below its input has that folder for a class.

    Ctrl-C ends the run after what is in hand; what is finished goes into `NAME.partial.vzc`, which
    nobody takes for the whole.

    Args:
        output: the pack.
        names: keep the photos' paths below their input.
        with_model: put the model's file into the pack, so that it can be decoded wherever vizcomp
            is.

    With `resume`, images that an earlier run coded are taken from the journal, also where it was
    killed before it wrote the pack.

    Raises:
        OutputError: `output` exists, is a folder, or cannot be written.
        VizcompError: what no file can do without is wrong: the model, or a setting.
    """
    if is_folder(output):
        raise OutputError(
            f"{printable(output)} is a folder", "name a file for the pack, as `output` set.vzc"
        )
    if settings.verify:
        raise SettingsError(
            "`verify` and `pack` cannot go together",
            "encode to files of their own, or omit `verify`",
        )
    codec, identities = check_encoder(settings, options.jobs)
    decides = deciding_settings("encode, pack", settings, identities=identities)
    key = os.fsencode(output.name) + b"\0"
    with open_log(output.parent, decides, settings) as log:
        _begin_pack(output, settings, log, key)
        listed = list(files)  # the classes must be known before the first image is added
        model_file = model_path(settings.model).read_bytes() if with_model else b""
        filling = _Filling(codec.fingerprint, listed, names, model_file)
        started = time.perf_counter()
        verb = Verb(
            record=CodecRecord,
            tasks=lambda items: (
                EncodeTask(group, settings, options.jobs) for group in grouped(items)
            ),
            work=encode_some,
            on_crash=encode_crashed,
            on_outcome=filling.add,
        )
        items = (
            log.item(file, None, key + os.fsencode(str(file.path.absolute()))) for file in listed
        )
        records, interrupted = run_batch(items, verb, log, options)
    written: AnyPath | None = None
    shown_records = records
    data, count = filling.writer.finish(), len(filling.writer)
    if count and not settings.dry_run:
        written = (
            output.with_name(f"{output.stem}.partial{output.suffix}") if interrupted else output
        )
        write_atomic(written, data)
        shown = printable(written)
        packed = (dataclasses.replace(r, output=shown) if r.images else r for r in records)
        shown_records = Records(CodecRecord, packed)
    size = len(data) if count else 0
    totals = codec_totals(
        records, time.perf_counter() - started, vzc_is_output=True, pack_bytes=size
    )
    return CodecRun(records=shown_records, totals=totals, interrupted=interrupted, pack=written)


def _begin_pack(output: AnyPath, settings: EncodeSettings, log: Log, key: bytes) -> None:
    """The pack may be written: nothing else lies there, or it may be replaced."""
    begun = settings.resume and log.journal is not None and log.journal.begun(key)
    if is_there(output) and not (settings.overwrite or settings.dry_run or begun):
        raise OutputError(f"{printable(output)} exists already", "`overwrite` replaces it")
    if not settings.dry_run:
        check_output_folder(output.parent)
    if log.journal is not None:
        log.journal.begin(key)


class _Filling:
    """A pack as its images come."""

    def __init__(
        self, model: bytes, files: Sequence[InputFile], names: bool, model_file: bytes
    ) -> None:
        classes = sorted({c for file in files if (c := _class_of(file)) is not None})
        self.writer = PackWriter(model=model, classes=classes, model_file=model_file)
        self._number = {name: i for i, name in enumerate(classes)}
        self._taken: set[str] | None = set() if names else None

    def add(self, item: Item, outcome: Outcome[CodecRecord]) -> Outcome[CodecRecord] | None:
        """An image that was coded now, or by an earlier run; None where there is none."""
        entry, record = outcome.extra, outcome.record
        if item.known is not None and outcome.payload is not None:
            grey, payload = outcome.payload[:1] == b"\1", outcome.payload[1:]
            entry = PackEntry(
                payload=payload,
                width=record.width,
                height=record.height,
                grey=grey,
                iterations=record.iterations,
            )
        if entry is None:
            return None
        name, notice = (None, "") if self._taken is None else _packed_name(item.file, self._taken)
        label = self._number.get(_class_of(item.file) or "")
        record = _added(
            self.writer, item.file, record, dataclasses.replace(entry, name=name, label=label)
        )
        return Outcome(
            dataclasses.replace(record, notices=(*record.notices, notice)) if notice else record
        )


def _added(
    writer: PackWriter, file: InputFile, record: CodecRecord, entry: PackEntry
) -> CodecRecord:
    try:
        writer.add(
            entry.payload,
            entry.width,
            entry.height,
            grey=entry.grey,
            iterations=entry.iterations,
            name=entry.name,
            label=entry.label,
        )
    except VizcompError as exc:
        return failed_record(file, exc)
    return record


def _class_of(file: InputFile) -> str | None:
    """The folder of a photo, below its input; None where it is there directly, or the format has no
    such name."""
    if len(file.relative.parts) < 2:
        return None
    name = file.relative.parts[-2]
    try:
        check_name(name)
    except InputError:
        return None
    return name


def _packed_name(file: InputFile, taken: set[str]) -> tuple[str | None, str]:
    """A photo's name in a pack, made different from those `taken`, and what is to be said about
    it."""
    path = PurePosixPath(file.relative.as_posix())
    for number in itertools.count(1):
        name = str(path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}"))
        try:
            check_name(name)
        except InputError as exc:
            return None, f"packed without its name: {exc.message}"
        if name not in taken:
            taken.add(name)
            return (
                name,
                "" if number == 1 else f"named {name} in the pack: there is another of its name",
            )
    raise AssertionError("unreachable: the numbers do not end")
