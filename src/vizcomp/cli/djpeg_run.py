"""What `vizcomp djpeg` does with its options: the run, its rounds, and what is told of it."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vizcomp.cli.voice import Voice, command_line, print_parts

if TYPE_CHECKING:
    from vizcomp.batch.djpeg import BatchRun
    from vizcomp.batch.loop import RunOptions
    from vizcomp.batch.settings import BatchSettings
    from vizcomp.batch.streams import Plan
    from vizcomp.djpeg.settings import DjpegSettings
    from vizcomp.files.store import AnyPath
    from vizcomp.files.watch import Watched


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What a command line asks for; `report`: the folder of the report, or None."""

    plan: Plan
    fields: tuple[str, ...] = ()
    settings: DjpegSettings
    by_folder: dict[str, DjpegSettings] | None = None
    batch: BatchSettings
    jobs: int = 0
    engine: str = "local"
    report: AnyPath | None
    thumbnails: bool = True
    json: bool = False
    watch: bool = False


def carried_out(job: Asked, voice: Voice) -> BatchRun:
    """The work: one run, or with --watch one whenever there is something new."""
    from vizcomp.batch.djpeg import joined, run_djpeg
    from vizcomp.batch.judges import guide_systems, learned_guides
    from vizcomp.djpeg.compress import learned_guide
    from vizcomp.files.apart import check_apart
    from vizcomp.files.find import count_inputs
    from vizcomp.files.watch import Watched
    from vizcomp.files.write import check_output_folder

    plan, output, batch = job.plan, job.plan.folder, job.batch
    inputs = list(plan.names)
    if plan.target is None:
        check_apart(inputs, output, suffix=".jpg")
    watched = Watched(inputs, report=voice.passed_over) if job.watch else None
    files = plan.files(voice.passed_over) if watched is None else None
    if not batch.dry_run:
        check_output_folder(output)
        if job.report not in (None, output):
            check_output_folder(job.report)
    voice.readings(
        [*guide_systems(job.settings), *batch.verify, *batch.watch_with], offline=batch.offline
    )
    for name in learned_guides(job.settings):
        voice.reading(name, learned_guide(name).reading)
    if watched is not None:
        voice.say(f"watching {', '.join(inputs)}; Ctrl-C ends it and writes the report")
        with voice.downloads():
            options = voice.options(voice.record, jobs=job.jobs, engine=job.engine)
            return joined(rounds(job, watched, options))
    assert files is not None
    more: dict[str, Any] = {
        "fields": job.fields,
        "target": plan.target,
        "remember": not plan.to_output,
        "by_folder": job.by_folder,
    }
    count = 0 if inputs else 1  # from standard input
    with (
        voice.downloads(),
        voice.progress(lambda: count or count_inputs(inputs, exclude=output)) as on_record,
    ):
        options = voice.options(on_record, jobs=job.jobs, engine=job.engine)
        return run_djpeg(files, output, job.settings, batch, options, **more)


def rounds(job: Asked, watched: Watched, options: RunOptions) -> Iterator[BatchRun]:
    """One run whenever there is something new, until Ctrl-C: whenever that comes, in a run or
    between two."""
    from vizcomp.batch.djpeg import run_djpeg
    from vizcomp.batch.loop import stopped_by_interrupt

    with stopped_by_interrupt(options.on_interrupt) as stop:
        heard = dataclasses.replace(options, stop=stop)
        for some in watched.rounds(stop):
            yield run_djpeg(
                some,
                job.plan.folder,
                job.settings,
                job.batch,
                heard,
                fields=job.fields,
                by_folder=job.by_folder,
            )


def told(job: Asked, run: BatchRun, voice: Voice) -> int:
    """Writes the report and says what was done: the exit code."""
    from vizcomp._version import __version__
    from vizcomp.batch.about import systems_of
    from vizcomp.batch.chosen import Chosen
    from vizcomp.batch.djpeg import gallery
    from vizcomp.errors import OutputError
    from vizcomp.report.djpeg import DjpegReport

    totals, batch = run.totals, job.batch
    report = DjpegReport(
        tool="vizcomp djpeg",
        version=__version__,
        command=command_line(),
        settings={
            **Chosen(job.settings, job.by_folder).to_dict(),
            **batch.to_dict(),
            "jobs": job.jobs,
            "systems": systems_of(job.settings, batch),
        },
        totals=totals,
        files=run.records,
        interrupted=run.interrupted,
        notices=run.told,
    )
    nothing_done = totals.files > 0 and totals.skipped == totals.files
    written, lost = "", None
    # a run that had nothing to do leaves the report of the one that did
    if job.report is not None and not (nothing_done and (job.report / "report.json").exists()):
        try:
            shown = gallery(run, job.settings, batch, job.by_folder) if job.thumbnails else []
            written = str(report.write(job.report, shown).html)
        except OutputError as exc:  # a full disk, say: what was done is still printed
            lost = exc
    if job.json:
        print_parts(report.json_chunks())
    if job.plan.to_output and totals.files > totals.failed + totals.skipped and not batch.dry_run:
        job.plan.write_to(sys.stdout.buffer)
    voice.djpeg_summary(totals, written, dry_run=batch.dry_run, systems=batch.verify)
    for notice in run.told:
        voice.warn(notice)
    voice.labels(totals)
    if nothing_done and not voice.left and not totals.failed:
        voice.result("nothing to do: all results exist, of these photos and settings")
    if run.interrupted:
        voice.warn(
            f"interrupted: {totals.files} photos done; start the same command again to do the rest"
        )
    if lost is not None:
        raise lost
    failed = bool(totals.failed or (totals.labels or {}).get("refused"))
    return voice.exit_code(interrupted=run.interrupted, failed=failed, nothing_done=nothing_done)
