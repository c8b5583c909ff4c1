"""Records to JSON, CSV and one HTML file: formats figures, computes none.

    FileRecord ...                          report.json   strict JSON, the fields of the contract
    Totals          write_djpeg_report  ->  report.csv    RFC 4180, one row for each input
    GalleryItem ...                         report.html   one file, works offline, loads nothing

Sums and savings of a batch come in `Totals`. What this file derives is only what a display needs: the saving of one
file (a ratio of two bytes that the record gives), the order of rows, the bins of a histogram.

Every string may be hostile (a file name is chosen by whoever made the file). One function, `_text`, stands between
strings and the page; one, `_csv_cell`, between strings and a spreadsheet.
"""

from __future__ import annotations

import base64
import dataclasses
import heapq
import html
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from vizcomp.results import FileRecord, GalleryItem, Totals
from vizcomp.storage import AnyPath

MAX_TABLE_ROWS = 500
"""Rows of the page's table; the CSV has them all."""

MAX_NAMED_BARS = 12
"""Up to this many files, the plot has one named bar for each."""

MAX_COLUMNS = 200
"""Up to this many files, the plot has one column for each; beyond, it is a histogram."""

MAX_NOTE_CHARACTERS = 240
"""Longer errors and notices are cut in the page's table, not in the JSON and the CSV."""

CSV_FIELDS = tuple(field.name for field in dataclasses.fields(FileRecord))
"""Header of report.csv, in order."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportPaths:
    """Where the three files of a report are."""

    html: AnyPath
    json: AnyPath
    csv: AnyPath


def write_djpeg_report(
    folder: AnyPath,
    *,
    tool: str,
    version: str,
    settings: Mapping[str, Any],
    totals: Totals,
    files: Iterable[FileRecord],
    gallery: Sequence[GalleryItem],
    command: str,
    interrupted: bool = False,
) -> ReportPaths:
    """Write report.json, report.csv and report.html into a folder, each beside its place and then renamed.

    Args:
        folder: where to; made if it is not there.
        tool, version: who wrote it, as shown.
        settings: settings of the run: JSON types, or what turns into them (paths, tuples, dataclasses).
        totals: sums over the batch; shown as they are.
        files: one record for each input, in input order; a sequence is gone through several times and not copied.
        gallery: photos to show, worst first. Figures under a photo are those of the record whose `input` is the
            item's `name` (or, where only one record has it, whose file name is); the caption is above them.
        command: the command line that repeats the run.
        interrupted: the run was stopped before its end; the page says so.

    Raises:
        OutputError: the folder cannot be made, or a file cannot be written.
    """
    from vizcomp.images import write_atomic

    records = files if isinstance(files, Sequence) else list(files)
    report = djpeg_report_chunks(
        tool=tool, version=version, settings=settings, totals=totals, files=records, command=command, interrupted=interrupted
    )
    page = djpeg_report_html(
        tool=tool,
        version=version,
        settings=settings,
        totals=totals,
        files=records,
        gallery=gallery,
        command=command,
        interrupted=interrupted,
    )
    paths = ReportPaths(html=folder / "report.html", json=folder / "report.json", csv=folder / "report.csv")
    _make_folder(folder)
    write_atomic(paths.json, (part.encode("ascii") for part in report))
    write_atomic(paths.csv, (part.encode("utf-8") for part in _csv_rows(records)))
    write_atomic(paths.html, page.encode("utf-8"))
    return paths


def _make_folder(folder: AnyPath) -> None:
    from vizcomp.errors import OutputError

    if not isinstance(folder, Path):
        return  # a store has none

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        reason = exc.strerror or "it cannot be made"
        raise OutputError(f"{folder}: {reason}", "choose another folder with --output") from exc


# ---------------------------------------------------------------------------------------------------------- JSON


def djpeg_report_chunks(
    *,
    tool: str,
    version: str,
    settings: Mapping[str, Any],
    totals: Totals,
    files: Iterable[FileRecord],
    command: str = "",
    interrupted: bool = False,
) -> Iterator[str]:
    """The report as strict JSON text: `tool`, `version`, `command`, `interrupted`, `settings`, `totals`, `files`.

    It comes part by part: a long report is never in memory as a whole. Figures that JSON cannot hold (NaN, infinity) become None.
    """
    report = {
        "tool": tool,
        "version": version,
        "command": command,
        "interrupted": interrupted,
        "settings": dict(settings),
        "totals": totals.to_dict(),
    }
    plain = {key: _plain(value) for key, value in report.items()}
    yield from report_chunks(plain, (_plain(record.to_dict()) for record in files))


def report_chunks(report: Mapping[str, Any], files: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A report without its `files`, and these, as `report_json` writes them; part by part."""
    yield report_json(report).removesuffix("\n}\n") + ',\n  "files": ['
    first = True
    for row in files:
        yield ("\n    " if first else ",\n    ") + json.dumps(row, allow_nan=False)
        first = False
    yield "]\n}\n" if first else "\n  ]\n}\n"


