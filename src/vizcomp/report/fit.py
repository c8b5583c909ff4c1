"""The report of `vizcomp fit`: JSON, CSV and one HTML file. Formats figures, computes none."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vizcomp.files.store import AnyPath
from vizcomp.fitting.candidates import named
from vizcomp.fitting.pictures import Drawn
from vizcomp.fitting.result import Fitted
from vizcomp.report import page, tables

_COLUMNS = ("part", "setting", "units", "bytes", "loss", "p_value", "passed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitReport:
    """What `vizcomp fit` came to, to be written or printed.

    Attributes:
        tool, version: who wrote it, as shown.
        command: the command line that repeats the run.
        settings: of the run, JSON types.
        result: all that was measured.
        pictures: what changed, drawn, worst first.
    """

    tool: str
    version: str
    command: str = ""
    settings: Mapping[str, Any]
    result: Fitted
    pictures: Sequence[Drawn] = ()

    def write(self, folder: AnyPath) -> page.ReportPaths:
        """Write report.html, report.json and report.csv into a folder, made if it is missing.

        Raises:
            OutputError: the folder cannot be made, or a file cannot be written.
        """
        return page.write_files(folder, html=self.html(), json=[self.json()], csv=self.csv_chunks())

    def json(self) -> str:
        """The report as strict JSON text."""
        about = {
            "tool": self.tool,
            "version": self.version,
            "command": self.command,
            "settings": self.settings,
        }
        return tables.report_json(tables.plain({**about, **self.result.to_dict()}))

    def csv_chunks(self) -> Iterator[str]:
        """A header and a line for each setting, as `tables.csv_chunks` writes them."""
        rows = self.result.rows
        return tables.csv_chunks(
            _COLUMNS,
            (
                [r.part, named(r.settings), r.units, r.bytes, r.loss, r.p_value, r.passed]
                for r in rows
            ),
        )

    def html(self) -> str:
        """The page as text: one file with its style and script inside."""
        result = self.result
        certificate = result.policy.certificate
        explored = sorted(
            (r for r in result.rows if r.part == "explore"), key=lambda r: (-r.units, r.bytes)
        )
        return page.render(
            "fit.html.j2",
            report=self,
            result=result,
            stats=self._stats(),
            bars=self._bars(),
            units={"file": "photos", "folder": "folders"}.get(certificate.unit, "units"),
            explored=[(named(r.settings), r) for r in explored[: page.MAX_TABLE_ROWS]],
            tested=[(named(r.settings), r) for r in result.rows if r.part == "certify"],
            by_test=f"Tested by: {certificate.test}. " if certificate.test else "",
            drawn=[(one, result.policy.systems[one.system]) for one in self.pictures],
            settings=page.setting_rows(self.settings),
            origins=[
                *(
                    (f"system {one.name}", "; ".join(filter(None, (one.fingerprint, one.reading))))
                    for one in result.policy.systems
                ),
                ("encoder", result.policy.encoder),
                ("photos certified with", certificate.sample),
            ],
        )

    def _stats(self) -> list[tuple[str, str, str]]:
        result, certificate = self.result, self.result.policy.certificate
        stats = [
            ("Setting", named(result.policy.settings), "for vizcomp djpeg --policy"),
            (
                "Mean size",
                page.size(certificate.bytes),
                f"of sources of {page.size(certificate.source_bytes)}",
            ),
            (
                "Mean loss",
                page.percent(certificate.mean_loss),
                f"bound {page.percent(certificate.bound)} from these alone",
            ),
        ]
        for one in result.policy.systems:
            if one.right_on_sources >= 0:
                note = f"on the results; on the sources {page.percent(one.right_on_sources)}"
                stats.append((f"Right, {one.name}", page.percent(one.right_on_results), note))
        return stats

    def _bars(self) -> list[tuple[str, str, str, str, float]]:
        """Kind, name, figure, note and share of the longest bar, of ours and of rivals; () without
        rivals."""
        result = self.result
        rows: list[tuple[str, str, float | None, str]] = [
            ("ours", "This policy", float(result.policy.certificate.bytes), "holds")
        ]
        for one in result.rivals:
            title = named(one.setting) if one.setting else one.title
            lost = "" if one.loss is None else f"{page.percent(one.loss)} lost"
            rows.append(
                (
                    "",
                    title,
                    one.bytes,
                    (
                        f"holds, {lost}"
                        if one.holds
                        else f"does not hold, {lost}"
                        if lost
                        else "none holds"
                    ),
                )
            )
        most = max((size for _, _, size, _ in rows if size), default=1.0)
        if len(rows) < 2:
            return []
        return [
            (
                kind,
                name,
                page.DASH if size is None else page.size(round(size)),
                note,
                100 * (size or 0) / most,
            )
            for kind, name, size, note in rows
        ]
