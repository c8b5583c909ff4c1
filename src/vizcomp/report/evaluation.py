"""The report of `vizcomp eval`: JSON, CSV and one HTML file. Formats figures, computes none."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vizcomp.evaluation.results import EvalExample, EvalPoint, EvalResult
from vizcomp.files.store import AnyPath
from vizcomp.report import page, tables
from vizcomp.report.charts import FRAME, by_codec, charts

MAX_EXAMPLES = 24
"""Images of the gallery, at most."""

MAX_PICTURE_BYTES = 2_000_000
"""Bytes of the gallery's pictures in the page, at most: the whole stays under 3 MB."""

_BY_SYSTEM = ("accuracy", "agreement", "top5", "recall", "precision")
_SINGLE = (
    "codec",
    "setting",
    "ours",
    "images",
    "failed",
    "bytes_per_image",
    "payload_bytes_per_image",
    "bpp",
    "psnr",
    "ms_ssim",
    "encode_seconds",
    "decode_seconds",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """What `vizcomp eval` measured, to be written or printed.

    Attributes:
        tool, version: who wrote it, as shown.
        command: the command line that repeats the run.
        settings: of the run: JSON types, or what `tables.plain` turns into them.
        result: all that was measured.
    """

    tool: str
    version: str
    command: str = ""
    settings: Mapping[str, Any]
    result: EvalResult

    def write(self, folder: AnyPath) -> page.ReportPaths:
        """Write report.html, report.json and report.csv into a folder, made if it is missing.

        Raises:
            OutputError: the folder cannot be made, or a file cannot be written.
        """
        html = self.html()
        return page.write_files(folder, html=html, json=[self.json()], csv=self.csv_chunks())

    def json(self) -> str:
        """The report without the gallery as strict JSON text; NaN and infinity become None.

        Its schema is `bundled/eval_report.schema.json`.
        """
        result = self.result
        report = {
            "tool": self.tool,
            "version": self.version,
            "command": self.command,
            "interrupted": result.interrupted,
            "headline": result.headline,
            "warnings": result.warnings,
            "settings": self.settings,
            "data": result.data,
            "classifiers": result.classifiers,
            "source_accuracy": result.source_accuracy,
            "points": result.points,
            "bd_rate": result.bd_rate,
            "equal_accuracy": result.equal,
            "reference_points": result.reference_points,
            "codecs": result.codecs,
            "versions": result.versions,
        }
        return tables.report_json(tables.plain(report))

    def csv_chunks(self) -> Iterator[str]:
        """A header and a line for each point, as `tables.csv_chunks` writes them.

        Each system has columns of its own, as `accuracy:inception`.
        """
        names = _systems(self.result)
        header = [*_SINGLE, *(f"{kind}:{name}" for name in names for kind in _BY_SYSTEM)]
        header += [f"interval_{end}:{name}" for name in names for end in ("low", "high")]
        return tables.csv_chunks(header, (_csv_row(point, names) for point in self.result.points))

    def html(self) -> str:
        """The page as text: one file with its style, script, charts and pictures inside."""
        result = self.result
        claim, _, rest = result.headline.partition(": ")
        return page.render(
            "evaluation.html.j2",
            report=self,
            result=result,
            claim=claim,
            rest=rest[:1].upper() + rest[1:],
            stats=_stats(result),
            codecs=list(by_codec(result)),
            charts=charts(result),
            frame=FRAME,
            gallery=_gallery(result),
            levels=_levels(result),
            points=_points(result),
            bd_rates=_bd_rates(result),
            settings=page.setting_rows(self.settings),
            origins=_origins(result),
        )


def _systems(result: EvalResult) -> list[str]:
    return [str(system["name"]) for system in result.classifiers]


def _csv_row(point: EvalPoint, names: Sequence[str]) -> list[Any]:
    values = tables.plain(point)
    row = [values[name] for name in _SINGLE]
    row += [values[kind].get(name) for name in names for kind in _BY_SYSTEM]
    for name in names:
        row += values["interval"].get(name) or [None, None]
    return row


# --- the top of the page --------------------------------------------------------------------------


def _stats(result: EvalResult) -> list[tuple[str, str, str]]:
    """Figures of the sources: name, value, note."""
    data = result.data
    sides = f"{data['width']}×{data['height']}" if data.get("width") else "of several sizes"
    stats = [("Images", f"{data['images']:,}", f"{data['name']}, {sides}")]
    for system in result.classifiers:
        name = system["name"]
        accuracy = result.source_accuracy.get(name)
        note = "on the sources" if accuracy is not None else "with its own answer on the source"
        note += "; unseen by every codec" if system["unseen"] else "; a codec may know it"
        stats.append((name, "agreement" if accuracy is None else page.percent(accuracy), note))
    return stats


# --- tables ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, and an interval beside it; `best` is shown bold."""

    text: str
    interval: str = ""
    best: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """The header and the rows of a table; the first cell of a row is its header."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def _points(result: EvalResult) -> Table:
    header = ["Codec", "Setting", "Bytes", "Bits a pixel"]
    names = _systems(result)
    labelled = {name for name in names if result.source_accuracy.get(name) is not None}
    for name in names:
        header += [f"{name}, right"] if name in labelled else []
        header.append(f"{name}, as before")
    header += ["PSNR, dB", "MS\u2011SSIM", "Encode, ms", "Decode, ms"]
    points = result.points[: page.MAX_TABLE_ROWS]
    return Table(header, [_point_row(point, names, labelled) for point in points])


def _point_row(point: EvalPoint, names: Sequence[str], labelled: set[str]) -> list[Cell]:
    row = [Cell(point.codec), Cell(point.setting)]
    row += [Cell(page.number(point.bytes_per_image, 1)), Cell(page.number(point.bpp, 3))]
    for name in names:
        ends = point.interval.get(name)
        interval = "" if ends is None else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}"
        agreement = page.percent(point.agreement.get(name))
        if name in labelled:  # the interval is that of the accuracy
            row += [Cell(page.percent(point.accuracy.get(name)), interval), Cell(agreement)]
        else:
            row.append(Cell(agreement, interval))
    row += [Cell(page.number(point.psnr, 2)), Cell(page.number(point.ms_ssim, 4))]
    times = (point.encode_seconds, point.decode_seconds)
    return row + [Cell(page.number(1000 * seconds, 1)) for seconds in times]


def _levels(result: EvalResult) -> Table:
    """Bytes at equal accuracy: a row for each measure and level, a column for each codec."""
    levels: dict[tuple[str, float], dict[str, float | None]] = {}
    for comparison in result.equal:
        sizes = levels.setdefault((comparison["measure"], comparison["level"]), {})
        sizes[comparison["codec"]] = comparison["bytes"]
        sizes[comparison["anchor"]] = comparison["anchor_bytes"]
    compared = {codec for sizes in levels.values() for codec in sizes}
    codecs = [codec for codec in by_codec(result) if codec in compared]
    rows = []
    for (measure, level), sizes in levels.items():
        least = min((size for size in sizes.values() if size is not None), default=None)
        row = [Cell(_measure(measure)), Cell(page.percent(level))]
        for codec in codecs:
            size = sizes.get(codec)
            row.append(Cell(page.number(size, 1), best=size is not None and size == least))
        rows.append(row)
    return Table(["Measure", "Level", *codecs], rows)


def _bd_rates(result: EvalResult) -> Table:
    rows = []
    for row in result.bd_rate:
        rate, overlap = row["bd_rate"], row["overlap"]
        sign = "" if not rate else "+" if rate > 0 else "−"
        shown = row["why"] if rate is None else f"{sign}{100 * abs(rate):.1f}%"
        span = page.DASH if overlap is None else f"{overlap[0]:.4g} to {overlap[1]:.4g}"
        texts = (row["codec"], row["anchor"], _measure(row["measure"]), shown, span)
        rows.append([Cell(text) for text in texts])
    return Table(["Codec", "Against", "Measure", "BD-rate", "Overlap"], rows)


def _measure(measure: str) -> str:
    kind, _, name = measure.partition(":")
    return {"psnr": "PSNR", "ms_ssim": "MS-SSIM"}.get(kind, f"{kind} of {name}")


def _origins(result: EvalResult) -> list[tuple[str, str]]:
    """Names and versions of what the figures were made with."""
    rows = []
    for codec in result.codecs:
        version = f"{codec['version']} {codec['fingerprint']}".strip()
        rows.append((f"codec {codec['name']}", version))
    rows += [(f"system {system['name']}", system["fingerprint"]) for system in result.classifiers]
    return rows + list(result.versions.items())


# --- the gallery ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """One image of the gallery.

    Attributes:
        small: so few pixels that each is shown as a square.
        sizes: bytes of the result, and of the source where they are known.
        boxes: those of all systems on the source, and on the result.
    """

    example: EvalExample
    small: bool
    sizes: str
    boxes: tuple[Sequence[Any], Sequence[Any]]


def _gallery(result: EvalResult) -> list[Picture]:
    """The first images, as many as have room in the page."""
    pictures: list[Picture] = []
    room = MAX_PICTURE_BYTES
    for example in result.gallery[:MAX_EXAMPLES]:
        room -= 4 * (len(example.source) + len(example.result)) // 3  # in base64
        if room < 0:
            break
        sides = page.dimensions(example.source)
        before = f" of {page.size(example.source_bytes)}" if example.source_bytes else ""
        pairs = example.boxes.values()
        pictures.append(
            Picture(
                example=example,
                small=sides is not None and sides[0] < 200,
                sizes=page.size(example.result_bytes) + before,
                boxes=(
                    [quad for source, _ in pairs for quad in source],
                    [quad for _, result_boxes in pairs for quad in result_boxes],
                ),
            )
        )
    return pictures