def report_json(report: Mapping[str, Any]) -> str:
    r"""A report dict as strict JSON text in ASCII, one line for each file.

    ASCII, so that it can be printed on any terminal; a byte of a file name that is not UTF-8 is written as the lone
    surrogate ``\udc80`` to ``\udcff`` that Python uses for it (PEP 383), and `json.loads` gives the name back.
    """
    lines = []
    for key, value in report.items():
        if key == "files" and value:
            rows = ",\n".join("    " + json.dumps(row, allow_nan=False) for row in value)
            text = f"[\n{rows}\n  ]"
        else:
            text = json.dumps(value, allow_nan=False, indent=2).replace("\n", "\n  ")
        lines.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _plain(value: Any) -> Any:
    """A value as JSON types: paths and unknown things as strings, tuples and sets as lists, non-finite floats as None."""
    if value is None or isinstance(value, (bool, str)):
        return str(value) if isinstance(value, str) else value  # str(): an enum of strings is its value's subclass
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(item) for item in value), key=str)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if hasattr(value, "item"):  # a numpy scalar
        return _plain(value.item())
    return str(value)


# ----------------------------------------------------------------------------------------------------------- CSV


def djpeg_report_csv(files: Iterable[FileRecord]) -> str:
    r"""The records as CSV (RFC 4180): header, then one row for each input; CRLF ends a row, an empty cell is "none".

    Text is kept reversible: a backslash is doubled, a byte of a file name that is not UTF-8 is ``\xNN``. A text that a
    spreadsheet would run as a formula (it starts with ``= + - @``, perhaps after blanks) gets an apostrophe before it,
    and so does one that starts with an apostrophe. Notices are joined by "; ".
    """
    return "".join(_csv_rows(files))


def _csv_rows(files: Iterable[FileRecord]) -> Iterator[str]:
    yield ",".join(CSV_FIELDS) + "\r\n"
    for record in files:
        values = _plain(record.to_dict())
        yield ",".join(_csv_cell(values[name]) for name in CSV_FIELDS) + "\r\n"


# With the full-width forms that spreadsheets of East Asian locales take for the ASCII ones.
_FORMULA = re.compile(r"['\t\r\n]|\s*[=+\-@＝＋－＠]")
_QUOTED = re.compile(r"[\s\",;']")


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, (str, list)):
        return repr(value)  # a number: the shortest digits that give it back
    text = "; ".join(value) if isinstance(value, list) else value
    text = _escape_surrogates(text.replace("\\", "\\\\"))
    if _FORMULA.match(text):
        text = "'" + text
    if _QUOTED.search(text):
        text = '"' + text.replace('"', '""') + '"'
    return text


def _escape_surrogates(text: str) -> str:
    def escape(match: re.Match[str]) -> str:
        code = ord(match[0])
        return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"

    return re.sub("[\ud800-\udfff]", escape, text)


# ---------------------------------------------------------------------------------------------------------- HTML


def djpeg_report_html(
    *,
    tool: str,
    version: str,
    settings: Mapping[str, Any],
    totals: Totals,
    files: Sequence[FileRecord],
    gallery: Sequence[GalleryItem],
    command: str,
    interrupted: bool = False,
) -> str:
    """The page as text: one file with its style, script, plot and photos inside, that loads nothing.

    It reads without JavaScript too: sliders become pairs of photos, the table keeps its order.
    """
    from importlib.resources import files as package_files

    template = package_files("vizcomp").joinpath("bundled").joinpath("report.html.j2").read_text("utf-8")
    base = _common_folder(record.input for record in files)
    figure, words, _ = _headline(totals)
    parts = {
        "title": _text(f"{figure} {words}".strip() + f" – {tool} report"),
        "tool": _text(tool),
        "version": _text(version),
        "banners": _banners(totals, interrupted),
        "headline": _headline_html(totals),
        "sizes": _sizes(totals),
        "stats": _stats(totals, files),
        "plot": _plot(files, base),
        "gallery": _gallery(gallery, files),
        "table": _table(totals, files, base),
        "command": _text(command),
        "settings": _settings(settings),
    }
    # One pass: text that looks like a placeholder, in a file name say, is never replaced.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff]")


