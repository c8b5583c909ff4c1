"""Options of `djpeg` on pixels, chroma and scans, and which others contradict them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vizcomp.cli.policies import STRENGTH
from vizcomp.cli.usage import source_of
from vizcomp.cli.voice import Voice

MaxSide = Annotated[
    str,
    typer.Option(
        "--max-side",
        metavar="N|auto",
        help=(
            "Pixels of a result's longer side, at most; auto: as few as the systems of --verify"
            " allow. Nothing is enlarged."
        ),
        show_default=False,
    ),
]
ShortSide = Annotated[
    str,
    typer.Option(
        "--short-side",
        metavar="N",
        help="Pixels of a result's shorter side, at most, as 224 for what crops to 224x224.",
        show_default=False,
    ),
]
Resample = Annotated[
    str,
    typer.Option(
        "--resample",
        metavar="lanczos|bicubic|bilinear|area",
        help="Filter that makes photos smaller: best that of your system.",
    ),
]
Scale = Annotated[
    str,
    typer.Option(
        "--scale",
        metavar="SHARE",
        help="Of both sides, as 0.5 or 50%; up to 1.",
        show_default=False,
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="PATH",
        help=(
            "Labels of the photos, to be written beside the results in their size: a COCO .json, a"
            " folder of YOLO .txt or of VOC .xml."
        ),
    ),
]
Subsampling = Annotated[
    str,
    typer.Option(
        "--subsampling",
        metavar="keep|444|420",
        help="Resolution of chroma; keep: as the source has it.",
    ),
]
Scans = Annotated[
    str,
    typer.Option(
        "--scans",
        metavar="progressive|baseline",
        help="baseline: for hardware decoders, and faster to decode; about 1% more bytes.",
    ),
]
MaskOutside = Annotated[
    str,
    typer.Option(
        "--mask-outside",
        metavar="cheap|drop",
        help=(
            "What --masks do not keep: cheap as --strength says, or drop: black, for places without"
            " data and for privacy."
        ),
    ),
]
Lossless = Annotated[
    bool,
    typer.Option(
        "--lossless",
        help="Change nothing but Huffman tables, scans and metadata: no pixel differs.",
    ),
]

# Options that --lossless leaves nothing to do.
WITHOUT_LOSS = (
    *(
        "quality",
        "strength",
        "guide",
        "table",
        "shape",
        "depth_model",
        "depth_maps",
        "depth_kind",
        "depth_names",
        "masks",
        "mask_outside",
    ),
    *(
        "target_size",
        "verify",
        "min_quality",
        "robust",
        "tolerance",
        "policy",
        "max_side",
        "short_side",
        "resample",
        "scale",
    ),
    "subsampling",
)


def parse_short_side(text: str) -> int | None:
    """Pixels from "224"; "" is None.

    Raises:
        SettingsError: no such number.
    """
    from vizcomp.errors import SettingsError

    if not text:
        return None
    number = text.strip()
    if not (number.isascii() and number.isdigit() and 0 < len(number.lstrip("0")) < 20):
        raise SettingsError(
            f"--short-side {text} is no side of a photo", "use a number of pixels from 1"
        )
    return int(number)


def parse_max_side(text: str) -> int | Literal["auto"] | None:
    """Pixels from "640", or "auto"; "" is None.

    Raises:
        SettingsError: neither.
    """
    from vizcomp.errors import SettingsError

    if text in ("", "auto"):
        return "auto" if text else None
    number = text.strip()
    if not (number.isascii() and number.isdigit() and 0 < len(number.lstrip("0")) < 20):
        raise SettingsError(
            f"--max-side {text} is no side of a photo", "use a number of pixels from 1, or auto"
        )
    return int(number)


def parse_scale(text: str) -> float | None:
    """A share of the sides from "0.5" or "50%"; "" is None; the range is for the settings to check.

    Raises:
        SettingsError: no number.
    """
    from vizcomp.errors import SettingsError

    if not text:
        return None
    number = text.strip()
    try:
        return float(number[:-1]) / 100 if number.endswith("%") else float(number)
    except ValueError as exc:
        raise SettingsError(f"--scale {text} is not a share", "write it as 0.5 or 50%") from exc


def unused_without_loss(context: typer.Context, lossless: bool, voice: Voice) -> set[str]:
    """Options of a file or the environment that --lossless on the command line takes the place of,
    by their names.

    Raises:
        SettingsError: one that stands as near as --lossless has nothing to say then.
    """
    from vizcomp.errors import SettingsError

    unused = set()
    asked = STRENGTH.index(source_of(context, "lossless"))
    for name in WITHOUT_LOSS if lossless else ():
        source = source_of(context, name)
        if source not in STRENGTH[1:]:
            continue
        option = "--" + name.replace("_", "-")
        if STRENGTH.index(source) >= asked:
            raise SettingsError(
                f"--lossless and {option} contradict each other",
                "omit one of them: lossless changes no pixel",
            )
        voice.say(
            f"{option} of the {'environment' if source == 'ENVIRONMENT' else 'file'} is not used:"
            " --lossless decides"
        )
        unused.add(name)
    return unused


def without(unused: set[str], values: dict[str, Any]) -> dict[str, Any]:
    """The values of options but for those that are not used."""
    return {name: value for name, value in values.items() if name not in unused}
