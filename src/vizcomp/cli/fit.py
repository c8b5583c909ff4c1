"""`vizcomp fit`."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vizcomp.cli.options import (
    Config,
    Decoder,
    Engine,
    Inputs,
    Jobs,
    Json,
    LogJson,
    MaxPixels,
    Offline,
    Profile,
    Quiet,
    RayAddress,
    Verbose,
    place,
)
from vizcomp.cli.voice import Voice, command_line, print_parts

if TYPE_CHECKING:
    from vizcomp.files.store import AnyPath
    from vizcomp.fitting.result import Fitted
    from vizcomp.report.fit import FitReport

Systems = Annotated[
    list[str] | None,
    typer.Option(
        "--system",
        metavar="NAME",
        help="Who looks, as for --verify. Repeatable: the guarantee holds for each.",
    ),
]


def fit(
    inputs: Inputs,
    system: Systems = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            parser=place,
            help="The policy; the report goes beside it.",
        ),
    ] = Path("policy.toml"),
    risk: Annotated[
        str,
        typer.Option(
            "--risk",
            metavar="SHARE",
            help="Answers that may change; of a detector, the mean loss of F1.",
        ),
    ] = "1%",
    confidence: Annotated[
        str, typer.Option("--confidence", metavar="SHARE", help="Of the statement.")
    ] = "95%",
    unit: Annotated[
        str,
        typer.Option(
            "--unit",
            metavar="file|folder",
            help="folder: photos of one folder belong together, as frames do.",
        ),
    ] = "file",
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="folder",
            help="The guarantee holds in each folder by itself, as of a camera.",
        ),
    ] = "",
    each: Annotated[
        bool,
        typer.Option(
            "--each",
            help="A policy for each folder below the input, in -o DIR; together they hold.",
        ),
    ] = False,
    labels: Annotated[
        str,
        typer.Option(
            "--labels",
            metavar="PATH|folders",
            help=(
                "Being right counts, not being the same: a COCO .json, a folder of YOLO .txt or VOC"
                " .xml, a .csv of file and "
                "label; or folders, whose names are classes."
            ),
        ),
    ] = "",
    format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="auto|jpeg|webp|avif|jxl",
            help="Of the files; auto: the best that all readers open.",
        ),
    ] = "auto",
    readers: Annotated[
        str,
        typer.Option(
            "--readers", metavar="LIST", help="Who must open the files, as of djpeg --format auto."
        ),
    ] = "",
    kinds: Annotated[
        bool,
        typer.Option(
            "--kinds/--one-kind",
            help="Photos with lettering and those without may have settings of their own.",
        ),
    ] = True,
    keep_sides: Annotated[
        bool,
        typer.Option(
            "--keep-sides",
            help="Keep what classifiers cut off: the sides of photos stay as good as the middle.",
        ),
    ] = False,
    rivals: Annotated[
        bool,
        typer.Option(
            "--rivals/--no-rivals",
            help="Compare with JPEG, WebP and AVIF, each certified in the same way.",
        ),
    ] = True,
    budget: Annotated[
        str,
        typer.Option(
            "--budget",
            metavar="TIME",
            help="Of the whole, as 30min: the search is cut short, the certificate is not.",
        ),
    ] = "",
    decoder: Decoder = "pillow",
    max_pixels: MaxPixels = 200_000_000,
    jobs: Jobs = 0,
    engine: Engine = "local",
    ray_address: RayAddress = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a policy that exists.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with a fit of the same photos and settings that was interrupted.",
        ),
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    offline: Offline = False,
    log_json: LogJson = False,
    profile: Profile = "",
    config: Config = "",
) -> None:
    """Find the smallest djpeg setting for your own system, with a guarantee: at most so many
    answers change.

    Writes the policy, for `vizcomp djpeg --policy`, and report.html, report.json and report.csv
    beside it.
    """
    from vizcomp.batch.engines import check_engine
    from vizcomp.cli.values import parse_fraction, parse_time
    from vizcomp.errors import OutputError, SettingsError
    from vizcomp.files.find import find_inputs
    from vizcomp.files.place import printable
    from vizcomp.files.write import check_output_folder
    from vizcomp.fitting.apart import fit_apart
    from vizcomp.fitting.run import fit as run_fit

    voice = Voice(quiet=quiet, verbose=verbose, taken=json, log_json=log_json)
    where = check_engine(engine, ray_address)
    if each and by:
        raise SettingsError(
            "--by and --each contradict each other",
            "--by is about one setting for all folders, --each about one for each of them",
        )
    there = [output] if os.path.exists(output) else []
    if each and output.is_dir():  # a folder may be there, policies in it may not
        there = sorted(output.rglob("policy.toml"))
    if there and not overwrite:
        raise OutputError(
            f"{printable(there[0])} exists", "give another name with -o, or --overwrite"
        )
    check_output_folder(output if each else output.parent)
    voice.readings(system or [], offline=offline)
    values: dict[str, Any] = {
        "risk": parse_fraction(risk, "risk"),
        "confidence": parse_fraction(confidence, "confidence"),
        "unit": unit,
        "by": by,
        "labels": labels,
        "format": format,
        "readers": readers,
        "kinds": kinds,
        "keep_sides": keep_sides,
        "rivals": rivals,
        "budget": parse_time(budget, "budget") if budget else None,
        "resume": resume,
        "jobs": jobs,
        "engine": where,
        "max_pixels": max_pixels,
        "offline": offline,
        "decoder": decoder,
        "on_progress": voice.say,
    }
    asked = {**values, "systems": system, "inputs": inputs, "each": each}
    for name in ("on_progress", "engine", "resume", "offline", "max_pixels"):
        del asked[name]
    try:
        with voice.downloads():
            files = find_inputs(inputs, report=voice.passed_over)
            if each:
                apart = fit_apart(files, system or [], **values)
                fits = {output / name / "policy.toml": one for name, one in apart.fits.items()}
                for notice in apart.notices:
                    voice.warn(notice)
            else:
                fits = {output: run_fit(files, system or [], **values)}
    except KeyboardInterrupt:
        voice.warn("what was found is kept: the same command with --resume goes on from there")
        raise
    reports = [_written(fitted, path, asked, values, voice) for path, fitted in fits.items()]
    if json:
        print_parts(
            [reports[0].json()] if not each else ["[", ",".join(one.json() for one in reports), "]"]
        )


def _written(
    fitted: Fitted, output: Path, asked: dict[str, Any], values: dict[str, Any], voice: Voice
) -> FitReport:
    """A policy and its report on the disk, and told."""
    from vizcomp._version import __version__
    from vizcomp.cli.words import in_flags
    from vizcomp.fitting.pictures import draw_worst
    from vizcomp.report.fit import FitReport

    fitted = dataclasses.replace(fitted, notices=tuple(map(in_flags, fitted.notices)))
    for notice in fitted.notices:
        voice.warn(notice)
    pictures = draw_worst(
        fitted.worst,
        fitted.policy.settings,
        asked["systems"] or [],
        max_pixels=values["max_pixels"],
        offline=values["offline"],
        decoder=values["decoder"],
    )
    fitted.policy.write(output)
    report = FitReport(
        tool="vizcomp fit",
        version=__version__,
        command=command_line(),
        settings=asked,
        result=fitted,
        pictures=pictures,
    )
    _tell(fitted, output, report.write(output.parent).html, voice)
    return report


def _tell(fitted: Fitted, output: Path, page: AnyPath, voice: Voice) -> None:
    """The result for people."""
    from vizcomp.files.place import printable
    from vizcomp.fitting.candidates import named

    certificate = fitted.policy.certificate
    voice.result(certificate.sentence)
    voice.result(f"{named(fitted.policy.settings)}")
    compared = f": {fitted.compared}" if fitted.compared else ""
    voice.result(
        f"mean size {certificate.bytes:,} bytes, of the sources"
        f" {certificate.source_bytes:,}{compared}"
    )
    voice.result(
        f"policy: {printable(output)}; use it with: vizcomp djpeg PHOTOS --policy"
        f" {printable(output)} -o DIR"
    )
    voice.result(f"report: {printable(page)}")
