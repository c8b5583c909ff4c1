"""The reports of `depth`, `encode` and `decode`: files where asked, JSON on standard output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vizcomp.cli.options import place
from vizcomp.cli.voice import Voice, command_line, print_parts

if TYPE_CHECKING:
    from vizcomp.batch.groups import CodecRun

Report = Annotated[
    str,
    typer.Option(
        "--report", metavar="DIR|none", help="Folder for report.json and report.csv of this run."
    ),
]


def check_report(folder: str, *, dry_run: bool) -> None:
    """Fail before the first input where the report could not be written.

    Raises:
        OutputError: its folder is a file, or cannot be made or written.
    """
    from vizcomp.files.write import check_output_folder

    if folder not in ("", "none") and not dry_run:
        check_output_folder(place(folder))


def codec_report(
    tool: str, run: CodecRun, settings: dict[str, Any], voice: Voice, *, folder: str, json: bool
) -> None:
    """The report of `encode` or `decode`."""
    head = {
        "interrupted": run.interrupted,
        "notices": list(run.told),
        "totals": run.totals.to_dict(),
    }
    records_report(tool, run.records, settings, voice, folder=folder, json=json, head=head)


def records_report(
    tool: str,
    records: Any,
    settings: dict[str, Any],
    voice: Voice,
    *,
    folder: str,
    json: bool,
    head: dict[str, Any] | None = None,
) -> None:
    """The report of a run, as files below `folder` (none: ""), and on standard output for `json`.

    Args:
        records: `batch.record_list.Records`.
        head: what else goes before them.

    Raises:
        OutputError: the files cannot be written.
    """
    from vizcomp._version import __version__
    from vizcomp.report.records import write_records
    from vizcomp.report.tables import report_chunks

    report = {"tool": tool, "version": __version__, "settings": settings, **(head or {})}
    if json:
        print_parts(report_chunks(report, (record.to_dict() for record in records)))
    if folder not in ("", "none") and not settings.get("dry_run"):
        report = {"command": command_line(), **report}
        written = write_records(place(folder), report, lambda: records, records.kind)
        voice.say(f"report: {written}")
