"""`vizcomp fit`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

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
    format: Annotated[
        str,
        typer.Option(
            "--format", metavar="jpeg|webp|avif|jxl", help="Of the files that the policy is for."
        ),
    ] = "jpeg",
    budget: Annotated[
        str,
        typer.Option(
            "--budget",
            metavar="TIME",
            help="No round of the search begins after this time, as 30min or 2h.",
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
    from vizcomp._version import __version__
    from vizcomp.batch.engines import check_engine
    from vizcomp.cli.values import parse_fraction, parse_time
    from vizcomp.errors import OutputError
    from vizcomp.files.find import find_inputs
    from vizcomp.files.place import printable
    from vizcomp.files.write import check_output_folder
    from vizcomp.fitting.run import fit as run_fit
    from vizcomp.report.fit import FitReport

    voice = Voice(quiet=quiet, verbose=verbose, taken=json, log_json=log_json)
    where = check_engine(engine, ray_address)
    if os.path.exists(output) and not overwrite:
        raise OutputError(
            f"{printable(output)} exists", "give another name with -o, or --overwrite"
        )
    check_output_folder(output.parent)
    voice.readings(system or [], offline=offline)
    with voice.downloads():
        fitted = run_fit(
            find_inputs(inputs, report=voice.passed_over),
            system or [],
            risk=parse_fraction(risk),
            confidence=parse_fraction(confidence),
            unit=unit,
            format=format,
            budget=parse_time(budget) if budget else None,
            jobs=jobs,
            engine=where,
            max_pixels=max_pixels,
            offline=offline,
            decoder=decoder,
            on_progress=voice.say,
        )
    for notice in fitted.notices:
        voice.warn(notice)
    fitted.policy.write(output)
    certificate = fitted.policy.certificate
    asked = {
        "systems": system,
        "risk": risk,
        "confidence": confidence,
        "unit": unit,
        "format": format,
        "budget": budget,
        "decoder": decoder,
        "jobs": jobs,
    }
    report = FitReport(
        tool="vizcomp fit",
        version=__version__,
        command=command_line(),
        settings={"inputs": inputs, **asked, "jobs": jobs},
        result=fitted,
    )
    written = report.write(output.parent)
    if json:
        print_parts([report.json()])
    voice.result(certificate.sentence)
    voice.result(
        f"mean size {certificate.bytes:,} bytes, of the sources {certificate.source_bytes:,}"
    )
    voice.result(
        f"policy: {printable(output)}; use it with: vizcomp djpeg PHOTOS --policy"
        f" {printable(output)} -o DIR"
    )
    voice.result(f"report: {printable(written.html)}")
