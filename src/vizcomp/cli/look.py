"""`vizcomp look`."""

from __future__ import annotations

from typing import Annotated

import typer

from vizcomp.cli.options import (
    Config,
    Decoder,
    Inputs,
    Json,
    LogJson,
    MaxPixels,
    Offline,
    Output,
    Overwrite,
    Profile,
    Quiet,
)
from vizcomp.cli.voice import Voice, print_parts


def look(
    inputs: Inputs,
    output: Output,
    system: Annotated[
        str,
        typer.Option(
            "--system",
            metavar="NAME",
            help=(
                "Who looks: text, inception, torchvision:NAME, or PATH.onnx or PATH.tflite, with"
                " options as "
                "PATH.onnx:detector=yolox,least=0.4."
            ),
        ),
    ],
    decoder: Decoder = "pillow",
    max_pixels: MaxPixels = 200_000_000,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
    offline: Offline = False,
    log_json: LogJson = False,
    profile: Profile = "",
    config: Config = "",
) -> None:
    """Draw what a vision system answers on each photo as NAME.look.jpg, and print how its model is
    read."""
    import dataclasses

    from vizcomp._version import __version__
    from vizcomp.batch.judges import system_by_name
    from vizcomp.batch.look import LookRecord, LookSettings, run_look
    from vizcomp.files.apart import check_apart
    from vizcomp.files.find import find_inputs
    from vizcomp.files.write import check_output_folder
    from vizcomp.report.tables import report_chunks
    from vizcomp.vision.system import reading_of

    voice = Voice(quiet=quiet, verbose=True, taken=json, log_json=log_json)
    settings = LookSettings(
        system=system, max_pixels=max_pixels, overwrite=overwrite, decoder=decoder, offline=offline
    )
    check_apart(inputs, output)
    files = find_inputs(inputs, exclude=output, report=voice.passed_over)
    voice.readings([system], offline=offline)
    reading = reading_of(system_by_name(system, offline))
    check_output_folder(output)

    def tell(record: LookRecord) -> None:
        if record.status == "failed":
            voice.warn(f"failed: {record.input}: {record.error}")
        else:
            voice.say(f"{record.input}: {record.answer or record.error}")

    records = run_look(files, output, settings, tell)
    failed = sum(record.status == "failed" for record in records)
    if json:
        report = {
            "tool": "vizcomp look",
            "version": __version__,
            "system": system,
            "reading": reading,
        }
        print_parts(report_chunks(report, (dataclasses.asdict(record) for record in records)))
    done = sum(record.status == "ok" for record in records)
    voice.result(
        f"{done} of {len(records)} photos drawn in {output}"
        + (f", {failed} failed" if failed else "")
    )
    # no journal says which system an older drawing is of
    voice.stayed(sum(record.status == "skipped" for record in records))
    raise typer.Exit(voice.exit_code(interrupted=False, failed=bool(failed), nothing_done=not done))
