"""Photos: the `photo` codec beside JPEG, WebP, AVIF and AVIF of smaller pictures, over bits of file
for each pixel.

    python benchmarks/codec_photo.py --data ../shared/data/kodak [--model photo] \\
        [--search 24] [--photos 5] [--low 0.05 --high 0.4]

MS-SSIM in luma and of RGB (the mean of the three channels', as CompressAI has it), PSNR, and the
error of colour: the mean distance in the plane a, b of CIELAB, lightness left out. AVIF has a floor
of rate at its lowest quality; below it pictures are made half or a quarter as large, coded, and
enlarged again (Lanczos both ways), as somebody would who wants such files.

The published columns are those of the PyTorch port of Toderici et al. 2017 at full size without
entropy coding, for kodim03, 04, 07, 08 and 10 (its test/lstm_ssim.csv; see docs/results.md), where
the photos given are these five.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from vizcomp.evaluation.bd_rate import bd_rate
from vizcomp.metrics import ms_ssim, psnr
from vizcomp.neural.codec import NeuralCodec
from vizcomp.vzc import coding
from vizcomp.vzc import image as vzc

PUBLISHED = {  # mean of the five: 0.125 and 0.25 bpp
    0.125: np.mean([0.8864, 0.8449, 0.8798, 0.8155, 0.8749]),
    0.25: np.mean([0.9442, 0.9128, 0.9516, 0.9061, 0.9422]),
}
NAMES = ("bits a pixel", "PSNR", "MS-SSIM", "MS-SSIM of RGB", "colour error")
RATES = (0.05, 0.075, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
# pixels to the bytes of the file, and what it decodes to
Coded = Callable[[np.ndarray], tuple[int, np.ndarray]]


def colours(image: np.ndarray) -> np.ndarray:
    """a and b of CIELAB, D65: uint8 sRGB (H, W, 3) to float (H, W, 2)."""
    linear = np.arange(256) / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)[image]
    matrix = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = linear @ matrix.T / matrix.sum(1)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def figures(photo: np.ndarray, decoded: np.ndarray, size: int) -> np.ndarray:
    rgb = np.mean(
        [
            ms_ssim(np.ascontiguousarray(photo[..., c]), np.ascontiguousarray(decoded[..., c]))
            for c in range(3)
        ]
    )
    colour = np.sqrt(((colours(photo) - colours(decoded)) ** 2).sum(-1)).mean()
    bits = 8 * size / (photo.shape[0] * photo.shape[1])
    return np.array([bits, psnr(photo, decoded), ms_ssim(photo, decoded), rgb, colour])


def pillow(**how: object) -> Coded:
    def coded(photo: np.ndarray) -> tuple[int, np.ndarray]:
        buffer = io.BytesIO()
        Image.fromarray(photo).save(buffer, **how)  # type: ignore[arg-type]
        return buffer.tell(), np.asarray(Image.open(buffer).convert("RGB"))

    return coded


def smaller(times: int, code: Coded) -> Coded:
    def coded(photo: np.ndarray) -> tuple[int, np.ndarray]:
        height, width = photo.shape[:2]
        small = Image.fromarray(photo).resize(
            (-(-width // times), -(-height // times)), Image.Resampling.LANCZOS
        )
        size, decoded = code(np.asarray(small))
        return size, np.asarray(
            Image.fromarray(decoded).resize((width, height), Image.Resampling.LANCZOS)
        )

    return coded


def avif(quality: int) -> Coded:
    return pillow(format="AVIF", quality=quality, speed=6, max_threads=1)


def rivals() -> dict[str, list[Coded]]:
    jpeg = (1, 2, 3, 5, 7, 10, 13, 16, 20, 25, 30, 40)
    return {
        "JPEG": [pillow(format="JPEG", quality=q, optimize=True, subsampling=2) for q in jpeg],
        "WebP": [pillow(format="WEBP", quality=q, method=6) for q in (0, 2, 5, 10, 15, 20, 30, 40)],
        "AVIF": [avif(q) for q in (0, 5, 10, 15, 20, 25, 30, 35, 40, 50)],
        "AVIF/2": [smaller(2, avif(q)) for q in (0, 10, 20, 30, 40, 50, 60, 70)],
        "AVIF/4": [smaller(4, avif(q)) for q in (10, 30, 50, 70)],
    }


def of_codec(
    codec: NeuralCodec, photos: dict[str, np.ndarray], search: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean figures of each iteration, and bytes after and before entropy coding."""
    ours, left = np.zeros((codec.iterations, len(NAMES))), np.zeros((codec.iterations, 2))
    for name, photo in photos.items():
        height, width = photo.shape[:2]
        started = time.process_time()
        codes = codec.codes(photo, iterations=codec.iterations, search=search)
        encoded = time.process_time() - started
        chunks = [coding.encode(codec.context, [plane], codes[:t]) for t, plane in enumerate(codes)]
        files = [
            vzc.pack(chunks[: t + 1], model=codec.fingerprint, width=width, height=height)
            for t in range(codec.iterations)
        ]
        after = codec.decode_prefixes([vzc.unpack(files[-1])], codec.iterations)
        for t, (data, decoded) in enumerate(zip(files, after, strict=True)):
            ours[t] += figures(photo, decoded[0], len(data)) / len(photos)
            left[t] += (len(chunks[t]), codes[t].size / 8)
        print(f"{name}: {encoded:.1f} CPU s to encode {codec.iterations} iterations", flush=True)
    return ours, left


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="photo")
    parser.add_argument(
        "--search", type=int, help="candidates, as `encode --search`; default: as `encode` does"
    )
    parser.add_argument("--photos", type=int, default=0, help="only so many, evenly chosen; 0: all")
    parser.add_argument(
        "--low", type=float, default=0.05, help="bits a pixel from which BD-rates are taken"
    )
    parser.add_argument("--high", type=float, default=0.4, help="bits a pixel up to which they are")
    args = parser.parse_args()
    codec = NeuralCodec.load(args.model, threads=1)
    paths = sorted(p for p in args.data.iterdir() if p.suffix in (".png", ".jpg"))
    if args.photos:
        paths = [
            paths[i]
            for i in np.linspace(0, len(paths) - 1, min(args.photos, len(paths))).astype(int)
        ]
    photos = {p.name: np.asarray(Image.open(p).convert("RGB")) for p in paths}
    ours, left = of_codec(codec, photos, args.search)
    table = {"ours": ours}
    for kind, codecs in rivals().items():
        table[kind] = np.array(
            [
                np.mean([figures(p, d, n) for p in photos.values() for n, d in [c(p)]], 0)
                for c in codecs
            ]
        )
    print(f"\n{len(photos)} photos; {', '.join(NAMES)}, means of photos")
    for name, rows in table.items():
        print(
            name
            + ": "
            + "; ".join(f"{b:.3f} {p:.2f} {m:.4f} {r:.4f} {c:.2f}" for b, p, m, r, c in rows)
        )
    for column in range(2, len(NAMES)):
        print(f"\n{NAMES[column]} at equal bits for each pixel (linear between points)")
        for bpp in RATES:
            cells = []
            for name, rows in table.items():
                rows = rows[rows[:, 0].argsort()]
                inside = rows[0, 0] <= bpp <= rows[-1, 0]
                cells.append(
                    f"{name} {np.interp(bpp, rows[:, 0], rows[:, column]):.4f}"
                    if inside
                    else f"{name} -"
                )
            published = (
                f"  published {PUBLISHED[bpp]:.4f}" if column == 2 and bpp in PUBLISHED else ""
            )
            print(f"{bpp:5.3f}: " + "  ".join(cells) + published)
    print(f"\nBD-rate of ours by MS-SSIM of RGB, {args.low} to {args.high} bits a pixel")
    # below the floor of AVIF its smaller pictures carry on
    joined = np.concatenate([table["AVIF"], table["AVIF/2"], table["AVIF/4"]])
    table["AVIF, smaller pictures where they are better"] = best_of(joined)
    for name, rows in table.items():
        if name != "ours":
            a, b = (r[(r[:, 0] >= args.low) & (r[:, 0] <= args.high)] for r in (rows, ours))
            enough = len(a) > 1 and len(b) > 1
            print(
                f"{name}: {bd_rate(a[:, 0], a[:, 3], b[:, 0], b[:, 3]):+.1%}"
                if enough
                else f"{name}: too few points"
            )
    shares = ", ".join(f"{a / b:.1%}" for a, b in left)
    print(
        f"entropy coding leaves of raw bits, by iteration: {shares}; all:"
        f" {left[:, 0].sum() / left[:, 1].sum():.1%}"
    )


def best_of(rows: np.ndarray) -> np.ndarray:
    """The points that no other beats in both rate and MS-SSIM of RGB."""
    rows = rows[rows[:, 0].argsort()]
    return rows[[i for i in range(len(rows)) if i == 0 or rows[i, 3] > rows[:i, 3].max()]]


if __name__ == "__main__":
    main()