def _text(value: object) -> str:
    r"""Any string as inert HTML text or attribute value.

    Controls, marks that turn the direction of text, and bytes that are not UTF-8 are shown as ``\xNN`` or ``\uNNNN``:
    a name must not be able to look like another one.
    """

    def escape(match: re.Match[str]) -> str:
        code = ord(match[0])
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

    return html.escape(_UNSEEN.sub(escape, _escape_surrogates(str(value))), quote=True)


_THIN = "\u202f"  # narrow no-break space, between a figure and its unit
_NONE = "\u2013"


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _bytes(number: int) -> str:
    """Bytes with three significant digits in decimal units: 842 B, 26.8 kB, 1.43 MB."""
    if number < 1000:
        return f"{number}{_THIN}B"
    value = float(number)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.5 or unit == "TB":
            digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{value:,.{digits}f}{_THIN}{unit}"
    raise AssertionError("unreachable: TB takes everything")


def _kilobytes(number: int) -> str:
    """Bytes in kB with one decimal and no unit, for a column of them."""
    return f"{number / 1000:,.1f}"


def _percent(fraction: float) -> str:
    """A fraction as percent with one decimal and a true minus sign; never "-0.0"."""
    text = f"{100 * fraction:,.1f}"
    return ("0.0" if text == "-0.0" else text.replace("-", "\u2212")) + "%"


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return _NONE
    if seconds < 99.95:
        return f"{seconds:.{2 if seconds < 0.995 else 1}f}{_THIN}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}{_THIN}min {whole % 60}{_THIN}s"
    return f"{whole // 3600}{_THIN}h {whole % 3600 // 60}{_THIN}min"


def _saving(record: FileRecord, before: int) -> float | None:
    """Share of `before` that the record's output saves; None where there is no output or nothing to compare it with."""
    if record.status not in ("ok", "kept") or before <= 0 or record.output_bytes <= 0:
        return None
    return 1 - record.output_bytes / before


def _psnr(record: FileRecord) -> str:
    if record.psnr is not None and math.isfinite(record.psnr):
        return f"{record.psnr:.2f}"
    return _NONE if record.ms_ssim is None else "identical"  # an output was compared, and no pixel differs


def _ms_ssim(record: FileRecord) -> str:
    return _NONE if record.ms_ssim is None or not math.isfinite(record.ms_ssim) else f"{record.ms_ssim:.4f}"


def _common_folder(inputs: Iterable[str]) -> str:
    """The folder that all inputs are in, with its closing slash; "" where there is none or it is the working one."""
    folders = {os.path.dirname(name) for name in inputs}
    try:
        common = os.path.commonpath(folders)
    except ValueError:  # no inputs, or absolute paths beside relative ones
        return ""
    prefix = common if common.endswith(os.sep) else common + os.sep
    return prefix if common and all((folder + os.sep).startswith(prefix) for folder in folders) else ""


# The top of the page


def _headline(totals: Totals) -> tuple[str, str, bool]:
    """Big figure, the words after it, and whether the outputs are larger than plain JPEG."""
    if totals.files == 0:
        return "", "No files", False
    if totals.plain_jpeg_bytes <= 0 or totals.output_bytes <= 0:
        return "", "No file was written", False
    shown = _percent(abs(totals.saving_vs_plain_jpeg))
    if shown == "0.0%":
        return "", "The same size as plain JPEG", False
    larger = totals.saving_vs_plain_jpeg < 0
    return shown, f"{'larger' if larger else 'smaller'} than plain JPEG", larger


def _headline_html(totals: Totals) -> str:
    figure, words, larger = _headline(totals)
    big = f'<span class="big{" larger" if larger else ""}">{figure}</span> ' if figure else ""
    lede = "at the same quality setting. The files are ordinary JPEG: any decoder opens them."
    if not figure:
        lede = "" if totals.output_bytes > 0 else "There is nothing to compare."
    note = f'<p class="lede">{lede}</p>' if lede else ""
    return f"<h1>{big}{words}</h1>\n{note}"


