"""Photos: the `photo` codec beside JPEG and WebP, MS-SSIM and PSNR over bits of file for each
pixel.

    python benchmarks/codec_photo.py --data ../shared/data/kodak [--model photo] [--search 24]

The published columns are those of the PyTorch port of Toderici et al. 2017 at full size without
entropy coding, for kodim03, 04, 07, 08 and 10 (its test/lstm_ssim.csv; see docs/results.md), where
the photos given are these five.
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vizcomp.metrics import ms_ssim, psnr
from vizcomp.neural.codec import NeuralCodec
from vizcomp.vzc import coding
from vizcomp.vzc import image as vzc

PUBLISHED = {  # mean of the five: 0.125 and 0.25 bpp
    0.125: np.mean([0.8864, 0.8449, 0.8798, 0.8155, 0.8749]),
    0.25: np.mean([0.9442, 0.9128, 0.9516, 0.9061, 0.9422]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="photo")
    parser.add_argument(
        "--search", type=int, help="candidates, as `encode --search`; default: as `encode` does"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    codec = NeuralCodec.load(args.model)
    photos = {
        p.name: np.asarray(Image.open(p).convert("RGB"))
        for p in sorted(args.data.iterdir())
        if p.suffix == ".png"
    }
    pixels = sum(p.shape[0] * p.shape[1] for p in photos.values())
    table: dict[str, list[tuple[float, float, float]]] = {}
    ours, left = np.zeros((codec.iterations, 3)), np.zeros((codec.iterations, 2))
    for name, photo in photos.items():
        height, width = photo.shape[:2]
        started = time.perf_counter()
        codes = codec.codes(photo, iterations=codec.iterations, search=args.search)
        encoded = time.perf_counter() - started
        chunks = [coding.encode(codec.context, [plane], codes[:t]) for t, plane in enumerate(codes)]
        for t in range(codec.iterations):
            data = vzc.pack(chunks[: t + 1], model=codec.fingerprint, width=width, height=height)
            found = codec.decode(data).image
            ours[t] += (
                8 * len(data) / pixels,
                psnr(photo, found) / len(photos),
                ms_ssim(photo, found) / len(photos),
            )
            left[t] += (len(chunks[t]), codes[t].size / 8)
        print(
            f"{name}: {encoded:.1f} s to encode {codec.iterations} iterations, one thread",
            flush=True,
        )
    table["ours"] = [tuple(r) for r in ours]  # type: ignore[misc]
    for kind, settings in (
        (
            "JPEG",
            [
                {"format": "JPEG", "quality": q, "optimize": True, "subsampling": 2}
                for q in (1, 2, 3, 5, 7, 10, 13, 16, 20, 25, 30, 40)
            ],
        ),
        (
            "WebP",
            [{"format": "WEBP", "quality": q, "method": 6} for q in (0, 2, 5, 10, 15, 20, 30, 40)],
        ),
    ):
        rows = []
        for how in settings:
            total = np.zeros(3)
            for photo in photos.values():
                buffer = io.BytesIO()
                Image.fromarray(photo).save(buffer, **how)  # type: ignore[arg-type]
                found = np.asarray(Image.open(buffer).convert("RGB"))
                total += (
                    8 * buffer.tell() / pixels,
                    psnr(photo, found) / len(photos),
                    ms_ssim(photo, found) / len(photos),
                )
            rows.append(tuple(total))
        table[kind] = rows  # type: ignore[assignment]
    print(f"\n{len(photos)} photos; bits of file for each pixel, PSNR, MS-SSIM")
    for name, rows in table.items():
        print(name + ": " + "; ".join(f"{b:.3f} {p:.2f} {m:.4f}" for b, p, m in rows))
    print("\nMS-SSIM at equal bits for each pixel (linear between points)")
    for bpp in (0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5):
        cells = []
        for name, rows in table.items():
            xs, ys = [r[0] for r in rows], [r[2] for r in rows]
            cells.append(
                f"{name} {np.interp(bpp, xs, ys):.4f}" if xs[0] <= bpp <= xs[-1] else f"{name} -"
            )
        print(
            f"{bpp:5.3f}: "
            + "  ".join(cells)
            + (f"  published {PUBLISHED[bpp]:.4f}" if bpp in PUBLISHED else "")
        )
    shares = ", ".join(f"{a / b:.1%}" for a, b in left)
    print(
        f"entropy coding leaves of raw bits, by iteration: {shares}; all:"
        f" {left[:, 0].sum() / left[:, 1].sum():.1%}"
    )


if __name__ == "__main__":
    main()
