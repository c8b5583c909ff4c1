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
        levels = _levels(result)
        claim, _, rest = result.headline.partition(": ")
        return page.render(
            "evaluation.html.j2",
            report=self,
            result=result,
            claim=claim,
            rest=rest[:1].upper() + rest[1:],
            stats=_stats(result),
            codecs=list(by_codec(result)),
            systems=_systems(result),
            labelled={name for name, share in result.source_accuracy.items() if share is not None},
            charts=charts(result),
            frame=FRAME,
            gallery=_gallery(result),
            levels=levels,
            compared={codec for sizes in levels.values() for codec in sizes},
            points=result.points[: page.MAX_TABLE_ROWS],
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


def _levels(result: EvalResult) -> dict[tuple[str, float], dict[str, float | None]]:
    """Bytes at equal accuracy: for each measure and level the bytes of each codec."""
    levels: dict[tuple[str, float], dict[str, float | None]] = {}
    for comparison in result.equal:
        sizes = levels.setdefault((comparison["measure"], comparison["level"]), {})
        sizes[comparison["codec"]] = comparison["bytes"]
        sizes[comparison["anchor"]] = comparison["anchor_bytes"]
    return levels


def _origins(result: EvalResult) -> list[tuple[str, str]]:
    """Names and versions of what the figures were made with."""
    rows = []
    for codec in result.codecs:
        version = f"{codec['version']} {codec['fingerprint']}".strip()
        rows.append((f"codec {codec['name']}", version))
    rows += [(f"system {system['name']}", system["fingerprint"]) for system in result.classifiers]
    return rows + list(result.versions.items())


# --- the gallery ----------------------------------------------------------------------------------


def _gallery(result: EvalResult) -> list[EvalExample]:
    """The first images, as many as have room in the page."""
    examples: list[EvalExample] = []
    room = MAX_PICTURE_BYTES
    for example in result.gallery[:MAX_EXAMPLES]:
        room -= 4 * (len(example.source) + len(example.result)) // 3  # in base64
        if room < 0:
            break
        examples.append(example)
    return examples