def _banners(totals: Totals, interrupted: bool) -> str:
    banners = []
    if interrupted:
        banners.append(
            f'<div class="banner warn" role="status"><strong>Interrupted.</strong> The run was stopped before its end. '
            f"These figures are of the {_count(totals.files, 'file')} that it had reached; what was written is kept.</div>\n"
        )
    if totals.failed:
        banners.append(
            f'<div class="banner bad" role="status"><strong>{totals.failed:,} of {_count(totals.files, "file")} failed.</strong> '
            f'The reasons are in <a href="#files">the table of files</a>; the figures are of the others.</div>\n'
        )
    return "".join(banners)


def _sizes(totals: Totals) -> str:
    """Three bars: bytes of the sources, of plain JPEG, of the outputs."""
    sizes = [
        ("", "Source files", totals.source_bytes),
        ("", "Plain JPEG, same quality", totals.plain_jpeg_bytes),
        ("ours", "These files", totals.output_bytes),
    ]
    longest = max(size for _, _, size in sizes)
    if longest <= 0:
        return ""
    items = [
        f'<li class="{kind}"><b>{name}</b><span>{_bytes(size)}</span>'
        f'<i aria-hidden="true"><i style="width:{100 * size / longest:.2f}%"></i></i></li>'
        for kind, name, size in sizes
    ]
    return '<ul class="sizes" aria-label="Bytes in all">\n' + "\n".join(items) + "\n</ul>"


def _stats(totals: Totals, files: Sequence[FileRecord]) -> str:
    kept = sum(record.status == "kept" for record in files)
    states = [f"{kept:,} kept as they were" if kept else "", f"{totals.failed:,} failed" if totals.failed else ""]
    states.append(f"{totals.skipped:,} skipped" if totals.skipped else "")
    cells = [("Files", f"{totals.files:,}", ", ".join(filter(None, states)) or "none failed, none kept")]
    if totals.source_bytes > 0 and totals.output_bytes > 0:
        share = totals.saving_vs_source
        smaller = "larger" if share < 0 and _percent(share) != "0.0%" else "smaller"
        cells.append(("Against the source", f"{_percent(abs(share))} {smaller}", "as the photos came in"))
        cells.append(("Bytes", f"{_bytes(totals.source_bytes)} → {_bytes(totals.output_bytes)}", "before → after"))
    asked = verified = tried = 0
    for record in files:
        if record.verified is not None:
            asked, verified, tried = asked + 1, verified + record.verified, tried + record.verify_trials
    if asked:
        good, trials = f"{verified:,} of {asked:,}", tried / asked
        cells.append(("Verified", good, f"seen as the source is, {trials:.1f} trials each"))
    if totals.seconds > 0:
        speed = totals.megapixels_per_second
        cells.append(("Speed", f"{speed:,.1f}{_THIN}MP/s", f"megapixels a second, {_duration(totals.seconds)} in all"))
    rows = "\n".join(f"<div><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>" for name, value, note in cells)
    return f'<dl class="stats">\n{rows}\n</dl>'


# The plot


@dataclasses.dataclass(frozen=True, slots=True)
class _Bar:
    name: str
    plain: float
    source: float | None


_LOWEST = -1.0  # a file that doubled is at the edge of the plot; one that grew tenfold must not flatten the others


def _plot(files: Sequence[FileRecord], base: str) -> str:
    bars = []
    few = len(files) <= MAX_COLUMNS  # a histogram shows no names
    for record in files:
        plain = _saving(record, record.plain_jpeg_bytes)
        if plain is not None:
            name = record.input.removeprefix(base) if few else ""
            bars.append(_Bar(name, plain, _saving(record, record.source_bytes)))
    if not bars:
        return ""
    bars.sort(key=lambda bar: (bar.plain, bar.name))
    if len(bars) <= MAX_NAMED_BARS:
        lede, dot, drawing = "Each file, least saving first.", "", _named_bars(bars)
    elif len(bars) <= MAX_COLUMNS:
        lede = f"Each of the {len(bars):,} files, least saving first. Point at a column for its name."
        dot, drawing = " dot", _columns(bars)
    else:
        lede, dot, drawing = f"How many of the {len(bars):,} files saved how much.", "", _histogram(bars)
    beyond = sum(min(bar.plain, bar.plain if bar.source is None else bar.source) < _LOWEST for bar in bars)
    note = (
        f"<figcaption>{_count(beyond, 'file')} more than doubled; drawn at {_percent(_LOWEST)}.</figcaption>\n" if beyond else ""
    )
    return (
        '<section aria-labelledby="savings">\n<h2 id="savings">Savings by file</h2>\n'
        f'<p class="lede">{lede}</p>\n<figure class="plot">\n'
        f'<div class="legend"><span>against plain JPEG</span><span class="src{dot}">against the source</span></div>\n'
        f"{drawing}\n{note}</figure>\n</section>"
    )


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, `most` steps or fewer."""
    for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0):
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first <= most:
            break
    return [index * step for index in range(first, max(last, first + 1) + 1)]


def _axis(bars: Sequence[_Bar], most: int) -> tuple[list[float], float, float]:
    """Ticks of the savings' axis and its ends, zero always among them."""
    values = [bar.plain for bar in bars] + [bar.source for bar in bars if bar.source is not None]
    ticks = _ticks(max(_LOWEST, min(0.0, *values)), max(0.05, *values), most)
    return ticks, ticks[0], ticks[-1]


