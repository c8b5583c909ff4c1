"""What `look` does with a photo."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from vizcomp.batch.items import one_line, reason_to_skip
from vizcomp.batch.judges import system_by_name, system_errors
from vizcomp.batch.seen import source_seen
from vizcomp.errors import VizcompError
from vizcomp.files.find import InputFile
from vizcomp.files.names import OutputNames
from vizcomp.files.place import printable
from vizcomp.files.store import AnyPath
from vizcomp.files.write import write_atomic
from vizcomp.photos.encode import encode_plain_jpeg
from vizcomp.photos.opencv import check_decoder
from vizcomp.photos.photo import load
from vizcomp.vision.draw import drawn

QUALITY = 92


@dataclasses.dataclass(frozen=True, kw_only=True)
class LookRecord:
    """What came of one photo.

    Attributes:
        input, output: names; `output` None where nothing was written.
        status: "ok", "skipped" or "failed".
        answer: of the system, in words.
        error: why there is no result, or None.
    """

    input: str
    output: str | None = None
    status: str = "ok"
    answer: str = ""
    error: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LookSettings:
    """Settings of a run of `look`."""

    system: str
    max_pixels: int
    overwrite: bool = False
    decoder: str = "pillow"
    offline: bool = False


def run_look(
    files: Iterable[InputFile],
    output: AnyPath,
    settings: LookSettings,
    on_record: Callable[[LookRecord], None],
) -> list[LookRecord]:
    """Write NAME.look.jpg for each photo, in this process: what the system answers, drawn.

    Raises:
        VizcompError: the system cannot be opened, or the decoder is not there.
    """
    check_decoder(settings.decoder)
    system_by_name(settings.system, settings.offline)
    names = OutputNames(output, ".look.jpg")
    records = []
    for file in files:
        try:
            record = _look(file, names.path_for(file), output, settings)
        except VizcompError as exc:
            record = LookRecord(input=file.shown, status="failed", error=one_line(exc))
        except MemoryError:
            record = LookRecord(input=file.shown, status="failed", error="out of memory")
        on_record(record)
        records.append(record)
    return records


def _look(file: InputFile, target: AnyPath, root: AnyPath, settings: LookSettings) -> LookRecord:
    if (skipped := reason_to_skip(target, file, replace=settings.overwrite)) is not None:
        return LookRecord(input=file.shown, status="skipped", error=skipped)
    photo = load(file.path, max_pixels=settings.max_pixels)
    pixels = source_seen(photo, file.path.read_bytes, file.shown, settings)
    with system_errors(settings.system):
        answer = system_by_name(settings.system, settings.offline).answers([pixels])[0]
    data = encode_plain_jpeg(drawn(pixels, answer), quality=QUALITY, subsampling="4:4:4")
    write_atomic(target, data, below=root)
    return LookRecord(input=file.shown, output=printable(target), answer=answer.words())
