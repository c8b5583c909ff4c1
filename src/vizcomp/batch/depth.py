"""What `depth` does with a photo."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable

import numpy as np

from vizcomp._version import __version__
from vizcomp.batch.items import CRASH, Item, ItemsTask, Outcome, attempt, one_line, reason_to_skip
from vizcomp.batch.judges import depth_source
from vizcomp.batch.log import Log, open_log
from vizcomp.batch.loop import RunOptions, Verb, run_batch
from vizcomp.batch.record_list import Records
from vizcomp.batch.records import DepthRecord
from vizcomp.batch.settings import BatchSettings
from vizcomp.depth.maps import GALLERY_LONG_SIDE, side_by_side
from vizcomp.errors import OutputError, SettingsError
from vizcomp.files.find import InputFile
from vizcomp.files.names import OutputNames, is_there
from vizcomp.files.place import printable
from vizcomp.files.store import AnyPath
from vizcomp.files.write import write_atomic
from vizcomp.photos import frame
from vizcomp.photos.encode import encode_depth_png16, encode_plain_jpeg
from vizcomp.photos.frame import resize_map, upright
from vizcomp.photos.photo import load


@dataclasses.dataclass(frozen=True)
class DepthTask(ItemsTask):
    """One input of `depth`: all that a worker needs."""

    preview: bool
    batch: BatchSettings
    metric: bool = False


def run_depth(
    files: Iterable[InputFile],
    output: AnyPath,
    batch: BatchSettings,
    options: RunOptions = RunOptions(),  # noqa: B008 - it is frozen
    *,
    preview: bool = False,
    metric: bool = False,
) -> tuple[Records[DepthRecord], bool]:
    """Write the depth map of each photo into a folder; the records, and whether the run was
    interrupted.

    With `metric` a level of the picture is a millimetre, large = far, in place of nearness.

    Raises:
        VizcompError: the depth model is missing.
    """
    names = OutputNames(output, ".depth.png")
    identity = depth_source(dataclasses.replace(batch, depth_maps=None)).name
    decides = {
        "verb": "depth",
        "preview": preview,
        "metric": metric,
        **batch.what_decides(),
        "identities": identity,
    }

    def taken(log: Log, file: InputFile) -> Item:
        item = log.item(file, target := names.path_for(file))
        missing = False
        with contextlib.suppress(OutputError):  # what cannot be looked at is not done again
            missing = preview and item.known is not None and not is_there(_preview_of(target))
        return dataclasses.replace(item, known=None, replace=True) if missing else item

    with open_log(output, {**decides, "version": __version__}, batch) as log:
        verb = Verb(
            record=DepthRecord,
            tasks=lambda items: (DepthTask((item,), preview, batch, metric) for item in items),
            work=depth_one,
            on_crash=_depth_crashed,
        )
        records, interrupted = run_batch((taken(log, file) for file in files), verb, log, options)
    return records, interrupted


def depth_one(task: DepthTask) -> list[Outcome[DepthRecord]]:
    """Write the depth map of one photo: one outcome, whatever happens."""
    (item,) = task.items
    record = attempt(lambda: _depth(item, task), lambda exc: _depth_failed(item, one_line(exc)))
    return [Outcome(record, item.target if record.output is not None else None)]


def _depth_crashed(task: DepthTask) -> list[Outcome[DepthRecord]]:
    return [Outcome(_depth_failed(item, CRASH)) for item in task.items]


def _depth_failed(item: Item, error: str) -> DepthRecord:
    return DepthRecord(input=item.file.shown, output=None, status="failed", error=error)


def _preview_of(target: AnyPath) -> AnyPath:
    return target.with_name(target.name.removesuffix(".png") + ".jpg")


def _depth(item: Item, task: DepthTask) -> DepthRecord:
    file, target, batch = item.file, item.target, task.batch
    assert target is not None
    if (
        skipped := reason_to_skip(
            target, file, replace=batch.overwrite or batch.dry_run or item.replace
        )
    ) is not None:
        return DepthRecord(input=file.shown, output=None, status="skipped", error=skipped)
    photo = load(file.path, max_pixels=batch.max_pixels)
    depth = depth_source(batch)(photo, file)
    pixels = upright(photo.pixels, photo.orientation)
    height, width = pixels.shape[:2]
    if not batch.dry_run:
        if task.metric:
            if depth.metres is None:
                raise SettingsError(
                    f"the depth model {batch.depth_model} knows no distances",
                    "omit `metric`, or use `model` nyu",
                )
            values = depth.metres * np.float32(1000 / 65535)  # a level is a millimetre
        else:
            values = depth.nearness
        full = resize_map(values, height, width)
        kind = "millimetres" if task.metric else ""
        write_atomic(target, encode_depth_png16(full, kind=kind), below=item.root)
        if task.preview:
            beside = side_by_side(
                frame.thumbnail(pixels, long_side=GALLERY_LONG_SIDE), depth.nearness
            )
            shown = encode_plain_jpeg(beside, quality=90, subsampling="4:4:4")
            write_atomic(_preview_of(target), shown, below=item.root)
    return DepthRecord(
        input=file.shown,
        output=None if batch.dry_run else printable(target),
        status="ok",
        width=width,
        height=height,
        confidence=None if depth.confidence is None else float(depth.confidence.mean()),
        notices=photo.notices,
    )
