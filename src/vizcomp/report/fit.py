"""The report of `vizcomp fit`: JSON, CSV and one HTML file. Formats figures, computes none."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from vizcomp.files.store import AnyPath
from vizcomp.fitting.run import Fitted, named
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
    """

    tool: str
    version: str
    command: str = ""
    settings: Mapping[str, Any]
    result: Fitted

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
        return page.render(
            "fit.html.j2",
            report=self,
            result=result,
            stats=stats,
            explored=[(named(r.settings), r) for r in result.rows if r.part == "explore"],
            tested=[(named(r.settings), r) for r in result.rows if r.part == "certify"],
            settings=page.setting_rows(self.settings),
            origins=[(f"system {one.name}", one.fingerprint) for one in result.policy.systems]
            + [("encoder", result.policy.encoder)],
        )
