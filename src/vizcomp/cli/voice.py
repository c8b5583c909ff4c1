"""What a command says, and where: progress, notices, summaries."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from vizcomp.batch.records import CodecRecord, CodecTotals, DepthRecord, Totals
from vizcomp.cli import log
from vizcomp.cli.config import what_was_used
from vizcomp.cli.progress import Far, Record, human_bytes, lines
from vizcomp.cli.words import in_flags, in_safe_lines
from vizcomp.errors import OutputError, VizcompError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from vizcomp.batch.groups import CodecRun
    from vizcomp.batch.loop import RunOptions
    from vizcomp.weights import table as weights_table
    from vizcomp.weights.transfer import OnBytes


FOUND_NOTHING = "it finds nothing on any source"


class Voice:
    """What a command says, and where: its summary to standard output, all else to standard error.

    Args:
        quiet: errors only.
        verbose: a line for each file.
        taken: standard output is taken, by --json or a file: summaries go to standard error too.
        log_json: what is said is one JSON object a line, on standard error.

    Attributes:
        left: outputs that were there and stayed, and are not known to be of these settings.
    """

    def __init__(
        self, *, quiet: bool, verbose: bool, taken: bool = False, log_json: bool = False
    ) -> None:
        from rich.console import Console

        if taken and sys.stdout is None:  # vizcomp ... >&-
            raise OutputError("standard output is closed", "send it into a file or a program")
        self.quiet = quiet
        self.verbose = verbose
        self.left = 0
        self._log_json = log.in_json = log_json
        self.console: Console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._out = self.console if taken else Console(highlight=False, soft_wrap=True)
        for line in what_was_used():
            self.say(line)

    def say(self, text: str) -> None:
        """A line for people; not with --quiet."""
        if self._log_json:
            log.event("notice", text=in_flags(text))
        elif not self.quiet:
            self.console.print(in_safe_lines(text), markup=False)

    def result(self, text: str) -> None:
        """A line of the summary."""
        if self._log_json:
            log.event("summary", text=text)
        elif not self.quiet:
            self._out.print(in_safe_lines(text), markup=False)

    def table(self, table: Table) -> None:
        """A table of the summary, for people."""
        if not self.quiet and not self._log_json:
            self._out.print(table)

    def warn(self, text: str) -> None:
        """A line that even --quiet prints."""
        if self._log_json:
            log.event("warning", text=in_flags(text))
            return
        self.console.print(
            in_safe_lines(text), markup=False, style="yellow" if self.console.is_terminal else None
        )

    def reading(self, name: str, reading: str) -> None:
        """How a vision system's model is read."""
        self.say(f"{name} is read as {reading}")

    def readings(self, names: Iterable[str], *, offline: bool) -> None:
        """How each of some vision systems is read, in the order of their names; they are opened for
        that.

        Raises:
            VizcompError: as `vision.systems.open_system`.
        """
        if not (named := sorted(set(names))):
            return
        from vizcomp.batch.judges import system_by_name
        from vizcomp.vision.system import reading_of

        for name in named:
            with self.downloads():
                reading = reading_of(system_by_name(name, offline))
            self.reading(name, reading)

    def interrupted(self) -> None:
        """After the first Ctrl-C."""
        self.warn("stopping: what is in hand is being finished; Ctrl-C again ends at once")

    def downloads(self) -> contextlib.AbstractContextManager[None]:
        """Says what is downloaded, as long as the context lasts: a bar on a terminal, otherwise a
        line for each source."""
        return downloads_on(self.console, quiet=self.quiet)

    def options(self, on_record: Callable[[Record], None], *, jobs: int, engine: str) -> RunOptions:
        """Options of a run: its callbacks, and that a crash must not take this process down."""
        from vizcomp.batch.loop import RunOptions

        return RunOptions(
            jobs=jobs,
            engine=engine,
            isolate=True,
            on_record=on_record,
            on_interrupt=self.interrupted,
            on_notice=self.warn,
            on_left=self.stayed,
        )

    def stayed(self, count: int) -> None:
        """Some outputs were there, stayed, and are not known to be of these settings."""
        self.left += count

    def exit_code(self, *, interrupted: bool, failed: int, nothing_done: bool) -> int:
        """How a batch command ends, where inputs `failed` with 1, or with 3 for want of a model;
        says of results that stayed what they are not."""
        if self.left:
            from vizcomp.batch.log import stayed

            self.warn(stayed(self.left))
        if interrupted:
            return 130
        if self.left and nothing_done:
            return 2
        return int(failed) or (1 if self.left else 0)

    def passed_over(self, error: VizcompError) -> None:
        """A folder that cannot be read or a link that leads nowhere: said, and passed over."""
        self.warn(f"passed over: {error.message}")

    def record(self, record: Record) -> None:
        """What a file's record has to say: failures always, notices by default, all with
        --verbose."""
        if self._log_json:
            log.event("file", **record.to_dict())
            return
        if record.status in ("failed", "partial"):
            error = record.error or ""
            named = error.startswith(record.input)  # many errors begin with the file's name
            self.warn(
                f"{record.status}: {error}"
                if named
                else f"{record.status}: {record.input}: {error}"
            )
        elif record.status == "skipped":
            if self.verbose:
                self.say(f"skipped: {record.input}: {record.error}")
        elif self.verbose:
            parts = [
                f"{record.input} -> {record.output or '(dry run)'}",
                *_figures(record),
                *record.notices,
            ]
            self.say(f"{record.status}: {'; '.join(parts)}")
        elif record.notices:
            self.say(f"{record.input}: {'; '.join(record.notices)}")

    @contextlib.contextmanager
    def progress(self, count: Callable[[], int]) -> Iterator[Callable[[Record], None]]:
        """A progress bar on a terminal; gives what is to be called with each file's record.

        Args:
            count: how many files there are, about: asked in a thread of its own, since the work
                does not wait for it.
        """
        if self._log_json or not self.console.is_terminal:
            with lines(count, self._progress_line) as counted:

                def tell(record: Record) -> None:
                    self.record(record)
                    counted(record)

                yield tell
            return
        if self.quiet:
            yield self.record
            return
        from rich import progress as bar

        columns = (
            bar.SpinnerColumn(),
            bar.TextColumn("{task.completed}{task.fields[of]} photos"),
            bar.BarColumn(),
            bar.TextColumn("{task.fields[rate]:.1f}/s"),
            bar.TextColumn("{task.fields[saved]}"),
            bar.TimeElapsedColumn(),
            bar.TextColumn("left"),
            bar.TimeRemainingColumn(),
        )
        saved = 0
        with bar.Progress(*columns, console=self.console, transient=True) as shown:
            task = shown.add_task("photos", total=None, rate=0.0, saved="", of="")

            def find_total() -> None:
                # the run itself says what is wrong
                with contextlib.suppress(VizcompError, OSError):
                    total = count()
                    shown.update(task, total=total, of=f" of {total}")

            threading.Thread(target=find_total, name="count", daemon=True).start()

            def step(record: Record) -> None:
                nonlocal saved
                self.record(record)
                if not isinstance(record, DepthRecord) and record.status in ("ok", "kept"):
                    saved += record.source_bytes - record.output_bytes
                told = f"{human_bytes(saved)} saved" if saved > 0 else ""  # decoding saves nothing
                shown.update(task, advance=1, rate=shown.tasks[0].speed or 0.0, saved=told)

            yield step

    def _progress_line(self, far: Far) -> None:
        if self._log_json:
            log.event("progress", **far.to_dict())
        else:
            self.say(str(far))

    def djpeg_summary(
        self, totals: Totals, report: str, *, dry_run: bool, systems: Sequence[str]
    ) -> None:
        """The table at the end of `djpeg`, and the verdicts of the systems that were asked."""
        if self._log_json:
            log.event("summary", totals=totals.to_dict(), report=report, dry_run=dry_run)
            return
        if self.quiet:
            return
        from rich.markup import escape
        from rich.table import Table

        done = totals.files - totals.failed - totals.skipped
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        table.add_row("photos", _done(done, totals))
        _add_what_is_missing(table, totals)
        if totals.output_bytes:
            table.add_row("against the source", _saving(totals.saving_vs_source))
            plain, optimised = (
                human_bytes(totals.plain_jpeg_bytes),
                human_bytes(totals.optimised_jpeg_bytes),
            )
            table.add_row(
                "against plain JPEG",
                f"{_saving(totals.saving_vs_plain_jpeg)} (same quality: {plain})",
            )
            table.add_row(
                "against optimised JPEG",
                f"{_saving(totals.saving_vs_optimised_jpeg)} (progressive, same quality:"
                f" {optimised})",
            )
        if (equal := totals.equal_bytes) is not None:
            ours, jpeg = (
                f"{equal['psnr']:.1f} dB, {equal['ms_ssim']:.4f}",
                f"{equal['jpeg_psnr']:.1f} dB, {equal['jpeg_ms_ssim']:.4f}",
            )
            table.add_row(
                "at equal bytes",
                f"PSNR and MS-SSIM {ours}; plain JPEG {jpeg} ({equal['photos']:.0f}"
                f" photo{'' if equal['photos'] == 1 else 's'})",
            )
        if (rival := totals.rival) is not None:
            low, high = (_saving(share) for share in rival["interval"])
            table.add_row(
                "under the same verdict",
                f"{_saving(rival['saving'])} than optimised JPEG ({low} to {high}; "
                f"{rival['photos']} photo{'' if rival['photos'] == 1 else 's'})",
            )
        if (near := totals.near) is not None:
            table.add_row(
                "near third, equal bytes",
                f"{near['gain']:+.2f} dB over no guide, the rest {near['rest_gain']:+.2f} dB "
                f"({near['photos']} photo{'' if near['photos'] == 1 else 's'}, by the map used)",
            )
        if totals.megapixels_per_second:
            table.add_row(
                "speed", f"{totals.megapixels_per_second:.1f} megapixels/s, {totals.seconds:.1f} s"
            )
        if report:
            table.add_row("report", escape(in_safe_lines(report)))
        if dry_run:
            table.add_row("", _DRY)
        self._out.print(table)
        self.verdicts(systems, totals)

    def verdicts(self, systems: Sequence[str], totals: Totals | CodecTotals) -> None:
        """How many photos the systems of `--verify` and `--watch-with` answer alike on."""
        asked = totals.verified + totals.not_reached
        if asked or totals.nothing_to_verify:
            apart = (
                f"; {totals.nothing_to_verify} with nothing to verify"
                if totals.nothing_to_verify
                else ""
            )
            self.result(
                f"verified for {' and '.join(systems)}: {totals.verified} of {asked} photos{apart}"
            )
        for name, counts in getattr(totals, "watched", {}).items():
            seen = f"{counts['same']} of {counts['photos']} photos seen alike"
            self.result(f"watched with {name}: {seen if counts['photos'] else FOUND_NOTHING}")

    def labels(self, totals: Totals) -> None:
        """What became of the labels of `--labels`."""
        if totals.labels is None:
            return
        names = (
            ("missing", "photos have none"),
            ("refused", "refused"),
            ("passed_over", "of photos that were not done"),
        )
        rest = "".join(
            f"; {totals.labels[key]} {name}" for key, name in names if totals.labels[key]
        )
        self.say(
            f"labels ({totals.labels['kind']}): of {totals.labels['written']} photos written{rest}"
        )

    def codec_summary(self, run: CodecRun, *, dry_run: bool) -> None:
        """The table at the end of `encode` and `decode`."""
        if run.interrupted:
            self.warn(f"interrupted: {run.totals.files} files done; what is finished is kept")
        if self._log_json:
            log.event(
                "summary", totals=run.totals.to_dict(), pack=str(run.pack or ""), dry_run=dry_run
            )
            return
        if self.quiet:
            return
        from rich.table import Table

        totals = run.totals
        done = totals.files - totals.failed - totals.skipped
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        table.add_row("files", _done(done, totals))
        if totals.images != done:
            table.add_row("images", str(totals.images))
        if totals.partial:
            table.add_row("partial", str(totals.partial))
        _add_what_is_missing(table, totals)
        if totals.bpp is not None:
            table.add_row("bits a pixel", f"{totals.bpp:.4g}")
        if totals.images_per_second:
            table.add_row(
                "speed", f"{totals.images_per_second:.3g} images/s, {totals.seconds:.1f} s"
            )
        if run.pack is not None:
            from vizcomp.files.place import printable

            table.add_row("pack", printable(run.pack))
        if dry_run:
            table.add_row("", _DRY)
        self._out.print(table)


