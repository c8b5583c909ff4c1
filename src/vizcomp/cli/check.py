"""`vizcomp check`."""

from __future__ import annotations

from typing import Annotated

import typer

from vizcomp.cli.options import (
    Config,
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
)
from vizcomp.cli.voice import Voice, print_parts


def check(
    policy: Annotated[str, typer.Argument(metavar="POLICY", help="A policy.toml of vizcomp fit.")],
    inputs: Inputs,
    labels: Annotated[
        str,
        typer.Option(
            "--labels",
            metavar="PATH|folders",
            help="Labels of these photos, for a policy about labels.",
        ),
    ] = "",
    once: Annotated[
        bool,
        typer.Option(
            "--once", help="Neither count earlier checks of this policy nor remember this one."
        ),
    ] = False,
    max_pixels: MaxPixels = 200_000_000,
    jobs: Jobs = 0,
    engine: Engine = "local",
    ray_address: RayAddress = "",
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    offline: Offline = False,
    log_json: LogJson = False,
    profile: Profile = "",
    config: Config = "",
) -> None:
    """Test a policy on fresh photos: held, broken or undecided. It may be run every day.

    Leaves with 1 where the policy is broken.
    """
    from vizcomp._version import __version__
    from vizcomp.batch.engines import check_engine
    from vizcomp.files.find import find_inputs
    from vizcomp.fitting.check import check as run_check
    from vizcomp.fitting.policy import Policy, percent
    from vizcomp.report.tables import plain, report_json

    voice = Voice(quiet=quiet, verbose=verbose, taken=json, log_json=log_json)
    where = check_engine(engine, ray_address)
    read = Policy.read(policy)
    voice.readings([one.name for one in read.systems], offline=offline)
    with voice.downloads():
        checked = run_check(
            read,
            find_inputs(inputs, report=voice.passed_over),
            labels=labels,
            once=once,
            jobs=jobs,
            engine=where,
            max_pixels=max_pixels,
            offline=offline,
            on_progress=voice.say,
        )
    for notice in checked.notices:
        voice.warn(notice)
    if json:
        about = {
            "tool": "vizcomp check",
            "version": __version__,
            "policy": policy,
            "certificate": read.certificate.sentence,
        }
        print_parts([report_json(plain({**about, **checked.to_dict()}))])
    for one in checked.systems:
        bound = (
            f"risk at most {percent(round(one.upper, 4))} at {percent(read.certificate.confidence)}"
            " from these alone"
        )
        what = "worse" if read.certificate.labels else "changed"
        voice.result(
            f"{one.name}: {one.changed} of {checked.units} {what}, mean loss {one.mean_loss:.4f};"
            f" {bound}"
        )
        enough = f"{1 / (1 - read.certificate.confidence):.3g} is enough"
        voice.result(
            f"  evidence (e-values, {enough}): held {one.evidence_held:.3g}, broken"
            f" {one.evidence_broken:.3g}"
        )
    if checked.checks > 1:
        voice.result(f"evidence of {checked.checks} checks, {checked.units_so_far:,} photos in all")
    voice.result(f"{checked.state}: {read.certificate.sentence}")
    raise typer.Exit(1 if checked.state == "broken" else 0)