def _whole_percent(fraction: float) -> str:
    return f"{round(100 * fraction)}%".replace("-", "\u2212")


def _tooltip(bar: _Bar) -> str:
    source = "" if bar.source is None else f", {_percent(bar.source)} against the source"
    return f"<title>{_text(bar.name)}: {_percent(bar.plain)} against plain JPEG{source}</title>"


def _shorten(name: str, characters: int) -> str:
    """The name's last part, cut in its middle: what tells files apart is at its ends."""
    name = PurePath(name).name or name
    if len(name) <= characters:
        return name
    tail = characters // 2
    return name[: characters - tail - 1] + "…" + name[-tail:]


def _svg(height: int, description: str, body: Iterable[str]) -> str:
    # No viewBox: x in percent, y in pixels, so that text keeps its size from phone to desktop.
    return (
        f'<svg height="{height}" role="img" aria-labelledby="plot-title plot-desc"><title id="plot-title">Savings by file</title>'
        f'<desc id="plot-desc">{description}</desc>\n' + "\n".join(body) + "\n</svg>"
    )


def _describe(bars: Sequence[_Bar]) -> str:
    middle = bars[len(bars) // 2].plain if len(bars) % 2 else (bars[len(bars) // 2 - 1].plain + bars[len(bars) // 2].plain) / 2
    return (
        f"{_count(len(bars), 'file')}. Saving against plain JPEG: least {_percent(bars[0].plain)}, "
        f"median {_percent(middle)}, most {_percent(bars[-1].plain)}."
    )


def _named_bars(bars: Sequence[_Bar]) -> str:
    ticks, low, high = _axis(bars, 6)
    row, top = 36, 2
    bottom = top + row * len(bars) + 4

    def at(value: float) -> float:
        return 100 * (max(value, _LOWEST) - low) / (high - low)

    def rect(value: float, y: float, height: int, kind: str) -> str:
        left, right = sorted((at(0), at(value)))
        return f'<rect class="{kind}" x="{left:.2f}%" y="{y:g}" width="{right - left:.2f}%" height="{height}" rx="2"/>'

    body = []
    for tick in ticks:
        kind = "z" if abs(tick) < 1e-9 else "g"
        sparse = ' class="long"' if round(tick / (ticks[1] - ticks[0])) % 2 else ""  # on a phone, every second label
        body.append(
            f'<line class="{kind}" x1="{at(tick):.2f}%" x2="{at(tick):.2f}%" y1="{top}" y2="{bottom}"/>'
            f'<text{sparse} x="{at(tick):.2f}%" y="{bottom + 18}" text-anchor="middle">{_whole_percent(tick)}</text>'
        )
    for index, bar in enumerate(bars):
        y = top + row * index
        source = "" if bar.source is None else rect(bar.source, y + 23, 4, "s")
        end = at(max(bar.plain, 0.0))
        body.append(
            f'<g>{_tooltip(bar)}<rect class="h" x="-12" y="{y}" width="100%" height="{row}"/>'
            f'<text class="name long" x="0" dx="-12" y="{y + 19}" text-anchor="end">{_text(_shorten(bar.name, 30))}</text>'
            f'<text class="name short" x="0" dx="-8" y="{y + 19}" text-anchor="end">{_text(_shorten(bar.name, 14))}</text>'
            f"{rect(bar.plain, y + 8, 12, 'p')}{source}"
            f'<text class="val" x="{end:.2f}%" dx="7" y="{y + 19}">{_percent(bar.plain)}</text></g>'
        )
    body.append(f'<text x="50%" y="{bottom + 40}" text-anchor="middle">saving, percent of bytes</text>')
    return f'<div class="frame-x">{_svg(bottom + 46, _describe(bars), body)}</div>'


def _columns(bars: Sequence[_Bar]) -> str:
    ticks, low, high = _axis(bars, 6)
    top, bottom = 24, 284

    def at(value: float) -> float:
        return bottom - (bottom - top) * (max(value, _LOWEST) - low) / (high - low)

    body = ['<text x="0" dx="-42" y="10">saving, percent of bytes</text>']
    for tick in ticks:
        kind = "z" if abs(tick) < 1e-9 else "g"
        body.append(
            f'<line class="{kind}" x1="0" x2="100%" y1="{at(tick):.1f}" y2="{at(tick):.1f}"/>'
            f'<text x="0" dx="-8" y="{at(tick) + 4:.1f}" text-anchor="end">{_whole_percent(tick)}</text>'
        )
    slot = 100 / len(bars)
    gap = 0.28 if len(bars) <= 80 else 0.12
    radius = 3.5 if len(bars) <= 60 else 2.5 if len(bars) <= 120 else 2
    for index, bar in enumerate(bars):
        high_end, low_end = sorted((at(0), at(bar.plain)))
        dot = (
            ""
            if bar.source is None
            else f'<circle class="o" cx="{slot * (index + 0.5):.2f}%" cy="{at(bar.source):.1f}" r="{radius}"/>'
        )
        body.append(
            f'<g>{_tooltip(bar)}<rect class="h" x="{slot * index:.2f}%" y="{top}" width="{slot:.2f}%" height="{bottom - top}"/>'
            f'<rect class="p" x="{slot * (index + gap / 2):.2f}%" y="{high_end:.1f}" width="{slot * (1 - gap):.2f}%" '
            f'height="{low_end - high_end:.1f}"/>{dot}</g>'
        )
    body.append(f'<text x="50%" y="{bottom + 28}" text-anchor="middle">files, least saving to most</text>')
    return f'<div class="frame-y">{_svg(bottom + 36, _describe(bars), body)}</div>'


def _histogram(bars: Sequence[_Bar]) -> str:
    edges, low, _ = _axis(bars, 24)
    step = edges[1] - edges[0]

    def count(values: Iterable[float]) -> list[int]:
        counts = [0] * (len(edges) - 1)
        for value in values:
            # 1e-9: a saving of exactly 30% belongs to the bin that starts there, whatever the floats say
            counts[min(max(int((value - low) / step + 1e-9), 0), len(counts) - 1)] += 1
        return counts

    series = [
        ("p", "against plain JPEG", count(bar.plain for bar in bars)),
        ("s", "against the source", count(bar.source for bar in bars if bar.source is not None)),
    ]
    tallest = max(max(counts) for _, _, counts in series)
    unit: int = next(part * 10**power for power in range(19) for part in (1, 2, 5) if tallest <= 5 * part * 10**power)
    lines = [unit * index for index in range(math.ceil(tallest / unit) + 1)]
    top, bottom = 24, 284

    def at(number: float) -> float:
        return bottom - (bottom - top) * number / lines[-1]

    body = ['<text x="0" dx="-42" y="10">number of files</text>']
    for line in lines:
        kind = "z" if line == 0 else "g"
        body.append(
            f'<line class="{kind}" x1="0" x2="100%" y1="{at(line):.1f}" y2="{at(line):.1f}"/>'
            f'<text x="0" dx="-8" y="{at(line) + 4:.1f}" text-anchor="end">{line:,}</text>'
        )
    slot = 100 / (len(edges) - 1)
    for side, (kind, name, counts) in enumerate(series):
        for index, number in enumerate(counts):
            if number:
                span = f"{_whole_percent(edges[index])} to {_whole_percent(edges[index + 1])}"
                if index == 0 and low <= _LOWEST:
                    span = f"below {_whole_percent(edges[1])}"
                body.append(
                    f'<g><title>{span} {name}: {_count(number, "file")}</title><rect class="{kind}" '
                    f'x="{slot * (index + 0.1 + 0.4 * side):.2f}%" y="{at(number):.1f}" width="{slot * 0.4:.2f}%" '
                    f'height="{bottom - at(number):.1f}"/></g>'
                )
    every = max(1, math.ceil((len(edges) - 1) / 6))
    for index in range(0, len(edges), every):
        body.append(f'<text x="{slot * index:.2f}%" y="{bottom + 18}" text-anchor="middle">{_whole_percent(edges[index])}</text>')
    body.append(f'<text x="50%" y="{bottom + 40}" text-anchor="middle">saving, percent of bytes</text>')
    return f'<div class="frame-y">{_svg(bottom + 48, _describe(bars), body)}</div>'


# The gallery


def _gallery(gallery: Sequence[GalleryItem], files: Sequence[FileRecord]) -> str:
    if not gallery:
        return ""
    shown = {item.name for item in gallery}
    by_input: dict[str, FileRecord] = {}
    by_name: dict[str, list[FileRecord]] = {}
    for record in files:
        if record.input in shown:
            by_input[record.input] = record
        if (name := os.path.basename(record.input)) in shown and len(same := by_name.setdefault(name, [])) < 2:
            same.append(record)
    items = []
    for index, item in enumerate(gallery):
        same = by_name.get(item.name, [])
        items.append(_gallery_item(item, by_input.get(item.name) or (same[0] if len(same) == 1 else None), index))
    return (
        '<section aria-labelledby="photos">\n<h2 id="photos">Photos</h2>\n'
        '<p class="lede">The worst cases first. Drag across a photo, or use the arrow keys, '
        "to compare the source on the left with the result on the right.</p>\n"
        '<div class="gallery">\n' + "\n".join(items) + "\n</div>\n</section>"
    )


def _gallery_item(item: GalleryItem, record: FileRecord | None, index: int) -> str:
    name = PurePath(item.name).name or item.name
    ratio = _aspect(item.source)
    kind = " pano" if ratio >= 2 else " tall" if ratio < 1.15 else ""
    depth = ""
    if item.depth is not None:
        alt = _text(f"Depth map of {name}")
        depth = f'<figure class="depth">{_image(item.depth, alt)}<figcaption>Depth map: bright is near.</figcaption></figure>\n'
    says = f'<p class="says">{_text(item.caption)}</p>' if item.caption else ""
    return (
        f'<article class="item{kind}" aria-labelledby="photo-{index}">\n'
        f'<div class="stage"><div class="compare" style="--ratio:{ratio:.4f}">'
        f'<div class="layer">{_image(item.source, _text(f"{name}, source"))}<span class="tag">Source</span></div>'
        f'<div class="layer">{_image(item.result, _text(f"{name}, result"))}<span class="tag">Result</span></div>'
        f'<input type="range" min="0" max="100" value="50" aria-label="{_text(f"{name}: how much of the source is shown")}">'
        f'<span class="handle" aria-hidden="true"></span></div></div>\n'
        f'<div class="under{"" if depth else " alone"}">\n{depth}'
        f'<div><h3 id="photo-{index}">{_text(name)}</h3>{says}{_facts(record)}</div>\n</div>\n</article>'
    )


def _facts(record: FileRecord | None) -> str:
    if record is None:
        return ""
    facts = [("", "Source", _bytes(record.source_bytes)), ("", "Plain JPEG", _bytes(record.plain_jpeg_bytes))]
    facts.append(("", "Result", _bytes(record.output_bytes)))
    for kind, name, before in (("key", "plain JPEG", record.plain_jpeg_bytes), ("", "source", record.source_bytes)):
        saving = _saving(record, before)
        if saving is not None:
            facts.append((kind, f"Saving against {name}", _percent(saving)))
    psnr = _psnr(record)
    facts.append(("", "PSNR", psnr if psnr in (_NONE, "identical") else f"{psnr}{_THIN}dB"))
    facts.append(("", "MS-SSIM", _ms_ssim(record)))
    if record.verified is not None:
        facts.append(("", "Verified", f"{'✓ yes' if record.verified else '✗ no'}, {_count(record.verify_trials, 'trial')}"))
    rows = "".join(f"<div{f' class={kind}' if kind else ''}><dt>{name}</dt><dd>{value}</dd></div>" for kind, name, value in facts)
    return f'<dl class="facts">{rows}</dl>'


def _image(data: bytes, alt: str) -> str:
    size = _jpeg_size(data)
    place = f' width="{size[0]}" height="{size[1]}"' if size else ""
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(data).decode("ascii")}" alt="{alt}"{place}>'


