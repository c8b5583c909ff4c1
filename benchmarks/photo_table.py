"""Bytes of `--table photo` over those of Pillow's optimised progressive JPEG, at equal fidelity.

    python benchmarks/photo_table.py --limit 8
    python benchmarks/photo_table.py --codec table=photo,guide=text --codec table=auto,guide=uniform

Equal is once PSNR, once MS-SSIM. For each photo Pillow's qualities (4:2:0) make a curve; between
two of them the logarithm of the bytes is linear in PSNR, and in the logarithm of 1 - MS-SSIM.
Figures are the geometric mean over the photos, and the worst photo. Photos are those of Kodak,
BSDS500 and CLIC (at half their sides) in `../shared`, parts as in `djpeg_systems`.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from djpeg_systems import photos, plain
from photo_codecs import parse_spec
from PIL import Image

from vizcomp import metrics

SETS = ("kodak", "bsds", "clic")
LADDER = (15, 20, 30, 40, 50, 60, 70, 80, 88)
QUALITIES = (35.0, 50.0, 75.0)
CODECS = ("table=photo,guide=uniform",)

Pixels = npt.NDArray[np.uint8]


def pixels_of(kind: str, path: Path) -> tuple[bytes, Pixels]:
    """A photo's file and pixels; of CLIC at half its sides, where its JPEG counts little."""
    if kind != "clic":
        data = path.read_bytes()
    else:
        file = io.BytesIO()
        with Image.open(path) as image:
            half = (image.width // 2, image.height // 2)
            image.convert("RGB").resize(half, Image.Resampling.LANCZOS).save(
                file, "PNG", compress_level=1
            )
        data = file.getvalue()
    with Image.open(io.BytesIO(data)) as image:
        return data, np.asarray(image.convert("RGB"))


def fidelity(pixels: Pixels, data: bytes) -> tuple[float, float, float]:
    """Logarithm of the bytes, PSNR, and MS-SSIM in dB."""
    with Image.open(io.BytesIO(data)) as image:
        result = np.asarray(image.convert("RGB"))
    close = -10 * np.log10(max(1e-9, 1 - metrics.ms_ssim(pixels, result)))
    return float(np.log(len(data))), metrics.psnr(pixels, result), float(close)


def look(
    kind: str, path: Path, specs: Sequence[str], qualities: Sequence[float]
) -> list[dict[str, Any]]:
    """One photo: for each codec and quality the logarithm of its bytes over Pillow's."""
    from vizcomp.djpeg.compress import Prepared
    from vizcomp.djpeg.settings import DjpegSettings
    from vizcomp.photos.photo import load_bytes

    data, pixels = pixels_of(kind, path)
    curve = np.array([fidelity(pixels, plain(pixels, quality)) for quality in LADDER])
    rows = []
    for spec in specs:
        values: dict[str, Any] = parse_spec("djpeg:" + spec)[1]
        encoder = Prepared(load_bytes(data, path.name), DjpegSettings(**values))
        for quality in qualities:
            size, psnr, close = fidelity(pixels, encoder.at(quality))
            rows.append(
                {"photo": path.name, "codec": spec, "quality": quality}
                | {"psnr": size - float(np.interp(psnr, curve[:, 1], curve[:, 0]))}
                | {"ms_ssim": size - float(np.interp(close, curve[:, 2], curve[:, 0]))}
            )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| codec | quality | photos | at equal PSNR | worst | at equal MS-SSIM | worst |"]
    lines.append("| --- " * 7 + "|")
    for codec, quality in dict.fromkeys((row["codec"], row["quality"]) for row in rows):
        mine = [row for row in rows if (row["codec"], row["quality"]) == (codec, quality)]
        cells = []
        for measure in ("psnr", "ms_ssim"):
            ratios = np.array([row[measure] for row in mine])
            cells += [
                f"{100 * np.expm1(ratios.mean()):+.1f}%",
                f"{100 * np.expm1(ratios.max()):+.1f}%",
            ]
        lines.append(f"| {codec} | {quality:g} | {len(mine)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--codec", action="append", help=f"djpeg's settings, default {CODECS}")
    parser.add_argument("--quality", type=float, action="append", help=f"default {QUALITIES}")
    parser.add_argument("--limit", type=int, help="photos of each set")
    parser.add_argument("--report", action="store_true", help="the photos kept aside: look once")
    parser.add_argument("--json", type=Path, help="write the rows")
    options = parser.parse_args()
    rows = []
    for kind, path in photos("report" if options.report else "choose", SETS, options.limit):
        rows += look(kind, path, options.codec or CODECS, options.quality or QUALITIES)
    if options.json:
        options.json.write_text(json.dumps(rows) + "\n", encoding="utf-8")
    print(table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
