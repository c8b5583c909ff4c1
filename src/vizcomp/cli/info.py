"""`vizcomp info`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vizcomp.cli.options import Json

if TYPE_CHECKING:
    from vizcomp.neural.contents import ImageContents, PackContents


def info(
    file: Annotated[Path, typer.Argument(metavar="FILE.vzc", help="A .vzc file or pack.")],
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", metavar="PATH", help="A model.safetensors to look at, beside those that are bundled or in the cache."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Say what a .vzc file holds: header, model, bits by iteration, checks; of a pack, its images, classes and sizes.

    No model is needed, and none is loaded.
    """
    from vizcomp.neural.contents import ImageContents, contents

    found = contents(file, models=() if model is None else (model,))
    if json:
        import json as json_module

        from vizcomp._version import __version__

        about = {"tool": "vizcomp info", "tool_version": __version__}
        print(json_module.dumps({**about, **found.to_dict()}, indent=2))
    else:
        _print(found, _image_rows(found) if isinstance(found, ImageContents) else _pack_rows(found))
    raise typer.Exit(1 if found.problems else 0)


def _print(found: ImageContents | PackContents, rows: list[tuple[str, str]]) -> None:
    here = "not on this machine" if found.model_found is None else found.model_found
    first = [("kind", f"{found.kind}, version {found.version} of the format"), ("model", f"{found.model} ({here})")]
    print(found.path)
    for name, value in (*first, *rows):
        print(f"{name:<12}{value}")
    for problem in found.problems:
        print(f"problem: {problem}")
    if not found.problems:
        print("all checksums match")


def _image_rows(found: ImageContents) -> list[tuple[str, str]]:
    rows = [("size", f"{found.width}x{found.height}" + (", grey" if found.grey else ""))]
    if found.metadata:
        rows.append(("metadata", ", ".join(f"{name} {size} bytes" for name, size in found.metadata.items())))
    rows.append(("iterations", str(len(found.iterations))))
    cut = "" if found.file_bytes == found.expected_bytes else f" (its header says {found.expected_bytes})"
    rows.append(("file", f"{found.file_bytes} bytes{cut}, {found.bpp:.4g} bits a pixel"))
    rows.append(("overhead", f"{found.overhead_bytes} bytes, {found.header_bytes} of them the header"))
    rows.append(("iteration", f"{'payload':>9}{'file so far':>13}{'bits a pixel':>14}  check"))
    for number, each in enumerate(found.iterations, 1):
        rows.append((f"{number:>9}", f"{each.payload_bytes:>9}{each.total_bytes:>13}{each.bpp:>14.4g}  {each.check}"))
    return rows


def _pack_rows(found: PackContents) -> list[tuple[str, str]]:
    def counted(numbers: dict[str, int]) -> str:
        shown = [f"{name} ({count})" for name, count in list(numbers.items())[:12]]
        return ", ".join(shown) + (f" and {len(numbers) - 12} more" if len(numbers) > 12 else "")

    unreadable = "" if found.readable == found.images else f", {found.images - found.readable} of them in damaged blocks"
    rows = [("images", f"{found.images}{unreadable}")]
    if found.sizes:
        rows += [("sizes", counted(found.sizes)), ("iterations", counted(found.iterations))]
    if found.classes:
        rows.append(("classes", counted(found.classes)))
    if found.unlabelled and found.classes:
        rows.append(("no class", str(found.unlabelled)))
    if found.grey:
        rows.append(("grey", str(found.grey)))
    rows.append(("names", str(found.named)))
    rows.append(("file", f"{found.file_bytes} bytes, {found.payload_bytes} of them payload"))
    if found.bytes_per_image is not None:
        rows.append(
            ("an image", f"{found.bytes_per_image:.4g} bytes" + ("" if found.bpp is None else f", {found.bpp:.4g} bits a pixel"))
        )
    return rows