def _aspect(data: bytes) -> float:
    size = _jpeg_size(data)
    return size[0] / size[1] if size else 1.5


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height from a JPEG's frame header (ITU-T T.81, B.2.2); None where there is none.

    Read here so that a page can be laid out before its photos are decoded, with no decoder imported for it.
    """
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # SOF0 to SOF15, but not DHT, JPG, DAC
            height, width = int.from_bytes(data[position + 5 : position + 7]), int.from_bytes(data[position + 7 : position + 9])
            return (width, height) if width and height else None
        position += 2 + int.from_bytes(data[position + 2 : position + 4])
    return None


# Tables


def _listed(files: Sequence[FileRecord]) -> list[FileRecord]:
    """The rows to show: all in input order; of more than `MAX_TABLE_ROWS`, failed, kept, skipped, then least saving."""
    if len(files) <= MAX_TABLE_ROWS:
        return list(files)
    rank = {"failed": 0, "kept": 1, "skipped": 2, "ok": 3}

    def key(record: FileRecord) -> tuple[int, float]:
        saving = _saving(record, record.plain_jpeg_bytes)
        return rank[record.status], 0.0 if record.status != "ok" or saving is None else saving

    return heapq.nsmallest(MAX_TABLE_ROWS, files, key=key)  # stable, as sorted() is


_COLUMNS = (
    "File",
    "Status",
    "Pixels",
    "Source, kB",
    "Plain JPEG, kB",
    "Result, kB",
    "Saving, plain JPEG",
    "Saving, source",
    "PSNR, dB",
    "MS\u2011SSIM",  # a hyphen that does not break
    "Seconds",
    "Error or notices",
)


def _table(totals: Totals, files: Sequence[FileRecord], base: str) -> str:
    if not files:
        return ""
    rows = _listed(files)
    sentences = []
    if len(rows) < len(files):
        sentences.append(
            f"{len(rows):,} of {len(files):,} files are listed: those that failed or were kept, then those that saved "
            'least. All are in <a href="report.csv">report.csv</a>.'
        )
    if base:
        sentences.append(f"Names are relative to <code>{_text(base)}</code>.")
    lede = f'<p class="lede">{" ".join(sentences)}</p>\n' if sentences else ""
    head = "".join(f'<th scope="col">{name}</th>' for name in _COLUMNS)
    # Closing tags of cells and rows are optional in HTML: 500 rows are 15 kB smaller without them.
    body = "\n".join(_row(record, base) for record in rows)
    return (
        f'<section class="files" aria-labelledby="files">\n<h2 id="files">Files</h2>\n{lede}'
        '<div class="scroll" role="region" aria-labelledby="files" tabindex="0">\n<table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>\n</section>"
    )


def _row(record: FileRecord, base: str) -> str:
    verdict = "" if record.verified is None else "verified" if record.verified else "not verified"
    verdict += f" ({_count(record.verify_trials, 'trial')})" if verdict else ""
    note = "; ".join(filter(None, (record.error, verdict, *record.notices)))
    if len(note) > MAX_NOTE_CHARACTERS:
        note = note[: MAX_NOTE_CHARACTERS - 1] + "…"
    savings = (_saving(record, record.plain_jpeg_bytes), _saving(record, record.source_bytes))
    cells = [
        record.status,
        f"{record.width}×{record.height}" if record.width and record.height else _NONE,
        *(_kilobytes(size) if size else _NONE for size in (record.source_bytes, record.plain_jpeg_bytes, record.output_bytes)),
        *(_NONE if saving is None else _percent(saving) for saving in savings),
        _psnr(record),
        _ms_ssim(record),
        f"{record.seconds:.3f}" if math.isfinite(record.seconds) else _NONE,
        _text(note),
    ]
    state = "" if record.status == "ok" else f" class={record.status}"
    return f"<tr{state}><th scope=row>{_text(record.input.removeprefix(base))}" + "".join(f"<td>{cell}" for cell in cells)


def _settings(settings: Mapping[str, Any]) -> str:
    rows = []
    for name, value in _flat(_plain(dict(settings))):
        rows.append(f'<tr><th scope="row">{_text(name)}</th><td>{_text(_shown(value))}</td></tr>')
    return "\n".join(rows)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in values.items():
        pairs += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return pairs


def _shown(value: Any) -> str:
    if value is None:
        return _NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_shown(item) for item in value) or _NONE
    return str(value)
