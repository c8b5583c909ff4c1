"""`vizcomp.compress_files`: what `vizcomp djpeg` does, from Python."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from vizcomp._version import __version__
from vizcomp.api.keywords import (
    batch_settings,
    check_names,
    djpeg_settings,
    names_of,
    with_signature,
)
from vizcomp.api.systems import by_name
from vizcomp.batch.about import systems_of
from vizcomp.batch.djpeg import BatchRun, gallery, run_djpeg
from vizcomp.batch.engines import check_engine
from vizcomp.batch.judges import given_systems
from vizcomp.batch.log import stayed
from vizcomp.batch.loop import RunOptions
from vizcomp.batch.records import FileRecord
from vizcomp.batch.settings import BatchSettings
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import SettingsError
from vizcomp.files.apart import check_apart
from vizcomp.files.find import find_inputs
from vizcomp.files.store import parse_place
from vizcomp.files.write import check_output_folder
from vizcomp.report.djpeg import DjpegReport
from vizcomp.vision.callables import can_travel
from vizcomp.vision.system import System

AnyName = str | os.PathLike[str]

_KNOWN = frozenset(names_of(DjpegSettings, BatchSettings))
_ELSEWHERE = {"depth": "compress", "mask": "compress"}


def _nothing(record: FileRecord) -> None:
    pass


def compress_files(
    inputs: AnyName | Sequence[AnyName],
    output: AnyName,
    settings: DjpegSettings | None = None,
    *,
    verify: str | System | Sequence[str | System] | None = None,
    watch_with: str | System | Sequence[str | System] | None = None,
    jobs: int = 0,
    engine: str = "local",
    ray_address: str = "",
    fields: Sequence[str] = (),
    report: bool | AnyName = True,
    on_record: Callable[[FileRecord], None] = _nothing,
    **options: Any,
) -> DjpegReport:
    """Compress files, folders and patterns into a folder, as `vizcomp djpeg` does.

        report = vizcomp.compress_files("photos/", "small/", quality=40, resume=True)
        print(report.totals.saving_vs_source, [r.error for r in report.files if r.error])

    The work is done in processes of its own where there are many photos; a script needs no
    `if __name__ == "__main__"` for that. A photo that cannot be read is a record with the status
    "failed"; it ends nothing. Ctrl-C ends the run after what is in hand: the report that is
    returned says `interrupted`.

    Args:
        inputs: photos, folders (searched through) and patterns; s3:// and gs:// too.
        output: the folder of the results, in which the tree of the inputs is mirrored.
        settings: ready-made settings, as a policy's, in the place of keywords.
        verify, watch_with: vision systems by name or as objects. Objects that cannot be pickled, or
            whose code is in the program's main module, are asked in this process: the work is then
            done in it alone.
        jobs: worker processes; 0 = one for each core.
        engine, ray_address: "local", or "ray" and the address of a cluster.
        fields: extensions or columns that hold photos in shards; empty: all that do.
        report: write report.html, report.json and report.csv: into `output`, or into another
            folder; False: not at all.
        on_record: is called with the record of each photo, in their order.
        options: the fields of `DjpegSettings` and of `BatchSettings`: quality, guide, depth_maps,
            masks, overwrite, resume, dry_run, keep_dates, ...

    Returns:
        The report: `totals`, and `files`, a record for each input in their order; `notices` says
        what concerns the run as a whole.

    Raises:
        SettingsError, InputError, ModelError: nothing can be done at all.
        OutputError: `output` cannot be written, or is or lies in an input: a later run would take
            results for photos.
        TypeError: an unknown keyword.
    """
    check_names("compress_files", options, _KNOWN, elsewhere=_ELSEWHERE)
    where = check_engine(engine, ray_address)
    djpeg = djpeg_settings("compress_files", settings, options)
    systems: dict[str, System] = {}
    judges = {
        "verify": by_name(verify, "verify", systems),
        "watch_with": by_name(watch_with, "watch_with", systems),
    }
    objects = tuple(systems.values())
    here = _asked_here(objects, others=jobs > 1 or where != "local")
    batch = batch_settings(options, **judges)
    names = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    folder = parse_place(output)
    check_apart([os.fspath(name) for name in names], folder, suffix=".jpg")
    files = find_inputs([os.fspath(name) for name in names], exclude=folder)
    if not batch.dry_run:
        check_output_folder(folder)
    notices: dict[str, None] = {}  # each once, in their order
    run_options = _options(notices, 1 if here else jobs, where, on_record, isolate=not here)
    run = run_djpeg(files, folder, djpeg, batch, run_options, objects, tuple(fields))
    with given_systems(objects):
        notices.update(dict.fromkeys(run.told))
        pages = _report_of(run, djpeg, batch, jobs, tuple(notices))
    idle = run.totals.files == run.totals.skipped > 0 and (folder / "report.json").exists()
    # as the command: the earlier one stays
    if report is not False and not batch.dry_run and not (idle and report is True):
        pages.write(folder if report is True else parse_place(report), gallery(run, djpeg, batch))
    return pages


def _asked_here(objects: tuple[System, ...], *, others: bool) -> bool:
    """Whether systems can be asked in this process alone.

    Raises:
        SettingsError: `others` are wanted.
    """
    here = bool(objects) and not can_travel(objects)
    if here and others:
        raise SettingsError(
            f"the system {objects[0].name!r} cannot travel to other processes",
            "make it a function at the top of a module that is imported, or use `jobs` 1",
        )
    return here


def _options(
    notices: dict[str, None],
    jobs: int,
    engine: str,
    on_record: Callable[[FileRecord], None],
    *,
    isolate: bool,
) -> RunOptions:
    """How the run is carried out; what is told of it as a whole becomes keys of `notices`."""
    return RunOptions(
        jobs=jobs,
        engine=engine,
        isolate=isolate,
        on_record=on_record,
        on_notice=lambda text: notices.setdefault(text),
        on_left=lambda count: notices.setdefault(stayed(count)),
    )


def _report_of(
    run: BatchRun,
    djpeg: DjpegSettings,
    batch: BatchSettings,
    jobs: int,
    notices: tuple[str, ...],
) -> DjpegReport:
    systems = systems_of(djpeg, batch)
    return DjpegReport(
        tool="vizcomp djpeg",
        version=__version__,
        command="vizcomp.compress_files",
        settings={**djpeg.to_dict(), **batch.to_dict(), "jobs": jobs, "systems": systems},
        totals=run.totals,
        files=run.records,
        interrupted=run.interrupted,
        notices=notices,
    )


with_signature(compress_files, DjpegSettings, BatchSettings)
