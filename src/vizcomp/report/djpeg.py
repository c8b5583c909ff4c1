"""The report of `vizcomp djpeg`.

    FileRecord ...                     report.json   strict JSON, the fields of the contract
    Totals         DjpegReport.write   report.csv    RFC 4180, one row for each input
    GalleryItem ...                    report.html   one file, works offline, loads nothing

Sums and savings of a batch come in `Totals`. What this file derives is only what a display needs:
the saving of one file (a ratio of two sizes that the record gives), and the order of rows.
"""

from __future__ import annotations

import dataclasses
import heapq
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from vizcomp.batch.near import MOST_PHOTOS
from vizcomp.batch.records import FileRecord, GalleryItem, Totals
from vizcomp.batch.rivals import SAMPLE
from vizcomp.files.store import AnyPath
from vizcomp.report import page, plots, tables

WATCHED = (  # what a system of `watch_with` saw: nothing, or something
    "it finds nothing on any source",
    "seen as the source is, by a system that was not asked",
)
MAX_NOTE_CHARACTERS = 240
"""Longer errors and notices are cut in the page's table, not in the JSON and the CSV."""

CSV_FIELDS = tuple(field.name for field in dataclasses.fields(FileRecord))
"""Header of report.csv, in order."""

COLUMNS = (
    "File",
    "Status",
    "Pixels",
    "Quality",
    "Source, kB",
    "Optimised JPEG, kB",
    "Result, kB",
    "Saving, optimised JPEG",
    "Saving, source",
    "PSNR, dB",
    "MS\u2011SSIM",  # a hyphen that does not break
    "Seconds",
    "Error or notices",
)
"""Header of the page's table of files."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DjpegReport:
    """What a run of `vizcomp djpeg` did, to be written or printed.

    Attributes:
        tool, version: who wrote it, as shown.
        command: the command line that repeats the run.
        settings: of the run: JSON types, or what `tables.plain` turns into them.
        totals: sums over the batch; shown as they are.
        files: one record for each input, in input order; read several times, never copied.
        interrupted: the run was stopped before its end; the page says so.
        notices: what a user should know of the run as a whole, a line each.
    """

    tool: str
    version: str
    command: str = ""
    settings: Mapping[str, Any]
    totals: Totals
    files: Sequence[FileRecord]
    interrupted: bool = False
    notices: Sequence[str] = ()

    def write(self, folder: AnyPath, gallery: Sequence[GalleryItem] = ()) -> page.ReportPaths:
        """Write report.html, report.json and report.csv into a folder, made if it is missing.

        Args:
            folder: where to.
            gallery: photos to show, worst first. The figures under a photo are those of the record
                whose `input` is its `name`, or the only one whose file name is.

        Raises:
            OutputError: the folder cannot be made, or a file cannot be written.
        """
        html = self.html(gallery)
        return page.write_files(folder, html=html, json=self.json_chunks(), csv=self.csv_chunks())

    def json_chunks(self) -> Iterator[str]:
        """The report as strict JSON text, part by part; NaN and infinity become None."""
        report = {
            "tool": self.tool,
            "version": self.version,
            "command": self.command,
            "interrupted": self.interrupted,
            "notices": list(self.notices),
            "settings": self.settings,
            "totals": self.totals,
        }
        rows = (tables.plain(record) for record in self.files)
        return tables.report_chunks(tables.plain(report), rows)

    def csv_chunks(self) -> Iterator[str]:
        """The records as lines of CSV, as `tables.csv_chunks` writes them."""
        records = (tables.plain(record) for record in self.files)
        rows = ([record[name] for name in CSV_FIELDS] for record in records)
        return tables.csv_chunks(CSV_FIELDS, rows)

    def html(self, gallery: Sequence[GalleryItem] = ()) -> str:
        """The page as text: one file with its style, script, plot and photos inside.

        It reads without JavaScript too: sliders become pairs of photos, the table keeps its order.
        """
        base = _common_folder(record.input for record in self.files)
        return page.render(
            "report.html.j2",
            report=self,
            headline=_headline(self.totals),
            sizes=_sizes(self.totals),
            stats=_stats(self.totals, self.files),
            plot=plots.savings_plot(_bars(self.files, base)),
            gallery=_gallery(gallery, self.files),
            columns=COLUMNS,
            rows=[_row(record, base) for record in _listed(self.files)],
            base=base,
            settings=page.setting_rows(self.settings),
        )


# --- figures of one record ------------------------------------------------------------------------


def _saving(record: FileRecord, before: int) -> float | None:
    """Share of `before` that the output saves; None without an output, or where `before` is 0."""
    if record.status not in ("ok", "kept") or before <= 0 or record.output_bytes <= 0:
        return None
    return 1 - record.output_bytes / before


def _psnr(record: FileRecord, unit: str = "") -> str:
    text = page.number(record.psnr, 2)
    if text != page.DASH:
        return text + unit
    # An output that was compared, and has no PSNR: no pixel differs.
    return page.DASH if record.ms_ssim is None else "identical"


def _common_folder(inputs: Iterable[str]) -> str:
    """The folder of all inputs with its closing slash; "" if there is none, or the working one."""
    folders = {os.path.dirname(name) for name in inputs}
    try:
        common = os.path.commonpath(folders)
    except ValueError:  # no inputs, or absolute paths beside relative ones
        return ""
    prefix = common if common.endswith(os.sep) else common + os.sep
    inside = all((folder + os.sep).startswith(prefix) for folder in folders)
    return prefix if common and inside else ""


# --- the top of the page --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Headline:
    """The big figure (or ""), the text after it and below, and whether the outputs are larger."""

    figure: str = ""
    text: str
    lede: str = ""
    larger: bool = False


def _headline(totals: Totals) -> Headline:
    if totals.files == 0 or totals.output_bytes <= 0:
        text = "No file was written" if totals.files else "No files"
        return Headline(text=text, lede="There is nothing to compare.")
    if totals.optimised_jpeg_bytes <= 0:
        return Headline(text="No file was written")
    if totals.rival is not None:
        return _verified_headline(totals, totals.rival)
    figure = page.percent(abs(totals.saving_vs_optimised_jpeg))
    if figure == "0.0%":
        return Headline(text="The same size as optimised plain JPEG")
    larger = totals.saving_vs_optimised_jpeg < 0
    return Headline(
        figure=figure,
        text=f"{'larger' if larger else 'smaller'} than optimised plain JPEG",
        lede=f"at the same quality setting. {_kinds(totals.formats)}",
        larger=larger,
    )


def _kinds(formats: Mapping[str, int]) -> str:
    names = {"jpeg": "JPEG", "webp": "WebP", "avif": "AVIF", "jxl": "JPEG XL"}
    results = {name: formats[key] for key, name in names.items() if formats.get(key)}
    if list(results) in ([], ["JPEG"]):
        return "The files are ordinary JPEG: any decoder opens them."
    return (
        "The files are "
        + " and ".join(f"{number:,} {name}" for name, number in results.items())
        + "."
    )


def _verified_headline(totals: Totals, rival: Mapping[str, Any]) -> Headline:
    """Where systems judged each file, plain JPEG is what they pass too: its quality has nothing to
    do with that of ours."""
    low, high = (page.percent(share) for share in rival["interval"])
    searched = totals.verified + totals.not_reached
    sample = page.count(rival["photos"], "photo")
    return Headline(
        figure=page.percent(abs(rival["saving"])),
        text=(
            f"{'smaller' if rival['saving'] >= 0 else 'larger'} than optimised plain JPEG on which"
            " your systems answer alike"
        ),
        lede=(
            f"95% interval {low} to {high}, from {sample}; verified on {totals.verified:,} of"
            f" {searched:,}. "
        )
        + _kinds(totals.formats),
        larger=rival["saving"] < 0,
    )


def _sizes(totals: Totals) -> list[tuple[str, str, int, float]]:
    """Four bars: class, name, bytes, and percent of the longest; none where all are empty."""
    sizes = [
        ("", "Source files", totals.source_bytes),
        ("", "Plain JPEG, same quality", totals.plain_jpeg_bytes),
        ("", "Optimised plain JPEG, same quality", totals.optimised_jpeg_bytes),
        ("ours", "These files", totals.output_bytes),
    ]
    longest = max(size for _, _, size in sizes)
    if longest <= 0:
        return []
    return [(kind, name, size, 100 * size / longest) for kind, name, size in sizes]


def _stats(totals: Totals, files: Sequence[FileRecord]) -> list[tuple[str, str, str]]:
    """Figures of the batch: name, value, note."""
    kept = judged = trials = 0
    for record in files:  # once, and none is held: they may be on disk
        kept += record.status == "kept"
        if record.verified is not None:
            judged += 1
            trials += record.verify_trials
    counts = (
        (kept, "kept as they were"),
        (totals.failed, "failed"),
        (totals.skipped, "skipped"),
    )
    states = ", ".join(f"{number:,} {state}" for number, state in counts if number)
    stats = [("Files", f"{totals.files:,}", states or "none failed, none kept")]
    if totals.source_bytes > 0 and totals.output_bytes > 0:
        share = page.percent(abs(totals.saving_vs_source))
        larger = totals.saving_vs_source < 0 and share != "0.0%"
        change = f"{share} {'larger' if larger else 'smaller'}"
        stats.append(("Against the source", change, "as the photos came in"))
        sizes = f"{page.size(totals.source_bytes)} → {page.size(totals.output_bytes)}"
        stats.append(("Bytes", sizes, "before → after"))
    if (equal := totals.equal_bytes) is not None:
        for name, unit, digits in (("psnr", " dB", 2), ("ms_ssim", "", 4)):
            ours, jpeg, worse = equal[name], equal[f"jpeg_{name}"], equal[f"jpeg_better_{name}"]
            label = {"psnr": "PSNR", "ms_ssim": "MS-SSIM"}[name]
            value = f"{page.number(ours, digits)}{unit} against {page.number(jpeg, digits)}{unit}"
            note = (
                f"{label} of plain JPEG, better on {worse:.0f} of the first {equal['photos']:.0f}"
                " photos"
            )
            stats.append((f"{label} at equal bytes", value, note))
    if (near := totals.near) is not None:
        low, high = near["interval"]
        value = f"{near['gain']:+.2f} dB ({low:+.2f} to {high:+.2f})"
        sample = _of_first(near["photos"], MOST_PHOTOS, totals)
        note = (
            f"PSNR over the guide uniform, by the map used, {sample}; the rest"
            f" {near['rest_gain']:+.2f} dB"
        )
        stats.append(("Nearest third at equal bytes", value, note))
    if judged:
        searched = totals.verified + totals.not_reached
        note = f"seen as the source is, {trials / (searched or 1):.1f} trials each"
        stats.append(("Verified", f"{totals.verified:,} of {searched:,}", note))
        if (rival := totals.rival) is not None:
            low, high = rival["interval"]
            value = f"{page.size(rival['our_bytes'])} against {page.size(rival['bytes'])}"
            change = (
                f"{page.percent(abs(rival['saving']))}"
                f" {'smaller' if rival['saving'] >= 0 else 'larger'}"
            )
            sample = _of_first(rival["photos"], SAMPLE, totals)
            note = (
                f"{change} ({page.percent(low)} to {page.percent(high)}) than optimised plain JPEG"
                f" that passes too, {sample}"
            )
            stats.append(("Under the same verdict", value, note))
        if totals.nothing_to_verify:
            stats.append(
                (
                    "Nothing to verify",
                    f"{totals.nothing_to_verify:,}",
                    "no answer on the source, made at `quality`",
                )
            )
    for name, seen in totals.watched.items():
        note = WATCHED[seen["photos"] > 0]
        stats.append((f"Watched with {name}", f"{seen['same']:,} of {seen['photos']:,}", note))
    if (labels := totals.labels) is not None:
        note = (
            f"photos with labels written; {labels['missing']:,} have none, {labels['refused']:,}"
            " refused"
        )
        stats.append((f"Labels ({labels['kind']})", f"{labels['written']:,}", note))
    if totals.megapixels_per_second > 0:
        speed = f"{totals.megapixels_per_second:,.1f}{page.THIN_SPACE}MP/s"
        note = f"megapixels a second, {page.duration(totals.seconds)} in all"
        stats.append(("Speed", speed, note))
    return stats


def _of_first(count: int, most: int, totals: Totals) -> str:
    return f"on {page.count(count, 'photo')} of the first {min(most, totals.files)}"


def _bars(files: Sequence[FileRecord], base: str) -> Iterator[plots.Bar]:
    named = len(files) <= plots.MAX_COLUMNS  # a histogram shows no names
    for record in files:
        saving = _saving(record, record.optimised_jpeg_bytes)
        if saving is not None:
            name = record.input.removeprefix(base) if named else ""
            yield plots.Bar(saving, name, _saving(record, record.source_bytes))


# --- the gallery ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Photo:
    """One photo of the gallery: its pictures, its name, its class, and figures about it.

    Attributes:
        facts: class, name and value of each figure; none where the photo's record is unknown.
    """

    item: GalleryItem
    name: str
    shape: str
    facts: Sequence[tuple[str, str, str]]


def _gallery(items: Sequence[GalleryItem], files: Sequence[FileRecord]) -> list[Photo]:
    names = {item.name for item in items}
    by_input: dict[str, FileRecord] = {}
    by_name: dict[str, list[FileRecord]] = {}
    for record in files if items else ():
        if record.input in names:
            by_input[record.input] = record
        name = os.path.basename(record.input)
        if name in names and len(by_name.setdefault(name, [])) < 2:  # a second one tells enough
            by_name[name].append(record)
    photos = []
    for item in items:
        namesakes = by_name.get(item.name, [])
        only = namesakes[0] if len(namesakes) == 1 else None
        aspect = page.aspect(item.source)
        photos.append(
            Photo(
                item=item,
                name=PurePath(item.name).name or item.name,
                shape=" pano" if aspect >= 2 else " tall" if aspect < 1.15 else "",
                facts=_facts(by_input.get(item.name) or only),
            )
        )
    for number in _wide(["pano" in photo.shape for photo in photos]):
        photos[number] = dataclasses.replace(photos[number], shape=photos[number].shape + " wide")
    return photos


def _wide(panoramas: Sequence[bool]) -> list[int]:
    """Cards that take a whole row of the two columns: the first, and those that would stand alone.

    Panoramas have a row of their own in any case.
    """
    wide: list[int] = []
    alone: int | None = None  # a card that no other stands beside yet
    for number, panorama in enumerate([*panoramas, True]):
        if panorama or number == 0:
            wide += [] if alone is None else [alone]
            wide += [0] if number == 0 and not panorama else []
            alone = None
        else:
            alone = number if alone is None else None
    return wide


def _facts(record: FileRecord | None) -> list[tuple[str, str, str]]:
    if record is None:
        return []
    facts = [
        ("", "Source", page.size(record.source_bytes)),
        ("", "Optimised JPEG", page.size(record.optimised_jpeg_bytes)),
        ("", "Result", page.size(record.output_bytes)),
    ]
    against = (
        ("key", "optimised JPEG", record.optimised_jpeg_bytes),
        ("", "source", record.source_bytes),
    )
    for kind, name, before in against:
        if (saving := _saving(record, before)) is not None:
            facts.append(
                (
                    "loss" if kind and saving < 0 else kind,
                    f"Saving against {name}",
                    page.percent(saving),
                )
            )
    facts.append(("", "PSNR", _psnr(record, f"{page.THIN_SPACE}dB")))
    facts.append(("", "MS-SSIM", page.number(record.ms_ssim, 4)))
    if record.verified is not None:
        mark = {"verified": "✓ yes", "nothing": "nothing to verify", "not_reached": "✗ no"}[
            record.verify_state or "not_reached"
        ]
        trials = page.count(record.verify_trials, "trial")
        facts.append(("", "Verified", f"{mark}, {trials}"))
    return facts


# --- the table of files ---------------------------------------------------------------------------


def _listed(files: Sequence[FileRecord]) -> Iterable[FileRecord]:
    """All records in input order.

    Of too many, the failed, the kept and the skipped, then those that saved least.
    """
    if len(files) <= page.MAX_TABLE_ROWS:
        return files
    rank = {"failed": 0, "kept": 1, "skipped": 2, "ok": 3}

    def key(record: FileRecord) -> tuple[int, float]:
        saving = _saving(record, record.optimised_jpeg_bytes) if record.status == "ok" else None
        return rank[record.status], saving or 0.0

    return heapq.nsmallest(page.MAX_TABLE_ROWS, files, key=key)  # stable, as sorted() is


def _pixels(record: FileRecord) -> str:
    """Pixels of a photo, and of its result where they are fewer."""
    if not (record.width and record.height):
        return page.DASH
    before, after = (
        f"{record.width}×{record.height}",
        f"{record.output_width}×{record.output_height}",
    )
    return before if not record.output_width or before == after else f"{before} → {after}"


def _row(record: FileRecord, base: str) -> tuple[str, str, list[str]]:
    """Status, name, and the other cells of a row."""
    verdict = ""
    if record.verified is not None:
        trials = page.count(record.verify_trials, "trial")
        verdict = "nothing to verify"
        if record.verify_state != "nothing":
            verdict = f"{'verified' if record.verified else 'not verified'} ({trials})"
    note = "; ".join(filter(None, (record.error, verdict, *record.notices)))
    if len(note) > MAX_NOTE_CHARACTERS:
        note = note[: MAX_NOTE_CHARACTERS - 1] + "…"
    sizes = (record.source_bytes, record.optimised_jpeg_bytes, record.output_bytes)
    cells = [
        record.status,
        _pixels(record),
        page.DASH if record.quality is None else f"{record.quality:g}",
        *(f"{size / 1000:,.1f}" if size else page.DASH for size in sizes),
        page.percent(_saving(record, record.optimised_jpeg_bytes)),
        page.percent(_saving(record, record.source_bytes)),
        _psnr(record),
        page.number(record.ms_ssim, 4),
        page.number(record.seconds, 3),
        note,
    ]
    return record.status, record.input.removeprefix(base), cells