def _figures(record: Record) -> list[str]:
    """Bytes and quality of a file, for its line."""
    if isinstance(record, DepthRecord):
        return [] if record.confidence is None else [f"confidence {record.confidence:.2f}"]
    sizes = f"{human_bytes(record.source_bytes)} -> {human_bytes(record.output_bytes)}"
    if isinstance(record, CodecRecord):
        return [sizes, f"{record.iterations} iterations"] if record.iterations else [sizes]
    return [sizes] if record.quality is None else [sizes, f"quality {record.quality:g}"]


def downloads_on(console: Console, *, quiet: bool) -> contextlib.AbstractContextManager[None]:
    """As `Voice.downloads`, on another console."""
    from vizcomp.weights.download import watched

    return contextlib.nullcontext() if quiet else watched(_DownloadsShown(console))


class _DownloadsShown:
    def __init__(self, console: Console) -> None:
        self._console = console

    @contextlib.contextmanager
    def source(self, file: str, source: weights_table.Source) -> Iterator[OnBytes]:
        from rich import progress as bar

        self._console.print(f"{file}: fetching it from {source}", markup=False)
        columns = (
            bar.TextColumn("{task.description}"),
            bar.BarColumn(),
            bar.DownloadColumn(),
            bar.TransferSpeedColumn(),
            bar.TimeRemainingColumn(),
        )
        with bar.Progress(
            *columns, console=self._console, transient=True, disable=not self._console.is_terminal
        ) as shown:
            task = shown.add_task(file, total=None)
            yield lambda have, total: shown.update(task, completed=have, total=total or None)

    def done(self, file: str, sha256: str) -> None:
        self._console.print(f"{file}: sha256 {sha256}", markup=False)

    def waits(self, file: str) -> None:
        self._console.print(
            f"{file}: another process is at work on it; waiting for that", markup=False
        )


_DRY = "dry run: nothing was written"


def _done(done: int, totals: Totals | CodecTotals) -> str:
    of_all = f" of {totals.files}" if done != totals.files else ""
    return f"{done}{of_all}" + (f", {totals.resumed} by an earlier run" if totals.resumed else "")


def _add_what_is_missing(table: Table, totals: Totals | CodecTotals) -> None:
    if totals.skipped:
        table.add_row("skipped", f"{totals.skipped} (--overwrite replaces what exists)")
    if totals.failed:
        table.add_row("failed", str(totals.failed))
    if totals.source_bytes:
        table.add_row(
            "size", f"{human_bytes(totals.source_bytes)} -> {human_bytes(totals.output_bytes)}"
        )


def print_parts(parts: Iterable[str]) -> None:
    """A long text on standard output, part by part."""
    for part in parts:
        sys.stdout.write(part)
    sys.stdout.flush()


def _saving(fraction: float) -> str:
    return f"{fraction:.1%} smaller" if fraction >= 0 else f"{-fraction:.1%} larger"


def command_line() -> str:
    """The command as it was typed, ready for a shell."""
    return shlex.join(
        ["vizcomp", *(os.fsencode(a).decode("utf-8", "backslashreplace") for a in sys.argv[1:])]
    )
