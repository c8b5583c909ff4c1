"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vizcomp.cli.config import read_options


def place(text: str) -> Any:
    """A folder that the user named: a local path, or one in object storage."""
    from vizcomp.files.store import parse_place

    return parse_place(text)


Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Photos: files, folders (searched through) or globs; s3:// and gs:// too.",
    ),
]
PhotoInputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT...",
        help=(
            "Photos: files, folders (searched through), globs, s3:// and gs:// too; shards as"
            " 'set/{00..99}.tar' or 'set/*.parquet'; - is a photo from standard input."
        ),
        show_default=False,
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        parser=place,
        help="Folder for the results; the inputs' tree is mirrored. s3://... too.",
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="local|ray",
        help="Where the work is done: this machine, or a Ray cluster.",
    ),
]
RayAddress = Annotated[
    str,
    typer.Option(
        "--ray-address",
        metavar="ADDRESS",
        help=(
            "The cluster of --engine ray: HOST:PORT, ray://HOST:PORT or auto; else RAY_ADDRESS,"
            " else one on this machine."
        ),
        show_default=False,
    ),
]
Jobs = Annotated[
    int,
    typer.Option(
        "--jobs", "-j", min=0, help="Worker processes; 0 = one for each core (of the cluster)."
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace results that exist (they are skipped otherwise)."),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Skip inputs that an earlier run finished with the same content and settings.",
    ),
]
Robust = Annotated[
    bool | None,
    typer.Option(
        "--robust/--no-robust",
        help="Verdicts of --verify must hold under several resize filters.",
        show_default="on for model files",
    ),
]
Decoder = Annotated[
    str,
    typer.Option(
        "--decoder",
        metavar="pillow|opencv",
        help=(
            "Who decodes what the vision systems see, as their own programs do; opencv knows no"
            " colour profiles."
        ),
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Do everything but write files, and print the result.")
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", help="Print the report as JSON on standard output, all else on standard error."
    ),
]
NoThumbnails = Annotated[
    bool,
    typer.Option(
        "--no-thumbnails",
        help="No photos in the report; it shows sources, of which --metadata takes nothing away.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print a line for each file.")]
LogJson = Annotated[
    bool,
    typer.Option(
        "--log-json",
        help="What is said becomes one JSON object a line on standard error, for log collectors.",
    ),
]
Profile = Annotated[
    str,
    typer.Option(
        "--profile",
        metavar="NAME",
        is_eager=True,
        callback=read_options,
        help="Options of profiles.NAME in vizcomp.toml.",
    ),
]
Config = Annotated[
    str,
    typer.Option(
        "--config",
        metavar="FILE|none",
        is_eager=True,
        callback=read_options,
        help="File of options; by default vizcomp.toml here or above.",
        show_default=False,
    ),
]
Offline = Annotated[
    bool,
    typer.Option(
        "--offline",
        envvar="VIZCOMP_OFFLINE",
        help="Never touch the network (the bundled models need none).",
    ),
]
MaxPixels = Annotated[
    int,
    typer.Option(
        "--max-pixels", min=1, metavar="N", help="Refuse photos of more pixels than this."
    ),
]
DepthModel = Annotated[
    str,
    typer.Option(
        "--depth-model",
        metavar="NAME|PATH",
        help=(
            "compact (bundled), a model.onnx of vizcomp train, a published one as"
            " PATH.onnx:norm=imagenet,polarity=near, depth-anything-v2-small, midas-small or midas"
            " (downloaded once), nyu (DenseDepth) or its .h5 file as nyu:flip."
        ),
    ),
]
