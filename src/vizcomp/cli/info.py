"""`vizcomp info`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vizcomp.cli.options import Json
from vizcomp.files.place import printable

if TYPE_CHECKING:
    from vizcomp.neural.contents import ImageContents, PackContents


def info(
    file: Annotated[Path, typer.Argument(metavar="FILE.vzc", help="A .vzc file or pack.")],
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            metavar="PATH",
            help="A model.safetensors to look at, beside those that are bundled or in the cache.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Say what a .vzc file holds: header, model, bits by iteration, checks; of a pack, its images,
    classes and sizes.

    No model is needed, and none is loaded.
    """
    from vizcomp.neural.contents import ImageContents, contents

    content = contents(file, models=() if model is None else (model,))
    if json:
        import json as json_module

        from vizcomp._version import __version__

        about = {"tool": "vizcomp info", "tool_version": __version__}
        print(json_module.dumps({**about, **content.to_dict()}, indent=2))
    else:
        _print(
            content,
            _image_rows(content) if isinstance(content, ImageContents) else _pack_rows(content),
        )
    raise typer.Exit(1 if content.problems else 0)


def _print(about: ImageContents | PackContents, rows: list[tuple[str, str]]) -> None:
    here = "not on this machine" if about.model_found is None else about.model_found
    first = [
        ("kind", f"{about.kind}, version {about.version} of the format"),
        ("model", f"{about.model} ({here})"),
    ]
    print(printable(about.path))
    for name, value in (*first, *rows):  # classes and models are named by the file
        print(printable(f"{name:<12}{value}"))
    for problem in about.problems:
        print(printable(f"problem: {problem}"))
    if not about.problems:
        print("all checksums match")


def _image_rows(about: ImageContents) -> list[tuple[str, str]]:
    rows = [("size", f"{about.width}x{about.height}" + (", grey" if about.grey else ""))]
    if about.metadata:
        rows.append(
            ("metadata", ", ".join(f"{name} {size} bytes" for name, size in about.metadata.items()))
        )
    rows.append(("iterations", str(len(about.iterations))))
    cut = (
        ""
        if about.file_bytes == about.expected_bytes
        else f" (its header says {about.expected_bytes})"
    )
    rows.append(("file", f"{about.file_bytes} bytes{cut}, {about.bpp:.4g} bits a pixel"))
    rows.append(
        ("overhead", f"{about.overhead_bytes} bytes, {about.header_bytes} of them the header")
    )
    rows.append(("iteration", f"{'payload':>9}{'file so far':>13}{'bits a pixel':>14}  check"))
    for number, each in enumerate(about.iterations, 1):
        rows.append(
            (
                f"{number:>9}",
                f"{each.payload_bytes:>9}{each.total_bytes:>13}{each.bpp:>14.4g}  {each.check}",
            )
        )
    return rows


def _pack_rows(about: PackContents) -> list[tuple[str, str]]:
    def counted(numbers: dict[str, int]) -> str:
        shown = [f"{name} ({count})" for name, count in list(numbers.items())[:12]]
        return ", ".join(shown) + (f" and {len(numbers) - 12} more" if len(numbers) > 12 else "")

    unreadable = (
        ""
        if about.readable == about.images
        else f", {about.images - about.readable} of them in damaged blocks"
    )
    rows = [("images", f"{about.images}{unreadable}")]
    if about.sizes:
        rows += [("sizes", counted(about.sizes)), ("iterations", counted(about.iterations))]
    if about.classes:
        rows.append(("classes", counted(about.classes)))
    if about.unlabelled and about.classes:
        rows.append(("no class", str(about.unlabelled)))
    if about.grey:
        rows.append(("grey", str(about.grey)))
    rows.append(("names", str(about.named)))
    rows.append(("file", f"{about.file_bytes} bytes, {about.payload_bytes} of them payload"))
    if about.bytes_per_image is not None:
        rows.append(
            (
                "an image",
                f"{about.bytes_per_image:.1f} bytes"
                + ("" if about.bpp is None else f", {about.bpp:.4g} bits a pixel"),
            )
        )
    return rows
